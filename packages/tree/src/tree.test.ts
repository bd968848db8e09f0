import { GiB, ID_BYTES, KiB, MiB, TiB, isHole } from '@pando/common';
import { describe, expect, test } from 'vitest';
import {
  FANOUT,
  TreeBuilder,
  allocationOf,
  chunkCount,
  differences,
  diffTrees,
  emptyRoot,
  heightFor,
  readTree,
  resizeTree,
  rootsEqual,
  updateTree,
  type Changes,
  type ChunkRange,
  type Root,
} from './index.ts';
import { MemoryChunks, seededRandom, type SeededRandom } from './testing.ts';

/** Contents that chunks take; 0 is a hole. Few, so that equal chunks and nodes are common. */
const KINDS = 5;

/** A disk as a plain map of chunk number to kind, and what it takes to compare the tree with it. */
class Model {
  readonly store: MemoryChunks;
  readonly random: SeededRandom;
  readonly chunkBytes: number;
  readonly kinds: Uint8Array[] = [];
  ids: Uint8Array = new Uint8Array(0);
  chunks = new Map<number, number>();
  root: Root;

  constructor(store: MemoryChunks, random: SeededRandom, size: number) {
    this.store = store;
    this.random = random;
    this.chunkBytes = store.chunkBytes;
    this.root = emptyRoot(size, this.chunkBytes);
    for (let kind = 0; kind < KINDS; kind++) {
      this.kinds.push(
        Uint8Array.from({ length: this.chunkBytes }, (_, i) => (kind === 0 ? 0 : (i % 251) ^ (kind * 37))),
      );
    }
  }

  async prepare(): Promise<this> {
    const all = new Uint8Array(KINDS * this.chunkBytes);
    this.kinds.forEach((bytes, kind) => all.set(bytes, kind * this.chunkBytes));
    this.ids = await this.store.writeChunks(all, KINDS);
    return this;
  }

  get count(): number {
    return chunkCount(this.root.size, this.chunkBytes);
  }

  idOf(kind: number): Uint8Array {
    return this.ids.subarray(kind * ID_BYTES, (kind + 1) * ID_BYTES);
  }

  /** A chunk number, often at an edge of a node or near one that was used before. */
  place(): number {
    const r = this.random.below(6);
    const used = [...this.chunks.keys()];
    let at = this.random.below(this.count);
    if (r === 0 && used.length > 0) at = used[this.random.below(used.length)]! + this.random.below(3) - 1;
    if (r === 1) at = FANOUT ** this.random.below(5) + this.random.below(3) - 1;
    if (r === 2) at = this.count - 1 - this.random.below(3);
    return Math.min(this.count - 1, Math.max(0, at));
  }

  /** Full chunks only at the end of the disk when they fit; a partial last chunk is kept a hole. */
  changes(): Changes {
    const wanted = new Map<number, number>();
    const full = this.root.size % this.chunkBytes === 0 ? this.count : this.count - 1;
    for (let i = this.random.below(20); i > 0; i--) {
      const at = this.place();
      const run = this.random.below(4) === 0 ? this.random.below(300) : 1;
      for (let j = 0; j < run; j++) if (at + j < full) wanted.set(at + j, this.random.below(KINDS));
    }
    const holes: number[] = [];
    for (let i = this.random.below(4); i > 0; i--) {
      const start = this.place();
      const end = Math.min(
        this.count,
        start + 1 + (this.random.below(2) === 0 ? this.random.below(this.count) : this.random.below(300)),
      );
      if (start > (holes.at(-1) ?? -1)) holes.push(start, end);
    }
    const sorted = [...wanted].sort((a, b) => a[0] - b[0]);
    const indexes = Float64Array.from(sorted, ([at]) => at);
    const ids = new Uint8Array(sorted.length * ID_BYTES);
    sorted.forEach(([, kind], i) => ids.set(this.idOf(kind), i * ID_BYTES));
    for (let i = 0; i < holes.length; i += 2) this.cut(holes[i]!, holes[i + 1]!);
    for (const [at, kind] of sorted) this.set(at, kind);
    return { indexes, count: sorted.length, ids, holes: Float64Array.from(holes) };
  }

  set(at: number, kind: number): void {
    if (kind === 0) this.chunks.delete(at);
    else this.chunks.set(at, kind);
  }

  cut(start: number, end: number): void {
    for (const at of this.chunks.keys()) if (at >= start && at < end) this.chunks.delete(at);
  }

  /** The root that a builder makes of the same content. */
  async rebuilt(): Promise<Root> {
    const builder = new TreeBuilder(this.store);
    let next = 0;
    for (const [at, kind] of [...this.chunks].sort((a, b) => a[0] - b[0])) {
      if (at > next) await builder.appendHole(at - next);
      await builder.append(this.idOf(kind), 1);
      next = at + 1;
    }
    return builder.finish(this.root.size);
  }

