/** `pando policy …` */
import { Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { formatTime, print, table } from '../output.ts';
import { printImpact } from '../policy-impact.ts';
import { assignedTable, policyTable, policyText } from '../policy-text.ts';
import { countArgument, type JsonOption } from './arguments.ts';
import { ruleOf, rulesOf, withRule, withRuleSet, type RuleOptions } from './policy-rule.ts';

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

function targets(vm: string[] | undefined, tag: string[] | undefined): { vms?: string[]; tags?: string[] } {
  return { ...(vm === undefined ? {} : { vms: vm }), ...(tag === undefined ? {} : { tags: tag }) };
}

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
      const pando = connect();
      const rules = [ruleOf(rule, options, command)];
      if (options.dryRun === true) {
        if ((vm ?? tag) === undefined) command.error('error: for an impact name VMs (--vm) or tags (--tag)');
        return printImpact({ rules, ...targets(vm, tag) }, json);
      }
      let made = await pando.call('createPolicy', { body: { name, rules, note, quiesce, tags: tag } });
      if (vm !== undefined) made = await pando.call('assignPolicy', { policy: made.id, body: { vms: vm } });
      print(json, made, () => policyText(made));
    });

  policy
    .command('ls')
    .description('list policies, or those that a VM is under')
    .option('--vm <vm>', 'only those that this VM is under, and how it came to be')
    .option('--json', 'print JSON')
    .action(async ({ vm, json }: { vm?: string } & JsonOption) => {
      if (vm !== undefined) {
        const { items } = await connect().call('listPoliciesOfVm', { vm });
        print(json, { items }, () => (items.length === 0 ? 'No policies.' : assignedTable('POLICY', items)));
        return;
      }
      const policies = await connect().all('listPolicies');
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
      const shown = await connect().call('getPolicy', { policy: reference });
      print(json, shown, () => policyText(shown));
    });

  policy
    .command('due')
    .description('what is due next, soonest first')
    .option('--json', 'print JSON')
    .action(async ({ json }: JsonOption) => {
      const due = await connect().all('listDueRuns');
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
        const pando = connect();
        const made = ruleOf(rule, options, command);
        const before = rulesOf(await pando.call('getPolicy', { policy: reference }));
        const rules = withRuleSet(before, made);
        if (options.dryRun === true) return printImpact({ policy: reference, rules }, options.json);
        const changed = await pando.call('changePolicy', { policy: reference, body: { rules } });
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
      const pando = connect();
      const before = rulesOf(await pando.call('getPolicy', { policy: reference }));
      const rules = before.filter(({ name }) => name !== rule);
      if (rules.length === before.length) command.error(`error: the policy has no rule ${rule}`);
      const changed = await pando.call('changePolicy', { policy: reference, body: { rules } });
      print(json, changed, () => policyText(changed));
    });

  policy
    .command('set')
    .description('change what is said about a policy')
    .argument('<policy>', 'name or id')
    .requiredOption('--note <text>', 'what it is for; empty: no note')
    .option('--json', 'print JSON')
    .action(async (reference: string, { note, json }: { note: string } & JsonOption) => {
      const changed = await connect().call('changePolicy', { policy: reference, body: { note } });
      print(json, changed, () => policyText(changed));
    });

  policy
    .command('rename')
    .description('rename a policy')
    .argument('<policy>', 'name or id')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action(async (reference: string, name: string, { json }: JsonOption) => {
      const renamed = await connect().call('changePolicy', { policy: reference, body: { name } });
      print(json, renamed, renamed.name);
    });

  for (const [verb, operation, description] of [
    ['assign', 'assignPolicy', 'assign VMs to a policy, by name or by tag'],
    ['unassign', 'unassignPolicy', 'take VMs or tags away from a policy; backups stay, and expire as before'],
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
        const changed = await connect().call(operation, { policy: reference, body });
        print(json, changed, `${changed.name}: done.`);
      });
  }

  for (const [verb, operation, description] of [
    ['suspend', 'suspendPolicy', 'let a policy rest, or one VM of it'],
    [
      'resume',
      'resumePolicy',
      'let a policy, or one VM of it, go on; what was due meanwhile is not made up for',
    ],
  ] as const) {
    policy
      .command(verb)
      .description(description)
      .argument('<policy>', 'name or id')
      .option('--vm <vm>', 'only for this VM')
      .option('--json', 'print JSON')
      .action(async (reference: string, { vm, json }: { vm?: string } & JsonOption) => {
        const body = { vm };
        const changed = await connect().call(operation, { policy: reference, body });
        print(json, changed, () => policyText(changed));
      });
  }

  policy
    .command('run')
    .description('begin a run now, of one rule or of all; or take its backups of one VM')
    .argument('<policy>', 'name or id')
    .option('--rule <name>', 'only this rule')
    .option('--vm <vm>', 'only of this VM')
    .option('--json', 'print JSON')
    .action(async (reference: string, { rule, vm, json }: { rule?: string; vm?: string } & JsonOption) => {
      const running = await connect().call('runPolicy', { policy: reference, body: { rule, vm } });
      const begun = `${running.name} runs: see pando policy show ${running.name}`;
      print(json, running, vm === undefined ? begun : `taken for ${vm}: see pando backup ls ${vm}`);
    });

  policy
    .command('vms')
    .description('VMs that are assigned to a policy')
    .argument('<policy>', 'name or id')
    .addOption(new Option('--failed', 'only those whose last backup by it failed, and why'))
    .option('--json', 'print JSON')
    .action(async (reference: string, { failed, json }: { failed?: boolean } & JsonOption) => {
      if (failed === true) {
        const failures = await connect().all('listPolicyFailures', { policy: reference });
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
      const vms = await connect().all('listPolicyVms', { policy: reference });
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
      const made = isRule ? ruleOf(rule, options, command) : undefined;
      const before =
        made === undefined || reference === undefined
          ? []
          : rulesOf(await connect().call('getPolicy', { policy: reference }));
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
      const pando = connect();
      for (const reference of references) await pando.call('deletePolicy', { policy: reference });
      print(json, { deleted: references }, `Deleted ${references.join(', ')}.`);
    });
}
