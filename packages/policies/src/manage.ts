/** Policies: create, change, assign, suspend, run now, remove. Each is one commit. */
import type { CatalogOperation } from '@pando/catalog';
import { PandoError } from '@pando/common';
import { checkName } from '@pando/fleet';
import { checkNote, checkQuiesce, checkPolicyTags, checkRules } from './check.ts';
import { holdPolicy, type PolicyContext, type StoredPolicy } from './context.ts';
import { POLICIES_MAX, TARGETS_MAX } from './limits.ts';
import {
  agendaKey,
  getRecord,
  pair,
  put,
  putState,
  remove,
  ruleKey,
  sweepKey,
  type PolicyRecord,
  type RuleState,
} from './records.ts';
import { begin, ended } from './run.ts';
import { rulesToRun } from './own.ts';
import { nextRun } from './schedule.ts';
import type { PolicyChange, PolicyRequest, Rule, Targets } from './types.ts';

const NAMES = 'names';

export async function createPolicy(ctx: PolicyContext, request: PolicyRequest): Promise<StoredPolicy> {
  const name = checkName('policy name', request.name);
  const rules = checkRules(request.rules);
  const tags = checkPolicyTags(request.tags ?? []);
  const note = checkNote(request.note);
  const quiesce = checkQuiesce(request.quiesce);
  return ctx.locks.hold(NAMES, async () => {
    await refuseTaken(ctx, name);
    const all = await ctx.catalog.list('policy', { limit: POLICIES_MAX });
    if (all.length === POLICIES_MAX) {
      throw new PandoError('request-invalid', `there are ${POLICIES_MAX} policies, and no room for more`);
    }
    const id = ctx.newId();
    const now = ctx.clock.now();
    const about = {
      name,
      ...(note === undefined ? {} : { note }),
      ...(quiesce === undefined ? {} : { quiesce }),
      rules,
      tags,
    };
    const record: PolicyRecord = { version: 1, ...about, createdAt: now, changedAt: now };
    await ctx.catalog.commit([
      put('policy', id, record),
      put('policy-name', name, { id }),
      ...tags.map((tag) => put('policy-tag', pair(tag, id), {})),
      ...rules.flatMap((rule) => putState(id, rule.name, undefined, fresh(rule, now))),
    ]);
    ctx.wake();
    return { id, record };
  });
}

/** The state of a rule from which on due times count. */
function fresh(rule: Rule, now: number, before?: Omit<RuleState, 'version'>): Omit<RuleState, 'version'> {
  const agendaAt = nextRun(rule.schedule, now);
  const { last, recent } = before ?? {};
  return {
    handled: now,
    ...(recent === undefined ? {} : { recent }),
    ...(agendaAt === undefined ? {} : { agendaAt }),
    ...(last === undefined ? {} : { last }),
  };
}

async function refuseTaken(ctx: PolicyContext, name: string): Promise<void> {
  if ((await getRecord(ctx.catalog, 'policy-name', name)) !== undefined) {
    throw new PandoError('name-taken', `there is a policy named ${JSON.stringify(name)}`);
  }
}

export async function changePolicy(
  ctx: PolicyContext,
  ref: string,
  change: PolicyChange,
): Promise<StoredPolicy> {
  const name = change.name === undefined ? undefined : checkName('policy name', change.name);
  const rules = change.rules === undefined ? undefined : checkRules(change.rules);
  const note = checkNote(change.note);
  const quiesce = checkQuiesce(change.quiesce);
  return ctx.locks.hold(NAMES, () =>
    holdPolicy(ctx, ref, async ({ id, record }) => {
      if (name !== undefined && name !== record.name) await refuseTaken(ctx, name);
      const now = ctx.clock.now();
      const { note: noteBefore, quiesce: quiesceBefore, ...rest } = record;
      const noteAfter = change.note === undefined ? noteBefore : note;
      const quiesceAfter = change.quiesce === undefined ? quiesceBefore : quiesce;
      const after: PolicyRecord = {
        ...rest,
        name: name ?? record.name,
        rules: rules ?? record.rules,
        changedAt: now,
        ...(noteAfter === undefined ? {} : { note: noteAfter }),
        ...(quiesceAfter === undefined ? {} : { quiesce: quiesceAfter }),
      };
      const operations: CatalogOperation[] = [put('policy', id, after)];
      if (after.name !== record.name) {
        operations.push(remove('policy-name', record.name), put('policy-name', after.name, { id }));
      }
      if (rules !== undefined) operations.push(...(await changeRules(ctx, { id, record }, rules, now)));
      await ctx.catalog.commit(operations);
      ctx.wake();
      return { id, record: after };
    }),
  );
}

