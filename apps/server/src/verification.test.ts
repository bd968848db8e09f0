/** When verification is due, how slowly it goes, and what is kept of it. */
import { MemoryCatalog, type Catalog } from '@pando/catalog';
import {
  createMemoryChunkStore,
  MemoryChunkIndex,
  MemorySegmentStorage,
  openChunkStore,
  type ChunkStore,
} from '@pando/chunk-store';
import { PandoError } from '@pando/common';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { expect, test } from 'vitest';
import { TestClock } from './testing/test-clock.ts';
import { isDue, lastVerifications, paceOf, verifyAndKeep } from './verification.ts';

test('at a pace of so many bytes a second, reading takes that long, however it is cut into pieces', async () => {
  const clock = new TestClock();
  const pace = paceOf(clock, 1_000_000);
  for (const bytes of [500_000, 1, 250_000, 1_249_999]) await pace(bytes);
  expect(clock.ms).toBeGreaterThan(1990);
  expect(clock.ms).toBeLessThanOrEqual(2000);
  // What was slow by itself is not slowed down further, and what stood still is not made up for.
  clock.ms += 3_600_000;
  clock.slept = [];
  await pace(50_000);
  expect(clock.slept).toEqual([]);
  await pace(1_000_000);
  expect(clock.slept.reduce((sum, ms) => sum + ms, 0)).toBeGreaterThan(900);
});

test('a full verification is due so long after the last one, a quick one counts for nothing', async () => {
  const clock = new TestClock();
  const catalog = new MemoryCatalog();
  const store = await createMemoryChunkStore(4096);
  const parts = { catalog, store, clock };
  const created = clock.now();
  clock.ms += 999;
  expect(await isDue(catalog, clock, 1000, created)).toBe(false);
  clock.ms += 1;
  expect(await isDue(catalog, clock, 1000, created)).toBe(true);
  await verifyAndKeep(parts, { quick: true });
  expect(await isDue(catalog, clock, 1000, created)).toBe(true);
  await verifyAndKeep(parts, {}, { scheduled: true });
  expect(await isDue(catalog, clock, 1000, created)).toBe(false);
  const { full, quick } = await lastVerifications(catalog, clock);
  expect(full).toMatchObject({ scheduled: true, seconds: 0, report: { quick: false, disks: [] } });
  expect(full!.endedAt).toBe(new Date(clock.now()).toISOString());
  expect(quick).toMatchObject({ scheduled: false, report: { quick: true } });
  clock.ms += 1000;
  expect(await isDue(catalog, clock, 1000, created)).toBe(true);
  // A clock that was set back by years must not put it off by years.
  clock.wall -= 900_000;
  expect(await isDue(catalog, clock, 1000, created)).toBe(true);
  await store.close();
});

test('damage is told of, also where no disk has it', async () => {
  const clock = new TestClock();
  const catalog: Catalog = new MemoryCatalog();
  const store = await createMemoryChunkStore(4096);
  let told = 0;
  const parts = { catalog, store, clock, onDamage: () => told++ };
  await verifyAndKeep(parts);
  expect(told).toBe(0);
  catalog.verify = () => Promise.resolve([{ file: '000005.ldb', offset: 0, problem: 'a wrong CRC' }]);
  await verifyAndKeep(parts, { quick: true });
  expect(told).toBe(1);
  await store.close();
});

test('a result that cannot be kept is a result', async () => {
  const clock = new TestClock();
  const catalog = new MemoryCatalog();
  const store = await createMemoryChunkStore(4096);
  const full = new PandoError('store-full', 'no room');
  catalog.commit = () => Promise.reject(full);
  const told: unknown[] = [];
  const parts = { catalog, store, clock, onNotKept: (error: unknown) => told.push(error) };
  expect(await verifyAndKeep(parts)).toMatchObject({ damaged: [], disks: [] });
  expect(told).toEqual([full]);
  await expect(verifyAndKeep(parts, { signal: AbortSignal.abort() })).rejects.toThrow();
  expect(told).toHaveLength(1);
  await store.close();
});

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** A store of several segments, opened anew by each call; read in a piece each. */
async function manySegments(): Promise<() => Promise<ChunkStore>> {
  const storage = new MemorySegmentStorage();
  // As after a kill: nothing is closed.
  storage.close = () => Promise.resolve();
  const index = new MemoryChunkIndex();
  index.close = () => Promise.resolve();
  const open = (): Promise<ChunkStore> =>
    openChunkStore({
      storage,
      index,
      storeId: new Uint8Array(16).fill(1),
      chunkBytes: 4096,
      limits: { workers: 0, segmentBytesMax: 2 ** 19 },
    });
  const store = await open();
  const session = store.openSession();
  await session.writeChunks(fillRandom(seededRandom(1), new Uint8Array(6 * 2 ** 20)), 6 * 256);
  await session.flush();
  session.release();
  await store.close();
  return open;
}

