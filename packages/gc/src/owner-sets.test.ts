import { seededRandom } from '@pando/tree/testing';
import { describe, expect, test } from 'vitest';
import { IN_FLIGHT, MANY, MANY_IN_SUBSET, NOBODY, OwnerSets } from './owner-sets.ts';

/** Members of a set, the slow way. */
function membersOf(sets: OwnerSets, set: number): number[] {
  const members: number[] = [];
  const ranges = sets.ranges(set);
  for (let i = 0; i < ranges.length; i += 2)
    for (let owner = ranges[i]!; owner < ranges[i + 1]!; owner++) members.push(owner);
  return members;
}

function withOwners(count: number, bytesMax?: number): OwnerSets {
  const sets = new OwnerSets(bytesMax);
  for (let i = 0; i < count; i++) sets.addOwner(i % 3 === 0);
  return sets;
}

describe('sets of owners', () => {
  test.each([1, 2, 3, 4])('are what plain sets are, also after a compaction, model, seed %i', (seed) => {
    const random = seededRandom(seed);
    const owners = 1 + random.below(40);
    const sets = withOwners(owners);
    let known = new Map<number, ReadonlySet<number>>([[IN_FLIGHT, new Set([0])]]);
    for (let owner = 1; owner <= owners; owner++) known.set(sets.single(owner), new Set([owner]));
    const check = (): void => {
      const byMembers = new Map<string, number>();
      for (const [set, members] of known) {
        const sorted = [...members].sort((a, b) => a - b);
        expect(membersOf(sets, set), `seed ${seed}`).toEqual(sorted);
        expect(byMembers.get(sorted.join()) ?? set, `seed ${seed}`).toBe(set); // equal sets have one number
        byMembers.set(sorted.join(), set);
        expect(sets.isInSubset(set)).toBe(sorted.some((owner) => owner > 0 && (owner - 1) % 3 === 0));
      }
    };
    for (let step = 0; step < 400; step++) {
      const numbers = [...known.keys()];
      const [a, b] = [numbers[random.below(numbers.length)]!, numbers[random.below(numbers.length)]!];
      known.set(sets.union(a, b), new Set([...known.get(a)!, ...known.get(b)!]));
      expect(sets.union(b, a)).toBe(sets.union(a, b));
      const some = Array.from({ length: 1 + random.below(6) }, () => numbers[random.below(numbers.length)]!);
      const united = sets.unionOf(Uint32Array.from(some), some.length);
      known.set(united, new Set(some.flatMap((set) => [...known.get(set)!])));
      if (step % 100 !== 99) continue;
      check();
      const used = new Uint8Array(sets.count);
      const kept = [...known].filter(([set]) => set <= sets.single(owners) || random.below(2) === 0);
      for (const [set] of kept) used[set] = 1;
      const renumbered = sets.compact(used);
      known = new Map(kept.map(([set, members]) => [renumbered[set]!, members]));
      expect(sets.count).toBe(1 + Math.max(...known.keys()));
      check();
    }
  });

  test('of neighbours take one range, however many they are', () => {
    const sets = withOwners(10_000);
    let all = NOBODY;
    for (let owner = 1; owner <= 10_000; owner++) all = sets.union(all, sets.single(owner));
    expect([...sets.ranges(all)]).toEqual([1, 10_001]);
    expect(sets.unionBytes).toBeLessThan(10_000 * 24);
  });

  test('past the bound are many, which no union makes fewer; what was there stays', () => {
    const sets = withOwners(9, 3 * 24);
    const [a, b, c] = [sets.single(2), sets.single(5), sets.single(3)];
    const known = sets.union(a, b);
    expect(membersOf(sets, known)).toEqual([2, 5]);
    let many = known;
    for (const owner of [8, 9, 6, 3]) many = sets.union(many, sets.single(owner));
    expect(many).toBe(MANY);
    expect(sets.union(many, c)).toBe(MANY);
    expect(sets.union(sets.single(1), many)).toBe(MANY_IN_SUBSET);
    expect(sets.union(MANY_IN_SUBSET, MANY)).toBe(MANY_IN_SUBSET);
    expect(sets.ranges(many)).toHaveLength(0);
    expect(sets.union(a, b)).toBe(known);
    expect(sets.union(many, NOBODY)).toBe(MANY);
    expect(sets.unionOf(Uint32Array.of(a, b, a), 3)).toBe(known);
    expect(sets.unionOf(Uint32Array.of(a, many, b), 3)).toBe(MANY);
    expect(sets.unionOf(Uint32Array.of(b, sets.single(7), sets.single(9)), 3)).toBe(MANY_IN_SUBSET);
    expect(sets.unionBytes).toBeLessThanOrEqual(3 * 24);
  });

  test('that nobody uses any more make room', () => {
    const sets = withOwners(200, 2000);
    let kept = NOBODY;
    let many = 0;
    for (let round = 0; round < 50; round++) {
      // Every other owner: as many ranges as owners.
      let growing = sets.single(1 + (round % 7));
      for (let owner = 10; owner < 40; owner += 2) {
        growing = sets.union(growing, sets.single(owner + (round % 2)));
        if (growing === MANY || growing === MANY_IN_SUBSET) many++;
        const used = new Uint8Array(sets.count);
        used[kept] = used[growing] = 1;
        if (!sets.isCrowded) continue;
        const numbers = sets.compact(used);
        kept = numbers[kept]!;
        growing = numbers[growing]!;
      }
      kept = growing;
    }
    expect(many).toBe(0);
    expect(membersOf(sets, kept)).toHaveLength(16);
  });
});