async function changeRules(
  ctx: PolicyContext,
  { id, record }: StoredPolicy,
  rules: readonly Rule[],
  now: number,
): Promise<CatalogOperation[]> {
  const operations: CatalogOperation[] = [];
  for (const old of record.rules) {
    if (rules.some(({ name }) => name === old.name)) continue;
    const state = await getRecord(ctx.catalog, 'policy-state', ruleKey(id, old.name));
    if (state?.agendaAt !== undefined) {
      operations.push(remove('policy-agenda', agendaKey(state.agendaAt, id, old.name)));
    }
    operations.push(remove('policy-state', ruleKey(id, old.name)));
  }
  for (const rule of rules) {
    const old = record.rules.find(({ name }) => name === rule.name);
    if (old !== undefined && JSON.stringify(old.schedule) === JSON.stringify(rule.schedule)) continue;
    const state = await getRecord(ctx.catalog, 'policy-state', ruleKey(id, rule.name));
    const { agendaAt, ...after } = fresh(rule, now, state);
    const isResting = record.isSuspended === true || agendaAt === undefined;
    operations.push(...putState(id, rule.name, state, isResting ? after : { ...after, agendaAt }));
  }
  // What is kept may have changed for all that there is.
  operations.push(put('policy-expiry', sweepKey(ctx.fleet.trustedTime().now, id), {}));
  return operations;
}

export async function removePolicy(ctx: PolicyContext, ref: string): Promise<void> {
  await ctx.locks.hold(NAMES, () =>
    holdPolicy(ctx, ref, async ({ id, record }) => {
      const operations: CatalogOperation[] = [
        remove('policy', id),
        remove('policy-name', record.name),
        put('policy-forget', id, {}),
        ...record.tags.map((tag) => remove('policy-tag', pair(tag, id))),
      ];
      for (const { name } of record.rules) {
        const state = await getRecord(ctx.catalog, 'policy-state', ruleKey(id, name));
        if (state?.agendaAt !== undefined) {
          operations.push(remove('policy-agenda', agendaKey(state.agendaAt, id, name)));
        }
        operations.push(remove('policy-state', ruleKey(id, name)));
      }
      await ctx.catalog.commit(operations);
    }),
  );
  ctx.wake();
}

/** With `isAssigned` false: takes the assignments away. */
export async function assignPolicy(
  ctx: PolicyContext,
  ref: string,
  targets: Targets,
  isAssigned: boolean,
): Promise<StoredPolicy> {
  const refs = targets.vms ?? [];
  if (refs.length > TARGETS_MAX) {
    throw new PandoError('request-invalid', `at most ${TARGETS_MAX} VMs at a time, not ${refs.length}`);
  }
  const given = checkPolicyTags(targets.tags ?? []);
  return holdPolicy(ctx, ref, async ({ id, record }) => {
    const operations: CatalogOperation[] = [];
    const tags = isAssigned
      ? checkPolicyTags([...record.tags, ...given])
      : record.tags.filter((tag) => !given.includes(tag));
    for (const vmRef of refs) {
      const vm = await ctx.fleet.getVm(vmRef);
      operations.push(
        ...(isAssigned
          ? [put('policy-vm', pair(id, vm.id), {}), put('policy-of-vm', pair(vm.id, id), {})]
          : [remove('policy-vm', pair(id, vm.id)), remove('policy-of-vm', pair(vm.id, id))]),
      );
      // Who assigns it again later means to have backups.
      if (!isAssigned && !vm.tags.some((tag) => tags.includes(tag)))
        operations.push(remove('policy-rest', pair(id, vm.id)));
    }
    for (const tag of given) {
      operations.push(
        isAssigned ? put('policy-tag', pair(tag, id), {}) : remove('policy-tag', pair(tag, id)),
      );
    }
    const after = { ...record, tags };
    if (given.length > 0) operations.push(...(await restartRuns(ctx, { id, record })));
    await ctx.catalog.commit([put('policy', id, after), ...operations]);
    return { id, record: after };
  });
}

