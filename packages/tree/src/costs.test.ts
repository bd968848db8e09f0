import { ID_BYTES, KiB, MiB, TiB, isHole, isPandoError } from '@pando/common';
import { describe, expect, test } from 'vitest';
import {
  FANOUT,
  NODE_BYTES,
  TreeBuilder,
  allocationOf,
  differences,
  diffTrees,
  emptyRoot,
  findLeaf,
  readTree,
  resizeTree,
  rootsEqual,
  updateTree,
  walkTree,
  type Changes,
  type ChunkRange,
  type ChunkWriter,
  type DiffOptions,
  type Root,
} from './index.ts';
import { MemoryChunks, seededRandom } from './testing.ts';

/** Ids of chunks that nothing reads: what the tree does with them does not depend on their being there. */
function fakeIds(count: number, seed: number): Uint8Array {
  const random = seededRandom(seed);
  return Uint8Array.from({ length: count * ID_BYTES }, () => 1 + random.below(255));
}

function changesAt(indexes: number[], ids: Uint8Array, holes: number[] = []): Changes {
  return { indexes: Float64Array.from(indexes), count: indexes.length, ids, holes: Float64Array.from(holes) };
}

async function built(
  store: ChunkWriter,
  chunks: number,
  seed: number,
  size = chunks * store.chunkBytes,
): Promise<Root> {
  const builder = new TreeBuilder(store);
  await builder.append(fakeIds(chunks, seed), chunks);
  return builder.finish(size);
}

describe('what an update costs', () => {
  test('writing the same ids again writes nothing and gives the same root', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 5000, 1);
    const indexes = [0, 1, 127, 128, 2000, 4999];
    const all = fakeIds(5000, 1);
    const ids = new Uint8Array(indexes.length * ID_BYTES);
    indexes.forEach((at, i) => ids.set(all.subarray(at * ID_BYTES, (at + 1) * ID_BYTES), i * ID_BYTES));
    store.resetCounts();
    expect(rootsEqual(await updateTree(store, store, root, changesAt(indexes, ids)), root)).toBe(true);
    expect(store.counts.nodeWriteCalls).toBe(0);
  });

  test('each touched node is read once and written once, levels in batches', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 600 * FANOUT, 2, 16 * TiB);
    const indexes = Array.from({ length: 1200 }, (_, i) => i * 64); // two chunks of each of 600 leaves
    store.resetCounts();
    await updateTree(store, store, root, changesAt(indexes, fakeIds(1200, 3)));
    // 600 leaves, 5 nodes above them, one path of 3 more to the top of five levels.
    expect(store.counts.nodeReads).toBe(608);
    expect(store.counts.nodesWritten).toBe(608);
    expect(store.counts.nodeWriteCalls).toBe(3 + 4);
    expect(store.counts.nodeReadsAtOnceMax).toBeGreaterThan(8);
    expect(store.counts.nodeReadsAtOnceMax).toBeLessThanOrEqual(32);
  });

  test('a disk that is all hole is written without a read', async () => {
    const store = new MemoryChunks({ warm: false });
    await updateTree(store, store, emptyRoot(64 * TiB, 4096), changesAt([2 ** 33], fakeIds(1, 4)));
    expect(store.counts).toMatchObject({ nodeReads: 0, nodesWritten: 5 });
  });

  test('trimming 64 TiB costs what trimming 64 KiB costs', async () => {
    const store = new MemoryChunks({ warm: false });
    const size = 64 * TiB;
    const chunks = size / 4096;
    const random = seededRandom(5);
    const places = new Set([0, 1, chunks - 1, ...Array.from({ length: 500 }, () => random.below(chunks))]);
    const indexes = [...places].sort((a, b) => a - b);
    const root = await updateTree(
      store,
      store,
      emptyRoot(size, 4096),
      changesAt(indexes, fakeIds(indexes.length, 6)),
    );
    const cost = async (holes: number[]): Promise<Root> => {
      store.resetCounts();
      const after = await updateTree(store, store, root, changesAt([], new Uint8Array(0), holes));
      expect(store.counts.nodeReads).toBeLessThanOrEqual(2 * 5);
      expect(store.counts.nodesWritten).toBeLessThanOrEqual(2 * 5);
      return after;
    };
    await cost([1, 17]);
    const most = await cost([1, chunks - 1]);
    expect(await allocationOf(store, most, 0, chunks, 10)).toEqual({
      counts: [1, chunks - 2, 1],
      holes: [false, true, false],
    });
    expect(isHole((await cost([0, chunks])).id)).toBe(true);
    expect(store.counts.nodeReads).toBe(0);
  });

  test('what lies under a hole range is not read even where chunks are written on top of it', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 20_000, 7);
    store.resetCounts();
    const id = fakeIds(1, 8);
    const after = await updateTree(store, store, root, changesAt([9000], id, [0, 20_000]));
    expect(store.counts.nodeReads).toBe(0);
    const plain = await updateTree(store, store, emptyRoot(root.size, 4096), changesAt([9000], id));
    expect(rootsEqual(after, plain)).toBe(true);
  });

  test('resizing costs a path', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 20_000, 9);
    store.resetCounts();
    const grown = await resizeTree(store, store, root, 64 * TiB);
    expect(store.counts).toMatchObject({ nodeReads: 0, nodesWritten: 2 });
    expect(rootsEqual(await resizeTree(store, store, grown, root.size), root)).toBe(true);
    await resizeTree(store, store, grown, 4096 * 10_000);
    expect(store.counts.nodeReads).toBeLessThanOrEqual(12);
  });

  test('a changed chunk outside the disk is refused', async () => {
    const store = new MemoryChunks();
    const update = updateTree(store, store, emptyRoot(4097, 4096), changesAt([2], fakeIds(1, 1)));
    await expect(update).rejects.toMatchObject({ code: 'range-invalid' });
  });
});