  async checkRead(offset: number, length: number): Promise<void> {
    const pad = 3;
    const target = new Uint8Array(length + 2 * pad).fill(0xee);
    const holes: number[] = [-7, 7];
    const withHoles = this.random.below(2) === 0;
    await readTree(this.store, this.root, offset, length, target, pad, withHoles ? holes : undefined);
    const expected = new Uint8Array(length + 2 * pad).fill(0xee);
    const expectedHoles: number[] = [-7, 7];
    for (let done = 0; done < length;) {
      const chunk = Math.floor((offset + done) / this.chunkBytes);
      const skip = (offset + done) % this.chunkBytes;
      const part = Math.min(length - done, this.chunkBytes - skip);
      const kind = this.chunks.get(chunk) ?? 0;
      expected.set(this.kinds[kind]!.subarray(skip, skip + part), pad + done);
      if (kind === 0) {
        const last = expectedHoles.length - 2;
        if (last > 0 && expectedHoles[last]! + expectedHoles[last + 1]! === offset + done)
          expectedHoles[last + 1]! += part;
        else expectedHoles.push(offset + done, part);
      }
      done += part;
    }
    expect(Buffer.compare(target, expected)).toBe(0);
    if (withHoles) expect(holes).toEqual(expectedHoles);
  }

  async checkReads(): Promise<void> {
    const reads: Promise<void>[] = [];
    for (let i = 0; i < 6; i++) {
      const offset = Math.min(
        this.root.size,
        this.place() * this.chunkBytes + this.random.below(this.chunkBytes),
      );
      const most = [1, 700, this.chunkBytes, 5 * this.chunkBytes + 1, 400 * this.chunkBytes][
        this.random.below(5)
      ]!;
      reads.push(this.checkRead(offset, Math.min(this.root.size - offset, Math.min(most, 3 * MiB))));
    }
    await Promise.all(reads);
  }

  async checkDiff(before: ReadonlyMap<number, number>, old: Root): Promise<void> {
    const differing = new Set<number>();
    for (const at of [...before.keys(), ...this.chunks.keys()]) {
      if (before.get(at) !== this.chunks.get(at)) differing.add(at);
    }
    const found: ChunkRange[] = [];
    for await (const range of diffTrees(this.store, old, this.root)) found.push(range);
    expect(found).toEqual(merged([...differing]));
    const back: ChunkRange[] = [];
    for await (const range of diffTrees(this.store, this.root, old)) back.push(range);
    expect(back).toEqual(found);
    await this.checkPartOfDiff(found, old);
  }

  /** A walk over a part of the disk, with a budget, taken up again where it ended. */
  async checkPartOfDiff(all: readonly ChunkRange[], old: Root): Promise<void> {
    const start = this.count === 0 ? 0 : this.place();
    const end = start + this.random.below(Math.max(1, this.count - start) + 10);
    const found: number[] = [];
    for (let at = start; at < end;) {
      const ranges = differences(this.store, this.root, old, at, end, {
        budget: { pairs: this.random.below(100) },
      });
      let next = await ranges.next();
      for (; next.done !== true; next = await ranges.next()) found.push(next.value.start, next.value.count);
      expect(next.value).toBeGreaterThan(at);
      at = next.value;
    }
    const expected: number[] = [];
    for (const range of all) {
      const from = Math.max(start, range.start);
      const to = Math.min(end, range.start + range.count);
      if (from < to) expected.push(from, to - from);
    }
    expect(joined(found)).toEqual(expected);
  }

  async checkAllocation(): Promise<void> {
    if (this.count === 0) return;
    const start = this.place();
    const count = 1 + this.random.below(this.count - start);
    const most = 1 + this.random.below(12);
    const counts: number[] = [];
    const holes: boolean[] = [];
    let at = start;
    const push = (length: number, hole: boolean): void => {
      if (length > 0 && counts.length < most) {
        counts.push(length);
        holes.push(hole);
      }
    };
    const inside = [...this.chunks.keys()].filter((chunk) => chunk >= start && chunk < start + count);
    for (const range of merged(inside)) {
      push(range.start - at, true);
      push(range.count, false);
      at = range.start + range.count;
    }
    push(start + count - at, true);
    expect(await allocationOf(this.store, this.root, start, count, most)).toEqual({ counts, holes });
  }
}

/** Pairs of start and count, those that touch made one. */
function joined(pairs: readonly number[]): number[] {
  const out: number[] = [];
  for (let i = 0; i < pairs.length; i += 2) {
    if (out.length > 0 && out.at(-2)! + out.at(-1)! === pairs[i]) out[out.length - 1]! += pairs[i + 1]!;
    else out.push(pairs[i]!, pairs[i + 1]!);
  }
  return out;
}