test('one that was cut off goes on where it was, and its result is that of the whole', async () => {
  const clock = new TestClock();
  const catalog = new MemoryCatalog();
  const open = await manySegments();
  let store = await open();
  const whole = await verifyAndKeep({ catalog, store, clock });
  expect(whole.chunks).toBe(6 * 256);
  expect(await lastVerifications(catalog, clock)).not.toHaveProperty('unfinished');

  const startedAt = new Date(clock.now()).toISOString();
  const stop = new AbortController();
  let pieces = 0;
  const pace = async (): Promise<void> => {
    clock.ms += 5000;
    if (++pieces === 8) stop.abort(new PandoError('cancelled', 'enough'));
    await Promise.resolve();
  };
  await expect(verifyAndKeep({ catalog, store, clock }, { pace, signal: stop.signal })).rejects.toThrow();
  const cutOff = (await lastVerifications(catalog, clock)).unfinished!;
  expect(cutOff).toMatchObject({ startedAt, allBytes: whole.bytes, damagedSegments: 0 });
  expect(cutOff.doneBytes).toBeGreaterThan(whole.bytes / 4);
  expect(cutOff.doneBytes).toBeLessThan(whole.bytes);
  await store.close();

  // A quick one neither goes on with it nor ends it.
  store = await open();
  await verifyAndKeep({ catalog, store, clock }, { quick: true }, { resume: true });
  expect((await lastVerifications(catalog, clock)).unfinished).toEqual(cutOff);

  const progress: { done: number; all?: number }[] = [];
  const report = await verifyAndKeep(
    { catalog, store, clock },
    { onProgress: ({ phase, ...of }) => phase === 'segments' && progress.push(of) },
    { resume: true },
  );
  expect(report).toEqual({ ...whole, resumedBytes: cutOff.doneBytes });
  expect(progress[0]!.done).toBeGreaterThan(cutOff.doneBytes);
  expect(progress.at(-1)).toEqual({ done: whole.bytes, all: whole.bytes });
  const last = await lastVerifications(catalog, clock);
  expect(last.full).toMatchObject({ startedAt, seconds: 40, report });
  expect(last).not.toHaveProperty('unfinished');
  // And there is nothing to go on with any more.
  expect(await verifyAndKeep({ catalog, store, clock }, {}, { resume: true })).toEqual(whole);
  await store.close();
});

test('of a killed one half a minute is read again at most, and one that is not asked to go on begins anew', async () => {
  const clock = new TestClock();
  const catalog = new MemoryCatalog();
  const open = await manySegments();
  /** Verifies, a piece in three seconds, until its process is gone. */
  const killedAfter = async (ms: number): Promise<void> => {
    const store = await open();
    const end = clock.ms + ms;
    const gone = Promise.withResolvers<undefined>();
    const pace = async (): Promise<void> => {
      clock.ms += 3000;
      if (clock.ms < end) return;
      gone.resolve(undefined);
      await new Promise(() => undefined);
    };
    void verifyAndKeep({ catalog, store, clock }, { pace }).catch(() => undefined);
    await gone.promise;
  };
  await killedAfter(27_000);
  expect(await lastVerifications(catalog, clock)).toEqual({});
  await killedAfter(36_000);
  const { unfinished } = await lastVerifications(catalog, clock);
  expect(unfinished!.doneBytes).toBeGreaterThan(unfinished!.allBytes / 2);
  expect(Date.parse(unfinished!.keptAt)).toBeGreaterThanOrEqual(clock.now() - 30_000);

  const store = await open();
  expect(await verifyAndKeep({ catalog, store, clock })).not.toHaveProperty('resumedBytes');
  expect(await lastVerifications(catalog, clock)).not.toHaveProperty('unfinished');
  await store.close();
});

test('one that began a month ago, or in the future, is not gone on with', async () => {
  const clock = new TestClock();
  const open = await manySegments();
  const store = await open();
  for (const [jump, resumed] of [
    [29 * DAY_MS, true],
    [31 * DAY_MS, false],
    [-MINUTE_MS, false],
  ] as const) {
    const catalog = new MemoryCatalog();
    const stop = new AbortController();
    let pieces = 0;
    const pace = (): Promise<void> => {
      if (++pieces === 8) stop.abort();
      return Promise.resolve();
    };
    await verifyAndKeep({ catalog, store, clock }, { pace, signal: stop.signal }).catch(() => undefined);
    expect((await lastVerifications(catalog, clock)).unfinished).toBeDefined();
    clock.wall += jump;
    expect('unfinished' in (await lastVerifications(catalog, clock))).toBe(resumed);
    const report = await verifyAndKeep({ catalog, store, clock }, {}, { resume: true });
    expect('resumedBytes' in report).toBe(resumed);
  }
  await store.close();
});

test('one that is cut off while the trees are walked does not read the segments again', async () => {
  const clock = new TestClock();
  const catalog = new MemoryCatalog();
  const open = await manySegments();
  const store = await open();
  const snapshot = catalog.snapshot.bind(catalog);
  catalog.snapshot = () => {
    throw new PandoError('store-failed', 'the catalog cannot be read');
  };
  await expect(verifyAndKeep({ catalog, store, clock })).rejects.toThrow('cannot be read');
  catalog.snapshot = snapshot;
  let read = 0;
  const pace = (bytes: number): Promise<void> => {
    read += bytes;
    return Promise.resolve();
  };
  const report = await verifyAndKeep({ catalog, store, clock }, { pace }, { resume: true });
  expect(report.resumedBytes).toBe(report.bytes);
  expect(read).toBe(0);
  await store.close();
});