/** The first `most` ranges of a walk, and where it says that it ended, if it was let. */
async function walk(
  store: MemoryChunks,
  a: Root,
  b: Root,
  start: number,
  end: number,
  most = Infinity,
  options: DiffOptions = {},
): Promise<{ found: ChunkRange[]; reached: number | undefined }> {
  const ranges = differences(store, a, b, start, end, options);
  const found: ChunkRange[] = [];
  while (found.length < most) {
    const next = await ranges.next();
    if (next.done === true) return { found, reached: next.value };
    found.push(next.value);
  }
  await ranges.return(0);
  return { found, reached: undefined };
}

describe('what reads, diffs and walks cost', () => {
  test('a diff that begins late in a disk of 64 TiB costs the height, whatever lies before', async () => {
    const store = new MemoryChunks({ warm: false });
    const size = 64 * TiB;
    const late = size / 4096 - 300;
    const before = Array.from({ length: 3000 }, (_, i) => i * 1_000_003);
    const root = await updateTree(store, store, emptyRoot(size, 4096), changesAt(before, fakeIds(3000, 21)));
    const other = await updateTree(
      store,
      store,
      root,
      changesAt([5, ...before.slice(7), late], fakeIds(2995, 22)),
    );
    store.resetCounts();
    expect(await walk(store, root, other, late - 100, late + 100)).toEqual({
      found: [{ start: late, count: 1 }],
      reached: late + 100,
    });
    expect(store.counts.nodeReads).toBeLessThanOrEqual(2 * 5);
    store.resetCounts();
    expect((await walk(store, root, other, 5, size / 4096, 1)).found).toEqual([{ start: 5, count: 1 }]);
    expect(store.counts.nodeReads).toBeLessThanOrEqual(2 * 5 + 2 * 62);
    store.resetCounts();
    expect(await walk(store, root, other, 6, 7)).toEqual({ found: [], reached: 7 });
    expect(store.counts.nodeReads).toBeLessThanOrEqual(2 * 5);
  });

  test('a diff with a budget says how far it got, and gets somewhere with none', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 100 * FANOUT, 23);
    const hole = emptyRoot(root.size, 4096);
    const budget = { pairs: 12 };
    // One node at the top, then leaves.
    expect(await walk(store, root, hole, 64, 100 * FANOUT, Infinity, { budget })).toEqual({
      found: [{ start: 64, count: 11 * FANOUT - 64 }],
      reached: 11 * FANOUT,
    });
    expect(budget.pairs).toBe(0);
    expect(store.counts.nodeReads).toBeLessThanOrEqual(12 + 32);
    expect(await walk(store, root, hole, 700, 100 * FANOUT, Infinity, { budget })).toEqual({
      found: [{ start: 700, count: 6 * FANOUT - 700 }],
      reached: 6 * FANOUT,
    });
  });

  test('what lies under a node of b that is gone differs, and nothing below is looked for', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 300 * FANOUT, 24);
    const old = await updateTree(
      store,
      store,
      root,
      changesAt([FANOUT * 130, FANOUT * 299 + 9], fakeIds(2, 25)),
    );
    const leaf = (await findLeaf(store, old, FANOUT * 130))!;
    const key = [...store.chunks].find(([, bytes]) => Buffer.compare(bytes, leaf.bytes) === 0)![0];
    store.chunks.delete(key);
    let told = 0;
    const options = { onGone: () => (told += 1) };
    expect((await walk(store, root, old, 0, 300 * FANOUT, Infinity, options)).found).toEqual([
      { start: FANOUT * 130, count: FANOUT },
      { start: FANOUT * 299 + 9, count: 1 },
    ]);
    expect(
      (await walk(store, root, old, FANOUT * 130 + 3, FANOUT * 130 + 5, Infinity, options)).found,
    ).toEqual([{ start: FANOUT * 130 + 3, count: 2 }]);
    await expect(walk(store, root, old, 0, 300 * FANOUT)).rejects.toMatchObject({ code: 'chunk-missing' });
    await expect(walk(store, old, root, 0, 300 * FANOUT, Infinity, options)).rejects.toMatchObject({
      code: 'chunk-missing',
    });
    store.chunks.delete(Buffer.from(old.id).toString('hex'));
    store.resetCounts();
    const gone = await walk(
      store,
      emptyRoot(64 * TiB, 4096),
      { ...old },
      0,
      64 * (TiB / 4096),
      Infinity,
      options,
    );
    expect(gone.found).toEqual([{ start: 0, count: FANOUT ** 3 }]);
    expect(told).toBe(3);
    expect(store.counts.nodeReads).toBeLessThanOrEqual(1);
  });

  test('a diff reads what differs only', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 50_000, 10);
    const other = await updateTree(store, store, root, changesAt([777, 40_000], fakeIds(2, 11)));
    store.resetCounts();
    const found = [];
    for await (const range of diffTrees(store, root, other)) found.push(range);
    expect(found).toEqual([
      { start: 777, count: 1 },
      { start: 40_000, count: 1 },
    ]);
    expect(store.counts.nodeReads).toBe(2 * (1 + 2 + 2));
  });

  test('allocation stops at the extents asked for and passes hole subtrees by', async () => {
    const store = new MemoryChunks({ warm: false });
    const every = Array.from({ length: 5000 }, (_, i) => i * 128);
    const root = await updateTree(store, store, emptyRoot(TiB, 4096), changesAt(every, fakeIds(5000, 12)));
    store.resetCounts();
    const few = await allocationOf(store, root, 0, TiB / 4096, 6);
    expect(few.counts).toEqual([1, 127, 1, 127, 1, 127]);
    expect(store.counts.nodeReads).toBeLessThan(100);
    expect(await allocationOf(store, root, 5000 * 128, TiB / 4096 - 5000 * 128, 6)).toEqual({
      counts: [TiB / 4096 - 5000 * 128],
      holes: [true],
    });
  });

  test('a cold read of many leaves reads them side by side, a warm one makes no promise', async () => {
    const kinds = Uint8Array.from({ length: 4096 }, (_, i) => i % 253);
    const store = new MemoryChunks({ warm: false });
    const id = await store.writeChunks(kinds, 1);
    const ids = new Uint8Array(40 * FANOUT * ID_BYTES);
    for (let i = 0; i < 40 * FANOUT; i++) ids.set(id, i * ID_BYTES);
    ids.fill(0, 130 * ID_BYTES, 200 * ID_BYTES); // leaves of equal content but one
    const builder = new TreeBuilder(store);
    await builder.append(ids, 40 * FANOUT);
    const root = await builder.finish(20 * MiB);
    store.resetCounts();
    const target = new Uint8Array(20 * MiB);
    await readTree(store, root, 0, 20 * MiB, target, 0);
    expect(store.counts.nodeReadsAtOnceMax).toBe(16);
    expect(store.counts.nodeReads).toBe(41);

    const warm = new MemoryChunks();
    for (const [key, bytes] of store.chunks) warm.chunks.set(key, bytes);
    const again = new Uint8Array(20 * MiB);
    const holes: number[] = [];
    expect(readTree(warm, root, 0, 20 * MiB, again, 0, holes)).toBeUndefined();
    expect(readTree(warm, root, 4095, 4098, new Uint8Array(5000), 1)).toBeUndefined();
    expect(holes).toEqual([130 * 4096, 70 * 4096]);
    expect(Buffer.compare(again, target)).toBe(0);
  });

  test('a read with a missing chunk rejects once nothing writes to the target any more', async () => {
    const bytes = Uint8Array.from({ length: 300 * 4096 }, (_, i) => (i >> 12) % 256 || 1);
    for (const warm of [true, false]) {
      const store = new MemoryChunks({ warm });
      const ids = await store.writeChunks(bytes, 300);
      const builder = new TreeBuilder(store);
      await builder.append(ids, 300);
      const root = await builder.finish(300 * 4096);
      store.chunks.delete(Buffer.from(ids.subarray(140 * ID_BYTES, 141 * ID_BYTES)).toString('hex'));
      const target = new Uint8Array(300 * 4096);
      let failure: unknown;
      try {
        await readTree(store, root, 100, 299 * 4096, target, 0);
      } catch (error) {
        failure = error;
      }
      expect(isPandoError(failure, 'chunk-missing')).toBe(true);
      const before = target.slice();
      for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
      expect(Buffer.compare(before, target)).toBe(0);
    }
  });

  test('a range outside the disk is refused', () => {
    const store = new MemoryChunks();
    const root = emptyRoot(4097, 4096);
    const target = new Uint8Array(8192);
    expect(() => readTree(store, root, 1, 4097, target, 0)).toThrow(/inside/);
    expect(() => readTree(store, root, 0, 4097, target, 4096)).toThrow(/inside/);
    expect(() => readTree(store, root, -1, 1, target, 0)).toThrow(/inside/);
    expect(readTree(store, root, 4097, 0, target, 0)).toBeUndefined();
  });

  test('a walk visits each node with its level and place, and descends where the visitor says so', async () => {
    const store = new MemoryChunks({ warm: false });
    const root = await built(store, 20_000, 13);
    const seen: string[] = [];
    await walkTree(store, root, {
      visit: (_ids, _offset, level, node, firstChunk) => {
        expect(node.bytes.length).toBe(NODE_BYTES);
        seen.push(`${level}:${firstChunk}`);
        return true;
      },
    });
    expect(seen.length).toBe(157 + 2 + 1);
    expect(new Set(seen).size).toBe(160);
    expect(seen).toContain('1:19968');
    let visited = 0;
    await walkTree(store, root, {
      enter: (_ids, _offset, level, firstChunk) => level > 1 || firstChunk < 128 * 128,
      visit: (_ids, _offset, level) => {
        visited++;
        return level === 3 || visited < 3;
      },
    });
    expect(visited).toBeLessThan(160);
    store.chunks.clear();
    await expect(walkTree(store, root, { visit: () => true })).rejects.toMatchObject({
      code: 'chunk-missing',
    });
  });
});

