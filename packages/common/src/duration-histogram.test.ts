import { expect, it } from 'vitest';
import { DurationHistogram } from './duration-histogram.ts';

it('a time is counted in the smallest bucket that is not below it', () => {
  const histogram = new DurationHistogram();
  const times = [0, 0.0005, 0.001, 0.0011, 0.002, 0.0021, 1, 1.1, 67_000, 68_000, 1e9, -1];
  for (const ms of times) histogram.record(ms);
  const { bounds, counts, sumSeconds } = histogram.counts;
  expect(bounds).toHaveLength(counts.length - 1);
  const expected = counts.map(() => 0);
  for (const ms of times) {
    const at = bounds.findIndex((bound) => Math.max(ms, 0) / 1000 <= bound);
    expected[at < 0 ? bounds.length : at]!++;
  }
  expect(counts).toEqual(expected);
  expect(counts.at(-1)).toBe(2);
  expect(sumSeconds).toBeCloseTo(times.reduce((sum, ms) => sum + Math.max(ms, 0), 0) / 1000, 6);
});
