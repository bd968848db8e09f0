/**
 * When a rule is due: days of the calendar and times of the day, as a wall clock in the rule's time zone shows them. Pure functions.
 *
 * Days, zones and changes to and from summer time are Temporal's. A time that such a change leaves out is the same one later (02:30
 * → 03:30), a time that comes twice is the first of both. Intervals of up to an hour run through what comes twice, and
 * leave out what does not come: their next time is near.
 */
import { PandoError } from '@pando/common';
import { Temporal } from 'temporal-polyfill';

export const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof WEEKDAYS)[number];

export interface Schedule {
  /** IANA name, such as Europe/Berlin. */
  readonly timeZone: string;
  /** Every so many days, counted from 1970-01-01; not with weekdays or days of the month. */
  readonly everyDays?: number;
  readonly weekdays?: readonly Weekday[];
  readonly monthDays?: readonly (number | 'last')[];
  /** Times of the day, `02:00`; this or `everyMinutes`. */
  readonly at?: readonly string[];
  /** From `from` on, every so many minutes until before `to`; up to a day. */
  readonly everyMinutes?: number;
  /** `00:00` when absent. */
  readonly from?: string;
  /** `24:00` when absent; not after `from`: on the next day. The days are those on which the window opens. */
  readonly to?: string;
}

export const MINUTES_OF_DAY = 24 * 60;
const MINUTE_MS = 60_000;
const EVERY_DAYS_MAX = 366;
const AT_MAX = 96;
/** Intervals up to this run through an hour that comes twice. */
const SHORT_MINUTES = 60;
/** How far a run is looked for: the 31st as a given weekday comes within that. */
const DAYS_MAX = 8 * 366;

/**
 * The schedule in its one form.
 * @throws `request-invalid`
 */
export function checkSchedule(given: Schedule): Schedule {
  const refuse = (what: string): never => {
    throw new PandoError('request-invalid', `schedule: ${what}`);
  };
  const whole = (what: string, value: number, max: number): void => {
    if (!Number.isInteger(value) || value < 1 || value > max) refuse(`${what} is from 1 to ${max}`);
  };
  const timeZone = checkTimeZone(given.timeZone);
  if ((given.at === undefined) === (given.everyMinutes === undefined)) {
    refuse('it has either "at" or "everyMinutes"');
  }
  if (given.at !== undefined && (given.from ?? given.to) !== undefined) {
    refuse('"from" and "to" go with "everyMinutes"');
  }
  if (given.everyDays !== undefined) {
    whole('everyDays', given.everyDays, EVERY_DAYS_MAX);
    if ((given.weekdays ?? given.monthDays) !== undefined) refuse('"everyDays" goes with no other days');
  }
  if (given.everyMinutes !== undefined) whole('everyMinutes', given.everyMinutes, MINUTES_OF_DAY);
  if (given.at !== undefined && (given.at.length < 1 || given.at.length > AT_MAX)) {
    refuse(`"at" has 1 to ${AT_MAX} times`);
  }
  for (const days of [given.weekdays, given.monthDays]) {
    if (days?.length === 0) refuse('a list of days is not empty');
  }
  for (const day of given.weekdays ?? []) {
    if (!WEEKDAYS.includes(day)) refuse(`a weekday is one of ${WEEKDAYS.join(', ')}`);
  }
  for (const day of given.monthDays ?? []) if (day !== 'last') whole('a day of the month', day, 31);
  for (const time of [...(given.at ?? []), given.from ?? '00:00']) minuteOf(time, MINUTES_OF_DAY - 1);
  minuteOf(given.to ?? '24:00', MINUTES_OF_DAY);
  return {
    ...given,
    timeZone,
    ...(given.at === undefined ? {} : { at: [...new Set(given.at)].sort() }),
    ...(given.weekdays === undefined
      ? {}
      : { weekdays: WEEKDAYS.filter((day) => given.weekdays!.includes(day)) }),
    ...(given.monthDays === undefined ? {} : { monthDays: [...new Set(given.monthDays)] }),
  };
}

/** @throws `request-invalid` */
export function checkTimeZone(timeZone: string): string {
  // An offset is a zone too, to Temporal; it has no summer time, and a name says what is meant.
  if (timeZone !== 'UTC' && !/^[A-Za-z][A-Za-z0-9_+-]*(\/[A-Za-z0-9_+-]+)+$/.test(timeZone)) {
    throw new PandoError(
      'request-invalid',
      `time zone ${JSON.stringify(timeZone.slice(0, 60))} is no name such as Europe/Berlin or UTC`,
    );
  }
  try {
    return Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(timeZone).timeZoneId;
  } catch (error) {
    throw new PandoError('request-invalid', `there is no time zone ${timeZone.slice(0, 60)}`, {
      cause: error,
    });
  }
}

