/**
 * A set of ids that hands out dense numbers, for hot paths: no string, object or promise per id.
 *
 * Open addressing over a Uint32Array of entry numbers; the ids themselves lie one after another in
 * one buffer. An id's first four bytes are already uniformly distributed (they come from BLAKE3), so
 * they serve as the hash. Entries keep the number they got until `clear`; callers keep what they
 * know of an id in arrays of their own, indexed by that number. There is no removal of one id:
 * users of this set work in generations and drop whole sets.
 */
import { ID_BYTES, idsEqual } from './ids.ts';

const SMALLEST_TABLE = 64;

export class IdSet {
  #table: Uint32Array; // entry number + 1; 0 is free
  #mask: number;
  #ids: Uint8Array;
  #size = 0;

  /** @param expected how many ids to make room for at once; the set grows past it */
  constructor(expected = 0) {
    let slots = SMALLEST_TABLE;
    while (slots < expected * 2) slots *= 2;
    this.#table = new Uint32Array(slots);
    this.#mask = slots - 1;
    this.#ids = new Uint8Array((slots / 2) * ID_BYTES);
  }

  /** How many ids are in the set; entry numbers run from 0 to size − 1. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of memory that the set holds. */
  get memoryBytes(): number {
    return this.#table.byteLength + this.#ids.byteLength;
  }

  /** All ids in entry order, `size × 32` bytes; a view that is valid until the next `add`. */
  get ids(): Uint8Array {
    return this.#ids.subarray(0, this.#size * ID_BYTES);
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
    if (this.#size * 2 >= this.#table.length) this.#grow();
    let at = hashOf(ids, offset) & this.#mask;
    for (;;) {
      const entry = this.#table[at]!;
      if (entry === 0) break;
      if (idsEqual(this.#ids, (entry - 1) * ID_BYTES, ids, offset)) return entry - 1;
      at = (at + 1) & this.#mask;
    }
    const index = this.#size++;
    this.#ids.set(ids.subarray(offset, offset + ID_BYTES), index * ID_BYTES);
    this.#table[at] = index + 1;
    return index;
  }

  /** Empties the set and keeps its memory. */
  clear(): void {
    this.#table.fill(0);
    this.#size = 0;
  }

  #grow(): void {
    const slots = this.#table.length * 2;
    const ids = new Uint8Array((slots / 2) * ID_BYTES);
    ids.set(this.#ids.subarray(0, this.#size * ID_BYTES));
    this.#ids = ids;
    this.#table = new Uint32Array(slots);
    this.#mask = slots - 1;
    for (let i = 0; i < this.#size; i++) {
      let at = hashOf(ids, i * ID_BYTES) & this.#mask;
      while (this.#table[at] !== 0) at = (at + 1) & this.#mask;
      this.#table[at] = i + 1;
    }
  }
}

function hashOf(ids: Uint8Array, offset: number): number {
  return (ids[offset]! | (ids[offset + 1]! << 8) | (ids[offset + 2]! << 16) | (ids[offset + 3]! << 24)) >>> 0;
}
