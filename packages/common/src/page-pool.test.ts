import { expect, test } from 'vitest';
import { PAGE_BYTES, PagePool } from './page-pool.ts';

test('a page that was given back is lent again, and nobody is lent more than there is room for', () => {
  const pool = new PagePool(2);
  const page = pool.tryTake()!;
  expect(page.byteLength).toBe(PAGE_BYTES);
  expect(pool.tryTake()).toBeDefined();
  expect(pool.tryTake()).toBeUndefined();
  pool.give(page);
  expect(pool.tryTake()).toBe(page);
  expect(pool.lent).toBe(2);
});

test('who needs a page gets that of another, or one beyond the bound', () => {
  const pool = new PagePool(1);
  const page = pool.tryTake()!;
  pool.onShortage = () => {
    pool.give(page);
    return true;
  };
  expect(pool.take()).toBe(page);
  pool.onShortage = () => false;
  expect(pool.take()).not.toBe(page);
  expect(pool.lent).toBe(2);
});

test('a page that is left to the garbage collector is not lent again', () => {
  const pool = new PagePool(1);
  const page = pool.take();
  pool.leave();
  expect(pool.tryTake()).not.toBe(page);
});

test('free pages that nobody has needed since the last time are let go', () => {
  const pool = new PagePool();
  const pages = [pool.take(), pool.take()];
  for (const page of pages) pool.give(page);
  pool.trim();
  expect(pages).toContain(pool.take());
  pool.trim();
  pool.trim();
  expect(pages).not.toContain(pool.take());
});

test('says once that more was wanted than there was', () => {
  const pool = new PagePool(0);
  expect(pool.wasWanted()).toBe(false);
  pool.tryTake();
  expect([pool.wasWanted(), pool.wasWanted()]).toEqual([true, false]);
});
