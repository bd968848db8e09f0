/** A chunk store in memory for tests of the fleet alone: sessions that count, pin and can fail; no segments. */
import type {
  ChunkReader,
  ChunkStore,
  PinSource,
  SessionCounts,
  StoreStats,
  WriteSession,
} from '@pando/chunk-store';
import { hashChunk, StoreCounters } from '@pando/chunk-store';
import { ID_BYTES, idToHex, isHole, PandoError } from '@pando/common';
import type { TreeNode } from '@pando/tree';
import { MemoryChunks } from '@pando/tree/testing';

export class FakeSession implements WriteSession {
  readonly chunkBytes: number;
  readonly #chunks: MemoryChunks;
  readonly #store: FakeStore;
  pins: PinSource | undefined;
  released = 0;
  flushed = 0;
  /** Calls of writeChunks under way, and the most at one time. */
  writing = 0;
  writingMax = 0;
  counts: SessionCounts = {
    chunks: 0,
    zeroChunks: 0,
    knownChunks: 0,
    newChunks: 0,
    newBytes: 0,
    storedBytes: 0,
    data: { chunks: 0, zeroChunks: 0, knownChunks: 0, newBytes: 0, storedBytes: 0, rawBytes: 0 },
  };

  constructor(store: FakeStore) {
    this.#store = store;
    this.#chunks = store.chunks;
    this.chunkBytes = store.chunkBytes;
  }

  setPinSource(source: PinSource): void {
    this.pins = source;
  }

  async writeNodes(nodes: Uint8Array, count: number, level: number): Promise<Uint8Array> {
    return this.#count(count, () => this.#chunks.writeNodes(nodes, count, level));
  }

  async writeChunks(chunks: Uint8Array, count: number): Promise<Uint8Array> {
    this.writing++;
    this.writingMax = Math.max(this.writingMax, this.writing);
    try {
      await this.#store.beforeWrite?.(this);
      return await this.#count(count, () => this.#chunks.writeChunks(chunks, count));
    } finally {
      this.writing--;
    }
  }

  async claimChunks(ids: Uint8Array, count: number): Promise<void> {
    const known = await this.#store.knownChunks(ids, count);
    if (known.includes(0)) throw new PandoError('chunk-unknown', 'not there');
    const zeros = Array.from({ length: count }, (_, i) => isHole(ids, i * ID_BYTES)).filter(Boolean).length;
    const { chunks, zeroChunks, knownChunks } = this.counts;
    this.counts = {
      ...this.counts,
      chunks: chunks + count,
      zeroChunks: zeroChunks + zeros,
      knownChunks: knownChunks + count - zeros,
    };
  }

  /** Of no use to what is tested with it. */
  writeAnchor(): Promise<Uint8Array> {
    return Promise.reject(new Error('there are no anchors here'));
  }

  async flush(): Promise<void> {
    await this.#store.beforeFlush?.();
    this.flushed++;
  }

  release(): void {
    this.released++;
  }

  async #count(count: number, write: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const before = this.#chunks.chunks.size;
    const ids = await write();
    let zeros = 0;
    for (let i = 0; i < count; i++) if (isHole(ids, i * ID_BYTES)) zeros++;
    const fresh = this.#chunks.chunks.size - before;
    const { chunks, zeroChunks, knownChunks, newChunks, newBytes } = this.counts;
    this.counts = {
      ...this.counts,
      chunks: chunks + count,
      zeroChunks: zeroChunks + zeros,
      knownChunks: knownChunks + count - zeros - fresh,
      newChunks: newChunks + fresh,
      newBytes: newBytes + fresh * this.chunkBytes,
      storedBytes: newBytes + fresh * this.chunkBytes,
    };
    return ids;
  }
}

export class FakeStore {
  readonly chunkBytes: number;
  readonly hash = hashChunk;
  isKeyed = false;
  readonly chunks: MemoryChunks;
  readonly sessions: FakeSession[] = [];
  /** Tests make these fail or wait. */
  beforeWrite: ((session: FakeSession) => Promise<void>) | undefined;
  beforeFlush: (() => Promise<void>) | undefined;
  segmentBytes = 1000;

  constructor(chunkBytes = 4096) {
    this.chunkBytes = chunkBytes;
    this.chunks = new MemoryChunks({ chunkBytes });
  }

  /** As the store that the fleet asks for: it uses only what is here. */
  get asStore(): ChunkStore {
    return this as unknown as ChunkStore;
  }

  peekNode(ids: Uint8Array, offset: number): TreeNode | undefined {
    return this.chunks.peekNode(ids, offset);
  }

  readNode(ids: Uint8Array, offset: number): Promise<TreeNode> {
    return this.chunks.readNode(ids, offset);
  }

  readChunks(...args: Parameters<ChunkReader['readChunks']>): Promise<void> | undefined {
    return this.chunks.readChunks(...args);
  }

  openSession(): WriteSession {
    const session = new FakeSession(this);
    this.sessions.push(session);
    return session;
  }

  knownChunks(ids: Uint8Array, count: number): Promise<Uint8Array> {
    const known = Uint8Array.from({ length: count }, (_, i) =>
      isHole(ids, i * ID_BYTES) || this.chunks.chunks.has(idToHex(ids, i * ID_BYTES)) ? 1 : 0,
    );
    return Promise.resolve(known);
  }

  stats(): Promise<StoreStats> {
    return Promise.resolve({
      segmentBytes: this.segmentBytes,
      segments: 1,
      indexBytes: 77,
      runCacheBytes: 0,
      nodeCacheBytes: 0,
      staleIndexEntries: 0,
      damagedRuns: 0,
      counters: new StoreCounters(),
    });
  }
}
