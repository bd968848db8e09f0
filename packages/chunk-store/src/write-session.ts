/** A session of writes: what it counts, pins and has been told of failures. The work is done by the BatchWriter. */
import { PandoError, type SpaceGuard } from '@pando/common';
import { NODE_BYTES } from '@pando/tree';
import { ANCHOR_LEVEL, type BatchOwner, type BatchWriter } from './batch-writer.ts';
import { PinSet } from './pin-set.ts';
import type { SegmentLog } from './segment-log.ts';
import type { PinSource, SessionCounts, WriteSession } from './types.ts';

export class StoreWriteSession implements WriteSession, BatchOwner {
  readonly chunkBytes: number;
  readonly pins = new PinSet();
  readonly #writer: BatchWriter;
  readonly #log: SegmentLog;
  readonly #space: SpaceGuard | undefined;
  readonly #onRelease: (session: StoreWriteSession) => void;
  readonly #calls = new Set<Promise<unknown>>();
  readonly #counts = { chunks: 0, zeroChunks: 0, knownChunks: 0, newChunks: 0, newBytes: 0, storedBytes: 0 };
  readonly #data = { chunks: 0, zeroChunks: 0, knownChunks: 0, newBytes: 0, storedBytes: 0, rawBytes: 0 };
  /** Chunks handed in, and how many of them a flush has covered. */
  #flushedChunks = 0;
  #failure: PandoError | undefined;
  #released = false;

  constructor(
    chunkBytes: number,
    writer: BatchWriter,
    log: SegmentLog,
    space: SpaceGuard | undefined,
    onRelease: (session: StoreWriteSession) => void,
  ) {
    this.chunkBytes = chunkBytes;
    this.#writer = writer;
    this.#log = log;
    this.#space = space;
    this.#onRelease = onRelease;
  }

  get counts(): SessionCounts {
    return { ...this.#counts, data: { ...this.#data } };
  }

  setPinSource(source: PinSource): void {
    this.pins.setSource(source);
  }

  writeNodes(nodes: Uint8Array, count: number, level: number): Promise<Uint8Array> {
    if (!(level >= 1))
      return Promise.reject(new PandoError('internal', `nodes have a level of 1 or more: ${level}`));
    return this.#call(nodes, count, level);
  }

  writeChunks(chunks: Uint8Array, count: number): Promise<Uint8Array> {
    return this.#call(chunks, count, 0);
  }

  writeAnchor(anchor: Uint8Array): Promise<Uint8Array> {
    if (anchor.byteLength !== NODE_BYTES)
      return Promise.reject(new PandoError('internal', `an anchor has ${NODE_BYTES} bytes`));
    return this.#call(anchor, 1, ANCHOR_LEVEL);
  }

  async claimChunks(ids: Uint8Array, count: number): Promise<void> {
    await this.#refusing(() => this.#writer.claim(this, ids, count));
  }

  async flush(): Promise<void> {
    await this.settled();
    this.#throwIfUnusable();
    const chunks = this.#counts.chunks;
    if (chunks === this.#flushedChunks) return;
    await this.#writer.idle();
    this.#throwIfUnusable();
    await this.#log.flush();
    this.#throwIfUnusable();
    this.#flushedChunks = Math.max(this.#flushedChunks, chunks);
  }

  /** Resolves when all calls under way have ended, well or not. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#calls]);
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#onRelease(this);
    this.pins.clear();
  }

  /** An append has failed somewhere: what this session has not flushed may be lost, its own or what it was told is known. */
  failUnflushed(error: PandoError): void {
    if (this.#counts.chunks > this.#flushedChunks) this.#failure ??= error;
  }

  lookedUp(ids: Uint8Array, count: number, nodes: Uint8Array | undefined, level: number): void {
    this.#counts.chunks += count;
    if (this.#released) return;
    if (nodes === undefined) this.pins.addChunks(ids, count);
    else this.pins.addNodes(ids, count, level, nodes);
  }

  count(zeros: number, known: number, fresh: number, freshBytes: number, isData: boolean): void {
    this.#counts.zeroChunks += zeros;
    this.#counts.knownChunks += known;
    this.#counts.newChunks += fresh;
    this.#counts.newBytes += freshBytes;
    if (!isData) return;
    this.#data.chunks += zeros + known + fresh;
    this.#data.zeroChunks += zeros;
    this.#data.knownChunks += known;
    this.#data.newBytes += freshBytes;
  }

  stored(bytes: number, rawBytes: number, isData: boolean): void {
    this.#counts.storedBytes += bytes;
    if (!isData) return;
    this.#data.storedBytes += bytes;
    this.#data.rawBytes += rawBytes;
  }

  #call(chunks: Uint8Array, count: number, level: number): Promise<Uint8Array> {
    return this.#refusing(() => this.#writer.write(this, chunks, count, level));
  }

  async #refusing<T>(action: () => Promise<T>): Promise<T> {
    this.#throwIfUnusable();
    const refusal = this.#space?.refusal;
    if (refusal !== undefined) throw refusal;
    const call = action();
    this.#calls.add(call);
    try {
      const result = await call;
      this.#throwIfUnusable();
      return result;
    } finally {
      this.#calls.delete(call);
    }
  }

  #throwIfUnusable(): void {
    if (this.#released) throw new PandoError('internal', 'this write session was released');
    if (this.#failure !== undefined) throw this.#failure;
    this.#log.throwIfFailed();
  }
}
