/**
 * How many different ids there are, in bounded memory: ids that are kept by a rule of their own bits are a fair sample of the different ones,
 * however often each occurs (distinct sampling: Gibbons 2001). While all of them fit, the count is exact.
 *
 * An id is told by 64 of its bits: with a thousand million of them, one pair in forty would be taken for one. Open addressing over two words an entry,
 * as in IdSet of the common room; no object, string or promise an id.
 */
const ENTRIES_MIN = 1024;

export class FingerprintSet {
  readonly #entriesMax: number;
  /** Two words an entry; both zero: free. */
  #table: Uint32Array;
  #mask: number;
  /** Ids are kept whose second word has zeros there. */
  #sampleMask = 0;
  #size = 0;

  /** @param entriesMax ids that are kept at most, a power of two; the error of the count is one in the square root of half of it */
  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
    this.#table = new Uint32Array(ENTRIES_MIN * 4);
    this.#mask = ENTRIES_MIN * 2 - 1;
  }

  /** For how many ids each that is kept stands. */
  get scale(): number {
    return this.#sampleMask + 1;
  }

  /** Different ids among those that were added, exact while `scale` is 1. */
  get count(): number {
    return this.#size * this.scale;
  }

  /** Adds the id at `offset`. True when it is new and is kept: it then stands for `scale` new ids. */
  add(ids: Uint8Array, offset: number): boolean {
    const low = word(ids, offset);
    // The second word of an entry is never 0, so that an entry never looks free.
    const high = word(ids, offset + 4);
    if ((high & this.#sampleMask) !== 0) return false;
    if (!this.#insert(low, high)) return false;
    this.#size++;
    if (this.#size > this.#entriesMax) this.#halve();
    else if (this.#size * 2 > this.#mask) this.#rebuild((this.#mask + 1) * 2);
    return true;
  }

  #insert(low: number, high: number): boolean {
    const table = this.#table;
    // Bits that sampling does not look at decide the place.
    let at = (low & this.#mask) * 2;
    for (;;) {
      const other = table[at]!;
      const otherHigh = table[at + 1]!;
      if (other === 0 && otherHigh === 0) break;
      if (other === low && otherHigh === high) return false;
      at = (at + 2) & (this.#mask * 2 + 1);
    }
    table[at] = low;
    table[at + 1] = high;
    return true;
  }

  #halve(): void {
    while (this.#size > this.#entriesMax) {
      this.#sampleMask = this.#sampleMask * 2 + 1;
      this.#rebuild(this.#mask + 1);
    }
  }

  #rebuild(slots: number): void {
    const old = this.#table;
    this.#table = new Uint32Array(slots * 2);
    this.#mask = slots - 1;
    this.#size = 0;
    for (let at = 0; at < old.length; at += 2) {
      const [low, high] = [old[at]!, old[at + 1]!];
      if ((low === 0 && high === 0) || (high & this.#sampleMask) !== 0) continue;
      this.#insert(low, high);
      this.#size++;
    }
  }
}

/** Four bytes of an id as a number; never 0, so that no entry looks free. */
function word(ids: Uint8Array, offset: number): number {
  const value =
    (ids[offset]! | (ids[offset + 1]! << 8) | (ids[offset + 2]! << 16) | (ids[offset + 3]! << 24)) >>> 0;
  return value === 0 ? 0x8000_0000 : value;
}
