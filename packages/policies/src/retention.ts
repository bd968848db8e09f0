/**
 * Which backups of one VM and rule stay: the union of a duration and of the newest of each of the last N hours, days, weeks (of ISO
 * 8601), months and years that have any. Pure functions.
 */
import { PandoError } from '@pando/common';
import { Temporal } from 'temporal-polyfill';

const PERIODS = ['keepHourly', 'keepDaily', 'keepWeekly', 'keepMonthly', 'keepYearly'] as const;
type Period = (typeof PERIODS)[number];

/** Absent: not kept by that. Nothing at all: everything is kept. */
export interface Retention extends Partial<Readonly<Record<Period, number>>> {
  readonly keepForMinutes?: number;
  readonly keepLast?: number;
  /** So many of the newest stay however old they are; 1 when absent. */
  readonly keepAtLeast?: number;
}

const COUNT_MAX = 10_000;
const FOR_MINUTES_MAX = 100 * 366 * 24 * 60;
const MINUTE_MS = 60_000;

/** @throws `request-invalid` */
export function checkRetention(given: Retention): Retention {
  for (const [name, value] of Object.entries(given) as [keyof Retention, number | undefined][]) {
    if (value === undefined) continue;
    const min = name === 'keepAtLeast' ? 0 : 1;
    const max = name === 'keepForMinutes' ? FOR_MINUTES_MAX : COUNT_MAX;
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new PandoError('request-invalid', `retention: ${name} is from ${min} to ${max}`);
    }
  }
  return given;
}

export function keepsAll(retention: Retention): boolean {
  return (
    retention.keepForMinutes === undefined &&
    retention.keepLast === undefined &&
    PERIODS.every((period) => retention[period] === undefined)
  );
}

export interface Retained {
  /** Whether each stays, in the order of the times. */
  readonly kept: readonly boolean[];
  /** When age alone lets the next one go; undefined: none goes by age. */
  readonly nextExpiry: number | undefined;
}

/** `times` in milliseconds since 1970, in the order of their making, newest first; the clock may have jumped in between. */
export function retain(
  times: readonly number[],
  retention: Retention,
  timeZone: string,
  now: number,
): Retained {
  if (keepsAll(retention)) return { kept: times.map(() => true), nextExpiry: undefined };
  const keepFor = (retention.keepForMinutes ?? -Infinity) * MINUTE_MS;
  const first = Math.max(retention.keepAtLeast ?? 1, retention.keepLast ?? 0);
  const left = PERIODS.map((period) => ({ period, count: retention[period] ?? 0, last: '' }));
  let nextExpiry: number | undefined;
  const kept = times.map((at, i) => {
    let isKept = i < first;
    const zoned = left.some(({ count }) => count > 0)
      ? Temporal.Instant.fromEpochMilliseconds(Math.floor(at)).toZonedDateTimeISO(timeZone)
      : undefined;
    for (const counter of left) {
      if (counter.count === 0) continue;
      const key = keyOf(counter.period, zoned!);
      if (key === counter.last) continue;
      counter.last = key;
      counter.count--;
      isKept = true;
    }
    if (isKept) return true;
    if (at + keepFor <= now) return false;
    nextExpiry = Math.min(nextExpiry ?? Infinity, at + keepFor);
    return true;
  });
  return { kept, nextExpiry };
}

/** Names the period that a time is in. */
function keyOf(period: Period, at: Temporal.ZonedDateTime): string {
  switch (period) {
    case 'keepHourly':
      // With the offset: an hour that comes twice is two.
      return `${at.toPlainDate().toString()} ${at.hour} ${at.offset}`;
    case 'keepDaily':
      return at.toPlainDate().toString();
    case 'keepWeekly':
      return `${at.yearOfWeek} ${at.weekOfYear}`;
    case 'keepMonthly':
      return `${at.year} ${at.month}`;
    case 'keepYearly':
      return String(at.year);
  }
}
