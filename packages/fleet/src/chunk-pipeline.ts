/**
 * Bytes in any parts → batches of chunks → ids in disk order → tree. Several batches are on their way through hashing
 * and compression at once; their ids are appended in the order of the disk. Chunks that come by their ids, because the store has
 * them, stand between those of a batch and do not cut it short: neighbours among the new ones still share runs.
 *
 * It is the session's pin source: an id is pinned from the turn in which the session hands it out until
 * the tree builder has it (which pins it from then on).
 */
import { ID_BYTES, isHole, PandoError } from '@pando/common';
import { TreeBuilder, type Root } from '@pando/tree';
import type { PinSource, WriteSession } from '@pando/chunk-store';

/** Chunks of one batch: 1 MiB of chunks of 4 KiB. */
const BATCH_CHUNKS = 256;

/** A shorter hole goes through the batch as zeros: cheaper than a batch cut short. */
const HOLE_CHUNKS_MIN = BATCH_CHUNKS;

/** Most ids of claimed chunks in one batch: 256 KiB of them, for 32 MiB of chunks of 4 KiB. */
const CLAIMED_MAX = 8192;

/** Most stretches of claimed chunks in one batch. */
const STRETCHES_MAX = 256;

/** Claimed chunks that come before the `before`-th chunk of the batch's bytes. */
interface Claimed {
  readonly before: number;
  readonly ids: Uint8Array;
}

/** A step of the tree's making: a batch whose ids come. */
interface Batch {
  ids: Uint8Array | undefined;
  readonly claimed: readonly Claimed[];
}

type Writer = Pick<WriteSession, 'chunkBytes' | 'writeChunks' | 'writeNodes' | 'claimChunks'>;

export class ChunkPipeline implements PinSource {
  readonly #writer: Writer;
  readonly #builder: TreeBuilder;
  readonly #batchesMax: number;
  readonly #free: Uint8Array[] = [];
  /** Batches that the builder has not taken over yet. */
  readonly #underWay = new Set<Batch>();
  #buffer: Uint8Array;
  #filled = 0;
  /** Stand between the chunks of the buffer. */
  #claimed: Claimed[] = [];
  #claimedChunks = 0;
  #position = 0;
  #dataBytes = 0;
  #chunks = 0;
  #zeroChunks = 0;
  /** Hole before what is in the buffer that is no step yet: however many holes follow one another, they are one step. */
  #holeChunks = 0;
  /** The end of the chain of appends. */
  #tail: Promise<void> = Promise.resolve();
  #failed = false;
  #failure: unknown;
  #wakeUp: (() => void) | undefined;

  constructor(writer: Writer, batchesMax: number) {
    this.#writer = writer;
    this.#builder = new TreeBuilder(writer);
    this.#batchesMax = batchesMax;
    this.#buffer = this.#newBuffer();
  }

  /** Bytes of the disk so far. */
  get position(): number {
    return this.#position;
  }

  /** Bytes that came as data or as ids, not as holes. */
  get dataBytes(): number {
    return this.#dataBytes;
  }

  /** Chunks of the disk, and those of them that are holes; exact once `finish` has resolved. */
  get chunks(): number {
    return this.#chunks;
  }

  get zeroChunks(): number {
    return this.#zeroChunks;
  }

