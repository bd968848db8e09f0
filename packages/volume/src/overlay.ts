/**
 * An overlay: what was written to a disk and is not in the tree yet, by chunk, in memory.
 *
 * A chunk that was written holds a slot of the pool. A chunk that was zeroed is an entry of its own when
 * few were, and part of a range when many were: trimming 64 TiB is one range. An entry counts before a
 * range. Once frozen, an overlay never changes, so it may be shared.
 *
 * A *baseless* chunk is one of which replay knows a part only: it was written in part, and what lies below it is
 * damaged. Its slot holds the bytes that are known, until the base can be read again and is filled in around them. That
 * changes nothing that anybody could have read, so it may happen to a frozen overlay.
 *
 * A *lost* chunk is one of which a write was lost with damage to the log: nobody knows what it holds, until all of it is
 * written or zeroed.
 */
import { Ranges } from './ranges.ts';
import type { SlotPool } from './slot-pool.ts';

/** What `find` answers besides a slot. */
export const ZERO = -1;
export const ABSENT = -2;
export const LOST = -3;
/** A baseless chunk with slot s is BASELESS − s. */
const BASELESS = -4;

/** Whether what `find` answered is a chunk that cannot be read before its base can. */
export function isBaseless(found: number): boolean {
  return found <= BASELESS;
}

function hasSlot(entry: number): boolean {
  return entry !== ZERO && entry !== LOST;
}

/** Zeroed runs shorter than this become entries, longer ones ranges. */
const RANGE_CHUNKS_MIN = 64;
/** What an entry or a range without a slot counts for, about: without it, small trims would take memory without bound. */
const ZERO_ENTRY_BYTES = 64;

export class Overlay {
  readonly #pool: SlotPool;
  readonly #entries = new Map<number, number>();
  readonly #zeros = new Ranges();
  /** The baseless chunks, and which of their bytes are known. */
  readonly #known = new Map<number, Ranges>();
  #slots = 0;
  #lost = 0;

  constructor(pool: SlotPool) {
    this.#pool = pool;
  }

  /** Chunks with a slot. */
  get slots(): number {
    return this.#slots;
  }

  get isEmpty(): boolean {
    return this.#entries.size === 0 && this.#zeros.count === 0;
  }

  /** Chunks that are lost. */
  get lost(): number {
    return this.#lost;
  }

