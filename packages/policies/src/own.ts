/** Policies from the side of their VMs: which ones VMs are under, and a backup of one VM alone. */
import { PandoError } from '@pando/common';
import { holdPolicy, type PolicyContext, type StoredPolicy } from './context.ts';
import { look } from './expire.ts';
import { getRecord, pair, remove, ruleKey } from './records.ts';
import { takeBackup } from './take-backup.ts';
import type { Rule } from './types.ts';

/** Policies of one VM, and of one tag, that are looked at: there are no more. */
const POLICIES_PAGE = 1000;

/** Ids of the policies that one of the VMs is under, or that are assigned by one of the tags. A read for each VM and each tag. */
export async function policiesOf(
  { catalog }: PolicyContext,
  vms: readonly { readonly id: string; readonly tags: readonly string[] }[],
  tags: readonly string[],
): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  const collect = async (table: 'policy-of-vm' | 'policy-tag', name: string): Promise<void> => {
    const prefix = pair(name, '');
    for (const { key } of await catalog.list(table, { prefix, limit: POLICIES_PAGE })) {
      found.add(key.slice(prefix.length));
    }
  };
  for (const { id } of vms) await collect('policy-of-vm', id);
  for (const tag of new Set([...tags, ...vms.flatMap((vm) => vm.tags)])) await collect('policy-tag', tag);
  return found;
}

/** The rules that are meant. @throws `policy-busy` when the policy is suspended, `request-invalid` when there is no such rule */
export function rulesToRun({ record }: StoredPolicy, ruleName: string | undefined): readonly Rule[] {
  if (record.isSuspended === true) throw new PandoError('policy-busy', `policy ${record.name} is suspended`);
  const rules = record.rules.filter(({ name }) => ruleName === undefined || name === ruleName);
  if (rules.length > 0) return rules;
  const named = JSON.stringify(ruleName!.slice(0, 80));
  throw new PandoError('request-invalid', `policy ${record.name} has no rule ${named}`);
}

/**
 * Takes the backups of one VM that a run would take now. Not while a run of the rule is under way: it knows whom it has been at by their newest backup.
 * @throws `vm-missing`, `policy-busy`, `request-invalid` when the VM is not under the policy, and what taking a backup throws
 */
export async function runForVm(
  ctx: PolicyContext,
  ref: string,
  ruleName: string | undefined,
  vmRef: string,
): Promise<StoredPolicy> {
  return holdPolicy(ctx, ref, async (policy) => {
    const { id, record } = policy;
    const rules = rulesToRun(policy, ruleName);
    const vm = await ctx.fleet.getVm(vmRef);
    if (!(await policiesOf(ctx, [vm], [])).has(id))
      throw new PandoError('request-invalid', `VM ${vm.name} is not assigned to policy ${record.name}`);
    if ((await ctx.catalog.get('policy-rest', pair(id, vm.id))) !== undefined)
      throw new PandoError('policy-busy', `policy ${record.name} is suspended for VM ${vm.name}`);
    for (const { name } of rules) {
      const state = await getRecord(ctx.catalog, 'policy-state', ruleKey(id, name));
      if (state?.run !== undefined)
        throw new PandoError('policy-busy', `rule ${name} of policy ${record.name} is running`);
    }
    const failureKey = pair(id, vm.id);
    const failure = await getRecord(ctx.catalog, 'policy-failure', failureKey);
    const dueAt = ctx.clock.now();
    for (const rule of rules) {
      await takeBackup(ctx, policy, rule, vm, { id, name: record.name, rule: rule.name, dueAt });
      ctx.counters.backups++;
      const operations = await look(ctx, id, rule, vm.id);
      const isOver = failure?.rule === rule.name ? [remove('policy-failure', failureKey)] : [];
      if (operations.length + isOver.length > 0) await ctx.catalog.commit([...operations, ...isOver]);
    }
    return policy;
  });
}
