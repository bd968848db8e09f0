/**
 * Chunks in a Map, for tests of everything that reads or writes trees: a ChunkReader and ChunkWriter that
 * counts what it is asked for. Not for users: nothing is durable, compressed or ever removed.
 */
import { blake3 } from '@noble/hashes/blake3.js';
import { ID_BYTES, PandoError, idToHex, isHole } from '@pando/common';
import { isZero } from './shape.ts';
import { NODE_BYTES, type ChunkReader, type ChunkWriter, type TreeNode } from './types.ts';

export interface MemoryChunksOptions {
  readonly chunkBytes?: number;
  /**
   * Whether reads are answered at once, or only with a promise as if everything lay on a disk. A function is
   * asked for each read. Default true.
   */
  readonly warm?: boolean | (() => boolean);
}

export interface MemoryChunksCounts {
  /** Nodes asked for that were not served by peekNode. */
  nodeReads: number;
  nodePeeks: number;
  chunkReads: number;
  /** Calls and nodes; zeros and nodes that are there already count for the calls only. */
  nodeWriteCalls: number;
  nodesWritten: number;
  chunksWritten: number;
  /** Most node reads at one time. */
  nodeReadsAtOnceMax: number;
}

/** A store of chunks in memory. Ids are BLAKE3-256, as in a real one. */
export class MemoryChunks implements ChunkReader, ChunkWriter {
  readonly chunkBytes: number;
  /** Every chunk by its id in hex. Tests may remove some to see what happens. */
  readonly chunks = new Map<string, Uint8Array>();
  readonly counts: MemoryChunksCounts = {
    nodeReads: 0,
    nodePeeks: 0,
    chunkReads: 0,
    nodeWriteCalls: 0,
    nodesWritten: 0,
    chunksWritten: 0,
    nodeReadsAtOnceMax: 0,
  };
  readonly #warm: () => boolean;
  #nodeReadsNow = 0;

  constructor(options: MemoryChunksOptions = {}) {
    this.chunkBytes = options.chunkBytes ?? 4096;
    const warm = options.warm ?? true;
    this.#warm = typeof warm === 'function' ? warm : () => warm;
  }

  /** Sets all counts to zero. */
  resetCounts(): void {
    for (const key of Object.keys(this.counts) as (keyof MemoryChunksCounts)[]) this.counts[key] = 0;
  }

  peekNode(ids: Uint8Array, offset: number): TreeNode | undefined {
    this.counts.nodePeeks++;
    return this.#warm() ? { bytes: this.#get(ids, offset) } : undefined;
  }

  async readNode(ids: Uint8Array, offset: number): Promise<TreeNode> {
    this.counts.nodeReads++;
    const bytes = this.#get(ids, offset);
    this.counts.nodeReadsAtOnceMax = Math.max(this.counts.nodeReadsAtOnceMax, ++this.#nodeReadsNow);
    await later();
    this.#nodeReadsNow--;
    return { bytes };
  }

  readChunks(
    leaf: TreeNode,
    first: number,
    count: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> | undefined {
    const copy = (): void => {
      for (let i = 0; i < count; i++) {
        const at = targetOffset + i * this.chunkBytes;
        const id = (first + i) * ID_BYTES;
        if (isHole(leaf.bytes, id)) target.fill(0, at, at + this.chunkBytes);
        else target.set(this.#get(leaf.bytes, id), at);
      }
    };
    this.counts.chunkReads += count;
    if (!this.#warm()) return later().then(copy);
    copy();
    return undefined;
  }

  async writeNodes(nodes: Uint8Array, count: number, _level: number): Promise<Uint8Array> {
    this.counts.nodeWriteCalls++;
    const before = this.chunks.size;
    const ids = this.#put(nodes, count, NODE_BYTES);
    this.counts.nodesWritten += this.chunks.size - before;
    await later();
    return ids;
  }

  async writeChunks(chunks: Uint8Array, count: number): Promise<Uint8Array> {
    const before = this.chunks.size;
    const ids = this.#put(chunks, count, this.chunkBytes);
    this.counts.chunksWritten += this.chunks.size - before;
    await later();
    return ids;
  }

  #get(ids: Uint8Array, offset: number): Uint8Array {
    const bytes = this.chunks.get(idToHex(ids, offset));
    if (bytes === undefined) throw new PandoError('chunk-missing', `no chunk ${idToHex(ids, offset)}`);
    return bytes;
  }

  #put(bytes: Uint8Array, count: number, each: number): Uint8Array {
    const ids = new Uint8Array(count * ID_BYTES);
    for (let i = 0; i < count; i++) {
      if (isZero(bytes, i * each, each)) continue;
      const chunk = new Uint8Array(bytes.subarray(i * each, (i + 1) * each));
      const id = blake3(chunk);
      ids.set(id, i * ID_BYTES);
      const key = idToHex(id);
      if (!this.chunks.has(key)) this.chunks.set(key, chunk);
    }
    return ids;
  }
}

/** A later turn of the event loop, so that reads of several callers really mix. */
function later(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A seeded source of numbers for model tests (mulberry32): next() is in 0 … 1, below(n) an integer under n. */
export interface SeededRandom {
  next(): number;
  below(limit: number): number;
}

export function seededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return { next, below: (limit) => Math.floor(next() * limit) };
}