  /** Numbers of the baseless chunks. */
  get baseless(): readonly number[] {
    return [...this.#known.keys()];
  }

  /** The slot of a chunk, ZERO, LOST or ABSENT; or something that `isBaseless`. */
  find(chunk: number): number {
    const entry = this.#entries.get(chunk);
    if (entry !== undefined) return entry;
    return this.#zeros.count > 0 && this.#zeros.has(chunk) ? ZERO : ABSENT;
  }

  /** The slot of a chunk, a new one with undefined contents when it had none. */
  slotFor(chunk: number): number {
    const entry = this.#entries.get(chunk);
    if (entry !== undefined && hasSlot(entry)) return isBaseless(entry) ? this.#whole(chunk, entry) : entry;
    const slot = this.#pool.take();
    if (entry !== undefined) this.#pool.charge(-ZERO_ENTRY_BYTES);
    if (entry === LOST) this.#lost--;
    this.#entries.set(chunk, slot);
    this.#slots++;
    return slot;
  }

  /**
   * The slot of a chunk that is absent or baseless, for bytes `from` … `to` − 1 of it, which are known from now on. The
   * chunk stays baseless until all of its bytes are.
   */
  slotForPart(chunk: number, from: number, to: number): number {
    let known = this.#known.get(chunk);
    if (known === undefined) {
      const slot = this.slotFor(chunk);
      this.#entries.set(chunk, BASELESS - slot);
      this.#known.set(chunk, (known = new Ranges()));
    }
    known.add(from, to);
    const entry = this.#entries.get(chunk)!;
    const isWhole = known.startOf(0) === 0 && known.endOf(0) === this.#pool.chunkBytes;
    return isWhole ? this.#whole(chunk, entry) : BASELESS - entry;
  }

  /** Fills what the base of a chunk holds in around what is known. Nothing when the chunk is not baseless any more. */
  fillIn(chunk: number, base: Buffer): void {
    const known = this.#known.get(chunk);
    if (known === undefined) return;
    const slot = this.#whole(chunk, this.#entries.get(chunk)!);
    const slab = this.#pool.slabOf(slot);
    const at = this.#pool.offsetOf(slot);
    let from = 0;
    for (let i = 0; i <= known.count; i++) {
      const to = i < known.count ? known.startOf(i) : this.#pool.chunkBytes;
      base.copy(slab, at + from, from, to);
      if (i < known.count) from = known.endOf(i);
    }
  }

  /** Makes chunks start … end − 1 zero. */
  zero(start: number, end: number): void {
    if (end - start < RANGE_CHUNKS_MIN) {
      for (let chunk = start; chunk < end; chunk++) {
        this.#drop(chunk);
        this.#entries.set(chunk, ZERO);
      }
      this.#pool.charge((end - start) * ZERO_ENTRY_BYTES);
      return;
    }
    if (end - start < this.#entries.size) {
      for (let chunk = start; chunk < end; chunk++) this.#drop(chunk);
    } else {
      for (const chunk of this.#entries.keys()) if (chunk >= start && chunk < end) this.#drop(chunk);
    }
    const before = this.#zeros.count;
    this.#zeros.add(start, end);
    this.#pool.charge((this.#zeros.count - before) * ZERO_ENTRY_BYTES);
    this.#pool.settle();
  }

  /** Makes chunks start … end − 1 lost: a write is, and few chunks long. */
  lose(start: number, end: number): void {
    for (let chunk = start; chunk < end; chunk++) {
      this.#drop(chunk);
      this.#entries.set(chunk, LOST);
    }
    this.#lost += end - start;
    this.#pool.charge((end - start) * ZERO_ENTRY_BYTES);
  }

  /** Numbers of all chunks that have an entry, ascending, without the baseless ones. */
  sortedChunks(): Float64Array {
    const chunks = Float64Array.from(this.#entries.keys()).sort();
    return this.#known.size === 0 ? chunks : chunks.filter((chunk) => !this.#known.has(chunk));
  }

  /** Numbers of all chunks that have an entry, in no order. */
  chunks(): readonly number[] {
    return [...this.#entries.keys()];
  }

  /** The slot that `find` has answered, of a baseless chunk too. */
  slotOf(found: number): number {
    return isBaseless(found) ? BASELESS - found : found;
  }

  /** What is known of a baseless chunk: pairs of the first byte and that after the last one. */
  knownOf(chunk: number): readonly (readonly [number, number])[] {
    const known = this.#known.get(chunk);
    if (known === undefined) return [];
    return Array.from({ length: known.count }, (_, i) => [known.startOf(i), known.endOf(i)] as const);
  }

  /** Start, end pairs of the zeroed ranges; entries count before them. */
  zeroRanges(): Float64Array {
    return this.#zeros.toPairs();
  }

  /** Tells `boundaries` where what `find` says may change, from `start` on as far as they want to know. */
  addBoundaries(start: number, boundaries: { readonly last: number; add: (point: number) => void }): void {
    if (boundaries.last - start < this.#entries.size) {
      for (let chunk = start; chunk < boundaries.last; chunk++) {
        if (!this.#entries.has(chunk)) continue;
        boundaries.add(chunk);
        boundaries.add(chunk + 1);
      }
    } else {
      for (const chunk of this.#entries.keys()) {
        if (chunk < start) continue;
        boundaries.add(chunk);
        boundaries.add(chunk + 1);
      }
    }
    const zeros = this.#zeros;
    for (let i = zeros.indexAfter(start); i < zeros.count && zeros.startOf(i) < boundaries.last; i++) {
      boundaries.add(zeros.startOf(i));
      boundaries.add(zeros.endOf(i));
    }
  }

  /** Gives all slots back. The overlay must not be used any more. */
  dispose(): void {
    for (const entry of this.#entries.values()) {
      if (hasSlot(entry)) this.#pool.give(isBaseless(entry) ? BASELESS - entry : entry);
    }
    this.#pool.charge(-(this.#entries.size - this.#slots + this.#zeros.count) * ZERO_ENTRY_BYTES);
    this.#entries.clear();
    this.#known.clear();
    this.#zeros.clear();
    this.#slots = 0;
    this.#lost = 0;
    this.#pool.settle();
  }

  #drop(chunk: number): void {
    const entry = this.#entries.get(chunk);
    if (entry === undefined) return;
    this.#entries.delete(chunk);
    if (!hasSlot(entry)) {
      if (entry === LOST) this.#lost--;
      this.#pool.charge(-ZERO_ENTRY_BYTES);
      return;
    }
    this.#known.delete(chunk);
    this.#pool.give(isBaseless(entry) ? BASELESS - entry : entry);
    this.#slots--;
  }

  /** All of a baseless chunk is known from now on. */
  #whole(chunk: number, entry: number): number {
    const slot = BASELESS - entry;
    this.#known.delete(chunk);
    this.#entries.set(chunk, slot);
    return slot;
  }
}
