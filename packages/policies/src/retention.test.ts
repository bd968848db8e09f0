import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkRetention, retain, type Retention } from './retention.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const START = Date.parse('2026-11-20T10:00:00Z');

const retentions = fc
  .record(
    {
      keepForMinutes: fc.integer({ min: 1, max: 5000 }),
      keepLast: fc.integer({ min: 1, max: 5 }),
      keepHourly: fc.integer({ min: 1, max: 5 }),
      keepDaily: fc.integer({ min: 1, max: 5 }),
      keepWeekly: fc.integer({ min: 1, max: 3 }),
      keepMonthly: fc.integer({ min: 1, max: 3 }),
      keepYearly: fc.integer({ min: 1, max: 3 }),
      keepAtLeast: fc.integer({ min: 0, max: 3 }),
    },
    { requiredKeys: [] },
  )
  .map(checkRetention);
const zones = fc.constantFrom('UTC', 'Europe/Berlin', 'America/New_York');
/** Gaps from minutes to half a year. */
const gaps = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 300, max: 10_000 }), fc.constant(260_000)),
  { maxLength: 60 },
);

function kept(times: readonly number[], retention: Retention, zone: string, now: number): number[] {
  const { kept: isKept } = retain(times, retention, zone, now);
  return times.filter((_, i) => isKept[i]);
}

test('what is kept backup by backup is what one look at all of them keeps', () => {
  fc.assert(
    fc.property(gaps, retentions, zones, (minutes, retention, zone) => {
      const all: number[] = [];
      let online: number[] = [];
      let now = START;
      for (const gap of minutes) {
        now += gap * MINUTE_MS;
        all.unshift(now);
        online = kept([now, ...online], retention, zone, now);
      }
      expect(online).toEqual(kept(all, retention, zone, now));
    }),
    { numRuns: 150, seed: 1 },
  );
});

test('looking again changes nothing, more rules keep no less, and the newest stays', () => {
  fc.assert(
    fc.property(gaps, retentions, retentions, zones, (minutes, one, two, zone) => {
      let at = START;
      const all = minutes.map((gap) => (at -= gap * MINUTE_MS));
      const first = kept(all, one, zone, START);
      expect(kept(first, one, zone, START)).toEqual(first);
      const merged = { ...one };
      for (const [name, value] of Object.entries(two) as [keyof Retention, number][]) {
        Object.assign(merged, { [name]: Math.max(value, one[name] ?? (name === 'keepAtLeast' ? 1 : 0)) });
      }
      // Without any rule everything stays, and with the first one no longer.
      if (Object.keys(one).some((name) => name !== 'keepAtLeast')) {
        const more = new Set(kept(all, merged, zone, START));
        expect(first.filter((time) => !more.has(time))).toEqual([]);
      }
      if (one.keepAtLeast !== 0 && all.length > 0) expect(first[0]).toBe(all[0]);
    }),
    { numRuns: 150, seed: 2 },
  );
});

test('age lets go exactly when it says', () => {
  fc.assert(
    fc.property(gaps, retentions, zones, (minutes, retention, zone) => {
      let at = START;
      const all = minutes.map((gap) => (at -= gap * MINUTE_MS));
      const left = kept(all, retention, zone, START);
      const { nextExpiry } = retain(left, retention, zone, START);
      if (nextExpiry === undefined) {
        expect(kept(left, retention, zone, START + 1e13)).toEqual(left);
      } else {
        expect(kept(left, retention, zone, nextExpiry - 1)).toEqual(left);
        expect(kept(left, retention, zone, nextExpiry).length).toBeLessThan(left.length);
      }
    }),
    { numRuns: 150, seed: 3 },
  );
});

test('of each of the last periods the newest is kept, in the time zone, and periods without backups do not count', () => {
  const times = [
    '2026-11-20T10:00Z',
    '2026-11-19T23:30Z', // in Berlin that is the 20th
    '2026-11-19T10:00Z',
    '2026-11-10T10:00Z',
    '2026-11-10T09:00Z',
    '2026-08-01T00:00Z',
  ].map((text) => Date.parse(text));
  const indexes = (retention: Retention, zone: string): number[] =>
    retain(times, retention, zone, START).kept.flatMap((isKept, i) => (isKept ? [i] : []));
  expect(indexes({ keepDaily: 3 }, 'UTC')).toEqual([0, 1, 3]);
  expect(indexes({ keepDaily: 3 }, 'Europe/Berlin')).toEqual([0, 2, 3]);
  expect(indexes({ keepMonthly: 2 }, 'UTC')).toEqual([0, 5]);
  expect(indexes({ keepWeekly: 2, keepLast: 2 }, 'UTC')).toEqual([0, 1, 3]);
  expect(indexes({}, 'UTC')).toEqual([0, 1, 2, 3, 4, 5]);
});

test('an hour that comes twice is two hours', () => {
  const times = [1, 0].map((hour) => Date.parse('2026-10-25T00:30Z') + hour * HOUR_MS);
  expect(retain(times, { keepHourly: 2 }, 'Europe/Berlin', START).kept).toEqual([true, true]);
});

test('the last one stays when no new ones come, unless told otherwise', () => {
  const times = [START - 50 * HOUR_MS, START - 60 * HOUR_MS];
  expect(retain(times, { keepForMinutes: 60 }, 'UTC', START).kept).toEqual([true, false]);
  expect(retain(times, { keepForMinutes: 60, keepAtLeast: 0 }, 'UTC', START).kept).toEqual([false, false]);
});
