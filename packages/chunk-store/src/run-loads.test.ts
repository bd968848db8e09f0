/** Reads whose runs go through the thread that checks and decompresses them. */
import { ID_BYTES, KiB } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { DecodeRing, RING_BYTES, RING_SLOTS } from './decode-ring.ts';
import { DecodeThread } from './decode-thread.ts';
import { DamagedRuns } from './damaged-runs.ts';
import { RunLoads, type RunTaker } from './run-loads.ts';
import { RunReader } from './run-reader.ts';
import { decodeRunHeader, RUN_HEADER_BYTES, segmentSeed } from './segment-format.ts';
import { SegmentTable } from './segment-table.ts';
import { StoreCounters } from './store-counters.ts';
import {
  CHUNK,
  chunkOf,
  chunksOf,
  HASH_KEY,
  idAt,
  isCode,
  put,
  putLeaf,
  range,
  World,
} from './test-world.ts';
import type { ChunkStore, TreeNode } from './types.ts';

const LEAVES = 4;
const ALL = LEAVES * 128;

interface Stored {
  readonly world: World;
  readonly store: ChunkStore;
  readonly ids: Uint8Array;
  readonly leaves: readonly TreeNode[];
  readonly counters: StoreCounters;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A store that was opened anew, with quick storage, whose thread runs and whose places are known. */
async function storedLeaves(limits: ConstructorParameters<typeof World>[0] = {}): Promise<Stored> {
  const world = new World({ workers: 1, runCacheBytes: 100 * KiB, ...limits });
  world.isSlow = () => false;
  const first = await world.open();
  const session = first.openSession();
  const ids = await session.writeChunks(chunksOf(range(0, ALL)), ALL);
  const leafIds: Uint8Array[] = [];
  for (let i = 0; i < LEAVES; i++) leafIds.push(await putLeaf(session, ids.slice(i * 4096, (i + 1) * 4096)));
  await session.flush();
  session.release();
  await first.close();
  const store = await world.open();
  for (let i = 0; i < ALL; i += 64) await store.readChunk(ids, i * ID_BYTES); // opens files
  const leaves: TreeNode[] = [];
  for (const id of leafIds) leaves.push(await store.readNode(id, 0));
  const { counters } = await store.stats();
  // Until reads wait though storage is quick: then the thread takes them.
  for (;;) {
    await turn();
    const targets = leaves.map((leaf) => read(store, leaf, 0, 16));
    if (targets.every(({ reading }) => reading !== undefined)) {
      for (const { reading } of targets) await reading;
      break;
    }
    for (const { reading } of targets) await reading;
    for (const leaf of leaves) await read(store, leaf, 0, 128).reading;
  }
  return { world, store, ids, leaves, counters };
}

function read(store: ChunkStore, leaf: TreeNode, first: number, count: number) {
  const target = new Uint8Array(count * CHUNK);
  return { target, first, count, reading: store.readChunks(leaf, first, count, target, 0) };
}

function areChunks(bytes: Uint8Array, first: number, count: number): boolean {
  return Buffer.from(bytes).equals(chunksOf(range(first, count)));
}

describe('reads that go through the thread', () => {
  it('are right, whatever is read at once: parts of runs, the same runs, more than the thread or the cache has room for', async () => {
    const { store, leaves } = await storedLeaves();
    for (let round = 0; round < 20; round++) {
      const reads = leaves.flatMap((leaf, i) =>
        [
          [0, 128],
          [round, 1],
          [round + 1, 7],
          [3 * round, 66],
          [127 - round, 1],
        ].map(([first, count]) => ({ i, ...read(store, leaf, first!, count!) })),
      );
      for (const { reading, target, i, first, count } of reads) {
        await reading;
        expect(areChunks(target, i * 128 + first, count)).toBe(true);
      }
      await turn();
    }
    await store.close();
  });

  it('share what is on its way, and count it once', async () => {
    const { store, leaves, counters } = await storedLeaves({ runCacheBytes: 20 * KiB });
    await turn();
    const { runMisses, loadedBytes } = counters;
    const reads = Array.from({ length: 5 }, () => read(store, leaves[1]!, 64, 64));
    for (const { reading, target } of reads) {
      await reading;
      expect(areChunks(target, 128 + 64, 64)).toBe(true);
    }
    // Evicted meanwhile, what was copied from the cache at once would be read again.
    expect(counters.runMisses - runMisses).toBeLessThanOrEqual(16 + 5);
    expect(counters.loadedBytes).toBeGreaterThan(loadedBytes);
    await store.close();
  });

  it('report damage as ever, for the chunks that it is in', async () => {
    const { world, store, leaves, ids } = await storedLeaves({ runCacheBytes: 40 * KiB });
    for (const file of await world.files()) {
      world.fs.damage(file, (bytes) => {
        const file = Buffer.from(bytes);
        // The first of its run; it also stands in the leaf.
        let at = file.indexOf(idAt(ids, 40));
        while (
          at >= 0 &&
          file.toString('latin1', at - RUN_HEADER_BYTES, at - RUN_HEADER_BYTES + 4) !== 'PRUN'
        )
          at = file.indexOf(idAt(ids, 40), at + 1);
        if (at >= 0) bytes[at + 4 * ID_BYTES + 40]! ^= 0x10;
        return bytes;
      });
    }
    await read(store, leaves[3]!, 0, 128).reading; // pushes all else out of the cache
    await turn();
    const reads = [0, 38, 41, 44, 127].map((first) => read(store, leaves[0]!, first, 1));
    for (const { reading, first, target } of reads) {
      if (first === 41) await expect(reading).rejects.toSatisfy(isCode('chunk-corrupt'));
      else {
        await reading;
        expect(areChunks(target, first, 1)).toBe(true);
      }
    }
    await turn();
    await expect(read(store, leaves[0]!, 0, 128).reading).rejects.toSatisfy(isCode('chunk-corrupt'));
    expect((await store.stats()).damagedRuns).toBe(1);
    await store.close();
  });

  it('find chunks that have moved, and go on where storage has become slow', async () => {
    const { world, store, leaves } = await storedLeaves();
    const collection = store.beginCollection(() => undefined);
    const before = leaves.map((leaf) => read(store, leaf, 0, 128));
    for (const { segment } of collection.candidates) await collection.compact(segment, () => true);
    collection.end();
    await turn();
    const after = leaves.map((leaf) => read(store, leaf, 0, 128));
    world.isSlow = () => true;
    const slow = leaves.map((leaf) => read(store, leaf, 0, 128));
    for (const reads of [before, after, slow]) {
      for (const [i, { reading, target }] of reads.entries()) {
        await reading;
        expect(areChunks(target, i * 128, 128)).toBe(true);
      }
    }
    await store.close();
  });
});

describe('loads', () => {
  it('are done without the thread when it ends meanwhile', async () => {
    const world = new World();
    world.isSlow = () => false;
    const store = await world.open();
    const ids = await put(store, range(0, 300));
    await store.close();
    const storage = world.storage();
    const [{ segment, size }] = (await storage.list()) as [{ segment: number; size: number }];
    const table = new SegmentTable(world.identity);
    const { seed, runsAt } = table.add(segment, 'sealed', size);
    const counters = new StoreCounters();
    const runs = new RunReader(storage, table, CHUNK, 100 * KiB, 4, new DamagedRuns(table), counters);
    const loads = new RunLoads(storage, table, runs, CHUNK, 1, counters, world.hashKey);
    const places = runsOf(world.fs.bytesOf((await world.files())[0]!), runsAt, seed);
    counters.runMisses = 1000;
    await runs.load(segment, places[0]!.offset, places[0]!.bytes); // opens the file
    while (!loads.takes(segment, 100)) {
      runs.loadNow(segment, places[1]!.offset, places[1]!.bytes);
      if (loads.takes(segment, 100)) break;
      await turn();
    }
    for (const isClosedBefore of [false, true]) {
      const took: number[] = [];
      await new Promise<void>((resolve) => {
        const taker: RunTaker = {
          ...{ ids, waitsFor: 0 },
          took(run, _key, first, end) {
            for (let child = first; child < end; child++) {
              const slot = run!.slotOf(ids, child * ID_BYTES);
              const at = run!.chunkAt(slot, ids, child * ID_BYTES, store.hash) * CHUNK;
              expect(Buffer.from(run!.raw.subarray(at, at + CHUNK)).equals(chunkOf(child))).toBe(true);
              took.push(child);
            }
            if (--taker.waitsFor === 0) resolve();
          },
        };
        for (const [i, { offset, bytes }] of places.entries()) {
          loads.add(segment, offset, bytes, taker, 4 * i);
          loads.add(segment, offset, bytes, taker, 4 * i + 1);
        }
        loads.flush();
        if (!isClosedBefore) void loads.close();
      });
      expect(took.sort((a, b) => a - b)).toEqual(range(0, 300).filter((child) => child % 4 < 2));
      expect(loads.takes(segment, 100)).toBe(false);
    }
    await storage.close();
  });
});

function runsOf(file: Uint8Array, runsAt: number, seed: number): { offset: number; bytes: number }[] {
  const found: { offset: number; bytes: number }[] = [];
  for (let at = runsAt; ;) {
    const header = decodeRunHeader(file, at, seed, CHUNK);
    if (header === undefined) return found;
    found.push({ offset: at, bytes: header.runBytes });
    at += header.runBytes;
  }
}

describe('the ring', () => {
  it.each([
    ['plain', undefined],
    ['keyed', HASH_KEY],
  ])(
    'says of garbage, of a run of another segment and of a chunk that is not its id, %s, that something is wrong',
    async (_how, hashKey) => {
      const world = new World({}, CHUNK, hashKey);
      const store = await world.open();
      const session = store.openSession();
      const ids = await session.writeChunks(chunksOf(range(0, 8)), 8);
      await session.flush();
      session.release();
      const [file] = await world.files();
      const bytes = Buffer.from(world.fs.bytesOf(file!));
      await store.close();
      const from = bytes.indexOf('PRUN');
      const run = bytes.subarray(from, bytes.indexOf('PRUN', from + 4));
      const seed = segmentSeed(world.identity, 1);
      const results: (ReturnType<DecodeRing['result']> | { job: number })[] = [];
      let jobs = 0;
      const done = new Promise<void>((resolve) => {
        const thread = new DecodeThread(
          CHUNK,
          () => {
            while (thread.hasNext) {
              const result = thread.take();
              // Valid until the slot is used again.
              results.push(result === undefined ? undefined : { ...result, raw: result.raw.slice() });
            }
            if (results.length === jobs) void thread.close().then(resolve);
          },
          world.hashKey,
        );
        const add = (stored: Uint8Array, withSeed: number, wanted?: Uint8Array): void => {
          thread.next().set(stored);
          thread.add(stored.byteLength, withSeed, wanted, 0);
          jobs++;
        };
        const submit = (): void => {
          if (!thread.isReady) {
            setImmediate(submit);
            return;
          }
          add(run, seed);
          add(run, seed, idAt(ids, 2));
          add(run, seed + 1);
          add(run.subarray(0, run.byteLength - 1), seed);
          add(Buffer.from(run).fill(0x5a, 60, 61), seed);
          add(run, seed, idAt(ids, 7)); // stands in the next run
          thread.submit();
        };
        thread.start();
        submit();
      });
      await done;
      const found = results.map((result) =>
        result === undefined ? -1 : (result as { verified: number }).verified,
      );
      expect(found).toEqual([0b1111, 0b0100, -1, -1, -1, 0]);
      expect(areChunks((results[0] as { raw: Uint8Array }).raw, 0, 4)).toBe(true);
    },
  );

  it('has room for as many runs as it says, on whichever side their numbers wrap', () => {
    const ring = new DecodeRing(new SharedArrayBuffer(RING_BYTES));
    const places = range(2 ** 31 - 3, RING_SLOTS).map((job) => ring.stored(job | 0).byteOffset);
    expect(new Set(places).size).toBe(RING_SLOTS);
    expect(ring.isReady).toBe(false);
  });
});
