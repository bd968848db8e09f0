import { describe, expect, it } from 'vitest';
import { readPlace } from './place.ts';
import { deleteStale } from './stale-entries.ts';
import { readCheckpoint, readNumbers, writeNumbers } from './store-marks.ts';
import { expectChunks, idAt, isCode, put, range, World } from './test-world.ts';
import type { ChunkStore } from './types.ts';

const NONE = (): boolean => false;

async function dropAll(store: ChunkStore): Promise<void> {
  await store.seal();
  const collection = store.beginCollection(() => undefined);
  for (const { segment } of collection.candidates) await collection.drop(segment, NONE);
  collection.end();
}

async function stale(store: ChunkStore): Promise<number> {
  return (await store.stats()).staleIndexEntries;
}

describe('index entries of segments that are gone', () => {
  it('stay while they are few, are counted over restarts, and are put right by whoever stores the chunk again', async () => {
    const world = new World();
    const store = await world.open();
    const ids = await put(store, range(0, 30));
    await dropAll(store);
    expect(await world.index.count()).toBe(30);
    await put(store, range(0, 10));
    await store.close();
    const again = await world.open();
    expect(await stale(again)).toBe(30);
    await expectChunks(again, ids, range(0, 10));
    await expect(again.readChunk(idAt(ids, 10), 0)).rejects.toSatisfy(isCode('chunk-missing'));
    expect((await again.verify()).damaged).toEqual([]);
    await again.close();
  });

  it('are deleted when they are many, but for what was stored again', async () => {
    const world = new World({ staleEntriesFew: 20 });
    const store = await world.open();
    const kept = await put(store, range(100, 50));
    await store.seal();
    const ids = await put(store, range(0, 40));
    await store.seal();
    const collection = store.beginCollection(() => undefined);
    expect(await collection.drop(2, NONE)).toBe(true);
    collection.end();
    const again = put(store, range(30, 10)); // meanwhile
    await expect.poll(() => stale(store)).toBe(0);
    await again;
    expect(await world.index.count()).toBe(60);
    await expectChunks(store, kept, range(100, 50));
    await expectChunks(store, await again, range(30, 10));
    expect(world.index.get(ids, 0)).toBeUndefined();
    expect(await readNumbers(world.index, 'stale')).toEqual([0]);
    await store.close();
  });

  it('stay, however many, while there are more chunks; a compaction leaves only what it did not move', async () => {
    const world = new World({ staleEntriesFew: 0 });
    const store = await world.open();
    await put(store, range(0, 60));
    await store.seal();
    const collection = store.beginCollection(() => undefined);
    await collection.compact(1, (slot) => slot % 3 > 0);
    expect(await stale(store)).toBe(20);
    collection.end();
    await store.seal();
    expect(await world.index.count()).toBe(60);
    await store.close();
  });

  it('never name another segment: numbers are used up, whatever breaks off', async () => {
    for (const seal of [true, false]) {
      const world = new World();
      const store = await world.open();
      const ids = await put(store, range(0, 10));
      await store.seal();
      // As when an older segment waits to be sealed: the checkpoint stays behind.
      if (!seal) await writeNumbers(world.index, 'checkpoint', [1, 1]);
      await dropAll(store);
      expect((await readCheckpoint(world.index)).next).toBe(2);
      await world.crash(() => 0);
      const again = await world.open();
      await put(again, range(20, 10));
      expect(await world.files()).toHaveLength(1);
      await expect(again.readChunk(ids, 0)).rejects.toSatisfy(isCode('chunk-missing'));
      const back = await put(again, range(0, 10));
      expect(readPlace(world.index.get(back, 0)!).segment).toBe(2);
      await expectChunks(again, back, range(0, 10));
      await again.close();
    }
  });

  it('go when an index is opened that has lost its marks, as one that was being emptied', async () => {
    const world = new World();
    const store = await world.open();
    await put(store, range(0, 10));
    await dropAll(store);
    const kept = await put(store, range(20, 10));
    await store.close();
    const entries = world.index;
    const forgetful = Object.assign(Object.create(entries) as typeof entries, {
      getMark: () => Promise.resolve(undefined),
      get: entries.get.bind(entries),
      write: entries.write.bind(entries),
      setMark: entries.setMark.bind(entries),
      findStale: entries.findStale.bind(entries),
      count: entries.count.bind(entries),
      bytes: entries.bytes.bind(entries),
      close: () => Promise.resolve(),
    });
    const again = await world.open(forgetful);
    expect(await entries.count()).toBe(10);
    await expectChunks(again, kept, range(20, 10));
    await again.close();
  });

  it('are deleted piece by piece', async () => {
    const world = new World();
    const store = await world.open();
    await put(store, range(0, 2500));
    let pieces = 0;
    for (let next = await deleteStale(world.index, () => true); next !== undefined; pieces++)
      next = await deleteStale(world.index, () => true, next);
    expect(pieces).toBe(2);
    expect(await world.index.count()).toBe(0);
    await store.close();
  });
});
