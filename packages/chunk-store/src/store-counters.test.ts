/** What a store counts of its reads and writes, held against what was done to it. */
import { ID_BYTES } from '@pando/common';
import { afterEach, describe, expect, it } from 'vitest';
import type { DurationHistogram } from '@pando/common';
import type { StoreCounters } from './store-counters.ts';
import { CHUNK, chunksOf, put, putLeaf, range, World } from './test-world.ts';
import type { ChunkStore } from './types.ts';

const CHUNKS_A_RUN = 4;
const NOTHING_IN_MEMORY = { runCacheBytes: 1, nodeCacheBytes: 1, recentPlacesMax: 0, placeHintsMax: 0 };

const open: ChunkStore[] = [];
afterEach(async () => {
  for (const store of open.splice(0)) await store.close();
});

function times({ counts }: DurationHistogram): number {
  return counts.counts.reduce((sum, count) => sum + count, 0);
}

/** The plain numbers of the counters, and how often each time was taken. */
function numbers(counters: Readonly<StoreCounters>) {
  const { runLoadTimes, hashTimes, packTimes, readerLookUps, writerLookUps } = counters;
  return {
    nodeHits: counters.nodeHits,
    nodeMisses: counters.nodeMisses,
    runHits: counters.runHits,
    runMisses: counters.runMisses,
    loads: times(runLoadTimes),
    loadedBytes: counters.loadedBytes,
    hashed: times(hashTimes),
    packed: times(packTimes),
    readerLookUps: readerLookUps.all,
    readerIndexLookUps: readerLookUps.index,
    writerLookUps: writerLookUps.all,
    writerIndexLookUps: writerLookUps.index,
    collectionLookUps: counters.collectionLookUps.all,
    verifyLookUps: counters.verifyLookUps.all,
  };
}

type Numbers = ReturnType<typeof numbers>;

/** What grew while something was done. */
async function grown(store: ChunkStore, work: () => unknown): Promise<Numbers> {
  const before = numbers((await store.stats()).counters);
  await work();
  const after = numbers((await store.stats()).counters);
  const names = Object.keys(after) as (keyof Numbers)[];
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as Numbers;
}

/** A leaf of 128 chunks in a store that was opened anew and has nothing in memory. */
async function storedLeaf(
  limits: ConstructorParameters<typeof World>[0],
  isSlow: (() => boolean) | undefined,
): Promise<{ store: ChunkStore; leafId: Uint8Array; ids: Uint8Array }> {
  const world = new World(limits);
  world.isSlow = isSlow;
  const first = await world.open();
  const session = first.openSession();
  const ids = await session.writeChunks(chunksOf(range(0, 128)), 128);
  const leafId = await putLeaf(session, ids);
  await session.flush();
  session.release();
  await first.close();
  const store = await world.open();
  open.push(store);
  return { store, leafId, ids };
}

const WAYS = [
  ['in the turn of the call', (): boolean => false],
  ['with a promise', undefined],
] as const;

describe.each(WAYS)('reads %s', (_, isSlow) => {
  it('a miss loads a run, and its neighbours and everything later are hits', async () => {
    const { store, leafId, ids } = await storedLeaf({ recentPlacesMax: 0 }, isSlow);
    // Opens the file, without which nothing is quick; the last chunk is asked for nowhere else.
    await store.readChunk(ids, 127 * ID_BYTES);
    const target = new Uint8Array(8 * CHUNK);
    const node = await grown(store, () => store.readNode(leafId, 0));
    expect(node).toMatchObject({ nodeHits: 0, nodeMisses: 1, runHits: 0, runMisses: 1, loads: 1 });
    expect(node).toMatchObject({ readerLookUps: 1, readerIndexLookUps: 1 });
    const leaf = store.peekNode(leafId, 0)!;
    const cold = await grown(store, () => store.readChunks(leaf, 0, 8, target, 0));
    expect(Buffer.from(target).equals(chunksOf(range(0, 8)))).toBe(true);
    expect(cold).toMatchObject({ nodeHits: 0, runMisses: 2, runHits: 6, loads: 2, hashed: 0, packed: 0 });
    expect(cold.loadedBytes).toBeGreaterThan(0);
    expect(cold.loadedBytes).toBeLessThan(8 * CHUNK + 2 * 1024);
    const warm = await grown(store, () => {
      store.peekNode(leafId, 0);
      return store.readChunks(leaf, 0, 8, target, 0);
    });
    expect(warm).toMatchObject({ nodeHits: 1, nodeMisses: 0, runMisses: 0, runHits: 8, loads: 0 });
    expect(warm).toMatchObject({ loadedBytes: 0, readerLookUps: 0, readerIndexLookUps: 0 });
  });

  it('a node that is not there without a promise is one miss', async () => {
    const { store, leafId } = await storedLeaf(NOTHING_IN_MEMORY, isSlow);
    const { nodeHits, nodeMisses } = await grown(
      store,
      async () => store.peekNode(leafId, 0) ?? (await store.readNode(leafId, 0)),
    );
    expect({ nodeHits, nodeMisses }).toEqual({ nodeHits: 0, nodeMisses: 1 });
  });
});

describe('writes', () => {
  it('each chunk is looked up once, and what was stored before is found without the index or with it', async () => {
    const store = await new World({ recentPlacesMax: 0 }).open();
    open.push(store);
    const fresh = await grown(store, () => put(store, range(0, 20)));
    expect(fresh).toMatchObject({ writerLookUps: 20, writerIndexLookUps: 20, hashed: 1, packed: 1 });
    expect(fresh).toMatchObject({ readerLookUps: 0, runHits: 0, runMisses: 0, loads: 0 });
    const again = await grown(store, () => put(store, range(0, 20)));
    expect(again).toMatchObject({ writerLookUps: 20, writerIndexLookUps: 20, hashed: 1, packed: 0 });
  });

  it('threads report their times as the main thread does', async () => {
    const store = await new World({ workers: 1 }).open();
    open.push(store);
    expect(await grown(store, () => put(store, range(0, 300)))).toMatchObject({ hashed: 2, packed: 2 });
    expect(await grown(store, () => put(store, range(300, 3)))).toMatchObject({ hashed: 1, packed: 1 });
  });

  it('what a collection and a verification look up and read counts as theirs', async () => {
    const { store, ids } = await storedLeaf({ recentPlacesMax: 0 }, undefined);
    const resolved = await grown(store, async () => {
      const collection = store.beginCollection(() => undefined);
      await collection.resolve(ids, 128, new Float64Array(128), new Uint32Array(128));
      for (const { segment } of collection.candidates) {
        // Of each run one chunk is alive: all are read.
        await collection.compact(segment, (slot) => slot % CHUNKS_A_RUN === 0);
      }
      collection.end();
    });
    expect(resolved.collectionLookUps).toBeGreaterThanOrEqual(128);
    expect(resolved).toMatchObject({ readerLookUps: 0, verifyLookUps: 0, runHits: 0, runMisses: 0 });
    expect(resolved.loads).toBeGreaterThanOrEqual(128 / CHUNKS_A_RUN);
    const { finder } = await store.verify();
    const found = await grown(store, () => finder.find(ids, 1, new Float64Array(1), new Uint32Array(1)));
    expect(found.verifyLookUps).toBeGreaterThanOrEqual(1);
    expect(found).toMatchObject({ readerLookUps: 0, writerLookUps: 0, collectionLookUps: 0 });
  });
});
