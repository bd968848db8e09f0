/**
 * The write path of all sessions: batches through hashing, look-up, packing and appending.
 *
 * A batch that is looked up is answered at once; its new chunks are packed and appended behind the caller's
 * back, as *in flight*, within the bound of the slabs. What goes wrong there fails every session that
 * has anything unflushed, because any of them may have been told "known" for a chunk that is now lost.
 */
import { ID_BYTES, idToHex, isHole, PandoError } from '@pando/common';
import { NODE_BYTES } from '@pando/tree';
import { FOUND, IN_FLIGHT, type ChunkLocator } from './chunk-locator.ts';
import type { DamagedRuns } from './damaged-runs.ts';
import type { FreshChunks } from './fresh-chunks.ts';
import { CLAIMS_A_TURN } from './limits.ts';
import type { NodeCache } from './node-cache.ts';
import { KIND_ANCHOR, KIND_DATA, KIND_NODE } from './segment-format.ts';
import type { SegmentLog } from './segment-log.ts';
import { batchChunks, rawBytesOf, type Slab } from './slab.ts';
import type { StoreCounters } from './store-counters.ts';
import type { WorkerPool } from './worker-pool.ts';

/** Told of every hit on a chunk that is stored in a candidate of the collection under way. */
export type OnHit = (
  segment: number,
  slot: number,
  ids: Uint8Array,
  offset: number,
  isNode: boolean,
  level: number,
) => void;

/** The level that stands for anchors: chunks as long as nodes, without children, in runs of their own kind. */
export const ANCHOR_LEVEL = -1;

/** What a session lets the writer know of itself. */
export interface BatchOwner {
  /** Called in the turn of the look-up, before anything else can happen: from now on these ids are pinned. */
  lookedUp(ids: Uint8Array, count: number, nodes: Uint8Array | undefined, level: number): void;
  /** Outcome of the look-up of a batch. */
  count(zeros: number, known: number, fresh: number, freshBytes: number, isData: boolean): void;
  /** The new chunks of a batch came to so many bytes; `rawBytes` of them are in runs that zstd could not make shorter. */
  stored(bytes: number, rawBytes: number, isData: boolean): void;
}

export interface ChunkWriterParts {
  readonly chunkBytes: number;
  readonly locator: ChunkLocator;
  readonly fresh: FreshChunks;
  readonly damaged: DamagedRuns;
  readonly nodes: NodeCache;
  readonly log: SegmentLog;
  readonly pool: WorkerPool;
  readonly counters: StoreCounters;
  /** Something went wrong behind the callers' backs: every session with unflushed chunks must hear of it. */
  readonly onFailure: (error: unknown) => void;
}

export class BatchWriter {
  readonly #parts: ChunkWriterParts;
  readonly #inFlight = new Set<Promise<void>>();
  /** The barrier: set while a collection is under way. */
  onHit: OnHit | undefined;

  constructor(parts: ChunkWriterParts) {
    this.#parts = parts;
  }

