/**
 * What is stored, by the sets of owners that hold it: all that one walk found out about who shares what with whom.
 *
 * Every question about owners is a sum over this table, exact to the byte, and costs the ranges of its sets: what deleting a set of
 * owners frees, what one holds alone, what two hold in common, how what is shared is divided. Owners are known by their
 * position in the list that the walk was given.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { OwnerSets } from './owner-sets.ts';

/** Runs of owners that `grouped` goes through before others get their turn. */
const GROUP_RUNS_A_TURN = 200_000;

/** What a set of owners holds that it cannot be freed of, and who else holds that. */
export interface Staying {
  /** What the rest holds as well. */
  readonly bytes: number;
  /** What of it no other owner holds, but sessions in flight do at the moment. */
  readonly inFlightBytes: number;
  /** By owner: how much of it it holds, and of how much it is the only one of the rest. */
  readonly held: Float64Array;
  readonly alone: Float64Array;
}

export class HeldSets {
  readonly owners: number;
  /** Sets with anything stored. */
  readonly count: number;
  /** Where each set's ranges begin in `ranges`, and where the last one's end. */
  readonly starts: Uint32Array;
  /** Pairs of positions from, to (exclusive), ascending within a set, not touching. */
  readonly ranges: Uint32Array;
  /** Stored bytes of each set. */
  readonly bytes: Float64Array;
  /** Whether sessions in flight hold them, too. */
  readonly pinned: Uint8Array;
  /** Stored bytes that several owners hold of whom nobody knows which: there were more sets than there was memory for. */
  readonly untoldBytes: number;

  constructor(from: {
    owners: number;
    starts: Uint32Array;
    ranges: Uint32Array;
    bytes: Float64Array;
    pinned: Uint8Array;
    untoldBytes: number;
  }) {
    this.owners = from.owners;
    this.count = from.bytes.length;
    this.starts = from.starts;
    this.ranges = from.ranges;
    this.bytes = from.bytes;
    this.pinned = from.pinned;
    this.untoldBytes = from.untoldBytes;
  }

  /** Stored bytes that owners hold. */
  get totalBytes(): number {
    return this.bytes.reduce((sum, bytes) => sum + bytes, this.untoldBytes);
  }

  /** How many owners a set has. */
  sizeOf(set: number): number {
    let size = 0;
    for (let i = this.starts[set]!; i < this.starts[set + 1]!; i += 2)
      size += this.ranges[i + 1]! - this.ranges[i]!;
    return size;
  }

  /** Bytes that deleting all owners with a 1 frees, when nothing is in flight any more and apart from what is untold. */
  freedBy(deleted: Uint8Array): number {
    const before = countsBefore(deleted);
    let bytes = 0;
    for (let set = 0; set < this.count; set++) {
      if (this.pinned[set] === 0 && this.countIn(set, before) === this.sizeOf(set)) bytes += this.bytes[set]!;
    }
    return bytes;
  }

  /** What those with a 1 hold and deleting them does not free. */
  staying(deleted: Uint8Array): Staying {
    const before = countsBefore(deleted);
    const held = new Float64Array(this.owners + 1);
    const alone = new Float64Array(this.owners);
    let bytes = 0;
    let inFlightBytes = 0;
    for (let set = 0; set < this.count; set++) {
      const going = this.countIn(set, before);
      if (going === 0) continue;
      const left = this.sizeOf(set) - going;
      if (left === 0) {
        if (this.pinned[set] === 1) inFlightBytes += this.bytes[set]!;
        continue;
      }
      bytes += this.bytes[set]!;
      this.addToMembers(held, set, this.bytes[set]!);
      if (left === 1 && this.pinned[set] === 0) alone[this.firstNotIn(set, before)]! += this.bytes[set]!;
    }
    accumulate(held);
    for (let owner = 0; owner < this.owners; owner++) if (deleted[owner] === 1) held[owner] = 0;
    return { bytes: bytes + inFlightBytes, inFlightBytes, held: held.subarray(0, this.owners), alone };
  }

