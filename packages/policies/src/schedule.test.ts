import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkSchedule, nextRun, previousRun, runsBetween, WEEKDAYS, type Schedule } from './schedule.ts';

const at = (text: string): number => Date.parse(text);
const runs = (schedule: Schedule, from: string, to: string): string[] =>
  Array.from(runsBetween(schedule, at(from) - 1, at(to) - 1), (ms) =>
    new Date(ms).toISOString().slice(0, 16).replace(':00.000Z', ''),
  );

const berlin = 'Europe/Berlin';
const newYork = 'America/New_York';

describe('the days of summer time', () => {
  test('a time that is left out comes the same later, once, and a time that comes twice comes once', () => {
    const daily: Schedule = { timeZone: berlin, at: ['02:30'] };
    expect(runs(daily, '2026-03-28T00:00Z', '2026-03-31T00:00Z')).toEqual([
      '2026-03-28T01:30',
      '2026-03-29T01:30', // 03:30 in summer time
      '2026-03-30T00:30',
    ]);
    expect(runs(daily, '2026-10-24T00:00Z', '2026-10-27T00:00Z')).toEqual([
      '2026-10-24T00:30',
      '2026-10-25T00:30',
      '2026-10-26T01:30',
    ]);
    expect(
      runs({ timeZone: newYork, at: ['01:30', '02:30', '03:30'] }, '2026-03-08T05:00Z', '2026-03-09T04:00Z'),
    ).toEqual(['2026-03-08T06:30', '2026-03-08T07:30']);
  });

  test('an interval of up to an hour goes on as time goes by', () => {
    const half: Schedule = { timeZone: berlin, everyMinutes: 30 };
    const minutes = (from: string, to: string): Set<number> => {
      const found = Array.from(runsBetween(half, at(from), at(to)));
      return new Set(found.slice(1).map((ms, i) => (ms - found[i]!) / 60_000));
    };
    expect(minutes('2026-03-28T12:00Z', '2026-03-30T12:00Z')).toEqual(new Set([30]));
    expect(minutes('2026-10-24T12:00Z', '2026-10-26T12:00Z')).toEqual(new Set([30]));
  });

  test('a longer one keeps to the times on the wall', () => {
    const six: Schedule = { timeZone: newYork, everyMinutes: 360 };
    expect(runs(six, '2026-11-01T04:00Z', '2026-11-02T05:00Z')).toEqual([
      '2026-11-01T04:00',
      '2026-11-01T11:00',
      '2026-11-01T17:00',
      '2026-11-01T23:00',
    ]);
    const gap: Schedule = { timeZone: newYork, everyMinutes: 1440, from: '02:15' };
    expect(runs(gap, '2026-03-07T12:00Z', '2026-03-09T12:00Z')).toEqual([
      '2026-03-08T07:15',
      '2026-03-09T06:15',
    ]);
  });
});

describe('days', () => {
  test('the last day of the month, whichever that is', () => {
    expect(runs({ timeZone: 'UTC', at: ['12:00'], monthDays: ['last'] }, '2028-01-01', '2028-05-01')).toEqual(
      ['2028-01-31T12:00', '2028-02-29T12:00', '2028-03-31T12:00', '2028-04-30T12:00'],
    );
  });

  test('the 31st comes in months that have one', () => {
    const months = runs({ timeZone: 'UTC', at: ['12:00'], monthDays: [31] }, '2026-01-01', '2027-01-01');
    expect(months.map((run) => Number(run.slice(5, 7)))).toEqual([1, 3, 5, 7, 8, 10, 12]);
  });

  test('weekdays are those of the time zone', () => {
    const monday: Schedule = { timeZone: 'Asia/Tokyo', at: ['06:00'], weekdays: ['mon'] };
    // Sunday evening in UTC.
    expect(runs(monday, '2026-11-15T00:00Z', '2026-11-23T00:00Z')).toEqual([
      '2026-11-15T21:00',
      '2026-11-22T21:00',
    ]);
  });

  test('every three days, also over the ends of months and years', () => {
    const found = Array.from(
      runsBetween({ timeZone: berlin, at: ['04:00'], everyDays: 3 }, at('2026-12-01'), at('2027-02-01')),
    );
    expect(new Set(found.slice(1).map((ms, i) => ms - found[i]!))).toEqual(new Set([3 * 86_400_000]));
  });

  test('a window past midnight belongs to the day on which it opens', () => {
    const night: Schedule = {
      timeZone: 'UTC',
      everyMinutes: 120,
      from: '22:00',
      to: '03:00',
      weekdays: ['fri'],
    };
    expect(runs(night, '2026-11-16', '2026-11-23')).toEqual([
      '2026-11-20T22:00',
      '2026-11-21T00:00',
      '2026-11-21T02:00',
    ]);
  });
});