describe('the builder', () => {
  test('at every instant the pins reach every id that was appended and every node that was written', async () => {
    const random = seededRandom(21);
    const store = new MemoryChunks();
    const written = new Set<string>();
    const handedOut = new Set<string>();
    const hex = (ids: Uint8Array, at: number): string =>
      Buffer.from(ids.subarray(at, at + ID_BYTES)).toString('hex');
    const check = (): void => {
      const reached = new Set<string>();
      const reach = (ids: Uint8Array, at: number, level: number): void => {
        const key = hex(ids, at);
        if (isHole(ids, at) || reached.has(`${key}${level}`)) return;
        reached.add(`${key}${level}`).add(key);
        const node = store.chunks.get(key);
        if (level > 0) for (let c = 0; c < FANOUT; c++) reach(node!, c * ID_BYTES, level - 1);
      };
      builder.forEachPin(reach);
      for (const key of handedOut) if (!reached.has(key)) throw new Error(`${key} is not pinned`);
    };
    const writer: ChunkWriter = {
      chunkBytes: 4096,
      writeChunks: () => Promise.reject(new Error('not here')),
      writeNodes: async (nodes, count, level) => {
        expect(count).toBeLessThanOrEqual(64);
        check();
        const copy = nodes.slice();
        nodes.fill(0xff); // the writer owns it: nothing may depend on it any more
        const ids = await store.writeNodes(copy, count, level);
        check();
        for (let i = 0; i < count; i++) if (!isHole(ids, i * ID_BYTES)) written.add(hex(ids, i * ID_BYTES));
        return ids;
      },
    };
    const builder = new TreeBuilder(writer);
    const all = fakeIds(30_000, 22);
    let chunks = 0;
    const expected = new MemoryChunks();
    const indexes: number[] = [];
    let used = 0;
    while (used < 30_000) {
      if (random.below(3) === 0) {
        const count = [1, 127, 128, 5000, 128 * 128 * 3, 128 * 128 * 200 + 7][random.below(6)]!;
        await builder.appendHole(count);
        chunks += count;
      } else {
        const count = Math.min(30_000 - used, [1, 129, 1000, 9000][random.below(4)]!);
        const part = all.slice(used * ID_BYTES, (used + count) * ID_BYTES);
        const done = builder.append(part, count);
        for (let i = 0; i < count; i++) {
          handedOut.add(hex(part, i * ID_BYTES));
          indexes.push(chunks + i);
        }
        check();
        await done;
        used += count;
        chunks += count;
      }
      check();
      for (const key of written) handedOut.add(key);
    }
    expect(builder.chunks).toBe(chunks);
    const root = await builder.finish(chunks * 4096 + 1 - 4096);
    check();
    const updated = await updateTree(expected, expected, emptyRoot(root.size, 4096), changesAt(indexes, all));
    expect(rootsEqual(root, updated)).toBe(true);
  });

  test('refuses more chunks than the size holds, and to go on after it has ended', async () => {
    const store = new MemoryChunks();
    const builder = new TreeBuilder(store);
    await builder.appendHole(3);
    await expect(builder.finish(8192)).rejects.toMatchObject({ code: 'range-invalid' });
    await expect(builder.append(fakeIds(1, 1), 1)).rejects.toMatchObject({ code: 'internal' });
    const empty = new TreeBuilder(store);
    expect(rootsEqual(await empty.finish(64 * KiB), emptyRoot(64 * KiB, 4096))).toBe(true);
  });

  test.each([0, 1, 127, 128, 129, 8191, 8192, 8193, 16384, 16385])(
    '%i chunks, and as many holes',
    async (count) => {
      const store = new MemoryChunks();
      const root = await built(store, count, 31, 20_000 * 4096);
      const indexes = Array.from({ length: count }, (_, i) => i);
      const expected = await updateTree(
        store,
        store,
        emptyRoot(root.size, 4096),
        changesAt(indexes, fakeIds(count, 31)),
      );
      expect(rootsEqual(root, expected)).toBe(true);
      const builder = new TreeBuilder(store);
      await builder.appendHole(count);
      expect(isHole((await builder.finish(Math.max(1, count * 4096))).id)).toBe(true);
    },
  );
});