  /** By owner: bytes that deleting it alone frees. */
  exclusive(): Float64Array {
    const exclusive = new Float64Array(this.owners);
    for (let set = 0; set < this.count; set++) {
      if (this.pinned[set] === 0 && this.sizeOf(set) === 1)
        exclusive[this.ranges[this.starts[set]!]!]! += this.bytes[set]!;
    }
    return exclusive;
  }

  /** By owner: all that it reaches. */
  reached(): Float64Array {
    const reached = new Float64Array(this.owners + 1);
    for (let set = 0; set < this.count; set++) this.addToMembers(reached, set, this.bytes[set]!);
    return accumulate(reached).subarray(0, this.owners);
  }

  /**
   * By owner: what each set holds, divided among its owners. In whole bytes, so that all together are exactly what is held but
   * for what is untold: where a division leaves a rest, the first owners of the set get a byte of it each.
   */
  fairShares(): Float64Array {
    const shares = new Float64Array(this.owners + 1);
    for (let set = 0; set < this.count; set++) {
      const size = this.sizeOf(set);
      const rest = this.bytes[set]! % size;
      this.addToMembers(shares, set, (this.bytes[set]! - rest) / size);
      let left = rest;
      for (let i = this.starts[set]!; left > 0; i += 2) {
        const from = this.ranges[i]!;
        const to = Math.min(this.ranges[i + 1]!, from + left);
        shares[from]!++;
        shares[to]!--;
        left -= to - from;
      }
    }
    return accumulate(shares).subarray(0, this.owners);
  }

  /** By owner: bytes that it holds in common with this one; for this one, all that it reaches. */
  sharedWith(owner: number): Float64Array {
    const shared = new Float64Array(this.owners + 1);
    for (let set = 0; set < this.count; set++) {
      if (this.has(set, owner)) this.addToMembers(shared, set, this.bytes[set]!);
    }
    return accumulate(shared).subarray(0, this.owners);
  }

  has(set: number, owner: number): boolean {
    for (let i = this.starts[set]!; i < this.starts[set + 1]!; i += 2)
      if (owner >= this.ranges[i]! && owner < this.ranges[i + 1]!) return true;
    return false;
  }

  /** How many of a set's owners are counted by `before` (see `countsBefore`). */
  countIn(set: number, before: Uint32Array): number {
    let count = 0;
    for (let i = this.starts[set]!; i < this.starts[set + 1]!; i += 2)
      count += before[this.ranges[i + 1]!]! - before[this.ranges[i]!]!;
    return count;
  }

  /**
   * The same with groups in place of owners: a group holds what any of its members holds.
   * @param groupsOf the groups of an owner, 0 to groups − 1, at least one; the same array for owners of the same groups
   */
  async grouped(groups: number, groupsOf: (owner: number) => readonly number[]): Promise<HeldSets> {
    const runEnds = new Uint32Array(this.owners);
    for (let owner = this.owners - 1; owner >= 0; owner--) {
      const isSame = owner + 1 < this.owners && groupsOf(owner) === groupsOf(owner + 1);
      runEnds[owner] = isSame ? runEnds[owner + 1]! : owner + 1;
    }
    const sets = new OwnerSets();
    for (let group = 0; group < groups; group++) sets.addOwner(false);
    const seenIn = new Uint32Array(groups);
    const bytes: number[][] = [[], []];
    let untoldBytes = this.untoldBytes;
    let runs = 0;
    for (let set = 0; set < this.count; set++) {
      const members: number[] = [];
      for (let i = this.starts[set]!; i < this.starts[set + 1]!; i += 2) {
        for (let owner = this.ranges[i]!; owner < this.ranges[i + 1]!; owner = runEnds[owner]!) {
          for (const group of groupsOf(owner)) {
            if (seenIn[group] === set + 1) continue;
            seenIn[group] = set + 1;
            members.push(group);
          }
          runs++;
        }
      }
      const words = rangesOf(members);
      const united = sets.intern(words, words.length, false);
      if (sets.ranges(united).length === 0) untoldBytes += this.bytes[set]!;
      else {
        const sums = bytes[this.pinned[set]!]!;
        sums[united] = (sums[united] ?? 0) + this.bytes[set]!;
      }
      if (runs < GROUP_RUNS_A_TURN) continue;
      runs = 0;
      await nextTurn();
    }
    const found = new HeldSetsBuilder(groups);
    for (const pinned of [0, 1] as const) {
      bytes[pinned]!.forEach((sum, set) => found.add(sets.ranges(set), pinned === 1, sum));
    }
    return found.finish(untoldBytes);
  }

