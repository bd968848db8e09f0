/** Files of the log that are used again: what they held before is never replayed, and never taken for damage. */
import { describe, expect, it } from 'vitest';
import { CrashFileSystem, between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { LogDamageError, openWriteLog, verifyLog, type LogRecord, type WriteLog } from './index.ts';

const storeId = new Uint8Array(16).fill(7);
const seed = runSeed();
const FILE_BYTES = 6000;

interface Opened {
  readonly log: WriteLog;
  /** Replayed writes: their offsets, which are their numbers. */
  readonly writes: number[];
  readonly lost: number[];
}

async function open(fs: CrashFileSystem, acceptDamage = false, hasRoom = true): Promise<Opened> {
  const records: LogRecord[] = [];
  const log = await openWriteLog(
    { fs, directory: 'log', storeId, fileBytes: FILE_BYTES, acceptDamage, hasRoom: () => hasRoom },
    (record) => {
      records.push(record);
      if (record.type === 'write') expect(Buffer.from(record.data)).toEqual(dataOf(record.offset));
    },
  );
  const of = (type: string): number[] =>
    records.flatMap((record) => (record.type === type && 'offset' in record ? [record.offset] : []));
  return { log, writes: of('write'), lost: of('lost') };
}

/** Each write has its own data, of a length of its own, so that records of two lives of a file never fall on each other. */
function dataOf(number: number): Buffer {
  const random = seededRandom(seed + number);
  const bytes = Buffer.alloc(between(random, 0, 700));
  fillRandom(random, bytes);
  return bytes;
}

const names = async (fs: CrashFileSystem, isSpare: boolean): Promise<string[]> =>
  (await fs.list('log')).filter((name) => name.startsWith('spare-') === isSpare);

/** A log whose files have gone round a few times; all from `first` up to `last` is in it, and synced. */
async function round(
  fs: CrashFileSystem,
  count = 230,
): Promise<{ log: WriteLog; first: number; last: number }> {
  const { log } = await open(fs);
  const positions: number[] = [];
  for (let i = 0; i < count; i++) {
    positions.push(log.appendWrite(1, i, dataOf(i)));
    await log.sync();
    if (i % 40 === 39) await log.release(positions[i - 20]!);
  }
  const { reusedFiles } = log.stats;
  expect(reusedFiles).toBeGreaterThan(4);
  return { log, first: Math.floor(count / 40) * 40 - 21, last: count - 1 };
}

describe(`files of the log that are used again (seed ${seed})`, () => {
  it('are made in advance with the first sync, and removed when the log is closed', async () => {
    const fs = new CrashFileSystem();
    const { log } = await open(fs);
    log.appendWrite(1, 0, dataOf(0));
    await log.written();
    expect(await names(fs, true)).toEqual([]);
    await log.sync();
    while (log.diskBytes < FILE_BYTES) await log.sync();
    expect(await names(fs, true)).toHaveLength(1);
    log.appendWrite(1, 1, dataOf(1));
    await log.sync();
    expect(log.stats).toMatchObject({ files: 2, reusedFiles: 1 });
    expect(await names(fs, true)).toEqual([]);
    await log.release(log.nextPosition);
    expect(log.bytes).toBe(0);
    expect(log.diskBytes).toBe(FILE_BYTES);
    expect(await names(fs, false)).toEqual([]);
    await log.close();
    expect(await fs.list('log')).toEqual([]);
  });

  it('are not kept where there is no room, and go when it is needed', async () => {
    const fs = new CrashFileSystem();
    const none = await open(fs, false, false);
    none.log.appendWrite(1, 0, dataOf(0));
    await none.log.sync();
    await none.log.release(none.log.nextPosition);
    expect(await fs.list('log')).toEqual([]);
    await none.log.close();
    const { log } = await round(fs);
    await log.release(log.nextPosition);
    expect((await names(fs, true)).length).toBeGreaterThan(1);
    await log.dropSpares();
    expect(await fs.list('log')).toEqual([]);
    expect(log.diskBytes).toBe(0);
    log.appendWrite(1, 1, dataOf(1));
    await log.close();
    expect((await open(fs)).writes).toEqual([1]);
  });

  it('hold nothing but their own records when the log is opened again, and no file does after that', async () => {
    const fs = new CrashFileSystem();
    const { first, last } = await round(fs, 240);
    const killed = fs.kill();
    expect((await names(killed, true)).length).toBeGreaterThan(0);
    const { log, writes } = await open(killed);
    expect(writes.filter((number) => number >= first)).toEqual(
      Array.from({ length: last - first + 1 }, (_, i) => first + i),
    );
    expect(await names(killed, true)).toEqual([]);
    expect(log.diskBytes).toBe(log.bytes);
    await log.close();
  });

  it('verify as undamaged while they are in use', async () => {
    const fs = new CrashFileSystem();
    await round(fs);
    expect(await verifyLog({ fs, directory: 'log', storeId })).toEqual([]);
  });

  it('a spare that cannot be made, or found full, is done without', async () => {
    const fs = new CrashFileSystem();
    fs.faults.before = (operation, path) => {
      if (operation === 'sync' && path.includes('spare'))
        throw Object.assign(new Error('no sync'), { code: 'EIO' });
    };
    const { log } = await open(fs);
    for (let i = 0; i < 50; i++) {
      log.appendWrite(1, i, dataOf(i));
      await log.sync();
    }
    expect(log.failure).toBeUndefined();
    expect(log.stats.reusedFiles).toBe(0);
    await log.close();
    expect((await open(fs)).writes).toHaveLength(50);
  });

  it('lose nothing that was synced, and bring nothing back, over power cuts and kills at any moment', async () => {
    const random = seededRandom(seed);
    let fs = new CrashFileSystem();
    let next = 0;
    /** From `released` up to `synced` all must be there. */
    let released = 0;
    let synced = 0;
    let reused = 0;
    for (let life = 0; life < 120; life++) {
      const { log, writes } = await open(fs);
      const where = `seed ${seed}, life ${life}`;
      const begin = writes[0] ?? released;
      expect(begin, where).toBeLessThanOrEqual(released);
      expect(writes, where).toEqual(Array.from({ length: writes.length }, (_, i) => begin + i));
      expect(begin + writes.length, where).toBeGreaterThanOrEqual(synced);
      released = begin;
      next = synced = begin + writes.length;
      const positions = new Map<number, number>();
      let dying = between(random, 5, 400);
      const ends: CrashFileSystem[] = [];
      const isDead = (): boolean => ends.length > 0;
      fs.faults.before = (): void => {
        if (!isDead() && --dying <= 0) ends.push(random() < 0.3 ? fs.kill() : fs.powerCut(random));
      };
      while (!isDead()) {
        const luck = random();
        try {
          if (luck < 0.7) {
            for (let i = between(random, 1, 8); i > 0; i--)
              positions.set(next, log.appendWrite(1, next, dataOf(next++)));
          } else if (luck < 0.9) {
            const upTo = next;
            await log.sync();
            if (!isDead()) synced = upTo;
          } else {
            const upTo = Math.min(between(random, released, next), synced);
            const position = positions.get(upTo);
            if (position !== undefined) {
              released = upTo;
              await log.release(position);
            }
          }
          if (random() < 0.5) await log.written();
        } catch (error) {
          if (!isDead()) throw error;
        }
      }
      reused += log.stats.reusedFiles;
      [fs] = ends as [CrashFileSystem];
    }
    expect(reused).toBeGreaterThan(100);
  });

  it('with any bit flipped replay what was synced, or are refused; a flip behind their records does nothing', async () => {
    const random = seededRandom(seed);
    const counts = { harmless: 0, refused: 0 };
    for (let flip = 0; flip < 150; flip++) {
      const before = new CrashFileSystem();
      const { first, last } = await round(before, between(random, 200, 240));
      const fs = before.kill();
      const files = await names(fs, false);
      const file = `log/${files[between(random, 0, files.length - 1)]!}`;
      const at = between(random, 0, fs.bytesOf(file).length - 1);
      fs.flip(file, at, 1 << between(random, 0, 7));
      const where = `seed ${seed}, flip ${flip}: byte ${at} of ${file}`;
      const wanted = Array.from({ length: last - first + 1 }, (_, i) => first + i);
      const opened = await open(fs).catch((error: unknown) => {
        if (error instanceof LogDamageError) return undefined;
        throw error;
      });
      if (opened !== undefined) {
        counts.harmless++;
        expect(
          opened.writes.filter((number) => number >= first),
          where,
        ).toEqual(wanted);
        continue;
      }
      counts.refused++;
      const { log, writes, lost } = await open(fs, true);
      const gone = wanted.filter((number) => !writes.includes(number));
      if (log.damage!.isAllKnown) expect(lost, where).toEqual(expect.arrayContaining(gone));
      else expect(gone.length, where).toBeLessThanOrEqual(1);
    }
    console.info(`flips in files that were used again: ${JSON.stringify(counts)}`);
    expect(counts.refused).toBeGreaterThan(20);
    expect(counts.harmless).toBeGreaterThan(5);
  });
});
