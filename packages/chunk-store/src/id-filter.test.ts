import { ID_BYTES, KiB } from '@pando/common';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { IdFilter } from './id-filter.ts';
import { LevelChunkIndex } from './level-chunk-index.ts';
import { PLACE_BYTES } from './types.ts';

const seed = runSeed();
const random = seededRandom(seed);
const someIds = (count: number): Uint8Array => fillRandom(random, new Uint8Array(count * ID_BYTES));

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pando-filter-'));
});
afterEach(() => rm(directory, { recursive: true }));

function yesOf(ids: Uint8Array, says: { mayHave: (ids: Uint8Array, offset: number) => boolean }): number {
  let yes = 0;
  for (let at = 0; at < ids.byteLength; at += ID_BYTES) if (says.mayHave(ids, at)) yes++;
  return yes;
}

async function write(index: LevelChunkIndex, ids: Uint8Array): Promise<void> {
  const count = ids.byteLength / ID_BYTES;
  await index.write({ ids, places: new Uint8Array(count * PLACE_BYTES), count }, false);
}

/** Until the index knows what it does not have. */
async function filtered(index: LevelChunkIndex): Promise<void> {
  const others = someIds(200);
  while (yesOf(others, index) > 100) await sleep(5);
}

test(`says yes to all that was added, and to few others (seed ${seed})`, () => {
  const filter = new IdFilter(16 * KiB);
  const count = 13_000;
  const ids = someIds(count);
  filter.addAll(ids, count);
  expect(filter.isFull).toBe(false);
  filter.addAll(someIds(200), 200);
  expect(filter.isFull).toBe(true);
  expect(yesOf(ids, filter)).toBe(count);
  expect(yesOf(someIds(count), filter) / count).toBeLessThan(0.03);
});

test(`an index knows what it most likely does not have: what was there, what comes meanwhile, what comes later (seed ${seed})`, async () => {
  let index = await LevelChunkIndex.open(directory);
  const before = someIds(20_000);
  await write(index, before);
  await filtered(index);
  await index.close();

  index = await LevelChunkIndex.open(directory);
  const meanwhile = someIds(500);
  const writing = write(index, meanwhile);
  expect(yesOf(before, index)).toBe(20_000);
  await writing;
  await filtered(index);
  const later = someIds(500);
  await write(index, later);
  for (const ids of [before, meanwhile, later]) expect(yesOf(ids, index)).toBe(ids.byteLength / ID_BYTES);
  await index.close();
});

test(`the filter grows with the index (seed ${seed})`, async () => {
  const index = await LevelChunkIndex.open(directory);
  await filtered(index);
  // The first one is good for 209,715.
  const batches: Uint8Array[] = [];
  for (let i = 0; i < 22; i++) {
    batches.push(someIds(10_000));
    await write(index, batches.at(-1)!);
  }
  // The first one says yes to about 300 of so many others by now.
  while (yesOf(someIds(20_000), index) > 40) await sleep(10);
  for (const ids of batches) expect(yesOf(ids, index)).toBe(10_000);
  await index.close();
});

test('closing does not wait for a filter, nor break on it', async () => {
  let index = await LevelChunkIndex.open(directory);
  await write(index, someIds(50_000));
  for (let i = 0; i < 5; i++) {
    expect(yesOf(someIds(1), index)).toBe(1);
    await index.close();
    index = await LevelChunkIndex.open(directory);
  }
  await index.close();
});
