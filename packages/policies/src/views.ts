/** Policies as users see them, and the lists about them. */
import { isPandoError } from '@pando/common';
import type { Page, PageRequest } from '@pando/fleet';
import { findPolicy, type PolicyContext, type StoredPolicy } from './context.ts';
import { catalogPage, decodeSource, encodeSource, pageLimit } from './pages.ts';
import { pair, partsOf, readAs, ruleKey, type RunRecord } from './records.ts';
import { tagOf, targetPage } from './targets.ts';
import type {
  AssignedVm,
  DueRun,
  Policy,
  PolicyFailure,
  PolicyOfVm,
  Rule,
  RuleStatus,
  RunInfo,
} from './types.ts';

/** Policies of one VM that are looked at. */
const OF_VM_MAX = 1000;

const instant = (ms: number): string => new Date(ms).toISOString();

export async function toPolicy(ctx: PolicyContext, { id, record }: StoredPolicy): Promise<Policy> {
  const { name, note, quiesce, rules, tags, isSuspended, createdAt, changedAt } = record;
  const keys = rules.map((rule) => ruleKey(id, rule.name));
  const states = await ctx.catalog.getMany('policy-state', keys);
  return {
    id,
    name,
    ...(note === undefined ? {} : { note }),
    ...(quiesce === undefined ? {} : { quiesce }),
    rules: rules.map((rule, i) => toStatus(rule, keys[i]!, states[i])),
    tags,
    isSuspended: isSuspended === true,
    createdAt: instant(createdAt),
    changedAt: instant(changedAt),
  };
}

function toStatus(rule: Rule, key: string, value: unknown): RuleStatus {
  if (value === undefined) return rule;
  const { agendaAt, run, last } = readAs('policy-state', key, value);
  return {
    ...rule,
    ...(run === undefined && agendaAt !== undefined ? { nextRunAt: instant(agendaAt) } : {}),
    ...(run === undefined ? {} : { running: toRun(run) }),
    ...(last === undefined ? {} : { lastRun: { ...toRun(last), endedAt: instant(last.endedAt) } }),
  };
}

function toRun({
  dueAt,
  startedAt,
  backups,
  failed,
  pass,
}: Pick<RunRecord, 'dueAt' | 'startedAt' | 'backups' | 'failed' | 'pass'>): RunInfo {
  return { dueAt: instant(dueAt), startedAt: instant(startedAt), backups, failed, passes: pass };
}

export async function listPolicies(ctx: PolicyContext, request: PageRequest): Promise<Page<Policy>> {
  return catalogPage(ctx, 'policy', '', request, (entries) =>
    Promise.all(
      entries.map(({ key, value }) => toPolicy(ctx, { id: key, record: readAs('policy', key, value) })),
    ),
  );
}

export async function listVms(
  ctx: PolicyContext,
  ref: string,
  request: PageRequest,
): Promise<Page<AssignedVm>> {
  const policy = await findPolicy(ctx, ref);
  const limit = pageLimit(request);
  const list = `policy-vms/${policy.id}`;
  let { source, cursor } = decodeSource(list, request.cursor);
  // A tag whose VMs are all listed already makes an empty page, not the last one.
  const page = await targetPage(ctx, policy, source, cursor, limit);
  if (page === undefined) return { items: [] };
  const resting = await ctx.catalog.getMany(
    'policy-rest',
    page.vms.map(({ id }) => pair(policy.id, id)),
  );
  const tag = tagOf(policy, source);
  const items = page.vms.map(({ id, name }, i) => ({
    id,
    name,
    ...(tag === undefined ? {} : { tag }),
    isSuspended: resting[i] !== undefined,
  }));
  cursor = page.cursor;
  if (cursor === undefined) source++;
  const isLast = cursor === undefined && source > policy.record.tags.length;
  return isLast ? { items } : { items, nextCursor: encodeSource(list, source, cursor) };
}

export async function listOfVm(ctx: PolicyContext, ref: string): Promise<readonly PolicyOfVm[]> {
  const vm = await ctx.fleet.getVm(ref);
  const found = new Map<string, string | undefined>();
  const collect = async (
    table: 'policy-of-vm' | 'policy-tag',
    prefix: string,
    tag?: string,
  ): Promise<void> => {
    for (const { key } of await ctx.catalog.list(table, { prefix, limit: OF_VM_MAX })) {
      const id = key.slice(prefix.length);
      if (!found.has(id)) found.set(id, tag);
    }
  };
  await collect('policy-of-vm', pair(vm.id, ''));
  for (const tag of vm.tags) await collect('policy-tag', pair(tag, ''), tag);
  const policies: PolicyOfVm[] = [];
  for (const [id, tag] of found) {
    try {
      const { record } = await findPolicy(ctx, id);
      const rest = await ctx.catalog.get('policy-rest', pair(id, vm.id));
      policies.push({
        id,
        name: record.name,
        ...(tag === undefined ? {} : { tag }),
        isSuspended: record.isSuspended === true || rest !== undefined,
      });
    } catch (error) {
      if (!isPandoError(error, 'policy-missing')) throw error;
    }
  }
  return policies;
}

export async function listFailures(
  ctx: PolicyContext,
  ref: string,
  request: PageRequest,
): Promise<Page<PolicyFailure>> {
  const { id, record } = await findPolicy(ctx, ref);
  const keys = record.rules.map(({ name }) => ruleKey(id, name));
  const states = await ctx.catalog.getMany('policy-state', keys);
  // One of an earlier run is of a VM that this run did not come by: it is gone, or not assigned any more.
  const current = new Map(
    record.rules.map(({ name }, i) => {
      const state = states[i] === undefined ? undefined : readAs('policy-state', keys[i]!, states[i]);
      return [name, [state?.run?.dueAt, state?.last?.dueAt]];
    }),
  );
  return catalogPage(ctx, 'policy-failure', pair(id, ''), request, (entries) =>
    entries.flatMap(({ key, value }) => {
      const { version: _, at, dueAt, ...rest } = readAs('policy-failure', key, value);
      if (current.get(rest.rule)?.includes(dueAt) !== true) return [];
      return [{ vmId: key.slice(id.length + 1), ...rest, at: instant(at), dueAt: instant(dueAt) }];
    }),
  );
}

export async function listDue(ctx: PolicyContext, request: PageRequest): Promise<Page<DueRun>> {
  return catalogPage(ctx, 'policy-agenda', '', request, async (entries) => {
    const parts = entries.map(({ key }) => partsOf(key));
    const keys = parts.map(({ policyId, rest }) => ruleKey(policyId, rest[0]!));
    const [policies, states] = await Promise.all([
      ctx.catalog.getMany(
        'policy',
        parts.map(({ policyId }) => policyId),
      ),
      ctx.catalog.getMany('policy-state', keys),
    ]);
    return parts.flatMap(({ at, policyId, rest }, i) => {
      if (policies[i] === undefined || states[i] === undefined) return [];
      const { name } = readAs('policy', policyId, policies[i]);
      const { run } = readAs('policy-state', keys[i]!, states[i]);
      return [{ at: instant(at), policyId, policy: name, rule: rest[0]!, isRunning: run !== undefined }];
    });
  });
}
