/** One rule of a policy, as options of a command say it. */
import type { BodyOf, Policy, Retention, Schedule } from '@pando/client';
import { InvalidArgumentError, type Command } from 'commander';
import { countArgument, durationArgument, type JsonOption } from './arguments.ts';

const DAY_MINUTES = 24 * 60;
const MINUTE_MS = 60_000;

/** As a policy is created and changed with it. */
export type Rule = BodyOf<'createPolicy'>['rules'][number] & { readonly name: string };

type Weekday = NonNullable<Schedule['weekdays']>[number];
const WEEKDAYS: readonly string[] = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] satisfies Weekday[];

export interface RuleOptions extends JsonOption {
  readonly every?: string;
  readonly at?: string[];
  readonly on?: Weekday[];
  readonly day?: (number | 'last')[];
  readonly from?: string;
  readonly to?: string;
  readonly tz?: string;
  readonly keepFor?: number;
  readonly keepLast?: number;
  readonly keepHourly?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
  readonly keepMonthly?: number;
  readonly keepYearly?: number;
  readonly keepAtLeast?: number;
}

const commas = (text: string): string[] => text.split(',').map((one) => one.trim());

function monthDays(text: string): (number | 'last')[] {
  return commas(text).map((day) => {
    if (day === 'last') return day;
    if (!/^([1-9]|[12]\d|3[01])$/.test(day)) throw new InvalidArgumentError('write days as 1,15,last');
    return Number(day);
  });
}

function weekdays(text: string): Weekday[] {
  return commas(text).map((day) => {
    if (!WEEKDAYS.includes(day)) throw new InvalidArgumentError('write weekdays as mon,wed,fri');
    return day as Weekday;
  });
}

function atLeast(text: string): number {
  return text === '0' ? 0 : countArgument(text);
}

/** Options that say one rule. */
export function withRule(command: Command): Command {
  return command
    .option('--every <interval>', '15m, 4h: within the day; 1d, 3d: days, with --at')
    .option(
      '--at <times>',
      'times of the day, such as 02:00 or 12:00,18:00 (with --every in days: 00:00)',
      commas,
    )
    .option('--on <weekdays>', 'only on mon,tue,wed,thu,fri,sat,sun', weekdays)
    .option('--day <days>', 'only on these days of the month: 1,15,last', monthDays)
    .option('--from <time>', 'with --every: from this time of the day on (00:00)')
    .option('--to <time>', 'until before this one (24:00); earlier than --from: on the next day')
    .option('--tz <zone>', "time zone, such as Europe/Berlin (this machine's)")
    .option('--keep-for <duration>', 'keep what is younger: 12h, 30d, 4w, 1y', durationArgument)
    .option('--keep-last <n>', 'keep so many of the newest', countArgument)
    .option('--keep-hourly <n>', 'keep the newest of each of the last n hours that have any', countArgument)
    .option('--keep-daily <n>', 'likewise of days', countArgument)
    .option('--keep-weekly <n>', 'of weeks', countArgument)
    .option('--keep-monthly <n>', 'of months', countArgument)
    .option('--keep-yearly <n>', 'of years', countArgument)
    .option('--keep-at-least <n>', 'keep so many of the newest, however old (1)', atLeast);
}

function scheduleOf({ every, at, on, day, from, to, tz }: RuleOptions, command: Command): Schedule {
  const match = every === undefined ? undefined : /^([1-9]\d{0,4})([mhd])$/.exec(every);
  if (match === null) command.error('error: write --every as 15m, 4h or 1d');
  const isDays = match?.[2] === 'd';
  if (match === undefined && at === undefined) command.error('error: say when: --every, --at or both');
  if (match !== undefined && !isDays && at !== undefined) {
    command.error('error: --at goes with days; --every in minutes or hours has --from and --to');
  }
  const every_ = match === undefined ? 0 : Number(match[1]);
  const minutes = match?.[2] === 'h' ? every_ * 60 : every_;
  const isInterval = match !== undefined && !isDays;
  return {
    timeZone: tz ?? Intl.DateTimeFormat().resolvedOptions().timeZone,
    ...(isDays && every_ > 1 ? { everyDays: every_ } : {}),
    ...(on === undefined ? {} : { weekdays: on }),
    ...(day === undefined ? {} : { monthDays: day }),
    ...(isInterval ? { everyMinutes: Math.min(minutes, DAY_MINUTES + 1) } : { at: at ?? ['00:00'] }),
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
  };
}

function retentionOf(options: RuleOptions): Retention {
  const { keepFor, keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly, keepAtLeast } =
    options;
  const all = {
    keepForMinutes: keepFor === undefined ? undefined : Math.round(keepFor / MINUTE_MS),
    ...{ keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly, keepAtLeast },
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** The rule of this name that the options say. */
export function ruleOf(name: string, options: RuleOptions, command: Command): Rule {
  return { name, schedule: scheduleOf(options, command), retention: retentionOf(options) };
}

export function rulesOf(policy: Policy): Rule[] {
  return policy.rules.map(({ name, schedule, retention }) => ({ name, schedule, retention }));
}

/** The rules of a policy with this one instead of the one of its name, or at the end. */
export function withRuleSet(before: readonly Rule[], rule: Rule): Rule[] {
  const isThere = before.some(({ name }) => name === rule.name);
  return isThere ? before.map((one) => (one.name === rule.name ? rule : one)) : [...before, rule];
}
