/**
 * Records in the order of their keys, as blocks that never change. A change makes new blocks for what it touches and shares all others with what was
 * before, so that whoever holds that keeps it, and a change of few records among many costs these and a reference for each block.
 */

export interface StoredRecord {
  readonly key: Buffer;
  readonly value: Buffer;
}

/** A record with its new value, or undefined where it goes. */
export interface RecordChange {
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

type Block = readonly StoredRecord[];

export const BLOCK_RECORDS_MAX = 128;

export class SortedRecords {
  /** None is empty. */
  readonly blocks: readonly Block[];

  constructor(blocks: readonly Block[] = []) {
    this.blocks = blocks;
  }

  /** The records after the changes, which are ascending, each key once. */
  with(changes: readonly RecordChange[]): SortedRecords {
    const blocks: Block[] = [];
    let taken = 0;
    for (let first = 0; first < changes.length;) {
      const at = this.#blockOf(changes[first]!.key);
      while (taken < at) blocks.push(this.blocks[taken++]!);
      const end = this.blocks[at + 1]?.[0]!.key;
      let last = first + 1;
      while (last < changes.length && (end === undefined || Buffer.compare(changes[last]!.key, end) < 0))
        last++;
      addBlocks(blocks, merge(this.blocks[at] ?? [], changes, first, last));
      taken = at + 1;
      first = last;
    }
    while (taken < this.blocks.length) blocks.push(this.blocks[taken++]!);
    return new SortedRecords(blocks);
  }

  get(key: Buffer): StoredRecord | undefined {
    const block = this.blocks[this.#blockOf(key)] ?? [];
    const found = block[lowerBound(block, key)];
    return found?.key.equals(key) === true ? found : undefined;
  }

  /** From `from` on up to and without `to`, ascending; from the first, to the last, where they are absent. */
  *between(from?: Buffer, to?: Buffer): Generator<StoredRecord, void, undefined> {
    const first = from === undefined ? 0 : this.#blockOf(from);
    for (let at = first; at < this.blocks.length; at++) {
      const block = this.blocks[at]!;
      const start = at === first && from !== undefined ? lowerBound(block, from) : 0;
      for (let i = start; i < block.length; i++) {
        if (to !== undefined && Buffer.compare(block[i]!.key, to) >= 0) return;
        yield block[i]!;
      }
    }
  }

  /** The same, descending. */
  *backwards(from: Buffer, to: Buffer): Generator<StoredRecord, void, undefined> {
    const last = this.#blockOf(to);
    for (let at = Math.min(last, this.blocks.length - 1); at >= 0; at--) {
      const block = this.blocks[at]!;
      for (let i = (at === last ? lowerBound(block, to) : block.length) - 1; i >= 0; i--) {
        if (Buffer.compare(block[i]!.key, from) < 0) return;
        yield block[i]!;
      }
    }
  }

  /** The block in which a key is, if it is anywhere: the last one that does not begin behind it, or the first. */
  #blockOf(key: Buffer): number {
    let low = 0;
    let high = this.blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (Buffer.compare(this.blocks[middle]![0]!.key, key) <= 0) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
}

/** The records of a block after the changes from `first` up to and without `last`. */
function merge(block: Block, changes: readonly RecordChange[], first: number, last: number): StoredRecord[] {
  const merged: StoredRecord[] = [];
  let old = 0;
  for (let i = first; i < last; i++) {
    const { key, value } = changes[i]!;
    while (old < block.length && Buffer.compare(block[old]!.key, key) < 0) merged.push(block[old++]!);
    if (block[old]?.key.equals(key) === true) old++;
    if (value !== undefined) merged.push({ key, value });
  }
  while (old < block.length) merged.push(block[old++]!);
  return merged;
}

/** Adds records behind the last block; few go into it, so that blocks which have become small do not stay. */
function addBlocks(blocks: Block[], records: StoredRecord[]): void {
  const before = blocks.at(-1);
  if (before !== undefined && before.length + records.length <= BLOCK_RECORDS_MAX / 2) {
    blocks[blocks.length - 1] = [...before, ...records];
    return;
  }
  const count = Math.ceil(records.length / BLOCK_RECORDS_MAX);
  const each = Math.ceil(records.length / count);
  for (let at = 0; at < records.length; at += each) blocks.push(records.slice(at, at + each));
}

/** Position of the first record whose key is not less than `key`. */
function lowerBound(block: Block, key: Buffer): number {
  let low = 0;
  let high = block.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (Buffer.compare(block[middle]!.key, key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
