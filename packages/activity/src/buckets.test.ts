import { seededRandom } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import {
  bucketOf,
  EMPTY,
  GRAIN_NAMES,
  GRAINS,
  merged,
  rolledUp,
  startOf,
  upToNow,
  type Bucket,
} from './buckets.ts';
import { putHistory, readHistory } from './records.ts';
import { DAY_MS, fresh, HOUR_MS, MONDAY_MS, STEP_MS } from './testing/profiles.ts';

const at = (ms: number, newBytes: number, rawShare = 0.5): Bucket =>
  bucketOf(MONDAY_MS + ms, fresh(newBytes, rawShare, newBytes));
const sumOf = (buckets: readonly Bucket[]): number =>
  buckets.reduce((sum, { newBytes }) => sum + newBytes, 0);

describe('buckets', () => {
  it('of one start are summed, and stay in order', () => {
    const some = [at(0, 10), at(STEP_MS, 20)];
    const both = merged(some, [at(2 * STEP_MS, 4), at(STEP_MS + 1, 2)]);
    expect(both.map(({ start, newBytes, rawBytes }) => [start - MONDAY_MS, newBytes, rawBytes])).toEqual([
      [0, 10, 5],
      [STEP_MS, 22, 11],
      [2 * STEP_MS, 4, 2],
    ]);
  });

  it('become hours and days when these have ended, once', () => {
    const five = [at(0, 2), at(HOUR_MS - 1, 4), at(HOUR_MS, 8), at(2 * HOUR_MS, 16)];
    const early = rolledUp({ ...EMPTY, '5m': five }, MONDAY_MS + 2 * HOUR_MS + 1);
    expect(early['1h'].map(({ newBytes, peakRawBytes }) => [newBytes, peakRawBytes])).toEqual([
      [6, 3],
      [8, 4],
    ]);
    expect(early['1d']).toEqual([]);
    const late = rolledUp(rolledUp(early, MONDAY_MS + 25 * HOUR_MS), MONDAY_MS + 26 * HOUR_MS);
    expect(late['1h'].map(({ newBytes }) => newBytes)).toEqual([6, 8, 16]);
    expect(late['1d']).toEqual([
      {
        ...late['1h'][0]!,
        ...fresh(30, 0.5, 30),
        storedBytes: expect.any(Number) as number,
        peakRawBytes: 8,
      },
    ]);
    expect(rolledUp(late, MONDAY_MS + 26 * HOUR_MS)).toEqual(late);
  });

  it('are there up to now for whoever looks', () => {
    const now = MONDAY_MS + 3 * HOUR_MS + 1;
    const { '1h': hours, '1d': days } = upToNow({ ...EMPTY, '5m': [at(0, 1), at(3 * HOUR_MS, 2)] }, now);
    expect(hours.map(({ newBytes }) => newBytes)).toEqual([1, 2]);
    expect(days.map(({ newBytes, start }) => [newBytes, start])).toEqual([[3, MONDAY_MS]]);
  });

  it('of what a VM wrote before it was silent for long are not lost', () => {
    const kept = rolledUp({ ...EMPTY, '5m': [at(0, 5), at(STEP_MS, 7)] }, MONDAY_MS + 20 * DAY_MS);
    expect(kept['5m']).toEqual([]);
    expect([sumOf(kept['1h']), sumOf(kept['1d'])]).toEqual([12, 12]);
  });

  it('from a clock that was ahead are dropped, and stop nothing', () => {
    const ahead = rolledUp({ ...EMPTY, '5m': [at(900 * DAY_MS, 1)] }, MONDAY_MS + 902 * DAY_MS);
    expect(ahead['1d']).toHaveLength(1);
    const right = rolledUp({ ...ahead, '5m': merged(ahead['5m'], [at(0, 3)]) }, MONDAY_MS + 2 * DAY_MS);
    expect([sumOf(right['1h']), sumOf(right['1d'])]).toEqual([3, 3]);
  });

  it('are as many as the grain says at most, and what was written is in days as long as that goes', () => {
    const random = seededRandom(11);
    let history = EMPTY;
    let written = 0;
    for (let ms = 0; ms < 380 * DAY_MS; ms += 7 * HOUR_MS) {
      const bucket = at(ms + Math.floor(random() * HOUR_MS), 100);
      written += ms >= 14 * DAY_MS ? bucket.newBytes : 0;
      history = rolledUp({ ...history, '5m': merged(history['5m'], [bucket]) }, bucket.start + STEP_MS);
    }
    for (const grain of GRAIN_NAMES) {
      expect(history[grain].length).toBeLessThanOrEqual(GRAINS[grain].kept + 1);
      for (const { start } of history[grain]) expect(start).toBe(startOf(grain, start));
    }
    const days = sumOf(upToNow(history, MONDAY_MS + 380 * DAY_MS)['1d']);
    expect(Math.abs(days - written)).toBeLessThanOrEqual(400);
  });
});

it('a history comes out of its records as it went in, and what has not changed is not written', () => {
  const random = seededRandom(5);
  const now = MONDAY_MS + 400 * DAY_MS;
  const buckets = Array.from({ length: 300 }, (_, i) => {
    const size = Math.floor(2 ** (40 * random())) * 4096;
    return at((400 * 24 - 1) * HOUR_MS - i * i * STEP_MS, size, random() < 0.5 ? 0 : 1);
  });
  const inKiB = buckets.map((bucket) => ({
    ...bucket,
    storedBytes: Math.round(bucket.storedBytes / 1024) * 1024,
  }));
  const history = rolledUp({ ...EMPTY, '5m': merged(inKiB, []) }, now);
  for (const grain of GRAIN_NAMES) expect(history[grain].length).toBeGreaterThan(10);
  const operations = putHistory('id', EMPTY, history, now);
  const values = operations.map((operation) => (operation.type === 'put' ? operation.value : undefined));
  expect(readHistory('id', values)).toEqual(history);
  const more = rolledUp({ ...history, '5m': merged(history['5m'], [at(400 * DAY_MS, 1)]) }, now + 1);
  expect(putHistory('id', history, more, now).map(({ key }) => key)).toEqual(['id/5m']);

  const [{ buckets: packed }] = values as [{ buckets: Buffer }];
  for (const wrong of [
    { version: 2, buckets: packed },
    { version: 1, buckets: packed.subarray(0, -1) },
  ]) {
    const code = wrong.version === 2 ? 'store-newer' : 'catalog-corrupt';
    expect(() => readHistory('id', [wrong])).toThrow(expect.objectContaining({ code }));
  }
});