test.each<[string, Partial<Schedule>]>([
  ['no times', {}],
  ['two kinds of times', { at: ['02:00'], everyMinutes: 5 }],
  ['a window for fixed times', { at: ['02:00'], from: '01:00' }],
  ['a time that is none', { at: ['25:00'] }],
  ['minutes that are none', { at: ['02:60'] }],
  ['an interval of nothing', { everyMinutes: 0 }],
  ['an interval of days in minutes', { everyMinutes: 1441 }],
  ['a weekday that is none', { at: ['02:00'], weekdays: ['monday' as 'mon'] }],
  ['no days', { at: ['02:00'], weekdays: [] }],
  ['the 32nd', { at: ['02:00'], monthDays: [32] }],
  ['two ways to say days', { at: ['02:00'], everyDays: 2, weekdays: ['mon'] }],
  ['a zone that is none', { at: ['02:00'], timeZone: 'Europe/Nowhere' }],
  ['an offset for a zone', { at: ['02:00'], timeZone: '+01:00' }],
])('refuses %s', (_what, wrong) => {
  expect(() => checkSchedule({ timeZone: 'UTC', ...wrong })).toThrow(
    expect.objectContaining({ code: 'request-invalid' }),
  );
});

const time = fc
  .integer({ min: 0, max: 1439 })
  .map(
    (minute) => `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`,
  );
const days = fc.oneof(
  fc.constant({}),
  fc.record({ everyDays: fc.integer({ min: 1, max: 9 }) }),
  fc.record({ weekdays: fc.subarray([...WEEKDAYS], { minLength: 1 }) }),
  fc.record({
    monthDays: fc.uniqueArray(fc.oneof(fc.integer({ min: 1, max: 31 }), fc.constant('last' as const)), {
      minLength: 1,
      maxLength: 4,
    }),
  }),
);
const times = fc.oneof(
  fc.record({ at: fc.uniqueArray(time, { minLength: 1, maxLength: 4 }) }),
  fc.record({ everyMinutes: fc.integer({ min: 7, max: 1440 }), from: time, to: time }),
);
const schedules = fc
  .tuple(fc.constantFrom(berlin, newYork, 'UTC', 'Australia/Lord_Howe', 'America/St_Johns'), days, times)
  .map(([timeZone, onDays, atTimes]) => checkSchedule({ timeZone, ...onDays, ...atTimes }));

test('next, previous and the list of runs agree, at any instant of the days on which zones change', () => {
  const instants = fc
    .tuple(
      fc.constantFrom('2026-03-08', '2026-03-29', '2026-04-05', '2026-10-25', '2026-11-01', '2026-12-31'),
      fc.integer({ min: -48 * 3600, max: 48 * 3600 }),
    )
    .map(([day, seconds]) => at(day) + seconds * 1000);
  fc.assert(
    fc.property(schedules, instants, (schedule, now) => {
      const next = nextRun(schedule, now)!;
      const previous = previousRun(schedule, now)!;
      expect(previous).toBeLessThanOrEqual(now);
      expect(next).toBeGreaterThan(now);
      expect(nextRun(schedule, previous)).toBe(next);
      expect(previousRun(schedule, next)).toBe(next);
      expect(previousRun(schedule, next - 1)).toBe(previous);
      expect(Array.from(runsBetween(schedule, previous - 1, next))).toEqual([previous, next]);
    }),
    { numRuns: 120, seed: 20261120 },
  );
});
