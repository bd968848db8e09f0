/** Which due times of a rule have a backup in the long run. A pure function. */
import { Temporal } from 'temporal-polyfill';
import { keepsAll, retain } from './retention.ts';
import { previousRun, runsBetween } from './schedule.ts';
import { STEADY_MAX } from './limits.ts';
import type { Rule } from './types.ts';

const MINUTE_MS = 60_000;

/**
 * Newest first, as of a time; undefined: there are ever more, or too many to count. Not by going through all runs of years: of each period
 * only the last one may count, and the one before it is found from the period's beginning.
 */
export function steadyTimes({ schedule, retention }: Rule, at: number): readonly number[] | undefined {
  if (keepsAll(retention)) return undefined;
  const { timeZone } = schedule;
  const times = new Set<number>();
  const walk = (count: number, before: (time: number) => number): void => {
    let time = previousRun(schedule, at);
    for (let i = 0; i < count && time !== undefined && times.size <= STEADY_MAX; i++) {
      times.add(time);
      time = previousRun(schedule, before(time));
    }
  };
  const startOf = (unit: 'hour' | 'day' | 'week' | 'month' | 'year') => (time: number) => {
    const zoned = Temporal.Instant.fromEpochMilliseconds(time).toZonedDateTimeISO(timeZone);
    if (unit === 'hour')
      return zoned.round({ smallestUnit: 'hour', roundingMode: 'floor' }).epochMilliseconds - 1;
    const date = zoned.toPlainDate();
    const first =
      unit === 'day'
        ? date
        : unit === 'week'
          ? date.subtract({ days: date.dayOfWeek - 1 })
          : date.with(unit === 'month' ? { day: 1 } : { month: 1, day: 1 });
    return first.toZonedDateTime(timeZone).epochMilliseconds - 1;
  };
  walk(Math.max(retention.keepLast ?? 0, retention.keepAtLeast ?? 1), (time) => time - 1);
  walk(retention.keepHourly ?? 0, startOf('hour'));
  walk(retention.keepDaily ?? 0, startOf('day'));
  walk(retention.keepWeekly ?? 0, startOf('week'));
  walk(retention.keepMonthly ?? 0, startOf('month'));
  walk(retention.keepYearly ?? 0, startOf('year'));
  if (retention.keepForMinutes !== undefined) {
    for (const time of runsBetween(schedule, at - retention.keepForMinutes * MINUTE_MS, at)) {
      times.add(time);
      if (times.size > STEADY_MAX) return undefined;
    }
  }
  if (times.size > STEADY_MAX) return undefined;
  const all = [...times].sort((a, b) => b - a);
  const { kept } = retain(all, retention, timeZone, at);
  return all.filter((_, i) => kept[i]);
}