  /** Hashes and stores `count` chunks; resolves to their ids once they are looked up. `level` 0: data; or ANCHOR_LEVEL. */
  async write(owner: BatchOwner, chunks: Uint8Array, count: number, level: number): Promise<Uint8Array> {
    const chunkBytes = level === 0 ? this.#parts.chunkBytes : NODE_BYTES;
    if (chunks.byteLength < count * chunkBytes) {
      throw new PandoError(
        'internal',
        `${count} chunks of ${chunkBytes} bytes are not in ${chunks.byteLength} bytes`,
      );
    }
    const ids = new Uint8Array(count * ID_BYTES);
    const batchMax = batchChunks(chunkBytes);
    const batches: Promise<void>[] = [];
    for (let first = 0; first < count; first += batchMax) {
      const slab = this.#parts.pool.acquire();
      const ready = slab instanceof Promise ? await slab : slab;
      const inBatch = Math.min(batchMax, count - first);
      const part = chunks.subarray(first * chunkBytes, (first + inBatch) * chunkBytes);
      batches.push(this.#batch(owner, ready, part, inBatch, level, ids, first));
    }
    // All of them end before a failure is reported: then nobody reads `chunks` any more.
    for (const end of await Promise.allSettled(batches)) {
      if (end.status === 'rejected') throw end.reason as Error;
    }
    return ids;
  }

  /** Takes data chunks that are stored already, or on their way, by their ids; see WriteSession.claimChunks. */
  async claim(owner: BatchOwner, ids: Uint8Array, count: number): Promise<void> {
    this.#refuseClaims();
    for (let first = 0; first < count; first += CLAIMS_A_TURN) {
      await this.#nextTurn(first > 0);
      // One turn to the end of the loop's body, as in #batch. Pinned is what was found, and nothing else: a pin on what is nowhere would
      // fail a collection.
      const inTurn = Math.min(CLAIMS_A_TURN, count - first);
      let zeros = 0;
      for (let i = first; i < first + inTurn; i++) {
        const at = i * ID_BYTES;
        if (isHole(ids, at)) zeros++;
        else if (!this.#isThere(ids, at, true)) {
          throw new PandoError('chunk-unknown', `chunk ${idToHex(ids, at)} is not in the store`);
        }
      }
      const part = ids.subarray(first * ID_BYTES, (first + inTurn) * ID_BYTES);
      owner.lookedUp(part, inTurn, undefined, 0);
      owner.count(zeros, inTurn - zeros, 0, 0, true);
      this.#parts.counters.zeroChunks += zeros;
      this.#parts.counters.knownChunks += inTurn - zeros;
    }
  }

  /** Which chunks `claim` would find now; see ChunkStore.knownChunks. */
  async known(ids: Uint8Array, count: number): Promise<Uint8Array> {
    const known = new Uint8Array(count);
    if (this.#parts.chunkBytes !== NODE_BYTES) return known;
    for (let i = 0; i < count; i++) {
      if (i % CLAIMS_A_TURN === 0) await this.#nextTurn(i > 0);
      if (isHole(ids, i * ID_BYTES) || this.#isThere(ids, i * ID_BYTES, false)) known[i] = 1;
    }
    return known;
  }

  /** Resolves when every batch that is in flight now has been appended or has failed. */
  async idle(): Promise<void> {
    await Promise.all(this.#inFlight);
  }

  /** Packs and appends chunks that stand in a slab with their ids, as `order` says; resolves to the bytes appended. */
  async store(slab: Slab, count: number, chunkBytes: number, kind: number): Promise<number> {
    const runs = await this.#parts.pool.pack(slab, count, chunkBytes, kind);
    await this.#parts.log.append(slab.output, slab.runs, runs);
    let bytes = 0;
    for (let run = 0; run < runs; run++) bytes += slab.runs[run]!;
    return bytes;
  }

  async #batch(
    owner: BatchOwner,
    slab: Slab,
    chunks: Uint8Array,
    count: number,
    level: number,
    ids: Uint8Array,
    first: number,
  ): Promise<void> {
    const chunkBytes = level === 0 ? this.#parts.chunkBytes : NODE_BYTES;
    const { locator } = this.#parts;
    let fresh = 0;
    try {
      slab.input.set(chunks);
      await this.#parts.pool.hash(slab, count, chunkBytes);
      for (let wait = locator.ready(); wait !== undefined; wait = locator.ready())
        await wait.catch(() => undefined);
      // From here to the end of the try block is one turn of the event loop: a collection that begins
      // sees a batch either not looked up (then its barrier sees the hits) or pinned.
      owner.lookedUp(slab.ids, count, level > 0 ? chunks : undefined, level);
      ids.set(slab.ids.subarray(0, count * ID_BYTES), first * ID_BYTES);
      if (level > 0) this.#keepNodes(slab, count);
      let settle = (): void => undefined;
      const settled = new Promise<void>((resolve) => {
        settle = resolve;
      });
      fresh = this.#lookUp(owner, slab, count, level, chunkBytes, settled);
      if (fresh > 0) this.#storeBehind(owner, slab, fresh, chunkBytes, level, settled, settle);
    } finally {
      if (fresh === 0) this.#parts.pool.release(slab);
    }
  }

  /** Looks every chunk up, and puts the new ones in flight and into the slab's order. Returns how many. */
  #lookUp(
    owner: BatchOwner,
    slab: Slab,
    count: number,
    level: number,
    chunkBytes: number,
    settled: Promise<void>,
  ): number {
    const { locator, fresh } = this.#parts;
    let zeros = 0;
    let known = 0;
    let added = 0;
    try {
      for (let i = 0; i < count; i++) {
        const at = i * ID_BYTES;
        if (isHole(slab.ids, at)) {
          zeros++;
          continue;
        }
        const found = locator.find(slab.ids, at, true, true);
        const isHit = found === FOUND && this.#isHit(slab.ids, at, level);
        if (isHit || found === IN_FLIGHT) {
          known++;
          continue;
        }
        fresh.addInFlight(slab.ids, at, settled);
        slab.order[added++] = i;
      }
    } catch (error) {
      // The index cannot be read: none of this batch is on its way, so nobody may find it there.
      for (let k = 0; k < added; k++) fresh.removeInFlight(slab.ids, slab.order[k]! * ID_BYTES);
      throw error;
    }
    owner.count(zeros, known, added, added * chunkBytes, level === 0);
    const { counters } = this.#parts;
    counters.zeroChunks += zeros;
    counters.knownChunks += known;
    counters.newChunks += added;
    counters.newBytes += added * chunkBytes;
    return added;
  }

  #refuseClaims(): void {
    if (this.#parts.chunkBytes === NODE_BYTES) return;
    throw new PandoError(
      'chunk-unknown',
      'this store takes no chunks by their ids: they are not as long as nodes',
    );
  }

  /** Gives others their turn, and waits until ids can be looked up; also for the ids of a segment that are being read, which spares asking the index. */
  async #nextTurn(giveWay: boolean): Promise<void> {
    const { locator } = this.#parts;
    if (locator.loading !== undefined) await locator.loading;
    else if (giveWay) await new Promise((resolve) => setImmediate(resolve));
    for (let wait = locator.ready(); wait !== undefined; wait = locator.ready())
      await wait.catch(() => undefined);
  }

  #isThere(ids: Uint8Array, at: number, isClaim: boolean): boolean {
    const found = this.#parts.locator.find(ids, at, true, true);
    return found === IN_FLIGHT || (found === FOUND && this.#isHit(ids, at, 0, isClaim));
  }

  /**
   * Whether the chunk that was found counts as a duplicate: not on its way out, and not known to be damaged. The
   * barrier is told before anybody can rely on it, and only when somebody will.
   */
  #isHit(ids: Uint8Array, offset: number, level: number, isRelied = true): boolean {
    const { locator, damaged } = this.#parts;
    const segment = locator.segment!;
    if (segment.condemned || damaged.has(segment.number, locator.runOffset)) return false;
    if (segment.candidate && isRelied)
      this.onHit?.(segment.number, locator.slot, ids, offset, level > 0, Math.max(0, level));
    return true;
  }

