/** Policies as people read them; schedules and retention as a sentence. */
import type { Policy, PolicyOfVm, Retention, Schedule } from '@pando/client';
import { fields, formatTime, plural, table } from './output.ts';

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

export function policyText(policy: Policy): string {
  const { name, id, note, quiesce, rules, tags, isSuspended } = policy;
  return fields([
    ['policy', name],
    ['id', id],
    ...(note === undefined ? [] : [['note', note] as const]),
    ...(quiesce === undefined ? [] : [['quiesce', quiesce] as const]),
    ['state', isSuspended ? 'suspended' : 'active'],
    ['tags', tags.length === 0 ? 'none' : tags.join(', ')],
    ...rules.flatMap(({ name: rule, schedule, retention, nextRunAt, running, lastRun }) => {
      const run = running ?? lastRun;
      const lines: (readonly [string, string])[] = [
        [`rule ${rule}`, describeSchedule(schedule)],
        ['  keeps', describeRetention(retention)],
      ];
      if (nextRunAt !== undefined) lines.push(['  next run', formatTime(nextRunAt)]);
      if (run !== undefined) {
        const failed = run.failed === 0 ? '' : `, ${run.failed} failed`;
        lines.push([
          running === undefined ? '  last run' : '  running',
          `${formatTime(run.startedAt)}: ${plural(run.backups, 'backup')}${failed}`,
        ]);
      }
      return lines;
    }),
  ]);
}

export function assignedTable(title: string, items: readonly PolicyOfVm[]): string {
  return table(items, [
    { title, text: ({ name }) => name },
    { title: 'BY', text: ({ tag }) => (tag === undefined ? 'name' : `tag ${tag}`) },
    { title: 'STATE', text: ({ isSuspended }) => (isSuspended ? 'suspended' : 'active') },
  ]);
}

export function policyTable(policies: readonly Policy[]): string {
  const first = (policy: Policy): string | undefined =>
    policy.rules.flatMap(({ nextRunAt }) => nextRunAt ?? []).sort()[0];
  return table(policies, [
    { title: 'NAME', text: ({ name }) => name },
    { title: 'RULES', right: true, text: ({ rules }) => String(rules.length) },
    {
      title: 'NEXT RUN',
      text: (policy) => {
        const next = first(policy);
        if (policy.isSuspended) return 'suspended';
        if (policy.rules.some(({ running }) => running !== undefined)) return 'running';
        return next === undefined ? '-' : formatTime(next);
      },
    },
    {
      title: 'FAILED',
      right: true,
      text: ({ rules }) => String(rules.reduce((sum, { lastRun }) => sum + (lastRun?.failed ?? 0), 0)),
    },
    { title: 'TAGS', text: ({ tags }) => tags.join(', ') },
  ]);
}