function merged(chunks: number[]): ChunkRange[] {
  const ranges: { start: number; count: number }[] = [];
  for (const chunk of chunks.sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && last.start + last.count === chunk) last.count++;
    else ranges.push({ start: chunk, count: 1 });
  }
  return ranges;
}

describe('the shape of a tree', () => {
  test('height is the least that covers the disk, and 1 for none', () => {
    for (const chunkBytes of [4 * KiB, 64 * KiB]) {
      expect(heightFor(0, chunkBytes)).toBe(1);
      expect(heightFor(1, chunkBytes)).toBe(1);
      for (let height = 1; height <= 4; height++) {
        const most = chunkBytes * FANOUT ** height;
        expect(heightFor(most - 1, chunkBytes)).toBe(height);
        expect(heightFor(most, chunkBytes)).toBe(height);
        expect(heightFor(most + 1, chunkBytes)).toBe(height + 1);
      }
    }
    expect(heightFor(8 * GiB, 4 * KiB)).toBe(3);
    expect(heightFor(64 * TiB, 4 * KiB)).toBe(5);
  });

  test('the last chunk may be partial', () => {
    expect([0, 1, 4095, 4096, 4097].map((size) => chunkCount(size, 4096))).toEqual([0, 1, 1, 1, 2]);
  });
});

const SIZES = [
  512,
  4095,
  4096,
  4097,
  300 * KiB + 512,
  512 * KiB,
  512 * KiB + 1,
  70 * MiB,
  9 * GiB + 512,
  3 * TiB,
  64 * TiB,
];

describe.each([4 * KiB, 64 * KiB])('model: chunks of %i bytes', (chunkBytes) => {
  test.each(SIZES.map((size, i) => [size, 1000 + i]))('a disk of %i bytes, seed %i', async (size, seed) => {
    const random = seededRandom(seed);
    const cold = seededRandom(seed + 1);
    const store = new MemoryChunks({ chunkBytes, warm: () => cold.below(3) > 0 });
    const model = await new Model(store, random, size).prepare();
    for (let step = 0; step < 12; step++) {
      const before = new Map(model.chunks);
      const old = model.root;
      if (random.below(4) === 0) {
        const newSize = Math.max(
          1,
          [model.place() * chunkBytes, size, size * 2 - 511, size + 1][random.below(4)]!,
        );
        const part = newSize % chunkBytes;
        model.root = await resizeTree(store, store, old, newSize);
        model.cut(model.count, Infinity);
        // The model knows whole chunks only: where the cut went through one, that becomes a hole here and there.
        if (part !== 0) {
          const last = model.count - 1;
          model.chunks.delete(last);
          model.root = await updateTree(store, store, model.root, holeRange(last, last + 1));
        }
        expect(model.root.size).toBe(newSize);
      } else {
        model.root = await updateTree(store, store, old, model.changes());
      }
      expect(model.root.height).toBe(heightFor(model.root.size, chunkBytes));
      expect(rootsEqual(model.root, await model.rebuilt())).toBe(true);
      await model.checkReads();
      await model.checkDiff(before, old);
      await model.checkAllocation();
    }
  });
});

function holeRange(start: number, end: number): Changes {
  return {
    indexes: new Float64Array(0),
    count: 0,
    ids: new Uint8Array(0),
    holes: Float64Array.of(start, end),
  };
}

describe('growing and shrinking', () => {
  test.each([4 * KiB, 64 * KiB])(
    'what was cut off reads as zeros after growing again, chunks of %i',
    async (chunkBytes) => {
      const store = new MemoryChunks({ chunkBytes });
      const size = 200 * chunkBytes + 1000;
      const bytes = Uint8Array.from({ length: 201 * chunkBytes }, (_, i) => (i < size ? (i * 7) % 255 : 0));
      const builder = new TreeBuilder(store);
      await builder.append(await store.writeChunks(bytes, 201), 201);
      const full = await builder.finish(size);
      for (const cut of [
        0,
        1,
        chunkBytes - 1,
        chunkBytes,
        chunkBytes + 1,
        127 * chunkBytes + 5,
        128 * chunkBytes,
        200 * chunkBytes + 1,
        size - 1,
      ]) {
        const small = await resizeTree(store, store, full, cut);
        expect(small.height).toBe(heightFor(cut, chunkBytes));
        const grown = await resizeTree(store, store, small, 70 * chunkBytes * FANOUT);
        const target = new Uint8Array(size);
        await readTree(store, grown, 0, size, target, 0);
        const expected = bytes.slice(0, size).fill(0, cut);
        expect(Buffer.compare(target, expected)).toBe(0);
        expect(rootsEqual(await resizeTree(store, store, grown, cut), small)).toBe(true);
        if (cut === 0) expect(isHole(grown.id)).toBe(true);
      }
    },
  );
});