  #storeBehind(
    owner: BatchOwner,
    slab: Slab,
    count: number,
    chunkBytes: number,
    level: number,
    settled: Promise<void>,
    settle: () => void,
  ): void {
    this.#inFlight.add(settled);
    this.store(slab, count, chunkBytes, kindOf(level))
      .then(
        (bytes) => {
          owner.stored(bytes, level === 0 ? rawBytesOf(slab, count, chunkBytes) : 0, level === 0);
          this.#parts.counters.storedBytes += bytes;
        },
        (error: unknown) => this.#failed(slab, count, error),
      )
      .finally(() => {
        this.#parts.pool.release(slab);
        this.#inFlight.delete(settled);
        settle();
      })
      .catch((error: unknown) => this.#parts.onFailure(error));
  }

  #failed(slab: Slab, count: number, error: unknown): void {
    this.#parts.onFailure(error);
    for (let k = 0; k < count; k++) {
      this.#parts.fresh.removeInFlight(slab.ids, slab.order[k]! * ID_BYTES);
    }
  }

  #keepNodes(slab: Slab, count: number): void {
    for (let i = 0; i < count; i++) {
      if (!isHole(slab.ids, i * ID_BYTES)) {
        this.#parts.nodes.add(slab.ids, i * ID_BYTES, slab.input, i * NODE_BYTES);
      }
    }
  }
}

function kindOf(level: number): number {
  if (level === ANCHOR_LEVEL) return KIND_ANCHOR;
  return level === 0 ? KIND_DATA : KIND_NODE;
}
