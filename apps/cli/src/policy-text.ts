/** Schedules and retention as a sentence. */
import { plural } from './output.ts';
import type { Retention, Schedule } from './views.ts';

export function describeSchedule(schedule: Schedule): string {
  const { timeZone, everyDays, weekdays, monthDays, at, everyMinutes, from, to } = schedule;
  const days =
    everyDays === undefined
      ? [
          ...(weekdays === undefined ? [] : [`on ${weekdays.join(', ')}`]),
          ...(monthDays === undefined ? [] : [`on day ${monthDays.join(', ')} of the month`]),
        ].join(' ') || 'daily'
      : everyDays === 1
        ? 'daily'
        : `every ${everyDays} days`;
  const window = (from ?? to) === undefined ? '' : ` from ${from ?? '00:00'} to ${to ?? '24:00'}`;
  const times = at === undefined ? `every ${describeMinutes(everyMinutes!)}${window}` : `at ${at.join(', ')}`;
  return `${days}, ${times}, ${timeZone}`;
}

export function describeRetention(retention: Retention): string {
  const { keepForMinutes, keepAtLeast, ...counts } = retention;
  const parts = [
    ...(keepForMinutes === undefined ? [] : [`for ${describeMinutes(keepForMinutes)}`]),
    ...Object.entries(counts).map(([name, count]) => `${count} ${name.slice('keep'.length).toLowerCase()}`),
  ];
  if (parts.length === 0) return 'everything';
  return `${parts.join(', ')}, at least ${keepAtLeast ?? 1}`;
}

function describeMinutes(minutes: number): string {
  if (minutes % (24 * 60) === 0) return plural(minutes / (24 * 60), 'day');
  return minutes % 60 === 0 ? plural(minutes / 60, 'hour') : plural(minutes, 'minute');
}
