import { describe, expect, it } from 'vitest';
import { MemoryFileSystem, isPandoError } from '@pando/common';
import { CrashFileSystem, between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { openWriteLog, type LogRecord, type WriteLog } from './index.ts';

const storeId = new Uint8Array(16).fill(7);
type Kept = Omit<Extract<LogRecord, { type: 'write' }>, 'data'> & { data: string };

async function reopen(
  fs: MemoryFileSystem | CrashFileSystem,
  fileBytes?: number,
  hasRoom?: () => boolean,
): Promise<{ log: WriteLog; records: (LogRecord | Kept)[] }> {
  const records: (LogRecord | Kept)[] = [];
  const options = {
    ...{ fs, directory: 'log', storeId },
    ...(fileBytes === undefined ? {} : { fileBytes }),
    ...(hasRoom === undefined ? {} : { hasRoom }),
  };
  const log = await openWriteLog(options, (record) => {
    records.push(
      record.type === 'write' ? { ...record, data: Buffer.from(record.data).toString('hex') } : record,
    );
  });
  return { log, records };
}

describe('the write log', () => {
  it('replays records of every type in the order they were appended', async () => {
    const fs = new MemoryFileSystem();
    const { log } = await reopen(fs);
    log.appendOpen(3, 11, 64 * 2 ** 40);
    log.appendWrite(3, 2 ** 45 + 512, Buffer.from('abcdef', 'hex'));
    log.appendWrite(3, 0, new Uint8Array(0));
    log.appendZero(3, 4096, 2 ** 46);
    await log.close();
    const { records } = await reopen(fs);
    expect(records).toEqual([
      { type: 'open', position: 1, overlay: 3, disk: 11, size: 64 * 2 ** 40 },
      { type: 'write', position: 2, overlay: 3, offset: 2 ** 45 + 512, data: 'abcdef' },
      { type: 'write', position: 3, overlay: 3, offset: 0, data: '' },
      { type: 'zero', position: 4, overlay: 3, offset: 4096, length: 2 ** 46 },
    ]);
  });

  it('writes what was appended in one turn as one group', async () => {
    const { log } = await reopen(new MemoryFileSystem());
    for (let i = 0; i < 100; i++) log.appendWrite(1, i * 4096, new Uint8Array(4096));
    await log.written();
    expect(log.stats.groups).toBe(1);
    expect(log.pendingBytes).toBe(0);
  });

  it('lets all who wait for a sync share the next one', async () => {
    const { log } = await reopen(new MemoryFileSystem());
    const waits: Promise<void>[] = [];
    for (let i = 0; i < 50; i++) {
      log.appendWrite(1, i * 4096, new Uint8Array(10));
      waits.push(log.sync());
    }
    await Promise.all(waits);
    expect(log.stats.syncs).toBeLessThanOrEqual(2);
  });

  it('refuses records of more than WRITE_BYTES_MAX', async () => {
    const { log } = await reopen(new MemoryFileSystem());
    expect(() => log.appendWrite(1, 0, new Uint8Array(1024 * 1024 + 1))).toThrow(/at most/);
  });

  it('removes files whose records were all released, and all of them when nothing is needed', async () => {
    const fs = new MemoryFileSystem();
    const { log } = await reopen(fs, 10_000, () => false);
    const positions: number[] = [];
    for (let i = 0; i < 20; i++) {
      positions.push(log.appendWrite(1, i, new Uint8Array(4096)));
      await log.sync();
    }
    const many = (await fs.list('log')).length;
    expect(many).toBeGreaterThan(5);
    await log.release(positions[8]!);
    expect((await fs.list('log')).length).toBeLessThan(many);
    const { records } = await reopen(fs);
    const offsets = records.map((record) => (record as { offset: number }).offset);
    expect(offsets.filter((offset) => offset >= 8)).toEqual([8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    await log.release(log.nextPosition);
    expect(await fs.list('log')).toEqual([]);
    expect(log.bytes).toBe(0);
    log.appendWrite(1, 0, new Uint8Array(1));
    await log.close();
    expect((await reopen(fs)).records).toHaveLength(1);
  });

  it('cuts a torn tail at every possible byte and keeps the whole records before it', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    log.appendWrite(1, 0, fillRandom(seededRandom(1), new Uint8Array(100)));
    log.appendWrite(1, 100, fillRandom(seededRandom(2), new Uint8Array(60)));
    await log.written();
    const [name] = await fs.list('log');
    const whole = fs.bytesOf(`log/${name}`).slice();
    for (let cut = 0; cut < whole.byteLength; cut++) {
      const copy = new CrashFileSystem();
      const file = await copy.open(`log/${name}`, 'create');
      await file.write([whole.subarray(0, cut)], 0);
      await file.sync();
      await copy.syncDirectory('log');
      const { log: again, records } = await reopen(copy);
      expect(records.length).toBe(cut < 64 + 140 ? 0 : 1);
      again.appendWrite(1, 5, new Uint8Array(3));
      await again.close();
      expect((await reopen(copy)).records.length).toBe(records.length + 1);
    }
  });

  it('refuses damage to records that were synced, wherever it is', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    for (let i = 0; i < 3; i++) {
      log.appendWrite(1, i, fillRandom(seededRandom(i), new Uint8Array(50)));
      await log.sync();
    }
    await log.close();
    const path = `log/${(await fs.list('log'))[0]}`;
    const whole = fs.bytesOf(path).slice();
    for (let at = 64; at < 64 + 90; at++) {
      fs.damage(path, () => {
        const bytes = whole.slice();
        bytes[at] = bytes[at]! ^ 0x10;
        return bytes;
      });
      await expect(reopen(fs)).rejects.toMatchObject({ code: 'log-corrupt' });
    }
  });

  it('refuses the log of another store and of a newer format', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    log.appendWrite(1, 0, new Uint8Array(1));
    await log.close();
    await expect(
      openWriteLog({ fs, directory: 'log', storeId: new Uint8Array(16) }, () => undefined),
    ).rejects.toMatchObject({
      code: 'store-foreign',
    });
    const { crc32 } = await import('node:zlib');
    fs.damage(`log/${(await fs.list('log'))[0]}`, (bytes) => {
      const header = Buffer.from(bytes.buffer);
      header.writeUInt32LE(4, 8);
      header.writeUInt32LE(crc32(header.subarray(0, 60)), 60);
      return bytes;
    });
    await expect(reopen(fs)).rejects.toMatchObject({ code: 'store-newer' });
  });

  it('fails only the group that found the disk full, and goes on when there is room', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    log.appendWrite(1, 0, new Uint8Array(100));
    await log.written();
    fs.faults.freeBytes = 60;
    log.appendOpen(2, 5, 8192);
    log.appendWrite(2, 4096, new Uint8Array(100));
    await expect(log.written()).rejects.toMatchObject({ code: 'store-full' });
    fs.faults.freeBytes = Infinity;
    log.appendWrite(2, 0, new Uint8Array(7));
    await log.sync();
    const { records } = await reopen(fs);
    expect(records.map((record) => `${record.type}/${record.overlay}`)).toEqual([
      'write/1',
      'open/2',
      'write/2',
    ]);
    expect(records.at(-1)).toMatchObject({ offset: 0 });
  });

  it('carries an open record through several full groups', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    fs.faults.freeBytes = 0;
    log.appendOpen(9, 1, 512);
    await expect(log.written()).rejects.toMatchObject({ code: 'store-full' });
    log.appendWrite(9, 0, new Uint8Array(1));
    await expect(log.written()).rejects.toMatchObject({ code: 'store-full' });
    fs.faults.freeBytes = Infinity;
    log.appendWrite(9, 1, new Uint8Array(1));
    await log.sync();
    expect((await reopen(fs)).records.map((record) => record.type)).toEqual(['open', 'write']);
  });

  it('has every open record in the log after syncOpens, or says that it could not', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    fs.faults.freeBytes = 0;
    log.appendOpen(9, 1, 512);
    await expect(log.written()).rejects.toMatchObject({ code: 'store-full' });
    // A flush has nothing to promise; who names overlay 9 in a record has.
    await log.sync();
    await expect(log.syncOpens()).rejects.toMatchObject({ code: 'store-full' });
    log.appendOpen(10, 2, 512);
    await expect(log.syncOpens()).rejects.toMatchObject({ code: 'store-full' });
    fs.faults.freeBytes = Infinity;
    await log.syncOpens();
    const { records } = await reopen(fs.crash(() => 0.99));
    expect(records.map((record) => `${record.type}/${record.overlay}`)).toEqual(['open/9', 'open/10']);
  });

  it('counts what is gathered and not written exactly, also over syncs and full groups', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    for (let i = 0; i < 5; i++) {
      if (i === 2) fs.faults.freeBytes = 0;
      log.appendOpen(i + 1, 1, 512);
      log.appendWrite(i + 1, 0, new Uint8Array(100));
      const first = log.sync().catch(() => undefined);
      await Promise.resolve();
      log.appendWrite(i + 1, 100, new Uint8Array(500));
      expect(log.pendingBytes).toBeGreaterThanOrEqual(540);
      await first;
      await log.written().catch(() => undefined);
      fs.faults.freeBytes = Infinity;
      await log.syncOpens();
      expect(log.pendingBytes).toBe(0);
    }
  });

  it('takes nothing more when the directory cannot be synced', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs, 100);
    log.appendWrite(1, 0, new Uint8Array(100));
    await log.sync();
    fs.faults.before = (operation) => {
      if (operation === 'syncDirectory') throw Object.assign(new Error('boom'), { code: 'EIO' });
    };
    await expect(log.release(log.nextPosition)).rejects.toMatchObject({ code: 'store-failed' });
    fs.faults.before = undefined;
    expect(log.failure).toMatchObject({ code: 'store-failed' });
    expect(() => log.appendWrite(1, 0, new Uint8Array(1))).toThrow(/takes no more/);
  });

  it('takes nothing more after a failed sync, even when the disk works again', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    log.appendWrite(1, 0, new Uint8Array(1));
    fs.faults.failSyncOf = '.log';
    await expect(log.sync()).rejects.toMatchObject({ code: 'store-failed' });
    fs.faults.failSyncOf = undefined;
    await expect(log.sync()).rejects.toMatchObject({ code: 'store-failed' });
    expect(() => log.appendWrite(1, 0, new Uint8Array(1))).toThrow(/takes no more/);
  });

  it('opens after a power cut that left a released file there, whose end had never been synced', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs, 500);
    const write = async (): Promise<number> => {
      const position = log.appendWrite(1, 0, new Uint8Array(600));
      await log.written();
      return position;
    };
    const released = await write();
    fs.schedule = async (operation, run) => {
      await Promise.resolve();
      // The directory takes its time.
      if (operation.kind === 'remove') await new Promise(() => undefined);
      return run();
    };
    await write(); // in a second file
    void log.release(released + 1);
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    const kept = await write(); // in a third
    await log.sync();
    const { records } = await reopen(fs.crash(() => 0.99)); // a luck that loses all that was not synced
    expect(records.at(-1)).toMatchObject({ position: kept });
  });

  it('syncs what goes into a file without records that was about to be removed', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    // The header of the file still fits, the record does not.
    fs.faults.freeBytes = 80;
    const open = log.appendOpen(2, 5, 8192);
    await expect(log.written()).rejects.toMatchObject({ code: 'store-full' });
    fs.faults.freeBytes = Infinity;
    const slow: (() => void)[] = [];
    fs.schedule = async (operation, run) => {
      await Promise.resolve();
      const result = run();
      if (operation.kind === 'sync' && operation.path.endsWith('.log'))
        await new Promise<void>((resolve) => slow.push(resolve));
      return result;
    };
    const turns = async (): Promise<void> => {
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    };
    const released = log.release(open);
    await turns();
    expect(slow).toHaveLength(1);
    log.appendWrite(2, 0, new Uint8Array(7));
    await turns();
    fs.schedule = undefined;
    for (const resolve of slow) resolve();
    await released;
    await log.sync();
    expect(log.failure).toBeUndefined();
    const { records } = await reopen(fs.crash(() => 0.99)); // a luck that loses all that was not synced
    expect(records.map((record) => record.type)).toEqual(['open', 'write']);
  });

  it('keeps every synced record, in order, over crashes at any moment (model)', async () => {
    const seed = runSeed();
    const random = seededRandom(seed);
    let fs = new CrashFileSystem();
    /** Length of every record ever appended; its number is its offset. */
    const lengths: number[] = [];
    let released = 0;
    let synced = new Set<number>();
    for (let round = 0; round < 80; round++) {
      const where = `seed ${seed}, round ${round}`;
      const { log, records } = await reopen(fs, 5000).catch((cause: unknown) => {
        throw new Error(where, { cause });
      });
      const found: number[] = [];
      for (const record of records) {
        if (record.type !== 'write') throw new Error(`${record.type} out of nowhere; ${where}`);
        expect(record.data.length / 2, where).toBe(lengths[record.offset]);
        found.push(record.offset);
      }
      expect(found, where).toEqual([...found].sort((a, b) => a - b));
      for (const number of synced) if (number >= released) expect(found, where).toContain(number);
      // What replay found is durable from then on.
      synced = new Set(found);
      const here = new Set(found);
      for (let step = between(random, 1, 30); step > 0; step--) {
        const length = between(random, 0, 2000);
        here.add(lengths.length);
        log.appendWrite(1, lengths.length, fillRandom(random, new Uint8Array(length)));
        lengths.push(length);
        const dice = random();
        if (dice < 0.3) {
          const before = [...here];
          await log.sync();
          for (const number of before) synced.add(number);
        } else if (dice < 0.6) await log.written();
        else if (dice < 0.65) {
          await log.sync();
          released = lengths.length;
          await log.release(log.nextPosition);
        }
      }
      if (random() < 0.5) void log.sync().catch(() => undefined);
      fs = fs.crash(random);
    }
  });

  it('rejects with an error of Pando, never a bare one', async () => {
    const fs = new CrashFileSystem();
    const { log } = await reopen(fs);
    fs.faults.before = (operation) => {
      if (operation === 'write') throw Object.assign(new Error('boom'), { code: 'EIO' });
    };
    log.appendWrite(1, 0, new Uint8Array(1));
    const error: unknown = await log.written().catch((cause: unknown) => cause);
    expect(isPandoError(error, 'store-failed')).toBe(true);
  });
});