/** A run that is under way counts through the tags: with others it begins anew, past the VMs that it has been at. */
async function restartRuns(ctx: PolicyContext, { id, record }: StoredPolicy): Promise<CatalogOperation[]> {
  const operations: CatalogOperation[] = [];
  for (const { name } of record.rules) {
    const state = await getRecord(ctx.catalog, 'policy-state', ruleKey(id, name));
    if (state?.run === undefined) continue;
    const { cursor: _, isAgain: __, ...run } = state.run;
    operations.push(...putState(id, name, state, { ...state, run: { ...run, failed: 0, source: 0 } }));
  }
  return operations;
}

export async function suspendPolicy(
  ctx: PolicyContext,
  ref: string,
  vm: string | undefined,
  isSuspended: boolean,
): Promise<StoredPolicy> {
  return holdPolicy(ctx, ref, async ({ id, record }) => {
    if (vm !== undefined) {
      const { id: vmId } = await ctx.fleet.getVm(vm);
      const key = pair(id, vmId);
      await ctx.catalog.commit([isSuspended ? put('policy-rest', key, {}) : remove('policy-rest', key)]);
      return { id, record };
    }
    if (isSuspended === (record.isSuspended === true)) return { id, record };
    const now = ctx.clock.now();
    const { isSuspended: _, ...rest } = record;
    const after: PolicyRecord = isSuspended ? { ...rest, isSuspended } : rest;
    const operations: CatalogOperation[] = [put('policy', id, after)];
    for (const rule of record.rules) {
      const state = await getRecord(ctx.catalog, 'policy-state', ruleKey(id, rule.name));
      if (state === undefined) continue;
      const { run } = state;
      const { agendaAt: _agendaAt, ...resting } =
        run === undefined ? state : ended({ ...state, run }, rule, now);
      // What was due meanwhile is not made up for.
      const next = isSuspended ? resting : fresh(rule, now, state);
      operations.push(...putState(id, rule.name, state, next));
    }
    if (!isSuspended) {
      operations.push(put('policy-expiry', sweepKey(ctx.fleet.trustedTime().now, id), {}));
    }
    await ctx.catalog.commit(operations);
    ctx.wake();
    return { id, record: after };
  });
}

export async function runNow(
  ctx: PolicyContext,
  ref: string,
  ruleName: string | undefined,
): Promise<StoredPolicy> {
  return holdPolicy(ctx, ref, async (policy) => {
    const { id, record } = policy;
    const rules = rulesToRun(policy, ruleName);
    const now = ctx.clock.now();
    const operations: CatalogOperation[] = [];
    for (const { name } of rules) {
      const state = await getRecord(ctx.catalog, 'policy-state', ruleKey(id, name));
      if (state?.run !== undefined) {
        throw new PandoError('policy-busy', `rule ${name} of policy ${record.name} is running`);
      }
      const before = state ?? { handled: now };
      operations.push(...putState(id, name, state, begin(before, now, now)));
    }
    await ctx.catalog.commit(operations);
    ctx.wake();
    return policy;
  });
}
