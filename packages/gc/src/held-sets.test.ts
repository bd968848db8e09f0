import { seededRandom, type SeededRandom } from '@pando/tree/testing';
import { describe, expect, test } from 'vitest';
import { HeldSetsBuilder, type HeldSets } from './held-sets.ts';
import { planFew, planInOrder } from './reclaim-plan.ts';

interface Plain {
  readonly members: readonly number[];
  readonly bytes: number;
  readonly isPinned: boolean;
}

/** A random table, and the same as plain sets. */
function random(seed: number, owners: number): { held: HeldSets; plain: Plain[]; random: SeededRandom } {
  const random = seededRandom(seed);
  const builder = new HeldSetsBuilder(owners);
  const plain: Plain[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < 25; i++) {
    const from = random.below(owners);
    const members = Array.from({ length: owners }, (_, owner) => owner).filter((owner) =>
      i % 2 === 0 ? random.below(3) === 0 : owner >= from && owner <= from + 2,
    );
    const isPinned = random.below(8) === 0;
    if (members.length === 0 || seen.has(members.join())) continue;
    seen.add(members.join());
    const bytes = 1 + random.below(1000);
    plain.push({ members, bytes, isPinned });
    const ranges: number[] = [];
    for (const owner of members) {
      if (ranges.at(-1) === owner + 1) ranges[ranges.length - 1] = owner + 2;
      else ranges.push(owner + 1, owner + 2);
    }
    builder.add(Uint32Array.from(ranges), isPinned, bytes);
  }
  return { held: builder.finish(17), plain, random };
}

const sum = (numbers: Iterable<number>): number => [...numbers].reduce((a, b) => a + b, 0);

const freed = (plain: readonly Plain[], deleted: (owner: number) => boolean): number =>
  sum(plain.map(({ members, bytes, isPinned }) => (!isPinned && members.every(deleted) ? bytes : 0)));

const bits = (owners: number, subset: number): Uint8Array =>
  Uint8Array.from({ length: owners }, (_, i) => (subset >> i) & 1);

describe('what sets of owners hold', () => {
  test.each([1, 2, 3, 4, 5, 6])('answers for every subset what a plain count says, seed %i', (seed) => {
    const owners = 3 + (seed % 5);
    const { held, plain } = random(seed, owners);
    expect(held.totalBytes).toBe(sum(plain.map(({ bytes }) => bytes)) + 17);
    for (let subset = 0; subset < 1 << owners; subset++) {
      const deleted = bits(owners, subset);
      const isDeleted = (owner: number): boolean => deleted[owner] === 1;
      expect(held.freedBy(deleted)).toBe(freed(plain, isDeleted));
      const touched = plain.filter(({ members }) => members.some(isDeleted));
      const staying = held.staying(deleted);
      expect(staying.bytes).toBe(sum(touched.map(({ bytes }) => bytes)) - freed(plain, isDeleted));
      for (let owner = 0; owner < owners; owner++) {
        if (isDeleted(owner)) {
          expect([staying.held[owner], staying.alone[owner]]).toEqual([0, 0]);
          continue;
        }
        expect(staying.held[owner]).toBe(
          sum(touched.filter(({ members }) => members.includes(owner)).map(({ bytes }) => bytes)),
        );
        const also = freed(plain, (other) => isDeleted(other) || other === owner);
        const own = freed(plain, (other) => other === owner);
        expect(staying.alone[owner]).toBe(also - freed(plain, isDeleted) - own);
      }
    }
  });

  test.each([11, 12, 13])('is divided fairly and without a rest, seed %i', (seed) => {
    const { held, plain } = random(seed, 9);
    const shares = held.fairShares();
    expect(sum(shares)).toBe(held.totalBytes - held.untoldBytes);
    const exclusive = held.exclusive();
    const reached = held.reached();
    for (let owner = 0; owner < 9; owner++) {
      const own = plain.filter(({ members }) => members.includes(owner));
      const exact = sum(own.map(({ members, bytes }) => bytes / members.length));
      expect(Math.abs(shares[owner]! - exact)).toBeLessThan(plain.length);
      expect(exclusive[owner]).toBe(
        sum(own.filter((one) => one.members.length === 1 && !one.isPinned).map(({ bytes }) => bytes)),
      );
      expect(reached[owner]).toBe(sum(own.map(({ bytes }) => bytes)));
      const shared = held.sharedWith(owner);
      for (let other = 0; other < 9; other++) {
        expect(shared[other]).toBe(
          sum(own.filter(({ members }) => members.includes(other)).map(({ bytes }) => bytes)),
        );
      }
    }
  });

  test.each([21, 22, 23])(
    'can be asked of groups, of which an owner may have several, seed %i',
    async (seed) => {
      const { held, plain, random: more } = random(seed, 10);
      const kinds = [[0], [1], [2, 3], [0, 3], [4]];
      const of = Array.from({ length: 10 }, () => kinds[more.below(kinds.length)]!);
      const grouped = await held.grouped(5, (owner) => of[owner]!);
      expect(grouped.totalBytes).toBe(held.totalBytes);
      expect(grouped.untoldBytes).toBe(held.untoldBytes);
      const projected = plain.map(({ members, ...rest }) => ({
        ...rest,
        members: [...new Set(members.flatMap((owner) => of[owner]!))],
      }));
      for (let subset = 0; subset < 32; subset++) {
        const deleted = bits(5, subset);
        expect(grouped.freedBy(deleted)).toBe(freed(projected, (group) => deleted[group] === 1));
      }
      expect(sum(grouped.fairShares())).toBe(held.totalBytes - held.untoldBytes);
    },
  );
});

