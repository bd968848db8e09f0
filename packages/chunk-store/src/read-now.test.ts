/** Reads that miss the caches and are carried out in the turn of the call, where storage is quick. */
import { ID_BYTES, KiB } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { hashChunk } from './hashing.ts';
import { READS_A_TURN_MAX } from './limits.ts';
import { CachedRun } from './run-cache.ts';
import { CHUNK, CrashIndex, chunkOf, chunksOf, idAt, isCode, putLeaf, range, World } from './test-world.ts';
import type { ChunkStore, TreeNode } from './types.ts';

class CountingIndex extends CrashIndex {
  lookUps = 0;

  override get(ids: Uint8Array, offset: number): Uint8Array | undefined {
    this.lookUps++;
    return super.get(ids, offset);
  }
}

interface Stored {
  readonly world: World;
  readonly store: ChunkStore;
  readonly ids: Uint8Array;
  readonly leaves: readonly Uint8Array[];
  readonly index: CountingIndex;
}

/** A store that was opened anew, with quick storage, of leaves with 128 chunks each. Its files are open. */
async function storedLeaves(
  count: number,
  limits: ConstructorParameters<typeof World>[0] = {},
): Promise<Stored> {
  const world = new World(limits);
  const index = new CountingIndex();
  world.index = index;
  world.isSlow = () => false;
  const first = await world.open();
  const session = first.openSession();
  const leaves: Uint8Array[] = [];
  const ids = await session.writeChunks(chunksOf(range(0, count * 128)), count * 128);
  for (let i = 0; i < count; i++) leaves.push(await putLeaf(session, ids.slice(i * 4096, (i + 1) * 4096)));
  await session.flush();
  session.release();
  await first.close();
  const store = await world.open();
  for (let i = 0; i < ids.byteLength / ID_BYTES; i += 64) await store.readChunk(ids, i * ID_BYTES);
  index.lookUps = 0;
  return { world, store, ids, leaves, index };
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function isChunk(bytes: Uint8Array, number: number): boolean {
  return Buffer.from(bytes).equals(chunkOf(number));
}

function readOne(store: ChunkStore, leaf: TreeNode, child: number): Uint8Array | undefined {
  const target = new Uint8Array(CHUNK);
  return store.readChunks(leaf, child, 1, target, 0) === undefined ? target : undefined;
}

describe('where storage is quick', () => {
  it('nodes and chunks are read without a promise', async () => {
    const { store, leaves } = await storedLeaves(1, { runCacheBytes: 100_000 });
    const leaf = store.peekNode(leaves[0]!, 0)!;
    expect(store.peekNode(leaves[0]!, 0)).toBe(leaf);
    const target = new Uint8Array(128 * CHUNK);
    expect(store.readChunks(leaf, 0, 128, target, 0)).toBeUndefined();
    expect(Buffer.from(target).equals(chunksOf(range(0, 128)))).toBe(true);
    for (const child of [127, 0, 63, 5, 4]) {
      await turn();
      expect(isChunk(readOne(store, leaf, child)!, child)).toBe(true);
    }
    await store.close();
  });

  it('one look-up finds all chunks of a run, for which no other is made', async () => {
    const { store, leaves, index } = await storedLeaves(1, { recentPlacesMax: 2, placeHintsMax: 0 });
    const leaf = store.peekNode(leaves[0]!, 0)!;
    index.lookUps = 0;
    for (let child = 127; child >= 0; child--) {
      expect(isChunk(readOne(store, leaf, child)!, child)).toBe(true);
      if (child % 32 === 0) await turn();
    }
    expect(index.lookUps).toBeLessThanOrEqual(128 / 4);
    await store.close();
  });

  it('no more than so many runs are read in one turn, and the rest is read all the same', async () => {
    const { store, leaves } = await storedLeaves(3, { runCacheBytes: 50_000 });
    const nodes = leaves.map((id) => store.peekNode(id, 0)!);
    await turn();
    const reads = nodes.map((node, i) => {
      const target = new Uint8Array(128 * CHUNK);
      return { target, i, reading: store.readChunks(node, 0, 128, target, 0) };
    });
    expect(3 * (128 / 4)).toBeGreaterThan(READS_A_TURN_MAX);
    expect(reads[0]!.reading).toBeUndefined();
    expect(reads[2]!.reading).toBeDefined();
    for (const { target, i, reading } of reads) {
      await reading;
      expect(Buffer.from(target).equals(chunksOf(range(i * 128, 128)))).toBe(true);
    }
    await turn();
    expect(isChunk(readOne(store, nodes[0]!, 3)!, 3)).toBe(true);
    await store.close();
  });

  it('what is slow for once is read with a promise', async () => {
    const { world, store, leaves } = await storedLeaves(1, { runCacheBytes: 50_000 });
    world.isSlow = () => true;
    expect(store.peekNode(leaves[0]!, 0)).toBeUndefined();
    const leaf = await store.readNode(leaves[0]!, 0);
    const target = new Uint8Array(7 * CHUNK);
    const reading = store.readChunks(leaf, 30, 7, target, 0);
    expect(reading).toBeDefined();
    world.isSlow = () => false;
    await reading;
    expect(Buffer.from(target).equals(chunksOf(range(30, 7)))).toBe(true);
    await store.close();
  });

  it('damage is reported as ever, by the read that has a promise', async () => {
    const { world, store, leaves, ids } = await storedLeaves(1, { runCacheBytes: 50_000 });
    const leaf = store.peekNode(leaves[0]!, 0)!;
    expect(readOne(store, leaf, 41)).toBeDefined(); // its place is known, and that of its neighbours
    expect(readOne(store, leaf, 100)).toBeDefined();
    for (const file of await world.files()) {
      world.fs.damage(file, (bytes) => {
        const at = Buffer.from(bytes).indexOf(idAt(ids, 40)); // the first of its run
        if (at >= 0) bytes[at + 4 * ID_BYTES + 40]! ^= 0x10;
        return bytes;
      });
    }
    for (let child = 0; child < 32; child++) readOne(store, leaf, child); // pushes all else out of the cache
    await turn();
    for (const child of [41, 43]) {
      const target = new Uint8Array(CHUNK);
      const reading = store.readChunks(leaf, child, 1, target, 0);
      await expect(reading).rejects.toSatisfy(isCode('chunk-corrupt'));
    }
    expect((await store.stats()).damagedRuns).toBe(1);
    await turn();
    expect(isChunk(readOne(store, leaf, 44)!, 44)).toBe(true);
    await store.close();
  });

  it('chunks that have moved are found', async () => {
    const { store, leaves, ids } = await storedLeaves(1, { runCacheBytes: 50_000 });
    const leaf = store.peekNode(leaves[0]!, 0)!;
    await store.readChunks(leaf, 0, 128, new Uint8Array(128 * CHUNK), 0);
    const collection = store.beginCollection(() => undefined);
    for (const { segment } of collection.candidates) await collection.compact(segment, () => true);
    collection.end();
    const target = new Uint8Array(128 * CHUNK);
    await turn();
    await store.readChunks(leaf, 0, 128, target, 0);
    expect(Buffer.from(target).equals(chunksOf(range(0, 128)))).toBe(true);
    expect(Buffer.from(await store.readChunk(ids, 0)).equals(chunkOf(0))).toBe(true);
    await store.close();
  });

  it('memory of a run that somebody still reads from is not used for the next one', async () => {
    const { store, leaves, ids } = await storedLeaves(1, { runCacheBytes: 20_000 }); // room for one run
    const leaf = store.peekNode(leaves[0]!, 0)!;
    for (let ticks = 0; ticks < 16; ticks++) {
      await turn();
      const child = ticks * 4;
      expect(readOne(store, leaf, child)).toBeDefined();
      const reading = store.readChunk(ids, child * ID_BYTES);
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
      for (const other of [64, 68, 72]) expect(isChunk(readOne(store, leaf, other)!, other)).toBe(true);
      expect(isChunk(await reading, child), `after ${ticks}`).toBe(true);
    }
    await store.close();
  });

  it('nothing of a run counts as verified for the next one in its memory', () => {
    const chunk = chunkOf(1);
    const id = hashChunk(chunk);
    const run = new CachedRun(CHUNK, ID_BYTES);
    run.ids.set(id);
    run.raw.set(chunk);
    run.hold(7, 3, CHUNK);
    expect(run.chunkAt(3, id, 0, hashChunk)).toBe(0);
    run.raw[5]! ^= 1;
    run.hold(8, 3, CHUNK);
    expect(() => run.chunkAt(3, id, 0, hashChunk)).toThrow(/do not match its id/);
  });
});

it('readers do not make what is known of segments make way, wherever they read', async () => {
  const { world, store, leaves } = await storedLeaves(8, {
    segmentBytesMax: 400 * KiB,
    placeHintsMax: 512,
  });
  expect((await world.files()).length).toBeGreaterThan(5);
  let footers = 0;
  const { fs } = world;
  fs.schedule = async (operation, attempt) => {
    if (operation.kind === 'read') footers++;
    return attempt();
  };
  for (let round = 0; round < 10; round++) {
    for (const id of leaves) {
      const leaf = store.peekNode(id, 0) ?? (await store.readNode(id, 0));
      const foreign = { bytes: leaf.bytes }; // without places: all of it is looked up again
      for (let child = round; child < 128; child += 16) {
        await turn();
        expect(readOne(store, foreign, child)).toBeDefined();
      }
    }
  }
  // A footer is read in two pieces; there are hints about 384 chunks at most.
  expect(footers).toBeLessThanOrEqual(2 * 2);
  await store.close();
});
