/**
 * Sets of owners, each known by a number, equal ones by the same: what the accounts label nodes and slots with.
 *
 * A set is kept as ranges of owner numbers. Owners that share much stand side by side (a VM, then its backups in the order of
 * time; clones in the order in which they were made), so that "all clones but one" or "this VM's backups from Monday to
 * Friday" takes two numbers a range, however many owners that is.
 *
 * Memory is bounded: singles are always there, and unions as long as they have room. A union that finds none is MANY: more than one
 * owner, nobody knows which; so is every union with it. What is said of a set that is not MANY stays exact.
 */

import { PandoError } from '@pando/common';

/** Whose a slot is that nothing reaches. */
export const NOBODY = 0;
/** Several owners, not known which, none of them in the subset; and at least one of them in the subset. */
export const MANY = 1;
export const MANY_IN_SUBSET = 2;
/** What sessions in flight have pinned is held by owner number 0, and this is the set of that alone. */
export const IN_FLIGHT = 3;

/** The set of the first real owner alone; those of the others follow. Owners are numbered from 1. */
const FIRST_SINGLE = 4;

/** Most bytes that unions take, by default. */
export const SET_BYTES_MAX = 32 * 1024 * 1024;

/** What a set takes besides its ranges: its start, its flag, its place in the hash table. */
const BYTES_PER_SET = 16;
const BYTES_PER_RANGE = 8;

/** Owners have lower numbers: a range fits one number that sorts. */
const OWNERS_MAX = 2 ** 26;

/** Unions that are remembered, by place: the newest of those that fall on one. */
const MEMO_ENTRIES = 1 << 16;

export class OwnerSets {
  readonly #bytesMax: number;
  /** Ranges of all sets, one set after another: from, to (exclusive), ascending, not touching. */
  #words = new Uint32Array(1024);
  /** Where the words of each set begin; those of the next one are where they end. */
  #starts = new Uint32Array(256);
  #inSubset = new Uint8Array(256);
  #count = FIRST_SINGLE;
  /** Set numbers by hash; 0 is free. */
  #table = new Uint32Array(512);
  #scratch = new Uint32Array(64);
  /** Ranges that are put in order. */
  #sorting = new Float64Array(64);
  #singles = 0;
  /** Bytes of unions from which on it may be worth it to compact. */
  #crowdedFrom: number;
  readonly #memoLow = new Uint32Array(MEMO_ENTRIES);
  readonly #memoHigh = new Uint32Array(MEMO_ENTRIES);
  readonly #memoUnion = new Uint32Array(MEMO_ENTRIES);

  constructor(bytesMax: number = SET_BYTES_MAX) {
    this.#bytesMax = bytesMax;
    this.#crowdedFrom = bytesMax / 2;
    this.#words[0] = 0;
    this.#words[1] = 1;
    this.#starts[FIRST_SINGLE] = 2;
    this.#inSubset[MANY_IN_SUBSET] = 1;
    this.#remember(IN_FLIGHT);
  }

  /** Sets that there are; their numbers are below it. */
  get count(): number {
    return this.#count;
  }

  /** Real owners. */
  get owners(): number {
    return this.#singles;
  }

