/** When verification is due, how slowly it goes, and what is kept of it. */
import { MemoryCatalog } from '@pando/catalog';
import { createMemoryChunkStore } from '@pando/chunk-store';
import { PandoError, type Clock } from '@pando/common';
import { expect, test } from 'vitest';
import { isDue, lastVerifications, paceOf, verifyAndKeep } from './verification.ts';

/** Time that goes by only in sleep. */
class TestClock implements Clock {
  wall = 1_000_000;
  ms = 0;
  slept: number[] = [];
  now = (): number => this.wall + this.ms;
  monotonic = (): number => this.ms;
  sleep = (ms: number): Promise<void> => {
    this.ms += ms;
    this.slept.push(ms);
    return Promise.resolve();
  };
}

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
  const { full, quick } = await lastVerifications(catalog);
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
