import { describe, expect, it } from 'vitest';
import { BufferPool, classBytes } from './buffer-pool.ts';
import { PAYLOAD_BYTES_MAX } from './protocol.ts';

const limits = { bufferBytesMax: 1_100_000, poolBytesMax: 300_000 };
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('buffer pool', () => {
  it('has a class for every size up to the largest payload and its headers', () => {
    for (const bytes of [
      0,
      1,
      4_096,
      8_192,
      8_193,
      2 ** 18 + 4_096,
      2 ** 18 + 4_097,
      PAYLOAD_BYTES_MAX + 28,
    ]) {
      expect(classBytes(bytes)).toBeGreaterThanOrEqual(bytes);
      expect(classBytes(classBytes(bytes))).toBe(classBytes(bytes));
      const pool = new BufferPool(limits);
      expect(pool.take(bytes).length).toBe(classBytes(bytes));
    }
  });

  it('counts what is in use and hands the same buffer out again', () => {
    const pool = new BufferPool(limits);
    const buffer = pool.take(100_000);
    expect(pool.inUseBytes).toBe(buffer.length);
    pool.give(buffer);
    expect(pool.inUseBytes).toBe(0);
    expect(pool.take(100_000)).toBe(buffer);
  });

  it('keeps no more than its bound for reuse', () => {
    const pool = new BufferPool(limits);
    const buffers = Array.from({ length: 10 }, () => pool.take(65_536));
    for (const buffer of buffers) pool.give(buffer);
    const again = Array.from({ length: 10 }, () => pool.take(65_536));
    expect(again.filter((buffer) => buffers.includes(buffer))).toHaveLength(4);
  });

  it('admits up to the bound, and anything while nothing is in use', () => {
    const pool = new BufferPool(limits);
    expect(pool.admits(PAYLOAD_BYTES_MAX)).toBe(true);
    const buffer = pool.take(500_000);
    expect(pool.admits(400_000)).toBe(true);
    expect(pool.admits(600_000)).toBe(false);
    pool.give(buffer);
    expect(pool.admits(600_000)).toBe(true);
  });

  it('wakes those who wait, in order, and lets no one pass them', async () => {
    const pool = new BufferPool(limits);
    const buffer = pool.take(500_000);
    const woken: number[] = [];
    pool.wait(() => woken.push(1));
    pool.wait(() => woken.push(2));
    const leaves = (): number => woken.push(3);
    pool.wait(leaves);
    pool.stopWaiting(leaves);
    expect(pool.admits(1)).toBe(false);
    pool.give(buffer);
    expect(woken).toEqual([]);
    await nextTurn();
    expect(woken).toEqual([1, 2]);
    expect(pool.contended).toBe(false);
  });

  it('gives those a turn who stood behind one that asked for too much and left', async () => {
    const pool = new BufferPool(limits);
    pool.take(500_000);
    const woken: string[] = [];
    const large = (): number => woken.push('large');
    pool.wait(large);
    expect(pool.admits(100_000)).toBe(false);
    pool.wait(() => woken.push(pool.admits(100_000) ? 'small' : 'refused'));
    pool.stopWaiting(large);
    await nextTurn();
    expect(woken).toEqual(['small']);
  });
});
