import { expect, test } from 'vitest';
import { SlotPool } from './slot-pool.ts';

const CHUNK = 4096;
const PER_SLAB = 256;

function poolWith(slots: number): { pool: SlotPool; taken: number[] } {
  const pool = new SlotPool(CHUNK, 1024 * CHUNK);
  return { pool, taken: Array.from({ length: slots }, () => pool.take()) };
}

/** Whether the slab of a slot is there. */
const has = (pool: SlotPool, slot: number): boolean =>
  (pool.slabOf(slot) as Buffer | undefined) !== undefined;

test('memory that was needed since the last trim is kept, and given back when it was not', () => {
  const { pool, taken } = poolWith(4 * PER_SLAB);
  for (const slot of taken) pool.give(slot);
  pool.settle();
  pool.trim();
  expect(taken.every((slot) => has(pool, slot))).toBe(true);
  // A load that comes back in time.
  const again = Array.from({ length: 3 * PER_SLAB }, () => pool.take());
  for (const slot of again) pool.give(slot);
  pool.trim();
  expect(taken.every((slot) => has(pool, slot))).toBe(true);
  pool.trim();
  expect(taken.some((slot) => has(pool, slot))).toBe(false);
  expect(pool.usedBytes).toBe(0);
});

test('slots in use stay where they are when the others are given back', () => {
  const { pool, taken } = poolWith(4 * PER_SLAB);
  const [kept, ...rest] = taken;
  pool.slabOf(kept!).fill(7, pool.offsetOf(kept!), pool.offsetOf(kept!) + CHUNK);
  for (const slot of rest) pool.give(slot);
  pool.trim();
  pool.trim();
  expect(has(pool, kept!)).toBe(true);
  expect(has(pool, taken.at(-1)!)).toBe(false);
  expect(pool.slabOf(kept!)[pool.offsetOf(kept!)]).toBe(7);
  // What is taken now has memory behind it, and none of it twice.
  const fresh = Array.from({ length: 2 * PER_SLAB }, () => pool.take());
  expect(new Set([...fresh, kept]).size).toBe(fresh.length + 1);
  expect(fresh.every((slot) => has(pool, slot))).toBe(true);
});
