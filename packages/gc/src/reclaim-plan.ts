/**
 * Which owners to delete so that at least so many bytes are freed: the oldest, or few.
 *
 * What a set of owners frees grows with the set, so the oldest ones that are enough are found by halving. The smallest set that is
 * enough is not found so (it is a knapsack whose items share their weight); it is looked for greedily, what frees most for
 * each owner goes first, with everything measured anew after each step, and then by trying all smaller ones, as far as that goes
 * (fewest-owners.ts). All leave out again whoever turned out not to be needed, so that nobody can be left out of a plan, and what is
 * said to be freed is exact in any case.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fewestOwners } from './fewest-owners.ts';
import { accumulate, countsBefore, type HeldSets } from './held-sets.ts';

export interface ReclaimPlan {
  /** Positions of the owners to delete. */
  readonly owners: readonly number[];
  readonly freedBytes: number;
  /** Whether it is proven that no fewer owners free as much as was wanted. */
  readonly isFewest: boolean;
}

/** Most ranges of sets that a greedy search looks at. Past it, owners are taken in order of what they reach. */
const RANGES_MAX = 1_000_000_000;

/**
 * The first of `order` that together free `bytes`, or all that can be had when that is less, without those that are not needed.
 * @throws the signal's reason
 */
export async function planInOrder(
  held: HeldSets,
  order: readonly number[],
  bytes: number,
  signal?: AbortSignal,
): Promise<ReclaimPlan> {
  const chosen = new Uint8Array(held.owners);
  const wanted = Math.min(bytes, held.freedBy(marked(chosen, order, order.length)));
  let [low, high] = [0, order.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (held.freedBy(marked(chosen, order, middle)) >= wanted) high = middle;
    else low = middle + 1;
    await turn(signal);
  }
  marked(chosen, order, low);
  // The newest first: each is let off when the others free enough.
  await leaveOut(held, chosen, order.slice(0, low).reverse(), wanted, signal);
  return planOf(held, chosen);
}

/** Few of the owners with a 1 that together free `bytes`, or all that can be had when that is less. @throws the signal's reason */
export async function planFew(
  held: HeldSets,
  candidates: Uint8Array,
  bytes: number,
  signal?: AbortSignal,
): Promise<ReclaimPlan> {
  const chosen = new Uint8Array(held.owners);
  const candidatesBefore = countsBefore(candidates);
  let work = RANGES_MAX;
  let freedBytes = 0;
  while (freedBytes < bytes) {
    work -= held.ranges.length + held.owners;
    if (work <= 0) return planInOrder(held, inOrderOfGain(held, candidates), bytes, signal);
    const next = bestStep(held, chosen, candidatesBefore, bytes - freedBytes);
    if (next.length === 0) break;
    for (const owner of next) chosen[owner] = 1;
    freedBytes = held.freedBy(chosen);
    await turn(signal);
  }
  const wanted = Math.min(bytes, freedBytes);
  // Whoever is needed least first.
  const losses = lossesOf(held, chosen);
  const order = planOf(held, chosen).owners.toSorted((a, b) => losses[a]! - losses[b]!);
  await leaveOut(held, chosen, order, wanted, signal);
  const greedy = planOf(held, chosen);
  const { owners, isProven } = await fewestOwners(held, candidates, wanted, greedy.owners, signal);
  chosen.fill(0);
  for (const owner of owners) chosen[owner] = 1;
  return { ...planOf(held, chosen), isFewest: isProven };
}

/**
 * Leaves out whoever is not needed for `wanted` bytes, in this order. Nobody can be left out afterwards: who is needed beside some is needed beside
 * fewer of them. Each round leaves out, or passes by, one at least, and mostly many.
 */
