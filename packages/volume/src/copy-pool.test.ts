import { expect, test } from 'vitest';
import { CopyPool } from './copy-pool.ts';

const MiB = 1024 * 1024;

test.each([1, 4095, 4096, 4097, MiB, MiB + 1, 32 * MiB + 1])('copies %i bytes', (bytes) => {
  const data = new Uint8Array(bytes).fill(7);
  const pool = new CopyPool();
  const copy = pool.copy(data);
  data.fill(8);
  expect(copy.byteLength).toBe(bytes);
  expect([copy[0], copy[bytes - 1]]).toEqual([7, 7]);
  pool.give(copy);
  expect(pool.copy(data.subarray(0, 1))[0]).toBe(8);
});

test('memory of a copy that was given back holds the next one of about that size', () => {
  const pool = new CopyPool();
  const first = pool.copy(new Uint8Array(5000));
  const other = pool.copy(new Uint8Array(5000));
  expect(other.buffer).not.toBe(first.buffer);
  pool.give(first);
  const next = pool.copy(new Uint8Array(8192));
  expect(next.buffer).toBe(first.buffer);
  expect(next.byteLength).toBe(8192);
});

test('no more than eight mebibytes are kept', () => {
  const pool = new CopyPool();
  const copies = Array.from({ length: 10 }, () => pool.copy(new Uint8Array(MiB)));
  for (const copy of copies) pool.give(copy);
  const again = Array.from({ length: 10 }, () => pool.copy(new Uint8Array(MiB)));
  expect(again.filter(({ buffer }) => copies.some((copy) => copy.buffer === buffer))).toHaveLength(8);
});
