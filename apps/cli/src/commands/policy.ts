/** `pando policy …` */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { fields, formatTime, plural, print, table } from '../output.ts';
import { printImpact } from '../policy-impact.ts';
import { describeRetention, describeSchedule } from '../policy-text.ts';
import { Rest } from '../rest.ts';
import type { AssignedVm, DueRun, Page, Policy, PolicyFailure, Retention, Schedule } from '../views.ts';
import { countArgument, durationArgument, part, type JsonOption } from './arguments.ts';

const DAY_MINUTES = 24 * 60;
const MINUTE_MS = 60_000;

interface RuleOptions extends JsonOption {
  readonly every?: string;
  readonly at?: string[];
  readonly on?: string[];
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

interface CreateOptions extends RuleOptions {
  readonly dryRun?: boolean;
  readonly rule: string;
  readonly note?: string;
  readonly quiesce?: string;
  readonly vm?: string[];
  readonly tag?: string[];
}

interface ImpactOptions extends RuleOptions {
  readonly rule: string;
  readonly vm?: string[];
  readonly tag?: string[];
  readonly horizon?: number;
}

interface TargetOptions extends JsonOption {
  readonly dryRun?: boolean;
  readonly vm?: string[];
  readonly tag?: string[];
}

const commas = (text: string): string[] => text.split(',').map((one) => one.trim());

function monthDays(text: string): (number | 'last')[] {
  return commas(text).map((day) => {
    if (day === 'last') return day;
    if (!/^([1-9]|[12]\d|3[01])$/.test(day)) throw new InvalidArgumentError('write days as 1,15,last');
    return Number(day);
  });
}

function atLeast(text: string): number {
  return text === '0' ? 0 : countArgument(text);
}

/** Options that say one rule. */
function withRule(command: Command): Command {
  return command
    .option('--every <interval>', '15m, 4h: within the day; 1d, 3d: days, with --at')
    .option(
      '--at <times>',
      'times of the day, such as 02:00 or 12:00,18:00 (with --every in days: 00:00)',
      commas,
    )
    .option('--on <weekdays>', 'only on mon,tue,wed,thu,fri,sat,sun', commas)
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

function targets(vm: string[] | undefined, tag: string[] | undefined): { vms?: string[]; tags?: string[] } {
  return { ...(vm === undefined ? {} : { vms: vm }), ...(tag === undefined ? {} : { tags: tag }) };
}

/** The rules of a policy with this one instead of the one of its name, or at the end. */
function withRuleSet(
  before: readonly { readonly name: string }[],
  rule: { readonly name: string },
): object[] {
  const isThere = before.some(({ name }) => name === rule.name);
  return isThere ? before.map((one) => (one.name === rule.name ? rule : one)) : [...before, rule];
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

const rulesOf = (policy: Policy): object[] =>
  policy.rules.map(({ name, schedule, retention }) => ({ name, schedule, retention }));

export function addPolicyCommands(program: Command): void {
  const policy = program.command('policy').description('backups that are taken and expire by themselves');

  withRule(
    policy
      .command('create')
      .description('create a policy with one rule: when backups are taken, and which are kept')
      .argument('<name>')
      .option('--rule <name>', 'name of the rule', 'main')
      .option('--note <text>', 'what it is for')
      .option('--quiesce <agent>', 'bring guests to rest around the instant: qemu-ga:/run/guests/{vm}.sock')
      .option('--vm <vm...>', 'assign these VMs')
      .option('--tag <tag...>', 'assign all VMs that carry one of these tags')
      .option('--dry-run', 'create nothing, but say what it would bring about'),
  )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample: pando policy create nightly --every 1d --at 02:00 --tz Europe/Berlin --keep-daily 7 --keep-weekly 4 --tag prod',
    )
    .action(async (name: string, options: CreateOptions, command: Command) => {
      const { rule, note, quiesce, vm, tag, json } = options;
      const rest = new Rest();
      const rules = [{ name: rule, schedule: scheduleOf(options, command), retention: retentionOf(options) }];
      if (options.dryRun === true) {
        if ((vm ?? tag) === undefined) command.error('error: for an impact name VMs (--vm) or tags (--tag)');
        return printImpact({ rules, ...targets(vm, tag) }, json);
      }
      let made = await rest.post<Policy>('/policies', {
        ...{ name, rules },
        ...(note === undefined ? {} : { note }),
        ...(quiesce === undefined ? {} : { quiesce }),
        ...(tag === undefined ? {} : { tags: tag }),
      });
      if (vm !== undefined) made = await rest.post<Policy>(`/policies/${made.id}/assign`, { vms: vm });
      print(json, made, () => policyText(made));
    });

  policy
    .command('ls')
    .description('list policies, or those that a VM is under')
    .option('--vm <vm>', 'only those that this VM is under, and how it came to be')
    .option('--json', 'print JSON')
    .action(async ({ vm, json }: { vm?: string } & JsonOption) => {
      if (vm !== undefined) {
        const { items } = await new Rest().get<Page<AssignedVm>>(`/vms/${part(vm)}/policies`);
        print(json, { items }, () => (items.length === 0 ? 'No policies.' : assignedTable('POLICY', items)));
        return;
      }
      const policies = await new Rest().all<Policy>('/policies');
      print(json, { items: policies }, () =>
        policies.length === 0 ? 'No policies.' : policyTable(policies),
      );
    });

  policy
    .command('show')
    .description('show a policy: its rules, when they run next, and how the last run went')
    .argument('<policy>', 'name or id')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json }: JsonOption) => {
      const shown = await new Rest().get<Policy>(`/policies/${part(reference)}`);
      print(json, shown, () => policyText(shown));
    });

  policy
    .command('due')
    .description('what is due next, soonest first')
    .option('--json', 'print JSON')
    .action(async ({ json }: JsonOption) => {
      const due = await new Rest().all<DueRun>('/policy-runs');
      print(json, { items: due }, () =>
        due.length === 0
          ? 'Nothing is due.'
          : table(due, [
              { title: 'AT', text: ({ at, isRunning }) => (isRunning ? 'now' : formatTime(at)) },
              { title: 'POLICY', text: (run) => run.policy },
              { title: 'RULE', text: ({ rule }) => rule },
            ]),
      );
    });

  withRule(
    policy
      .command('set-rule')
      .description('give a policy a rule, or another schedule and retention to one that it has')
      .argument('<policy>', 'name or id')
      .argument('<rule>')
      .option('--dry-run', 'change nothing, but say what it would bring about'),
  )
    .option('--json', 'print JSON')
    .action(
      async (reference: string, rule: string, options: RuleOptions & TargetOptions, command: Command) => {
        const rest = new Rest();
        const url = `/policies/${part(reference)}`;
        const made = {
          name: rule,
          schedule: scheduleOf(options, command),
          retention: retentionOf(options),
        };
        const before = rulesOf(await rest.get<Policy>(url)) as { name: string }[];
        const rules = withRuleSet(before, made);
        if (options.dryRun === true) return printImpact({ policy: reference, rules }, options.json);
        const changed = await rest.patch<Policy>(url, { rules });
        print(options.json, changed, () => policyText(changed));
      },
    );

  policy
    .command('rm-rule')
    .description('take a rule from a policy; what it took stays, and does not expire by itself any more')
    .argument('<policy>', 'name or id')
    .argument('<rule>')
    .option('--json', 'print JSON')
    .action(async (reference: string, rule: string, { json }: JsonOption, command: Command) => {
      const rest = new Rest();
      const url = `/policies/${part(reference)}`;
      const before = rulesOf(await rest.get<Policy>(url)) as { name: string }[];
      const rules = before.filter(({ name }) => name !== rule);
      if (rules.length === before.length) command.error(`error: the policy has no rule ${rule}`);
      const changed = await rest.patch<Policy>(url, { rules });
      print(json, changed, () => policyText(changed));
    });

  policy
    .command('set')
    .description('change what is said about a policy')
    .argument('<policy>', 'name or id')
    .requiredOption('--note <text>', 'what it is for; empty: no note')
    .option('--json', 'print JSON')
    .action(async (reference: string, { note, json }: { note: string } & JsonOption) => {
      const changed = await new Rest().patch<Policy>(`/policies/${part(reference)}`, { note });
      print(json, changed, () => policyText(changed));
    });

  policy
    .command('rename')
    .description('rename a policy')
    .argument('<policy>', 'name or id')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action(async (reference: string, name: string, { json }: JsonOption) => {
      const renamed = await new Rest().patch<Policy>(`/policies/${part(reference)}`, { name });
      print(json, renamed, renamed.name);
    });

  for (const [verb, description] of [
    ['assign', 'assign VMs to a policy, by name or by tag'],
    ['unassign', 'take VMs or tags away from a policy; backups stay, and expire as before'],
  ] as const) {
    policy
      .command(verb)
      .description(description)
      .argument('<policy>', 'name or id')
      .option('--vm <vm...>', 'names or ids')
      .option('--tag <tag...>', 'all VMs that carry one of them')
      .option('--dry-run', 'change nothing, but say what the policy brings about for them')
      .option('--json', 'print JSON')
      .action(async (reference: string, { vm, tag, dryRun, json }: TargetOptions, command: Command) => {
        if ((vm ?? tag) === undefined) command.error('error: name VMs (--vm) or tags (--tag)');
        const body = targets(vm, tag);
        if (dryRun === true) return printImpact({ policy: reference, ...body }, json);
        const changed = await new Rest().post<Policy>(`/policies/${part(reference)}/${verb}`, body);
        print(json, changed, `${changed.name}: done.`);
      });
  }

  for (const [verb, description] of [
    ['suspend', 'let a policy rest, or one VM of it'],
    ['resume', 'let a policy, or one VM of it, go on; what was due meanwhile is not made up for'],
  ] as const) {
    policy
      .command(verb)
      .description(description)
      .argument('<policy>', 'name or id')
      .option('--vm <vm>', 'only for this VM')
      .option('--json', 'print JSON')
      .action(async (reference: string, { vm, json }: { vm?: string } & JsonOption) => {
        const body = vm === undefined ? {} : { vm };
        const changed = await new Rest().post<Policy>(`/policies/${part(reference)}/${verb}`, body);
        print(json, changed, () => policyText(changed));
      });
  }

  policy
    .command('run')
    .description('begin a run now, of one rule or of all')
    .argument('<policy>', 'name or id')
    .option('--rule <name>', 'only this rule')
    .option('--json', 'print JSON')
    .action(async (reference: string, { rule, json }: { rule?: string } & JsonOption) => {
      const body = rule === undefined ? {} : { rule };
      const running = await new Rest().post<Policy>(`/policies/${part(reference)}/run`, body);
      print(json, running, `${running.name} runs: see pando policy show ${running.name}`);
    });

  policy
    .command('vms')
    .description('VMs that are assigned to a policy')
    .argument('<policy>', 'name or id')
    .addOption(new Option('--failed', 'only those whose last backup by it failed, and why'))
    .option('--json', 'print JSON')
    .action(async (reference: string, { failed, json }: { failed?: boolean } & JsonOption) => {
      const url = `/policies/${part(reference)}`;
      if (failed === true) {
        const failures = await new Rest().all<PolicyFailure>(`${url}/failures`);
        print(json, { items: failures }, () =>
          failures.length === 0
            ? 'No failures.'
            : table(failures, [
                { title: 'VM', text: ({ vmName }) => vmName },
                { title: 'RULE', text: ({ rule }) => rule },
                { title: 'WHEN', text: ({ at }) => formatTime(at) },
                { title: 'WHY', text: ({ code, detail }) => `${code}: ${detail}` },
              ]),
        );
        return;
      }
      const vms = await new Rest().all<AssignedVm>(`${url}/vms`);
      print(json, { items: vms }, () => (vms.length === 0 ? 'No VMs.' : assignedTable('VM', vms)));
    });

  withRule(
    policy
      .command('impact')
      .description(
        'what a policy, or a rule of one that is none yet, brings about: backups and bytes, now, then and in the long run',
      )
      .argument(
        '[policy]',
        'name or id; with a rule: as if it had that one too, or instead of the one of its name',
      )
      .option('--rule <name>', 'name of the rule', 'main')
      .option('--vm <vm...>', 'for these VMs (those of the policy)')
      .option('--tag <tag...>', 'for all VMs that carry one of these tags')
      .option('--horizon <days>', 'how far ahead (30)', countArgument),
  )
    .option('--json', 'print JSON')
    .action(async (reference: string | undefined, options: ImpactOptions, command: Command) => {
      const { rule, vm, tag, horizon, json } = options;
      const isRule = (options.every ?? options.at) !== undefined;
      if (!isRule && reference === undefined) command.error('error: name a policy, or say a rule');
      const made = isRule
        ? { name: rule, schedule: scheduleOf(options, command), retention: retentionOf(options) }
        : undefined;
      const before =
        made === undefined || reference === undefined
          ? []
          : (rulesOf(await new Rest().get<Policy>(`/policies/${part(reference)}`)) as { name: string }[]);
      await printImpact(
        {
          ...(reference === undefined ? {} : { policy: reference }),
          ...(made === undefined ? {} : { rules: withRuleSet(before, made) }),
          ...targets(vm, tag),
          ...(horizon === undefined ? {} : { horizonDays: horizon }),
        },
        json,
      );
    });

  policy
    .command('rm')
    .description('delete policies; their backups stay, and do not expire by themselves any more')
    .argument('<policies...>', 'names or ids')
    .option('--json', 'print JSON')
    .action(async (references: string[], { json }: JsonOption) => {
      const rest = new Rest();
      for (const reference of references) await rest.delete(`/policies/${part(reference)}`);
      print(json, { deleted: references }, `Deleted ${references.join(', ')}.`);
    });
}

function policyText(policy: Policy): string {
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

function assignedTable(title: string, items: readonly AssignedVm[]): string {
  return table(items, [
    { title, text: ({ name }) => name },
    { title: 'BY', text: ({ tag }) => (tag === undefined ? 'name' : `tag ${tag}`) },
    { title: 'STATE', text: ({ isSuspended }) => (isSuspended ? 'suspended' : 'active') },
  ]);
}

function policyTable(policies: readonly Policy[]): string {
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
