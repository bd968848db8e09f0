/**
 * A map from ids to small entry numbers, with removal: no string, object or promise per id.
 *
 * Open addressing over a Uint32Array of entry numbers, linear probing; removal shifts what follows
 * back, so there are no tombstones. Entry numbers of removed ids are given out again. What is known of
 * an id lives in arrays of the user, indexed by entry number; `capacity` says how long they must be.
 */
import { ID_BYTES, idsEqual } from '@pando/common';

const SMALLEST = 64;

export class IdTable {
  #table: Uint32Array; // entry number + 1; 0 is free
  #mask: number;
  #ids: Uint8Array;
  #free: Uint32Array;
  #freeCount = 0;
  #used = 0; // entry numbers below this have been given out once
  #size = 0;

  /** @param expected how many ids to make room for at once; the table grows past it */
  constructor(expected = 0) {
    let entries = SMALLEST;
    while (entries < expected) entries *= 2;
    this.#table = new Uint32Array(entries * 2);
    this.#mask = entries * 2 - 1;
    this.#ids = new Uint8Array(entries * ID_BYTES);
    this.#free = new Uint32Array(entries);
  }

  get size(): number {
    return this.#size;
  }

  /** Entry numbers are below this; it only grows. */
  get capacity(): number {
    return this.#free.length;
  }

  /** Bytes of all entries by number; those of removed entries are stale. Valid until the next `add`. */
  get ids(): Uint8Array {
    return this.#ids;
  }

  /** The entry number of the id at `offset` of `ids`, or -1. */
  indexOf(ids: Uint8Array, offset: number): number {
    let at = hashOf(ids, offset) & this.#mask;
    for (;;) {
      const entry = this.#table[at]!;
      if (entry === 0) return -1;
      if (idsEqual(this.#ids, (entry - 1) * ID_BYTES, ids, offset)) return entry - 1;
      at = (at + 1) & this.#mask;
    }
  }

  /** Adds the id at `offset` of `ids` (it is copied) and returns its entry number, new or old. */
  add(ids: Uint8Array, offset: number): number {
    const known = this.indexOf(ids, offset);
    if (known >= 0) return known;
    if (this.#size === this.capacity) this.#grow();
    const entry = this.#freeCount > 0 ? this.#free[--this.#freeCount]! : this.#used++;
    this.#ids.set(ids.subarray(offset, offset + ID_BYTES), entry * ID_BYTES);
    this.#place(entry);
    this.#size++;
    return entry;
  }

  /** Removes the id at `offset` of `ids`; returns the entry number that it had, or -1. */
  remove(ids: Uint8Array, offset: number): number {
    let at = hashOf(ids, offset) & this.#mask;
    let entry: number;
    for (;;) {
      entry = this.#table[at]! - 1;
      if (entry < 0) return -1;
      if (idsEqual(this.#ids, entry * ID_BYTES, ids, offset)) break;
      at = (at + 1) & this.#mask;
    }
    this.#close(at);
    this.#free[this.#freeCount++] = entry;
    this.#size--;
    return entry;
  }

  /** Calls `visit` with every entry number, in no order. The table must not change meanwhile. */
  forEach(visit: (entry: number) => void): void {
    for (const entry of this.#table) {
      if (entry !== 0) visit(entry - 1);
    }
  }

  clear(): void {
    this.#table.fill(0);
    this.#freeCount = 0;
    this.#used = 0;
    this.#size = 0;
  }

  #place(entry: number): void {
    let at = hashOf(this.#ids, entry * ID_BYTES) & this.#mask;
    while (this.#table[at] !== 0) at = (at + 1) & this.#mask;
    this.#table[at] = entry + 1;
  }

  /** Frees a table position and moves later members of the same cluster back into the gap where they may go. */
  #close(gap: number): void {
    const table = this.#table;
    let at = gap;
    for (;;) {
      at = (at + 1) & this.#mask;
      const entry = table[at]!;
      if (entry === 0) break;
      const home = hashOf(this.#ids, (entry - 1) * ID_BYTES) & this.#mask;
      if (((at - home) & this.#mask) >= ((at - gap) & this.#mask)) {
        table[gap] = entry;
        gap = at;
      }
    }
    table[gap] = 0;
  }

  /** Doubles. Only called when every entry number is in use. */
  #grow(): void {
    const entries = this.capacity * 2;
    const ids = new Uint8Array(entries * ID_BYTES);
    ids.set(this.#ids);
    this.#ids = ids;
    this.#free = new Uint32Array(entries);
    this.#table = new Uint32Array(entries * 2);
    this.#mask = entries * 2 - 1;
    for (let entry = 0; entry < this.#used; entry++) this.#place(entry);
  }
}

function hashOf(ids: Uint8Array, offset: number): number {
  return (ids[offset]! | (ids[offset + 1]! << 8) | (ids[offset + 2]! << 16) | (ids[offset + 3]! << 24)) >>> 0;
}
