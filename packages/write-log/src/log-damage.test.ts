/** Damage to a log that had been synced: what is named, and what is replayed when that is accepted. */
import { crc32 } from 'node:zlib';
import { Witness } from '@pando/common';
import { beforeEach, describe, expect, it } from 'vitest';
import { CrashFileSystem, between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { LogDamageError, openWriteLog, type LogRecord, type WriteLog } from './index.ts';

const storeId = new Uint8Array(16).fill(7);
const seed = runSeed();
const HEADER = 64;
const RECORD = 40;

async function open(
  fs: CrashFileSystem,
  acceptDamage = false,
): Promise<{ log: WriteLog; records: LogRecord[] }> {
  const records: LogRecord[] = [];
  const log = await openWriteLog(
    // Files that go round have tests of their own: spares.test.ts.
    { fs, directory: 'log', storeId, acceptDamage, fileBytes: 4000, hasRoom: () => false },
    (record) => {
      records.push(record.type === 'write' ? { ...record, data: record.data.slice() } : record);
    },
  );
  return { log, records };
}

async function refused(fs: CrashFileSystem): Promise<LogDamageError> {
  const error: unknown = await open(fs).then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(LogDamageError);
  expect(error).toMatchObject({ code: 'log-corrupt', kind: 'data' });
  return error as LogDamageError;
}

/** An overlay of disk 9, with writes of 100 bytes at 0, 100, …, each synced, in several files. */
async function written(count: number): Promise<CrashFileSystem> {
  const fs = new CrashFileSystem();
  const { log } = await open(fs);
  log.appendOpen(3, 9, 1 << 20);
  for (let i = 0; i < count; i++) {
    log.appendWrite(3, i * 100, fillRandom(seededRandom(seed + i), new Uint8Array(100)));
    await log.sync();
  }
  await log.close();
  return fs;
}

const offsetsOf = (records: readonly LogRecord[], type: string): number[] =>
  records.flatMap((record) => (record.type === type && 'offset' in record ? [record.offset / 100] : []));
const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Where the records of a file begin. */
function recordsIn(bytes: Uint8Array): number[] {
  const view = Buffer.from(bytes);
  const places: number[] = [];
  for (
    let at = HEADER;
    at < view.length;
    at += RECORD + (view[at + 4] === 2 ? view.readUInt32LE(at + 32) : 0)
  )
    places.push(at);
  return places;
}

describe(`a damaged write log (seed ${seed})`, () => {
  let fs: CrashFileSystem;
  let files: string[];
  beforeEach(async () => {
    fs = await written(60);
    files = (await fs.list('log')).map((name) => `log/${name}`);
    expect(files.length).toBeGreaterThan(2);
  });

  it('names the writes whose data was hit, and replays all others when that is accepted', async () => {
    const [file] = files;
    const at = recordsIn(fs.bytesOf(file!)).filter((place) => fs.bytesOf(file!)[place + 4] === 2);
    fs.damage(file!, (bytes) => {
      for (const record of [2, 3, 7]) bytes[at[record]! + RECORD + 50]! ^= 1;
      return bytes;
    });
    const { damage, message } = await refused(fs);
    expect(message).toContain(`${file} at byte ${at[2]}`);
    expect(damage.places.map(({ offset }) => offset)).toEqual([at[2], at[3], at[7]]);
    expect(damage.isAllKnown).toBe(true);
    expect(damage.lost.map(({ overlay, offset, length }) => [overlay, offset, length])).toEqual([
      [3, 200, 100],
      [3, 300, 100],
      [3, 700, 100],
    ]);
    expect(damage.disks.get(3)).toBe(9);
    const { log, records } = await open(fs, true);
    expect(log.damage).toEqual(damage);
    expect(offsetsOf(records, 'lost')).toEqual([2, 3, 7]);
    expect(offsetsOf(records, 'write')).toEqual(all(60).filter((i) => ![2, 3, 7].includes(i)));
    // In their places.
    expect(records.map(({ position }) => position)).toEqual(
      records.map(({ position }) => position).sort((a, b) => a - b),
    );
    log.appendWrite(3, 6000, new Uint8Array(100));
    await log.close();
    // Accepted is not mended: that the log lets go of it.
    await refused(fs);
    const again = await open(fs, true);
    expect(offsetsOf(again.records, 'write')).toContain(60);
    await again.log.release(again.log.nextPosition);
    await again.log.close();
    expect((await open(fs)).records).toEqual([]);
  });

  it('with any bit flipped replays what was written, or names it as lost, or says that it does not know all', async () => {
    const random = seededRandom(seed);
    const counts = { data: 0, unknown: 0, harmless: 0 };
    for (let flip = 0; flip < 200; flip++) {
      const file = files[between(random, 0, files.length - 1)]!;
      const whole = fs.bytesOf(file).slice();
      const at = between(random, 0, whole.length - 1);
      fs.damage(file, (bytes) => {
        bytes[at]! ^= 1 << between(random, 0, 7);
        return bytes;
      });
      const where = `seed ${seed}, flip ${flip}: byte ${at} of ${file}`;
      const { damage } = await refused(fs).catch((error: unknown) => {
        throw new Error(where, { cause: error });
      });
      const { records, log } = await open(fs, true);
      const writes = offsetsOf(records, 'write');
      for (const record of records) {
        if (record.type !== 'write') continue;
        const expected = fillRandom(seededRandom(seed + record.offset / 100), new Uint8Array(100));
        expect(Buffer.from(record.data).equals(expected), where).toBe(true);
      }
      const gone = all(60).filter((i) => !writes.includes(i));
      if (damage.isAllKnown) expect(damage.isAnyDisk, where).toBe(false);
      if (damage.isAllKnown) expect(gone, where).toEqual(offsetsOf(damage.lost, 'lost'));
      else expect(gone.length, where).toBeLessThanOrEqual(1);
      if (gone.length === 0) counts.harmless++;
      else if (damage.isAllKnown) counts.data++;
      else counts.unknown++;
      const place = damage.places[0]!;
      expect(place.file, where).toBe(file);
      expect(at, where).toBeGreaterThanOrEqual(place.offset);
      await log.close();
      fs.damage(file, () => whole);
      // As the refused one left it: the witness was told that the damage is accepted.
      fs = await written(60);
    }
    console.info(`log flips: ${JSON.stringify(counts)}`);
    expect(counts.data).toBeGreaterThan(60);
    expect(counts.unknown).toBeGreaterThan(5);
  });

  it.each<[string, (f: CrashFileSystem, names: string[]) => void | Promise<void>]>([
    [
      'the last file cut',
      (f: CrashFileSystem, names: string[]) => f.damage(names.at(-1)!, (bytes) => bytes.slice(0, -150)),
    ],
    [
      'the last file cut between records',
      (f: CrashFileSystem, names: string[]) =>
        f.damage(names.at(-1)!, (bytes) => bytes.slice(0, recordsIn(bytes).at(-1))),
    ],
    [
      'a file in the middle cut',
      (f: CrashFileSystem, names: string[]) => f.damage(names[1]!, (bytes) => bytes.slice(0, 1000)),
    ],
    ['the last file gone', (f: CrashFileSystem, names: string[]) => f.remove(names.at(-1)!)],
    ['the first file gone', (f: CrashFileSystem, names: string[]) => f.remove(names[0]!)],
    ['a file in the middle gone', (f: CrashFileSystem, names: string[]) => f.remove(names[1]!)],
    [
      'a block of zeros',
      (f: CrashFileSystem, names: string[]) => f.damage(names[1]!, (bytes) => bytes.fill(0, 512, 1536)),
    ],
    [
      'a header of zeros',
      (f: CrashFileSystem, names: string[]) => f.damage(names[1]!, (bytes) => bytes.fill(0, 0, HEADER)),
    ],
    [
      'all files gone',
      async (f: CrashFileSystem, names: string[]) => {
        for (const name of names) await f.remove(name);
      },
    ],
    [
      'a file in the place of another',
      (f: CrashFileSystem, names: string[]) => f.damage(names[1]!, () => f.bytesOf(names[2]!).slice()),
    ],
  ])('%s is refused, and accepted with the rest', async (_what, damage) => {
    await damage(fs, files);
    const first = await refused(fs);
    await refused(fs);
    const { records, log } = await open(fs, true);
    expect(log.damage).toEqual(first.damage);
    const found = offsetsOf(records, 'write');
    expect(new Set(found).size).toBe(found.length);
    const isHeaderOnly = found.length === 60;
    expect(first.damage).toMatchObject({ isAllKnown: isHeaderOnly, isAnyDisk: !isHeaderOnly });
    await log.release(log.nextPosition);
    await log.close();
    expect((await open(fs)).records).toEqual([]);
  });

  it('of another store is refused with the file', async () => {
    const other = await openWriteLog(
      { fs, directory: 'other', storeId: new Uint8Array(16), fileBytes: 4000 },
      () => undefined,
    );
    other.appendWrite(1, 0, new Uint8Array(10));
    await other.close();
    const name = (await fs.list('other'))[0]!;
    fs.damage(files[1]!, () => fs.bytesOf(`other/${name}`).slice());
    await expect(open(fs, true)).rejects.toMatchObject({
      code: 'store-foreign',
      message: expect.stringContaining(files[1]!) as string,
    });
  });

  it('of before headers had checks is read, and damage to it is not said to be known', async () => {
    for (const file of files) {
      fs.damage(file, (bytes) => asVersion1(bytes));
    }
    const { records, log } = await open(fs);
    expect(offsetsOf(records, 'write')).toEqual(all(60));
    log.appendWrite(3, 6000, new Uint8Array(100));
    await log.close();
    const at = recordsIn(fs.bytesOf(files[0]!))[6]!;
    fs.damage(files[0]!, (bytes) => {
      bytes[at + RECORD + 5]! ^= 1;
      return bytes;
    });
    expect((await refused(fs)).damage).toMatchObject({ isAllKnown: false, lost: [] });
    expect(offsetsOf((await open(fs, true)).records, 'write')).toHaveLength(60);
  });

  it('that was accepted is durable to its end, although what says how far it was synced is wrong', async () => {
    const { log } = await open(fs);
    log.appendWrite(3, 6000, new Uint8Array(100));
    await log.written();
    fs.faults.failSyncOf = '.log';
    await expect(log.sync()).rejects.toMatchObject({ code: 'store-failed' });
    const killed = fs.kill();
    const witness = await Witness.open(killed, 'log.synced'); // that of another store, say
    await witness.set(1_000_000);
    await witness.close();
    await refused(killed);
    const accepted = await open(killed, true);
    expect(offsetsOf(accepted.records, 'write')).toContain(60);
    await accepted.log.close();
    const { records } = await open(killed.crash(() => 0.99)); // a luck that loses all that was not synced
    expect(offsetsOf(records, 'write')).toContain(60);
  });

  it('a sector that cannot be read is damage, synced or not, and accepting it loses what was in it', async () => {
    const { log } = await open(fs);
    log.appendWrite(3, 6000, new Uint8Array(100)); // acknowledged, and not synced
    await log.written();
    for (const [file, page] of [
      [files[1]!, 0],
      [(await fs.list('log')).map((name) => `log/${name}`).at(-1)!, 0],
    ] as const) {
      const disk = fs.kill();
      const good = disk.open.bind(disk);
      disk.open = async (path, mode) => {
        const opened = await good(path, mode);
        if (path !== file) return opened;
        const read: typeof opened.read = (target, position) => {
          const isBad = position < (page + 1) * 4096 && position + target.byteLength > page * 4096;
          if (isBad) return Promise.reject(Object.assign(new Error('bad sector'), { code: 'EIO' }));
          return opened.read(target, position);
        };
        return { ...opened, read };
      };
      const { damage } = await refused(disk);
      expect(damage.places.map((place) => place.file)).toContain(file);
      expect(damage.places.some(({ problem }) => problem === 'the device cannot read it')).toBe(true);
      const { records } = await open(disk, true);
      const offsets = offsetsOf(records, 'write');
      expect(offsets.length).toBeGreaterThan(20);
      expect(offsets.length).toBeLessThan(61);
      const last = offsets.includes(60);
      expect(last).toBe(file === files[1]);
    }
  });

  it('damage behind what was synced is the end of the log, as ever', async () => {
    const { log } = await open(fs);
    const { length } = (await open(fs)).records;
    log.appendWrite(3, 6000, new Uint8Array(100));
    log.appendWrite(3, 6100, new Uint8Array(100));
    await log.written();
    const killed = fs.crash(() => 0.3);
    const last = `log/${(await killed.list('log')).at(-1)!}`;
    killed.damage(last, (bytes) => {
      bytes[recordsIn(bytes).at(-2)! + RECORD]! ^= 1;
      return bytes;
    });
    expect((await open(killed)).records).toHaveLength(length);
  });
});

function asVersion1(bytes: Uint8Array): Uint8Array {
  const view = Buffer.from(bytes);
  view.writeUInt32LE(1, 8);
  view.writeUInt32LE(crc32(view.subarray(0, 60)), 60);
  for (const at of recordsIn(bytes)) {
    view.fill(0, at + 5, at + 8);
    const end = at + RECORD + (view[at + 4] === 2 ? view.readUInt32LE(at + 32) : 0);
    view.writeUInt32LE(crc32(view.subarray(at + 4, end), crc32(storeId)), at);
  }
  return new Uint8Array(view);
}
