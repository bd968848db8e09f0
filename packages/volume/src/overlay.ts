/**
 * An overlay: what was written to a disk and is not in the tree yet, by chunk, in memory.
 *
 * A chunk that was written holds a slot of the pool. A chunk that was zeroed is an entry of its own when
 * few were, and part of a range when many were: trimming 64 TiB is one range. An entry counts before a
 * range. Once frozen, an overlay never changes, so it may be shared.
 */
import { Ranges } from './ranges.ts';
import type { SlotPool } from './slot-pool.ts';

/** What `find` answers besides a slot. */
export const ZERO = -1;
export const ABSENT = -2;

/** Zeroed runs shorter than this become entries, longer ones ranges. */
const RANGE_CHUNKS_MIN = 64;
/** What an entry or a range without a slot counts for, about: without it, small trims would take memory without bound. */
const ZERO_ENTRY_BYTES = 64;

export class Overlay {
  readonly #pool: SlotPool;
  readonly #entries = new Map<number, number>();
  readonly #zeros = new Ranges();
  #slots = 0;

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

  /** The slot of a chunk, ZERO or ABSENT. */
  find(chunk: number): number {
    const entry = this.#entries.get(chunk);
    if (entry !== undefined) return entry;
    return this.#zeros.count > 0 && this.#zeros.has(chunk) ? ZERO : ABSENT;
  }

  /** The slot of a chunk, a new one with undefined contents when it had none. */
  slotFor(chunk: number): number {
    const entry = this.#entries.get(chunk);
    if (entry !== undefined && entry !== ZERO) return entry;
    const slot = this.#pool.take();
    if (entry === ZERO) this.#pool.charge(-ZERO_ENTRY_BYTES);
    this.#entries.set(chunk, slot);
    this.#slots++;
    return slot;
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

  /** Numbers of all chunks that have an entry, ascending. */
  sortedChunks(): Float64Array {
    return Float64Array.from(this.#entries.keys()).sort();
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
    for (const slot of this.#entries.values()) if (slot !== ZERO) this.#pool.give(slot);
    this.#pool.charge(-(this.#entries.size - this.#slots + this.#zeros.count) * ZERO_ENTRY_BYTES);
    this.#entries.clear();
    this.#zeros.clear();
    this.#slots = 0;
    this.#pool.settle();
  }

  #drop(chunk: number): void {
    const entry = this.#entries.get(chunk);
    if (entry === undefined) return;
    this.#entries.delete(chunk);
    if (entry === ZERO) {
      this.#pool.charge(-ZERO_ENTRY_BYTES);
      return;
    }
    this.#pool.give(entry);
    this.#slots--;
  }
}
