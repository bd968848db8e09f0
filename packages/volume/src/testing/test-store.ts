/**
 * A chunk store for this room's tests: in memory, with what a crash takes away and what a collection may
 * take away told apart exactly. Chunks are durable after their session's flush; a collection removes
 * everything that neither a disk record in the catalog reaches nor an open session has handed out.
 */
import type { Catalog } from '@pando/catalog';
import { hashChunk, type ChunkStore, type WriteSession } from '@pando/chunk-store';
import { ID_BYTES, PandoError, idToHex, isHole } from '@pando/common';
import { MemoryChunks } from '@pando/tree/testing';
import { DISK_TABLE } from '../disk.ts';
import type { DiskRecord } from '../types.ts';

class Session {
  readonly ids = new Set<string>();
  readonly chunkBytes: number;
  readonly #store: TestStore;
  #released = false;

  constructor(store: TestStore) {
    this.#store = store;
    this.chunkBytes = store.chunkBytes;
  }

  async writeNodes(nodes: Uint8Array, count: number, level: number): Promise<Uint8Array> {
    return this.#note(
      await this.#guard(() => this.#store.memory.writeNodes(nodes, count, level)),
      nodes,
      count,
    );
  }

  async writeChunks(chunks: Uint8Array, count: number): Promise<Uint8Array> {
    return this.#note(await this.#guard(() => this.#store.memory.writeChunks(chunks, count)), chunks, count);
  }

  async flush(): Promise<void> {
    await this.#guard(() => Promise.resolve());
    for (const id of this.ids) this.#store.durable.add(id);
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#store.sessions.delete(this);
  }

  async #guard<T>(run: () => Promise<T>): Promise<T> {
    const fault = this.#store.fault;
    if (fault !== undefined) throw new PandoError(fault, 'as the test wanted');
    await this.#store.hold;
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#store.dead) throw new PandoError('store-failed', 'the machine has lost power');
    return run();
  }

  /** The instant of the write: what is noted here is there, whatever a collection took away before. */
  #note(ids: Uint8Array, chunks: Uint8Array, count: number): Uint8Array {
    const bytes = chunks.byteLength / count;
    for (let i = 0; i < count; i++) {
      if (isHole(ids, i * ID_BYTES)) continue;
      const id = idToHex(ids, i * ID_BYTES);
      const stored = this.#store.memory.chunks;
      this.#store.damaged.delete(id);
      if (!stored.has(id)) stored.set(id, new Uint8Array(chunks.subarray(i * bytes, (i + 1) * bytes)));
      this.ids.add(id);
      for (const barrier of this.#store.barriers) barrier.add(id);
    }
    return ids;
  }
}

export class TestStore {
  readonly memory: MemoryChunks;
  readonly durable = new Set<string>();
  /** Ids of chunks whose stored bytes are wrong; stored again, they heal. */
  readonly damaged = new Set<string>();
  readonly sessions = new Set<Session>();
  /** One for each collection under way: what was written or found since it began. */
  readonly barriers = new Set<Set<string>>();
  readonly chunkBytes: number;
  /** While set, writes and flushes fail with it. */
  fault: 'store-full' | 'store-failed' | 'chunk-corrupt' | undefined;
  /** Writes wait for this. */
  hold: Promise<void> | undefined;
  /** Reads of the chunk with this id wait. */
  heldRead: { readonly id: string; readonly until: Promise<void> } | undefined;
  /** Asked at every read of a node: whether it fails. */
  readFault: (() => boolean) | undefined;
  dead = false;

  readonly #warm: () => boolean;

  constructor(chunkBytes: number, warm: () => boolean = () => true) {
    this.#warm = warm;
    this.chunkBytes = chunkBytes;
    this.memory = new MemoryChunks({ chunkBytes, warm });
  }

  /** As the rooms above see it; only what they use. */
  asChunkStore(): ChunkStore {
    const { memory } = this;
    const store: Pick<
      ChunkStore,
      'chunkBytes' | 'hash' | 'peekNode' | 'readNode' | 'readChunks' | 'openSession'
    > = {
      chunkBytes: this.chunkBytes,
      hash: hashChunk,
      peekNode: (ids, offset) => memory.peekNode(ids, offset),
      readNode: async (ids, offset) => {
        if (this.readFault?.() === true) throw new PandoError('chunk-corrupt', 'as the test wanted');
        return memory.readNode(ids, offset);
      },
      readChunks: (leaf, first, count, target, at) => {
        for (let i = first; i < first + count; i++) {
          const id = idToHex(leaf.bytes, i * ID_BYTES);
          if (id === this.heldRead?.id)
            return this.heldRead.until.then(() => memory.readChunks(leaf, first, count, target, at));
          if (!this.damaged.has(id)) continue;
          const error = new PandoError('chunk-corrupt', `chunk ${id} is damaged`);
          // As a real one: at once, or after a wait.
          if (this.#warm()) throw error;
          return new Promise((_, reject) => setImmediate(() => reject(error)));
        }
        return memory.readChunks(leaf, first, count, target, at);
      },
      openSession: () => {
        const session = new Session(this);
        this.sessions.add(session);
        return session as unknown as WriteSession;
      },
    };
    return store as ChunkStore;
  }

  /** Power loss: what no session flushed is gone. Returns the store of the next boot. */
  crash(): TestStore {
    this.dead = true;
    const next = new TestStore(this.chunkBytes, this.#warm);
    for (const id of this.damaged) next.damaged.add(id);
    for (const id of this.durable) {
      const bytes = this.memory.chunks.get(id);
      if (bytes !== undefined) next.memory.chunks.set(id, bytes);
      next.durable.add(id);
    }
    return next;
  }

  /** Damages the stored chunk with these bytes. */
  damage(bytes: Uint8Array): void {
    this.damaged.add(idToHex(hashChunk(bytes)));
  }

  /** Lets writes wait until what it returns is called. */
  holdWrites(): () => void {
    let go!: () => void;
    this.hold = new Promise<void>((resolve) => (go = resolve));
    return go;
  }

  /** Lets reads of the stored chunk with these bytes wait until what it returns is called. */
  holdRead(bytes: Uint8Array): () => void {
    let go!: () => void;
    this.heldRead = { id: idToHex(hashChunk(bytes)), until: new Promise<void>((resolve) => (go = resolve)) };
    return go;
  }

  /** Removes what nothing reaches. Takes its roots and pins in one turn, as a real collection does. */
  async collect(catalog: Catalog): Promise<number> {
    const live = new Set<string>();
    this.barriers.add(live);
    for (const session of this.sessions) for (const id of session.ids) live.add(id);
    const before = new Set(this.memory.chunks.keys());
    const snapshot = catalog.snapshot();
    for await (const { value } of snapshot.entries(DISK_TABLE)) {
      const record = value as DiskRecord;
      this.#mark(Buffer.from(record.rootId), 0, record.rootHeight, live);
    }
    await snapshot.close();
    this.barriers.delete(live);
    let removed = 0;
    for (const id of before) {
      if (live.has(id)) continue;
      this.memory.chunks.delete(id);
      this.durable.delete(id);
      removed++;
    }
    return removed;
  }

  #mark(ids: Uint8Array, offset: number, level: number, live: Set<string>): void {
    if (isHole(ids, offset)) return;
    const id = idToHex(ids, offset);
    live.add(id);
    if (level === 0) return;
    const node = this.memory.chunks.get(id);
    if (node === undefined) throw new Error(`node ${id} of a recorded root is gone`);
    for (let at = 0; at < node.byteLength; at += ID_BYTES) this.#mark(node, at, level - 1, live);
  }
}