  /** Takes the bytes over (copied before it resolves). Waits while enough batches are under way. @throws errors of the writer */
  async write(data: Uint8Array): Promise<void> {
    let done = 0;
    while (done < data.byteLength) {
      const count = Math.min(data.byteLength - done, this.#buffer.byteLength - this.#filled);
      this.#buffer.set(count === data.byteLength ? data : data.subarray(done, done + count), this.#filled);
      this.#filled += count;
      this.#position += count;
      this.#dataBytes += count;
      done += count;
      if (this.#filled === this.#buffer.byteLength) await this.#sendBatch();
    }
  }

  /**
   * Whole chunks that are stored already, by their ids (copied before it resolves); zeros stand for a hole.
   * @throws `chunk-unknown`, `stream-invalid` where no chunk begins
   */
  async claim(ids: Uint8Array): Promise<void> {
    const { chunkBytes } = this.#writer;
    if (this.#position % chunkBytes !== 0) {
      throw new PandoError('stream-invalid', `no chunk begins at byte ${this.#position}`);
    }
    this.#refuseFailed();
    const copied = ids.slice();
    const count = copied.byteLength / ID_BYTES;
    await this.#writer.claimChunks(copied, count);
    this.#claimed.push({ before: this.#filled / chunkBytes, ids: copied });
    this.#claimedChunks += count;
    this.#position += count * chunkBytes;
    for (let at = 0; at < copied.byteLength; at += ID_BYTES) {
      if (!isHole(copied, at)) this.#dataBytes += chunkBytes;
    }
    if (this.#claimedChunks >= CLAIMED_MAX || this.#claimed.length === STRETCHES_MAX) await this.#sendBatch();
  }

  /** So many zeros. */
  async skip(bytes: number): Promise<void> {
    const chunkBytes = this.#writer.chunkBytes;
    let left = bytes;
    if (left >= HOLE_CHUNKS_MIN * chunkBytes) {
      left -= await this.#zeros(Math.min(left, (chunkBytes - (this.#filled % chunkBytes)) % chunkBytes));
      const chunks = Math.floor(left / chunkBytes);
      await this.#sendBatch();
      this.#position += chunks * chunkBytes;
      left -= chunks * chunkBytes;
      this.#holeChunks += chunks;
    }
    while (left > 0) left -= await this.#zeros(left);
  }

  /** The root of a disk of `size` bytes. */
  async finish(size: number): Promise<Root> {
    await this.#zeros(
      (this.#writer.chunkBytes - (this.#filled % this.#writer.chunkBytes)) % this.#writer.chunkBytes,
      false,
    );
    await this.#sendBatch();
    this.#sendHole();
    await this.#tail;
    this.#refuseFailed();
    return this.#builder.finish(size);
  }

  /** Resolves when nothing is under way any more, failed or not. */
  async settle(): Promise<void> {
    await this.#tail;
  }

  forEachPin(visit: (ids: Uint8Array, offset: number, level: number) => void): void {
    this.#builder.forEachPin(visit);
    const pin = (ids: Uint8Array): void => {
      for (let at = 0; at < ids.byteLength; at += ID_BYTES) {
        if (!isHole(ids, at)) visit(ids, at, 0);
      }
    };
    for (const { ids, claimed } of this.#underWay) {
      if (ids !== undefined) pin(ids);
      for (const one of claimed) pin(one.ids);
    }
    for (const one of this.#claimed) pin(one.ids);
  }

  /** Fills zeros up to the end of the batch at most; resolves to how many. */
  async #zeros(bytes: number, count = true): Promise<number> {
    const filled = Math.min(bytes, this.#buffer.byteLength - this.#filled);
    this.#buffer.fill(0, this.#filled, this.#filled + filled);
    this.#filled += filled;
    if (count) this.#position += filled;
    if (this.#filled === this.#buffer.byteLength) await this.#sendBatch();
    return filled;
  }

  /** Hands the whole chunks in the buffer to the writer; there is no partial one at the end of it. */
  async #sendBatch(): Promise<void> {
    this.#refuseFailed();
    if (this.#filled === 0 && this.#claimed.length === 0) return;
    this.#sendHole();
    while (this.#underWay.size >= this.#batchesMax) await this.#oneLess();
    this.#refuseFailed();
    const count = this.#filled / this.#writer.chunkBytes;
    this.#chunks += count + this.#claimedChunks;
    const batch: Batch = { ids: undefined, claimed: this.#claimed };
    this.#underWay.add(batch);
    this.#claimed = [];
    this.#claimedChunks = 0;
    const written = count > 0 ? this.#writeBuffer(batch, count) : Promise.resolve();
    written.catch(() => undefined); // reported by the append, in its turn
    this.#append(async () => {
      try {
        await written;
        let next = 0;
        for (const { before, ids } of batch.claimed) {
          await this.#appendIds(batch.ids, next, before);
          next = before;
          await this.#appendIds(ids, 0, ids.byteLength / ID_BYTES);
        }
        await this.#appendIds(batch.ids, next, count);
      } finally {
        this.#underWay.delete(batch);
        this.#wakeUp?.();
      }
    });
  }

  async #writeBuffer(batch: Batch, count: number): Promise<void> {
    const buffer = this.#buffer;
    this.#buffer = this.#free.pop() ?? this.#newBuffer();
    this.#filled = 0;
    batch.ids = await this.#writer.writeChunks(buffer.subarray(0, count * this.#writer.chunkBytes), count);
    this.#free.push(buffer);
  }

  async #appendIds(ids: Uint8Array | undefined, from: number, to: number): Promise<void> {
    if (from === to) return;
    const part = ids!.subarray(from * ID_BYTES, to * ID_BYTES);
    for (let at = 0; at < part.byteLength; at += ID_BYTES) {
      if (isHole(part, at)) this.#zeroChunks++;
    }
    await this.#builder.append(part, to - from);
  }

  #sendHole(): void {
    const chunks = this.#holeChunks;
    if (chunks === 0) return;
    this.#holeChunks = 0;
    this.#chunks += chunks;
    this.#zeroChunks += chunks;
    this.#append(() => this.#builder.appendHole(chunks));
  }

  /** Runs the step after all earlier ones. After a failure the steps only wait for what they sent. */
  #append(step: () => Promise<void>): void {
    this.#tail = this.#tail.then(step).catch((error: unknown) => {
      if (this.#failed) return;
      this.#failed = true;
      this.#failure = error;
    });
  }

  async #oneLess(): Promise<void> {
    await new Promise<void>((resolve) => (this.#wakeUp = resolve));
  }

  #refuseFailed(): void {
    if (this.#failed) throw this.#failure;
  }

  #newBuffer(): Uint8Array {
    return new Uint8Array(BATCH_CHUNKS * this.#writer.chunkBytes);
  }
}
