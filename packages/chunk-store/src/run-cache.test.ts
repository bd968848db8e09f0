import { MiB, PAGE_BYTES, PagePool } from '@pando/common';
import { between, seededRandom } from '@pando/common/testing';
import { expect, test } from 'vitest';
import { RunCache, type CachedRun } from './run-cache.ts';

const RAW = 16_384;
const IDS = 128;
const COST = RAW + IDS + 200;

function put(cache: RunCache, key: number, rawBytes = RAW, isKept = false): CachedRun {
  const run = cache.take(rawBytes, IDS);
  run.hold(key, 0, 4096);
  run.raw.fill(key % 251);
  run.kept = isKept;
  cache.add(run);
  return run;
}

const isWhole = (run: CachedRun, key: number): boolean =>
  run.key === key && run.raw[0] === key % 251 && run.raw.at(-1) === key % 251;

// Pages are whole: of three mebibytes two are used.
test.each([0, COST - 1, COST, 2 * COST, 20 * COST, 3 * MiB])('%i bytes are not passed', (bytes) => {
  const cache = new RunCache(bytes, 4096);
  for (let key = 1; key <= 400; key++) put(cache, key);
  const there = Array.from({ length: 400 }, (_, i) => i + 1).filter((key) => cache.get(key) !== undefined);
  expect(cache.bytes).toBeLessThanOrEqual(bytes);
  expect(there.length).toBeLessThanOrEqual(bytes / COST);
  expect(there.length).toBeGreaterThanOrEqual(Math.min(126, Math.floor(bytes / COST)));
  if (bytes >= COST) expect(there).toContain(400);
});

test('runs of all sizes stay what they are, and those that are kept after they were evicted, too', () => {
  const random = seededRandom(11);
  const pages = new PagePool(5);
  const cache = new RunCache(4 * MiB, 4096, pages);
  const kept = new Map<number, CachedRun>();
  const lent: Buffer[] = [];
  for (let step = 0; step < 5000; step++) {
    const key = 1 + between(random, 0, 599);
    const known = cache.get(key);
    if (known !== undefined) {
      expect(isWhole(known, key)).toBe(true);
      if (between(random, 0, 19) > 0) continue;
      known.kept = true;
      kept.set(key, known);
    } else {
      const isKept = between(random, 0, 7) === 0;
      const run = put(cache, key, 4096 * (1 + between(random, 0, 3)), isKept);
      if (isKept) kept.set(key, run);
      if (between(random, 0, 4) === 0) cache.give(cache.take(RAW, IDS));
    }
    if (between(random, 0, 299) === 0) lent.push(pages.take().fill(0xff));
    if (between(random, 0, 299) === 0 && lent.length > 0) pages.give(lent.pop()!.fill(0xfe));
  }
  expect(kept.size).toBeGreaterThan(100);
  for (const [key, run] of kept) expect(isWhole(run, key)).toBe(true);
});

test('memory that others need is given up, down to a few pages, and used again when they have done', () => {
  const pages = new PagePool(40);
  const cache = new RunCache(64 * MiB, 4096, pages);
  const all = Array.from({ length: 40 * 63 }, (_, i) => i + 1);
  const there = (): number => all.filter((key) => cache.get(key) !== undefined).length;
  for (const key of all) put(cache, key);
  expect(there()).toBe(all.length);
  const taken = Array.from({ length: 30 }, () => pages.take());
  expect(there()).toBe(16 * 63);
  expect(pages.lent).toBe(46);
  expect(new Set(taken.map(({ buffer }) => buffer)).size).toBe(30);
  for (const key of all) if (cache.get(key) !== undefined) expect(isWhole(cache.get(key)!, key)).toBe(true);
  for (const page of taken) pages.give(page);
  for (const key of all) if (cache.get(key) === undefined) put(cache, key);
  expect(there()).toBe(all.length);
  expect(pages.lent * PAGE_BYTES).toBe(40 * PAGE_BYTES);
});

test('a run of a page that went meanwhile is not kept', () => {
  const cache = new RunCache(COST, 4096);
  const out = cache.take(RAW, IDS);
  const other = cache.take(RAW, IDS);
  for (const [key, run] of [out, other].entries()) {
    run.hold(key + 1, 0, 4096);
    cache.add(run);
  }
  expect(cache.get(1)).toBe(out);
  expect(cache.get(2)).toBeUndefined();
});