  /** Bytes that unions take. */
  get unionBytes(): number {
    const words = this.#starts[this.#count]! - this.#starts[FIRST_SINGLE + this.#singles]!;
    return (words / 2) * BYTES_PER_RANGE + (this.#count - FIRST_SINGLE - this.#singles) * BYTES_PER_SET;
  }

  /** Whether there are so many unions that it is time to `compact`. */
  get isCrowded(): boolean {
    return this.unionBytes > this.#crowdedFrom;
  }

  /** Adds an owner, before the first union: the set of it alone. */
  addOwner(isInSubset: boolean): number {
    if (this.#count !== FIRST_SINGLE + this.#singles)
      throw new PandoError('internal', 'owners come before unions');
    if (this.#singles + 2 >= OWNERS_MAX)
      throw new PandoError('too-busy', `there are more than ${OWNERS_MAX} VMs and backups`);
    const owner = ++this.#singles;
    this.#scratch[0] = owner;
    this.#scratch[1] = owner + 1;
    return this.#append(2, isInSubset ? 1 : 0);
  }

  /** The set of one owner, by its number from 1. */
  single(owner: number): number {
    return FIRST_SINGLE + owner - 1;
  }

  isInSubset(set: number): boolean {
    return this.#inSubset[set] === 1;
  }

  /** Ranges of a set that is not MANY: a view of pairs from, to (exclusive), valid until the next union. */
  ranges(set: number): Uint32Array {
    if (set < IN_FLIGHT) return this.#words.subarray(0, 0);
    return this.#words.subarray(this.#starts[set], this.#starts[set + 1]);
  }

  union(a: number, b: number): number {
    if (a === b || b === NOBODY) return a;
    if (a === NOBODY) return b;
    const low = a < b ? a : b;
    const high = a < b ? b : a;
    const at = (Math.imul(low, 0x9e3779b1) ^ Math.imul(high, 0x85ebca6b)) >>> 16;
    if (this.#memoLow[at] === low && this.#memoHigh[at] === high) return this.#memoUnion[at]!;
    const union = this.#unite(low, high);
    this.#memoLow[at] = low;
    this.#memoHigh[at] = high;
    this.#memoUnion[at] = union;
    return union;
  }

  /**
   * The union of the first `count` of these sets, which may repeat. Nothing in between becomes a set: where a thousand clones share a node, that is a thousand
   * sets less, for each node.
   */
  unionOf(sets: Uint32Array, count: number): number {
    if (count === 1) return sets[0]!;
    if (count === 2) return this.union(sets[0]!, sets[1]!);
    let isInSubset = 0;
    let isMany = false;
    let ranges = 0;
    for (let i = 0; i < count; i++) {
      const set = sets[i]!;
      isInSubset |= this.#inSubset[set]!;
      if (set === MANY || set === MANY_IN_SUBSET) isMany = true;
      ranges += (this.#starts[set + 1]! - this.#starts[set]!) / 2;
    }
    if (isMany) return MANY + isInSubset;
    if (ranges > this.#sorting.length) this.#sorting = new Float64Array(ranges * 2);
    if (ranges * 2 > this.#scratch.length) this.#scratch = new Uint32Array(ranges * 4);
    const sorting = this.#sorting.subarray(0, ranges);
    let at = 0;
    for (let i = 0; i < count; i++) {
      const end = this.#starts[sets[i]! + 1]!;
      for (let word = this.#starts[sets[i]!]!; word < end; word += 2)
        sorting[at++] = this.#words[word]! * OWNERS_MAX + this.#words[word + 1]!;
    }
    sorting.sort();
    const out = this.#scratch;
    let end = 0;
    for (const range of sorting) {
      const from = Math.floor(range / OWNERS_MAX);
      const to = range % OWNERS_MAX;
      if (end > 0 && from <= out[end - 1]!) {
        if (to > out[end - 1]!) out[end - 1] = to;
      } else {
        out[end++] = from;
        out[end++] = to;
      }
    }
    return this.#find(end, isInSubset);
  }

  /** The set of these ranges, given as `words` numbers: pairs from, to, ascending, not touching, of owners that were added. */
  intern(ranges: Uint32Array, words: number, isInSubset: boolean): number {
    if (words > this.#scratch.length) this.#scratch = new Uint32Array(words * 2);
    this.#scratch.set(ranges.subarray(0, words));
    return this.#find(words, isInSubset ? 1 : 0);
  }

  /**
   * Forgets the unions that `inUse` (by set number) does not name. Returns the new number of each old one; those of singles stay.
   */
  compact(inUse: Uint8Array): Uint32Array {
    const numbers = new Uint32Array(this.#count);
    const first = FIRST_SINGLE + this.#singles;
    let count = first;
    let end = this.#starts[first]!;
    for (let set = 0; set < this.#count; set++) {
      if (set < first) {
        numbers[set] = set;
        continue;
      }
      if (inUse[set] !== 1) continue;
      const start = this.#starts[set]!;
      const words = this.#starts[set + 1]! - start;
      this.#words.copyWithin(end, start, start + words);
      this.#starts[count] = end;
      this.#inSubset[count] = this.#inSubset[set]!;
      numbers[set] = count++;
      end += words;
    }
    this.#starts[count] = end;
    this.#count = count;
    this.#rehash(this.#table.length);
    this.#memoLow.fill(0);
    // Not again before half as much has come together: what is in use would be gone through for nothing.
    this.#crowdedFrom = Math.max(this.#bytesMax / 2, this.unionBytes * 1.5);
    return numbers;
  }

  #unite(a: number, b: number): number {
    const isInSubset = this.#inSubset[a]! | this.#inSubset[b]!;
    if (a < IN_FLIGHT) return MANY + isInSubset;
    const words = this.#merge(a, b);
    return this.#find(words, isInSubset);
  }

  /** Writes the union of two sets into the scratch; returns its words. */
  #merge(a: number, b: number): number {
    let i = this.#starts[a]!;
    let j = this.#starts[b]!;
    const iEnd = this.#starts[a + 1]!;
    const jEnd = this.#starts[b + 1]!;
    const most = iEnd - i + jEnd - j;
    if (most > this.#scratch.length) this.#scratch = new Uint32Array(most * 2);
    const words = this.#words;
    const out = this.#scratch;
    let end = 0;
    while (i < iEnd || j < jEnd) {
      const isFirst = j === jEnd || (i < iEnd && words[i]! <= words[j]!);
      const from = words[isFirst ? i : j]!;
      const to = words[(isFirst ? i : j) + 1]!;
      if (isFirst) i += 2;
      else j += 2;
      if (end > 0 && from <= out[end - 1]!) {
        if (to > out[end - 1]!) out[end - 1] = to;
      } else {
        out[end++] = from;
        out[end++] = to;
      }
    }
    return end;
  }

  /** The set whose ranges are in the scratch, which is made when there is room for it. */
  #find(words: number, isInSubset: number): number {
    const mask = this.#table.length - 1;
    let at = this.#hash(this.#scratch, 0, words) & mask;
    for (let set = this.#table[at]!; set !== 0; set = this.#table[at]!) {
      if (this.#isScratch(set, words)) return set;
      at = (at + 1) & mask;
    }
    const bytes = this.unionBytes + (words / 2) * BYTES_PER_RANGE + BYTES_PER_SET;
    return bytes > this.#bytesMax ? MANY + isInSubset : this.#append(words, isInSubset);
  }

  #isScratch(set: number, words: number): boolean {
    const start = this.#starts[set]!;
    if (this.#starts[set + 1]! - start !== words) return false;
    for (let i = 0; i < words; i++) if (this.#words[start + i] !== this.#scratch[i]) return false;
    return true;
  }

  /** Makes a set of what is in the scratch. */
  #append(words: number, isInSubset: number): number {
    const set = this.#count++;
    if (set + 2 > this.#starts.length) {
      this.#starts = grown(this.#starts, this.#starts.length * 2);
      const flags = new Uint8Array(this.#starts.length);
      flags.set(this.#inSubset);
      this.#inSubset = flags;
    }
    const start = this.#starts[set]!;
    if (start + words > this.#words.length)
      this.#words = grown(this.#words, Math.max(this.#words.length * 2, start + words));
    this.#words.set(this.#scratch.subarray(0, words), start);
    this.#starts[set + 1] = start + words;
    this.#inSubset[set] = isInSubset;
    if (this.#count * 2 > this.#table.length) this.#rehash(this.#table.length * 2);
    else this.#remember(set);
    return set;
  }

  #rehash(entries: number): void {
    if (entries === this.#table.length) this.#table.fill(0);
    else this.#table = new Uint32Array(entries);
    for (let set = IN_FLIGHT; set < this.#count; set++) this.#remember(set);
  }

  #remember(set: number): void {
    const mask = this.#table.length - 1;
    let at = this.#hash(this.#words, this.#starts[set]!, this.#starts[set + 1]!) & mask;
    while (this.#table[at] !== 0) at = (at + 1) & mask;
    this.#table[at] = set;
  }

  #hash(words: Uint32Array, start: number, end: number): number {
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) {
      hash = Math.imul(hash ^ words[i]!, 0x01000193);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return (hash ^ (hash >>> 16)) >>> 0;
  }
}

function grown(array: Uint32Array, length: number): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(length);
  larger.set(array);
  return larger;
}