function minuteOf(time: string, max: number): number {
  const match = /^(\d\d):(\d\d)$/.exec(time);
  const minute = match === null ? NaN : Number(match[1]) * 60 + Number(match[2]);
  if (!(minute <= max) || Number(match![2]) > 59) {
    throw new PandoError(
      'request-invalid',
      `schedule: ${JSON.stringify(time.slice(0, 20))} is no time of the day such as 02:30`,
    );
  }
  return minute;
}

/** The first run after the instant (both in milliseconds since 1970); undefined: there is none in years. */
export function nextRun(schedule: Schedule, after: number): number | undefined {
  // A window that opened on the day before may still be open, in a zone that is a day ahead at most.
  let date = dateOf(schedule, after).subtract({ days: 2 });
  for (let day = 0; day < DAYS_MAX; day++, date = date.add({ days: 1 })) {
    const found = runsOfDay(schedule, date).find((run) => run > after);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The last run at the instant or before it; undefined: there is none in years. */
export function previousRun(schedule: Schedule, at: number): number | undefined {
  let date = dateOf(schedule, at).add({ days: 1 });
  for (let day = 0; day < DAYS_MAX; day++, date = date.subtract({ days: 1 })) {
    const found = runsOfDay(schedule, date).findLast((run) => run <= at);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** All runs after `from` up to `to`, ascending. */
export function* runsBetween(schedule: Schedule, from: number, to: number): Generator<number> {
  let last = from;
  const end = dateOf(schedule, to).add({ days: 1 });
  let date = dateOf(schedule, from).subtract({ days: 2 });
  for (; Temporal.PlainDate.compare(date, end) <= 0; date = date.add({ days: 1 })) {
    for (const run of runsOfDay(schedule, date)) {
      if (run <= last || run > to) continue;
      yield run;
      last = run;
    }
  }
}

function dateOf({ timeZone }: Schedule, ms: number): Temporal.PlainDate {
  return Temporal.Instant.fromEpochMilliseconds(Math.floor(ms)).toZonedDateTimeISO(timeZone).toPlainDate();
}

/** Runs whose window opens on the day, ascending. */
function runsOfDay(schedule: Schedule, date: Temporal.PlainDate): readonly number[] {
  if (!isDay(schedule, date)) return [];
  const minutes = minutesOf(schedule);
  const isShort = schedule.everyMinutes !== undefined && schedule.everyMinutes <= SHORT_MINUTES;
  const start = date.toZonedDateTime(schedule.timeZone);
  const end = date.add({ days: 2 }).toZonedDateTime(schedule.timeZone);
  const startMs = start.epochMilliseconds;
  // Nearly every day: no change of the zone, and no need to ask for every minute of it.
  if (end.epochMilliseconds - startMs === 2 * MINUTES_OF_DAY * MINUTE_MS && start.hour === 0) {
    return minutes.map((minute) => startMs + minute * MINUTE_MS);
  }
  const runs = new Set<number>();
  for (const minute of minutes) {
    const wall = date.toPlainDateTime().add({ minutes: minute });
    const [first, second] = (['earlier', 'later'] as const).map((disambiguation) =>
      wall.toZonedDateTime(schedule.timeZone, { disambiguation }),
    ) as [Temporal.ZonedDateTime, Temporal.ZonedDateTime];
    const exists = first.toPlainDateTime().equals(wall);
    if (exists) runs.add(first.epochMilliseconds);
    if (exists ? isShort : !isShort) runs.add(second.epochMilliseconds);
  }
  return [...runs].sort((a, b) => a - b);
}

function isDay({ everyDays, weekdays, monthDays }: Schedule, date: Temporal.PlainDate): boolean {
  if (everyDays !== undefined && everyDays > 1) {
    const { days } = EPOCH.until(date, { largestUnit: 'days' });
    return days % everyDays === 0;
  }
  if (weekdays !== undefined && !weekdays.includes(WEEKDAYS[date.dayOfWeek - 1]!)) return false;
  if (monthDays === undefined) return true;
  return monthDays.includes(date.day) || (monthDays.includes('last') && date.day === date.daysInMonth);
}

const EPOCH = Temporal.PlainDate.from('1970-01-01');

/** Minutes from the beginning of the day on which the window opens. */
function minutesOf(schedule: Schedule): readonly number[] {
  if (schedule.at !== undefined) return schedule.at.map((time) => minuteOf(time, MINUTES_OF_DAY - 1));
  const from = minuteOf(schedule.from ?? '00:00', MINUTES_OF_DAY - 1);
  const until = minuteOf(schedule.to ?? '24:00', MINUTES_OF_DAY);
  const to = until <= from ? until + MINUTES_OF_DAY : until;
  const every = schedule.everyMinutes!;
  return Array.from({ length: Math.ceil((to - from) / every) }, (_, i) => from + i * every);
}
