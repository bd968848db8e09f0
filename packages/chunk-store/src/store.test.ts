import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { HOLE_ID, ID_BYTES, KiB, MemoryFileSystem, nodeFileSystem } from '@pando/common';
import type { TreeNode } from '@pando/tree';
import { describe, expect, it } from 'vitest';
import { openChunkStore, rebuildIndex } from './chunk-store.ts';
import { DirectorySegmentStorage } from './directory-segment-storage.ts';
import { LevelChunkIndex } from './level-chunk-index.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { createMemoryChunkStore } from './memory-chunk-store.ts';
import { MemorySegmentStorage } from './memory-segment-storage.ts';
import { encodeFileHeader, FORMAT_VERSION } from './segment-format.ts';
import {
  CHUNK,
  chunkOf,
  chunksOf,
  expectChunks,
  idAt,
  isCode,
  put,
  putLeaf,
  range,
  STORE_ID,
  World,
} from './test-world.ts';

describe('a chunk store', () => {
  for (const chunkBytes of [4 * KiB, 16 * KiB, 64 * KiB]) {
    it(`gives back what was written, chunks of ${chunkBytes} bytes, batches of odd sizes`, async () => {
      const store = await createMemoryChunkStore(chunkBytes);
      let first = 0;
      for (const count of [0, 1, 3, 4, 5, 8, 9, 255 / (chunkBytes / CHUNK), 257 / (chunkBytes / CHUNK)].map(
        Math.ceil,
      )) {
        const numbers = range(first, count);
        await expectChunks(store, await put(store, numbers), numbers);
        first += count;
      }
      expect((await store.verify()).damaged).toEqual([]);
      await store.close();
    });
  }

  it('never stores zeros, and gives them the hole id', async () => {
    const store = await createMemoryChunkStore(CHUNK);
    const session = store.openSession();
    const chunks = new Uint8Array(3 * CHUNK);
    chunks[2 * CHUNK - 1] = 1;
    const ids = await session.writeChunks(chunks, 3);
    expect(idAt(ids, 0)).toEqual(HOLE_ID);
    expect(idAt(ids, 1)).not.toEqual(HOLE_ID);
    expect(idAt(ids, 2)).toEqual(HOLE_ID);
    expect(await session.writeNodes(new Uint8Array(4096), 1, 1)).toEqual(HOLE_ID);
    expect(session.counts).toMatchObject({ chunks: 4, zeroChunks: 3, newChunks: 1, knownChunks: 0 });
    await store.close();
  });

  it('takes a chunk whose only bit is the sign of a zero for what it is', async () => {
    const store = await createMemoryChunkStore(CHUNK);
    const session = store.openSession();
    const chunk = new Uint8Array(CHUNK);
    chunk[CHUNK - 1] = 0x80;
    const ids = await session.writeChunks(chunk, 1);
    expect(ids).not.toEqual(HOLE_ID);
    expect(await store.readChunk(ids, 0)).toEqual(chunk);
    await store.close();
  });

  it('stores a chunk once, whoever writes it, whenever: measured in bytes on disk', async () => {
    const world = new World({ segmentBytesMax: 512 * KiB });
    const store = await world.open();
    const numbers = range(0, 300);
    await put(store, numbers);
    const bytes = await world.diskBytes();
    await put(store, numbers); // in the index
    const [a, b] = [store.openSession(), store.openSession()];
    const more = [...range(1000, 20), ...range(1000, 20)];
    await Promise.all([a.writeChunks(chunksOf(more), 40), b.writeChunks(chunksOf(more), 40)]); // in flight
    await b.writeChunks(chunksOf(more), 40); // pending
    await Promise.all([a.flush(), b.flush()]);
    const grown = await world.diskBytes();
    await store.close();
    const twenty = new World({ segmentBytesMax: 512 * KiB });
    const other = await twenty.open();
    await put(other, range(0, 300));
    const otherBefore = await twenty.diskBytes();
    expect(otherBefore).toBe(bytes);
    await put(other, range(1000, 20));
    expect(grown).toBe(await twenty.diskBytes());
    const again = await world.open();
    const before = await world.diskBytes();
    for (let i = 0; i < 4; i++) await put(again, numbers); // recent places, after the first hits have loaded them
    expect(await world.diskBytes()).toBe(before);
    await again.close();
    await other.close();
  });

  it('reads chunks in flight and pending ones, before any flush', async () => {
    const store = await new World().open();
    const session = store.openSession();
    const numbers = range(0, 100);
    const ids = await session.writeChunks(chunksOf(numbers), 100);
    const leaf = await store.readNode(await putLeaf(session, ids), 0);
    const target = new Uint8Array(100 * CHUNK);
    await store.readChunks(leaf, 0, 100, target, 0);
    expect(Buffer.from(target).equals(chunksOf(numbers))).toBe(true);
    await store.close();
  });

  it('reads ranges of a leaf, holes as zeros, from memory without a promise', async () => {
    const world = new World();
    let store = await world.open();
    const session = store.openSession();
    const ids = await session.writeChunks(chunksOf(range(0, 60)), 60);
    ids.fill(0, 10 * ID_BYTES, 13 * ID_BYTES);
    const leafId = await putLeaf(session, ids);
    await session.flush();
    await store.close();
    store = await world.open();
    expect(store.peekNode(leafId, 0)).toBeUndefined();
    const leaf = await store.readNode(leafId, 0);
    expect(store.peekNode(leafId, 0)).toBe(leaf);
    for (let round = 0; round < 2; round++) {
      for (const [first, count] of [
        [9, 5],
        [0, 1],
        [59, 3],
        [0, 128],
        [11, 1],
        [5, 0],
      ] as const) {
        const target = new Uint8Array(count * CHUNK + 2).fill(0xee);
        const reading = store.readChunks(leaf, first, count, target, 1);
        if (round === 1) expect(reading).toBeUndefined();
        await reading;
        for (let i = 0; i < count; i++) {
          const child = first + i;
          const hole = child >= 60 || (child >= 10 && child < 13);
          const expected = hole ? new Uint8Array(CHUNK) : chunkOf(child);
          const got = target.subarray(1 + i * CHUNK, 1 + (i + 1) * CHUNK);
          if (!Buffer.from(got).equals(expected)) expect.fail(`chunk ${child}, range ${first}+${count}`);
        }
        expect([target[0], target.at(-1)]).toEqual([0xee, 0xee]);
      }
    }
    await store.close();
  });

  it('reads through leaves that it did not make', async () => {
    const store = await createMemoryChunkStore(CHUNK);
    const ids = await put(store, [1, 2]);
    const leaf: TreeNode = { bytes: new Uint8Array(4096) };
    leaf.bytes.set(ids);
    const target = new Uint8Array(2 * CHUNK);
    await store.readChunks(leaf, 0, 2, target, 0);
    expect(Buffer.from(target).equals(chunksOf([1, 2]))).toBe(true);
    await store.close();
  });

  it('says which chunk is missing', async () => {
    const store = await createMemoryChunkStore(CHUNK);
    const bytes = new Uint8Array(4096).fill(9);
    await expect(store.readChunk(bytes, 0)).rejects.toSatisfy(isCode('chunk-missing'));
    await expect(store.readNode(bytes, 0)).rejects.toThrow('09'.repeat(32));
    await expect(store.readChunks({ bytes }, 0, 2, new Uint8Array(8192), 0)).rejects.toSatisfy(
      isCode('chunk-missing'),
    );
    await store.close();
  });

  it('keeps caches within their bounds and right when they are tiny', async () => {
    const world = new World({
      runCacheBytes: 100_000,
      nodeCacheBytes: 20_000,
      segmentBytesMax: 200 * KiB,
      recentPlacesMax: 50,
    });
    const store = await world.open();
    const session = store.openSession();
    const leaves: Uint8Array[] = [];
    for (let i = 0; i < 12; i++) {
      leaves.push(await putLeaf(session, await session.writeChunks(chunksOf(range(i * 128, 128)), 128)));
    }
    await session.flush();
    for (let round = 0; round < 3; round++) {
      for (let i = 11; i >= 0; i--) {
        const target = new Uint8Array(128 * CHUNK);
        await store.readChunks(await store.readNode(leaves[i]!, 0), 0, 128, target, 0);
        if (!Buffer.from(target).equals(chunksOf(range(i * 128, 128)))) expect.fail(`leaf ${i}`);
      }
      const stats = await store.stats();
      expect(stats.runCacheBytes).toBeLessThanOrEqual(100_000);
      expect(stats.nodeCacheBytes).toBeLessThanOrEqual(20_000);
    }
    await store.close();
  });

  it('shares one read among readers of one run, and bounds reads at the same time', async () => {
    const world = new World({ runReadsMax: 3, segmentBytesMax: 8 * 1024 * KiB });
    let store = await world.open();
    const ids = await put(store, range(0, 128));
    await store.close();
    const storage = world.storage();
    let reads = 0;
    let underWay = 0;
    let most = 0;
    const read = storage.read.bind(storage);
    storage.read = async (...args) => {
      reads++;
      most = Math.max(most, ++underWay);
      await new Promise((resolve) => setTimeout(resolve, 1));
      try {
        return await read(...args);
      } finally {
        underWay--;
      }
    };
    store = await openChunkStore({
      storage,
      index: world.index,
      ...world.identity,
      limits: { ...world.limits, recentPlacesMax: 0, placeHintsMax: 0 },
    });
    const leaf = { bytes: ids };
    reads = most = 0;
    const targets = range(0, 5).map(() => new Uint8Array(128 * CHUNK));
    await Promise.all(targets.map(async (target) => store.readChunks(leaf, 0, 128, target, 0)));
    expect(reads).toBe(32); // 128 chunks in runs of 4
    expect(most).toBeLessThanOrEqual(3);
    for (const target of targets) expect(Buffer.from(target).equals(chunksOf(range(0, 128)))).toBe(true);
    await store.close();
  });

  it('works with worker threads, on a real disk, with LevelDB', async () => {
    const root = mkdtempSync(join(tmpdir(), 'pando-store-'));
    const open = async () =>
      openChunkStore({
        storage: new DirectorySegmentStorage(nodeFileSystem, join(root, 'segments')),
        index: await LevelChunkIndex.open(join(root, 'index')),
        storeId: STORE_ID,
        chunkBytes: CHUNK,
        limits: { workers: 2, segmentBytesMax: 1024 * KiB },
      });
    let store = await open();
    const numbers = range(0, 900);
    const sessions = [store.openSession(), store.openSession()];
    const [ids] = await Promise.all(sessions.map((session) => session.writeChunks(chunksOf(numbers), 900)));
    await Promise.all(sessions.map((session) => session.flush()));
    expect(sessions[0]!.counts.newChunks + sessions[1]!.counts.newChunks).toBe(900);
    await expectChunks(store, ids!, numbers);
    await store.close();
    store = await open();
    await expectChunks(store, ids!, numbers);
    const report = await store.verify();
    expect(report).toMatchObject({ chunks: 900, damaged: [] });
    expect((await store.stats()).segments).toBeGreaterThan(1);
    await store.close();
    rmSync(root, { recursive: true });
  });

  it('rolls segments before they grow past their bound', async () => {
    const world = new World({ segmentBytesMax: 100 * KiB });
    const store = await world.open();
    const numbers = range(0, 500);
    const ids = await put(store, numbers);
    await store.seal();
    for (const file of await world.files())
      expect(world.fs.bytesOf(file).byteLength).toBeLessThanOrEqual(100 * KiB);
    expect((await world.files()).length).toBeGreaterThan(5);
    await expectChunks(store, ids, numbers);
    await store.close();
  });

  it('leaves no empty segments behind, and gives no number twice', async () => {
    const world = new World();
    await (await world.open()).close();
    expect(await world.files()).toEqual([]);
    const store = await world.open();
    await put(store, [1]);
    await store.seal();
    await store.seal();
    const collection = store.beginCollection(() => undefined);
    const [only] = collection.candidates;
    expect(await collection.drop(only!.segment, () => false)).toBe(true);
    collection.end();
    expect(await world.files()).toEqual([]);
    await store.close();
    const again = await world.open();
    await put(again, [1]);
    await again.close();
    expect(await world.files()).toEqual(['segments/000000000002.seg']);
  });

  it('rebuilds a lost index from the segments alone', async () => {
    const world = new World({ segmentBytesMax: 150 * KiB });
    let store = await world.open();
    const numbers = range(0, 400);
    const ids = await put(store, numbers);
    await store.close();
    const storage = world.storage();
    const index = new MemoryChunkIndex();
    await index.write({ ids: ids.slice(0, 32), places: new Uint8Array(18).fill(1), count: 1 }, false); // rubbish goes
    await rebuildIndex(storage, index, world.identity);
    expect(await index.count()).toBe(400);
    store = await world.open(index);
    await expectChunks(store, ids, numbers);
    expect((await store.verify()).damaged).toEqual([]);
    const bytes = await world.diskBytes();
    await put(store, numbers);
    expect(await world.diskBytes()).toBe(bytes);
    await store.close();
  });

  it('refuses segments of another store, another chunk size and a newer format', async () => {
    const world = new World();
    const store = await world.open();
    await put(store, [1]);
    await store.close();
    const open = (storeId: Uint8Array, chunkBytes: number) =>
      openChunkStore({ storage: world.storage(), index: new MemoryChunkIndex(), storeId, chunkBytes });
    await expect(open(new Uint8Array(16), CHUNK)).rejects.toSatisfy(isCode('store-foreign'));
    await expect(open(STORE_ID, 2 * CHUNK)).rejects.toSatisfy(isCode('store-foreign'));
    await expect(open(STORE_ID, 5000)).rejects.toSatisfy(isCode('request-invalid'));

    const header = Buffer.from(encodeFileHeader({ storeId: STORE_ID, chunkBytes: CHUNK }, 1));
    header.writeUInt32LE(FORMAT_VERSION + 1, 8);
    header.writeUInt32LE(crc32(header.subarray(0, 44)), 44);
    const newer = new MemorySegmentStorage();
    const writer = await newer.create(1);
    await writer.append([header, new Uint8Array(1000).fill(1)]);
    await writer.close();
    const index = new MemoryChunkIndex();
    const opening = openChunkStore({ storage: newer, index, storeId: STORE_ID, chunkBytes: CHUNK });
    await expect(opening).rejects.toSatisfy(isCode('store-newer'));
    expect(await newer.list()).toEqual([{ segment: 1, size: header.byteLength + 1000 }]);
  });

  it('is closed for good, twice', async () => {
    const store = await createMemoryChunkStore(CHUNK);
    const session = store.openSession();
    await session.writeChunks(chunkOf(1), 1);
    await Promise.all([store.close(), store.close()]);
    expect(() => store.openSession()).toThrow(/closed/);
    await expect(session.writeChunks(chunkOf(1), 1)).rejects.toThrow(/released/);
  });

  it('verifies until it is told to stop', async () => {
    const world = new World({ segmentBytesMax: 100 * KiB });
    const store = await world.open();
    await put(store, range(0, 200));
    const stop = new AbortController();
    const progress: number[] = [];
    const verifying = store.verify({
      onProgress: (done) => {
        progress.push(done);
        stop.abort(new Error('enough'));
      },
      signal: stop.signal,
    });
    await expect(verifying).rejects.toThrow('enough');
    expect(progress.length).toBeLessThanOrEqual(2); // the piece, and the segment that it ended
    const whole: [number, number][] = [];
    await store.verify({ onProgress: (done, all) => whole.push([done, all]) });
    expect(whole.at(-1)![0]).toBe(whole.at(-1)![1]);
    await store.close();
  });

  it('uses a directory of any FileSystem', async () => {
    const fs = new MemoryFileSystem();
    const open = (index: MemoryChunkIndex) =>
      openChunkStore({
        storage: new DirectorySegmentStorage(fs, 's'),
        index,
        storeId: STORE_ID,
        chunkBytes: CHUNK,
        limits: { workers: 0 },
      });
    const ids = await (async () => {
      const store = await open(new MemoryChunkIndex());
      const result = await put(store, range(0, 9));
      await store.close();
      return result;
    })();
    const store = await open(new MemoryChunkIndex());
    await expectChunks(store, ids, range(0, 9));
    await store.close();
  });
});
