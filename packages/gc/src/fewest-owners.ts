/**
 * The fewest owners that together free enough, by trying all sets of them that could be it (branch and bound).
 *
 * It takes exponential time in the worst case, so it is bounded and may end without an answer; where little is shared, or few are enough, it ends
 * at once. The bound: divide the bytes of each set evenly among its owners that are not chosen yet. Whoever is chosen next, no more is freed than
 * their parts, as a set is freed only when all of its owners are. So a choice of n more is hopeless when the n largest parts are not enough.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { countsBefore, type HeldSets } from './held-sets.ts';

/** Most members of sets that are looked at: what a search keeps in memory, and what one step of it costs. */
const MEMBERS_MAX = 200_000;
/** Most members that all steps of a search look at: about a second. */
const VISITS_MAX = 20_000_000;
const VISITS_A_TURN = 500_000;
/** What sorting costs, for each owner. */
const VISITS_TO_SORT = 8;
/** Sums of parts are not exact; far less than this share is lost. */
const ROUNDING = 1e-9;

/**
 * Looks for fewer owners than `found` that free `wanted` bytes, among the owners with a 1.
 * @returns the fewest that were found, and whether it is proven that there are no fewer
 * @throws the signal's reason
 */
export async function fewestOwners(
  held: HeldSets,
  candidates: Uint8Array,
  wanted: number,
  found: readonly number[],
  signal?: AbortSignal,
): Promise<{ readonly owners: readonly number[]; readonly isProven: boolean }> {
  const search = new Search(held, candidates, wanted, found.length - 1, signal);
  let owners = found;
  while (owners.length > 0 && search.visitsLeft > 0) {
    const fewer = await search.atMost(owners.length - 1);
    if (fewer === undefined) break;
    owners = fewer;
  }
  return { owners, isProven: search.visitsLeft > 0 };
}

class Search {
  visitsLeft = VISITS_MAX;
  readonly #wanted: number;
  readonly #signal: AbortSignal | undefined;
  /** Where the members of each set begin in `#members`, and where the last one's end. */
  readonly #starts: number[] = [0];
  readonly #members: number[] = [];
  readonly #bytes: number[] = [];
  readonly #setsOf = new Map<number, number[]>();
  /** Of each set: owners that are not chosen, and those that may not be. */
  readonly #left: Uint32Array;
  readonly #barred: Uint32Array;
  readonly #state: Uint8Array;
  readonly #parts: Float64Array;
  readonly #sorted: Float64Array;
  readonly #chosen: number[] = [];
  #freed = 0;
  #visitsInTurn = 0;

  /** Only sets of at most `ownersMax` owners can be freed by so many. */
  constructor(
    held: HeldSets,
    candidates: Uint8Array,
    wanted: number,
    ownersMax: number,
    signal: AbortSignal | undefined,
  ) {
    this.#wanted = wanted;
    this.#signal = signal;
    this.#state = new Uint8Array(held.owners);
    this.#parts = new Float64Array(held.owners);
    const before = countsBefore(candidates);
    for (let set = 0; set < held.count; set++) {
      const size = held.sizeOf(set);
      if (held.pinned[set] === 1 || size > ownersMax || held.countIn(set, before) < size) continue;
      if (this.#members.length + size > MEMBERS_MAX) {
        this.visitsLeft = 0;
        break;
      }
      this.#add(held, set);
    }
    this.#left = Uint32Array.from(this.#bytes, (_, set) => this.#starts[set + 1]! - this.#starts[set]!);
    this.#barred = new Uint32Array(this.#bytes.length);
    this.#sorted = new Float64Array(this.#setsOf.size);
  }

  #add(held: HeldSets, set: number): void {
    for (let i = held.starts[set]!; i < held.starts[set + 1]!; i += 2) {
      for (let owner = held.ranges[i]!; owner < held.ranges[i + 1]!; owner++) {
        this.#members.push(owner);
        const sets = this.#setsOf.get(owner);
        if (sets === undefined) this.#setsOf.set(owner, [this.#bytes.length]);
        else sets.push(this.#bytes.length);
      }
    }
    this.#starts.push(this.#members.length);
    this.#bytes.push(held.bytes[set]!);
  }

  /** So many owners or fewer that are enough; undefined when there are none, or `visitsLeft` is used up. */
  async atMost(count: number): Promise<readonly number[] | undefined> {
    const isFound = await this.#choose(count);
    const owners = [...this.#chosen].sort((a, b) => a - b);
    for (const owner of this.#chosen.splice(0)) this.#take(owner, false);
    return isFound ? owners : undefined;
  }

  /** Whether at most `count` more are enough; they stay chosen then, and else nothing has changed. */
  async #choose(count: number): Promise<boolean> {
    const barred: number[] = [];
    let isFound = this.#freed >= this.#wanted;
    while (!isFound) {
      const owner = await this.#mostPromising(count);
      if (owner === undefined) break;
      this.#take(owner, true);
      this.#chosen.push(owner);
      isFound = await this.#choose(count - 1);
      if (isFound) break;
      this.#chosen.pop();
      this.#take(owner, false);
      this.#bar(owner, true);
      barred.push(owner);
    }
    for (const owner of barred) this.#bar(owner, false);
    return isFound;
  }

  /** The owner with the largest part; undefined when no `count` owners can be enough. */
  async #mostPromising(count: number): Promise<number | undefined> {
    const visits = 1 + this.#members.length + VISITS_TO_SORT * this.#setsOf.size;
    this.visitsLeft -= visits;
    this.#visitsInTurn += visits;
    if (this.#visitsInTurn > VISITS_A_TURN) {
      this.#visitsInTurn = 0;
      await nextTurn();
    }
    this.#signal?.throwIfAborted();
    if (this.visitsLeft <= 0) return undefined;
    const parts = this.#parts.fill(0);
    for (let set = 0; set < this.#bytes.length; set++) {
      const left = this.#left[set]!;
      if (left === 0 || left > count || this.#barred[set]! > 0) continue;
      const part = this.#bytes[set]! / left;
      for (let i = this.#starts[set]!; i < this.#starts[set + 1]!; i++)
        if (this.#state[this.#members[i]!] === 0) parts[this.#members[i]!]! += part;
    }
    let most: number | undefined;
    let owners = 0;
    for (const owner of this.#setsOf.keys()) {
      if (parts[owner]! > 0 && (most === undefined || parts[owner]! > parts[most]!)) most = owner;
      this.#sorted[owners++] = parts[owner]!;
    }
    this.#sorted.sort();
    const largest = this.#sorted.subarray(Math.max(0, owners - count));
    const reachable = largest.reduce((sum, part) => sum + part, this.#freed);
    return reachable * (1 + ROUNDING) < this.#wanted ? undefined : most;
  }

  #take(owner: number, isTaken: boolean): void {
    this.#state[owner] = isTaken ? 1 : 0;
    for (const set of this.#setsOf.get(owner)!) {
      if (!isTaken && this.#left[set] === 0) this.#freed -= this.#bytes[set]!;
      this.#left[set]! += isTaken ? -1 : 1;
      if (isTaken && this.#left[set] === 0) this.#freed += this.#bytes[set]!;
    }
  }

  #bar(owner: number, isBarred: boolean): void {
    for (const set of this.#setsOf.get(owner)!) this.#barred[set]! += isBarred ? 1 : -1;
  }
}