  /** Notes bytes for every owner of a set, in `owners + 1` sums that `accumulate` makes sums of. */
  addToMembers(sums: Float64Array, set: number, bytes: number): void {
    for (let i = this.starts[set]!; i < this.starts[set + 1]!; i += 2) {
      sums[this.ranges[i]!]! += bytes;
      sums[this.ranges[i + 1]!]! -= bytes;
    }
  }

  /** The first owner of a set that `before` does not count; there is one. */
  firstNotIn(set: number, before: Uint32Array): number {
    for (let i = this.starts[set]!; ; i += 2) {
      const from = this.ranges[i]!;
      let [low, high] = [from, this.ranges[i + 1]!];
      if (before[high]! - before[from]! === high - from) continue;
      // Of low … high − 1 one is not counted.
      while (high - low > 1) {
        const middle = (low + high) >>> 1;
        if (before[middle]! - before[from]! < middle - from) high = middle;
        else low = middle;
      }
      return low;
    }
  }
}

/** Puts a table together, set by set. */
export class HeldSetsBuilder {
  readonly #owners: number;
  readonly #starts: number[] = [0];
  readonly #bytes: number[] = [];
  readonly #pinned: number[] = [];
  #ranges = new Uint32Array(1024);

  constructor(owners: number) {
    this.#owners = owners;
  }

  /** @param ranges of numbers from 1 on, as OwnerSets has them; 0, for sessions in flight, is not among them */
  add(ranges: Uint32Array, isPinned: boolean, bytes: number): void {
    if (bytes === 0) return;
    const start = this.#starts.at(-1)!;
    if (start + ranges.length > this.#ranges.length) {
      const larger = new Uint32Array(Math.max(this.#ranges.length * 2, start + ranges.length));
      larger.set(this.#ranges);
      this.#ranges = larger;
    }
    for (let i = 0; i < ranges.length; i++) this.#ranges[start + i] = ranges[i]! - 1;
    this.#starts.push(start + ranges.length);
    this.#bytes.push(bytes);
    this.#pinned.push(isPinned ? 1 : 0);
  }

  finish(untoldBytes: number): HeldSets {
    const starts = Uint32Array.from(this.#starts);
    return new HeldSets({
      owners: this.#owners,
      starts,
      ranges: this.#ranges.slice(0, starts.at(-1)),
      bytes: Float64Array.from(this.#bytes),
      pinned: Uint8Array.from(this.#pinned),
      untoldBytes,
    });
  }
}

/** For every position, how many before it have a 1. */
export function countsBefore(marks: Uint8Array): Uint32Array {
  const before = new Uint32Array(marks.length + 1);
  for (let i = 0; i < marks.length; i++) before[i + 1] = before[i]! + marks[i]!;
  return before;
}

/** From differences between neighbours to the sums; in place. */
export function accumulate(differences: Float64Array): Float64Array {
  for (let i = 1; i < differences.length; i++) differences[i]! += differences[i - 1]!;
  return differences;
}

/** Ranges of numbers from 1 on, for groups numbered from 0 in any order. */
function rangesOf(groups: number[]): Uint32Array {
  groups.sort((a, b) => a - b);
  const words: number[] = [];
  for (const group of groups) {
    if (words.length > 0 && words.at(-1) === group + 1) words[words.length - 1] = group + 2;
    else words.push(group + 1, group + 2);
  }
  return Uint32Array.from(words);
}