async function leaveOut(
  held: HeldSets,
  chosen: Uint8Array,
  order: readonly number[],
  wanted: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let next = 0; next < order.length;) {
    const mayLose = held.freedBy(chosen) - wanted;
    const losses = lossesOf(held, chosen);
    // What those left out in this round hold together is counted for each of them, so it is less that is lost, never more.
    let lost = 0;
    for (; next < order.length; next++) {
      const loss = losses[order[next]!]!;
      if (loss > mayLose) continue;
      if (lost + loss > mayLose) break;
      lost += loss;
      chosen[order[next]!] = 0;
    }
    await turn(signal);
  }
}

function marked(marks: Uint8Array, order: readonly number[], count: number): Uint8Array {
  marks.fill(0);
  for (let i = 0; i < count; i++) marks[order[i]!] = 1;
  return marks;
}

function planOf(held: HeldSets, chosen: Uint8Array): ReclaimPlan {
  const owners: number[] = [];
  for (let owner = 0; owner < held.owners; owner++) if (chosen[owner] === 1) owners.push(owner);
  return { owners, freedBytes: held.freedBy(chosen), isFewest: false };
}

async function turn(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn();
  signal?.throwIfAborted();
}

/**
 * Whom to delete next: the one owner that frees most, or, where several have to go together before anything is freed, those that free
 * most each. Nobody when none can free anything. When one owner is enough, the one that frees least of those that are.
 */
function bestStep(
  held: HeldSets,
  chosen: Uint8Array,
  candidatesBefore: Uint32Array,
  wanted: number,
): readonly number[] {
  const gains = new Float64Array(held.owners);
  const chosenBefore = countsBefore(chosen);
  let bestSet = -1;
  let bestEach = 0;
  for (let set = 0; set < held.count; set++) {
    if (held.pinned[set] === 1) continue;
    const size = held.sizeOf(set);
    if (held.countIn(set, candidatesBefore) < size) continue;
    const left = size - held.countIn(set, chosenBefore);
    if (left === 1) gains[held.firstNotIn(set, chosenBefore)]! += held.bytes[set]!;
    else if (left > 1 && held.bytes[set]! / left > bestEach) {
      bestSet = set;
      bestEach = held.bytes[set]! / left;
    }
  }
  let most = 0;
  let enough = -1;
  for (let owner = 0; owner < held.owners; owner++) {
    if (gains[owner]! > gains[most]!) most = owner;
    if (gains[owner]! >= wanted && (enough < 0 || gains[owner]! < gains[enough]!)) enough = owner;
  }
  if (enough >= 0) return [enough];
  if (bestSet >= 0 && bestEach > gains[most]!) return remaining(held, bestSet, chosen);
  return held.owners > 0 && gains[most]! > 0 ? [most] : [];
}

/** The owners of a set that are not chosen yet. */
function remaining(held: HeldSets, set: number, chosen: Uint8Array): readonly number[] {
  const owners: number[] = [];
  for (let i = held.starts[set]!; i < held.starts[set + 1]!; i += 2)
    for (let owner = held.ranges[i]!; owner < held.ranges[i + 1]!; owner++)
      if (chosen[owner] === 0) owners.push(owner);
  return owners;
}

/** By owner: what is not freed any more when this one of the chosen is not deleted. */
function lossesOf(held: HeldSets, chosen: Uint8Array): Float64Array {
  const losses = new Float64Array(held.owners + 1);
  const before = countsBefore(chosen);
  for (let set = 0; set < held.count; set++) {
    if (held.pinned[set] === 1 || held.countIn(set, before) < held.sizeOf(set)) continue;
    held.addToMembers(losses, set, held.bytes[set]!);
  }
  return accumulate(losses);
}

/** The candidates, those first that reach most. */
function inOrderOfGain(held: HeldSets, candidates: Uint8Array): readonly number[] {
  const reached = held.reached();
  const owners: number[] = [];
  for (let owner = 0; owner < held.owners; owner++) if (candidates[owner] === 1) owners.push(owner);
  return owners.sort((a, b) => reached[b]! - reached[a]!);
}