describe('a plan', () => {
  test.each(Array.from({ length: 12 }, (_, i) => 40 + i))(
    'frees what it says and at least what is asked for, with nobody in it for nothing, seed %i',
    async (seed) => {
      const owners = 8;
      const { held, plain, random: more } = random(seed, owners);
      const order = [3, 1, 4, 0, 5, 2].slice(0, 3 + more.below(4));
      const candidates = bits(owners, 0);
      for (const owner of order) candidates[owner] = 1;
      const most = held.freedBy(candidates);
      for (const wanted of [1, Math.ceil(most / 3), Math.ceil(most / 2), most, most + 1]) {
        const plans = [
          await planInOrder(held, order, wanted),
          await planFew(held, candidates, wanted),
        ] as const;
        // The fewest, by trying all.
        let fewest = Infinity;
        for (let subset = 0; subset < 1 << owners; subset++) {
          const deleted = bits(owners, subset);
          if (deleted.some((is, owner) => is > candidates[owner]!)) continue;
          if (freed(plain, (owner) => deleted[owner] === 1) >= Math.min(wanted, most))
            fewest = Math.min(fewest, sum(deleted));
        }
        for (const { owners: chosen, freedBytes } of plans) {
          const at = `seed ${seed}, ${wanted} of ${most}: ${chosen.join()}`;
          expect(freedBytes, at).toBe(freed(plain, (owner) => chosen.includes(owner)));
          expect(freedBytes, at).toBeGreaterThanOrEqual(Math.min(wanted, most));
          expect(
            chosen.every((owner) => order.includes(owner)),
            at,
          ).toBe(true);
          for (const one of chosen) {
            const without = freed(plain, (owner) => owner !== one && chosen.includes(owner));
            expect(without, `${at} without ${one}`).toBeLessThan(Math.min(wanted, most));
          }
        }
        expect(plans[1].owners.length).toBe(fewest);
        expect([plans[0].isFewest, plans[1].isFewest]).toEqual([false, true]);
        const ends = order.findIndex(
          (_, i) => freed(plain, (owner) => order.slice(0, i + 1).includes(owner)) >= Math.min(wanted, most),
        );
        const oldest = order.slice(0, ends + 1);
        expect(plans[0].owners.every((owner) => oldest.includes(owner))).toBe(true);
      }
    },
  );

  test('of few takes two that hold everything together before three that hold a little', async () => {
    const builder = new HeldSetsBuilder(5);
    builder.add(Uint32Array.of(1, 3), false, 1000);
    for (let owner = 3; owner <= 5; owner++) builder.add(Uint32Array.of(owner, owner + 1), false, 100);
    const held = builder.finish(0);
    expect(await planFew(held, bits(5, 31), 600)).toEqual({
      owners: [0, 1],
      freedBytes: 1000,
      isFewest: true,
    });
    expect(await planFew(held, bits(5, 31), 90)).toEqual({ owners: [2], freedBytes: 100, isFewest: true });
    expect(await planFew(held, bits(5, 29), 600)).toEqual({
      owners: [2, 3, 4],
      freedBytes: 300,
      isFewest: true,
    });
  });

  test('of few is not misled by those that free most each: three that share by twos are enough where it takes five others', async () => {
    const builder = new HeldSetsBuilder(8);
    for (let owner = 1; owner <= 5; owner++) builder.add(Uint32Array.of(owner, owner + 1), false, 40);
    for (const pair of [
      [6, 8],
      [7, 9],
      [6, 7, 8, 9],
    ])
      builder.add(Uint32Array.from(pair), false, 66);
    const held = builder.finish(0);
    expect(await planFew(held, bits(8, 255), 198)).toEqual({
      owners: [5, 6, 7],
      freedBytes: 198,
      isFewest: true,
    });
  });

  test('of few says so where it is too much to try all', async () => {
    const owners = 400;
    const builder = new HeldSetsBuilder(owners);
    const random = seededRandom(7);
    for (let i = 0; i < 4000; i++) {
      const from = 1 + random.below(owners - 3);
      builder.add(Uint32Array.of(from, from + 2 + random.below(2)), false, 1 + random.below(1000));
    }
    const held = builder.finish(0);
    const all = new Uint8Array(owners).fill(1);
    const {
      owners: chosen,
      isFewest,
      freedBytes,
    } = await planFew(held, all, Math.floor(held.totalBytes / 3));
    expect([isFewest, freedBytes >= Math.floor(held.totalBytes / 3)]).toEqual([false, true]);
    for (const one of chosen) {
      const without = new Uint8Array(owners);
      for (const owner of chosen) without[owner] = owner === one ? 0 : 1;
      expect(held.freedBy(without)).toBeLessThan(Math.floor(held.totalBytes / 3));
    }
  });

  test('of the oldest leaves out thousands that are not needed', async () => {
    const owners = 20_000;
    const builder = new HeldSetsBuilder(owners);
    for (let owner = 1; owner <= owners; owner++) builder.add(Uint32Array.of(owner, owner + 1), false, owner);
    for (let owner = 1; owner < owners; owner++) builder.add(Uint32Array.of(owner, owner + 2), false, 1);
    builder.add(Uint32Array.of(owners, owners + 1), false, 1e9);
    const held = builder.finish(0);
    const order = Array.from({ length: owners }, (_, i) => i);
    expect(await planInOrder(held, order, 1e9)).toMatchObject({ owners: [owners - 1] });
  });

  test('ends when it is cancelled', async () => {
    const { held } = random(1, 4);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(planFew(held, bits(4, 15), 1, signal)).rejects.toThrow('enough');
    await expect(planInOrder(held, [0, 1], 1, signal)).rejects.toThrow('enough');
  });
});
