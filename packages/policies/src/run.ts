/**
 * One page of a run: its VMs get their backups, a few at a time, then one commit says how far the run is.
 *
 * The run's due time is in every backup that it takes. Whoever has one of that time already is passed by: after a crash in
 * the middle of a page, in a second pass, in two sources.
 */
import type { CatalogOperation } from '@pando/catalog';
import { isPandoError, PandoError } from '@pando/common';
import type { Vm } from '@pando/fleet';
import type { PolicyContext, StoredPolicy } from './context.ts';
import { look } from './expire.ts';
import {
  BACKOFF_MS_MAX,
  BACKOFF_MS_MIN,
  FAILURE_EVENTS_MAX,
  PASSES_MAX,
  RUN_PAGE_VMS,
  RUN_PARALLEL_MAX,
} from './limits.ts';
import {
  pair,
  put,
  putState,
  readAs,
  remove,
  type FailureRecord,
  type RuleState,
  type RunRecord,
} from './records.ts';
import { nextRun } from './schedule.ts';
import { takeBackup } from './take-backup.ts';
import { targetPage } from './targets.ts';
import type { Rule } from './types.ts';

type State = Omit<RuleState, 'version'>;

/** What keeps every VM from being backed up, and not just one. */
const STORE_CODES = new Set(['store-full', 'store-failed']);

type Outcome =
  { readonly kind: 'taken' | 'known' | 'stopped' } | { readonly kind: 'failed'; readonly error: PandoError };

/** The state before a run's first page. */
export function begin(state: State, dueAt: number, now: number): State {
  const run: RunRecord = { dueAt, startedAt: now, backups: 0, failed: 0, pass: 1, source: 0 };
  return { ...state, agendaAt: now, run };
}

/** The caller holds the policy. */
export async function runPage(
  ctx: PolicyContext,
  policy: StoredPolicy,
  rule: Rule,
  before: State & { readonly run: RunRecord },
  stop: AbortSignal,
): Promise<void> {
  const { run } = before;
  const page = await targetPage(ctx, policy, run.source, run.cursor, RUN_PAGE_VMS);
  if (page === undefined) return endPass(ctx, policy, rule, before);
  const found = [
    ...page.vms.map((vm) => ({ vm, isOther: false })),
    ...page.others.map((vm) => ({ vm, isOther: true })),
  ];
  const keys = found.map(({ vm }) => pair(policy.id, vm.id));
  const [resting, failures] = await Promise.all([
    ctx.catalog.getMany('policy-rest', keys),
    ctx.catalog.getMany('policy-failure', keys),
  ]);
  const operations: CatalogOperation[] = page.gone.flatMap((vmId) => [
    remove('policy-vm', pair(policy.id, vmId)),
    remove('policy-of-vm', pair(vmId, policy.id)),
    remove('policy-failure', pair(policy.id, vmId)),
    remove('policy-rest', pair(policy.id, vmId)),
  ]);
  let { backups, failed } = run;
  let isAgain = run.isAgain === true;
  let storeError: PandoError | undefined;
  const left = found
    .map(({ vm, isOther }, i) => {
      const key = keys[i]!;
      const failure = failures[i] === undefined ? undefined : readAs('policy-failure', key, failures[i]);
      return { vm, isOther, key, failure };
    })
    .filter(({ isOther, failure }, i) => {
      const isFailed = failure?.rule === rule.name && failure.dueAt === run.dueAt;
      return resting[i] === undefined && !(isOther && isFailed);
    });
  const work = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      if (storeError !== undefined || stop.aborted) return;
      const { vm, key, failure } = next;
      const outcome = await takeOne(ctx, policy, rule, run.dueAt, next, operations);
      if (outcome.kind === 'stopped') return;
      if (outcome.kind === 'taken') backups++;
      if (outcome.kind !== 'failed') {
        if (failure?.rule === rule.name) operations.push(remove('policy-failure', key));
        continue;
      }
      const { error } = outcome;
      failed++;
      if (error.kind === 'unavailable') isAgain = true;
      if (STORE_CODES.has(error.code)) storeError = error;
      operations.push(put('policy-failure', key, failureOf(ctx, rule, run.dueAt, vm, error)));
      const isNew = failure?.rule !== rule.name || failure.dueAt !== run.dueAt;
      if (error.kind !== 'unavailable' && isNew && failed <= FAILURE_EVENTS_MAX) {
        tellFailure(ctx, policy, rule, `${vm.name}: ${error.message}`, vm.name);
      }
    }
  };
  await Promise.all(Array.from({ length: RUN_PARALLEL_MAX }, work));
  if (stop.aborted) {
    // The page is done again when the server is back; what it has taken is passed by then, and so counts now.
    const state = { ...before, run: { ...run, backups } };
    await ctx.catalog.commit([...operations, ...putState(policy.id, rule.name, before, state)]);
    return;
  }
  ctx.counters.failures += failed - run.failed;
  const after: RunRecord = { ...run, backups, failed, ...(isAgain ? { isAgain: true } : {}) };
  if (storeError !== undefined) {
    await ctx.catalog.commit(operations);
    return endPass(ctx, policy, rule, { ...before, run: after }, storeError);
  }
  const { cursor: _, ...rest } = after;
  const next: RunRecord =
    page.cursor === undefined ? { ...rest, source: run.source + 1 } : { ...after, cursor: page.cursor };
  // Behind all others that are due by now: long runs take turns.
  const state = { ...before, run: next, agendaAt: Math.max(ctx.clock.now(), before.agendaAt ?? 0) };
  await ctx.catalog.commit([...operations, ...putState(policy.id, rule.name, before, state)]);
}

async function takeOne(
  ctx: PolicyContext,
  policy: StoredPolicy,
  rule: Rule,
  dueAt: number,
  { vm, isOther }: { readonly vm: Vm; readonly isOther: boolean },
  operations: CatalogOperation[],
): Promise<Outcome> {
  try {
    const newest = await ctx.fleet.listBackups({
      ...{ policy: policy.id, vm: vm.id, rule: rule.name, limit: 1 },
    });
    const known = newest.items[0]?.policy;
    const isKnown = known !== undefined && Date.parse(known.dueAt) === dueAt;
    // It was looked at when it was taken.
    if (isKnown && isOther) return { kind: 'known' };
    if (!isKnown) {
      const by = { id: policy.id, name: policy.record.name, rule: rule.name, dueAt };
      await takeBackup(ctx, policy, rule, vm, by);
      ctx.counters.backups++;
    }
    operations.push(...(await look(ctx, policy.id, rule, vm.id)));
    return { kind: isKnown ? 'known' : 'taken' };
  } catch (error) {
    // It was deleted since it was listed.
    if (isPandoError(error, 'vm-missing')) return { kind: 'known' };
    if (isPandoError(error, 'shutting-down')) return { kind: 'stopped' };
    const known = isPandoError(error)
      ? error
      : new PandoError('internal', 'unexpected error; see the log of the server', { cause: error });
    return { kind: 'failed', error: known };
  }
}

function failureOf(
  ctx: PolicyContext,
  rule: Rule,
  dueAt: number,
  vm: Vm,
  error: PandoError,
): Omit<FailureRecord, 'version'> {
  const { code, message } = error;
  return {
    vmName: vm.name,
    rule: rule.name,
    dueAt,
    at: ctx.clock.now(),
    code,
    detail: message.slice(0, 500),
  };
}

/** All VMs were seen, or the store can take no backup of any: another pass later, or the end. */
async function endPass(
  ctx: PolicyContext,
  policy: StoredPolicy,
  rule: Rule,
  before: State & { readonly run: RunRecord },
  storeError?: PandoError,
): Promise<void> {
  const { isAgain, ...run } = before.run;
  const now = ctx.clock.now();
  if (isAgain === true && run.pass < PASSES_MAX) {
    const wait = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** (run.pass - 1));
    const { cursor: _, ...rest } = run;
    // Where the store was full, it goes on where it was; else from the start, for those that were passed over.
    const where = storeError === undefined ? { ...rest, source: 0 } : run;
    const state = { ...before, run: { ...where, pass: run.pass + 1, failed: 0 }, agendaAt: now + wait };
    await ctx.catalog.commit(putState(policy.id, rule.name, before, state));
    return;
  }
  await ctx.catalog.commit(putState(policy.id, rule.name, before, ended(before, rule, now)));
  ctx.counters.runs++;
  if (isAgain === true || storeError !== undefined) tellUnfinished(ctx, policy, rule, run, storeError);
}

/** The state after the run, whose next due time is in the agenda. */
export function ended(before: State & { readonly run: RunRecord }, rule: Rule, now: number): State {
  const { run, agendaAt: _, last: __, ...rest } = before;
  const { dueAt, startedAt, backups, failed, pass } = run;
  const agendaAt = nextRun(rule.schedule, Math.min(now, dueAt));
  return {
    ...rest,
    last: { dueAt, startedAt, backups, failed, pass, endedAt: now },
    ...(agendaAt === undefined ? {} : { agendaAt }),
  };
}

export function tellUnfinished(
  ctx: PolicyContext,
  policy: StoredPolicy,
  rule: Rule,
  { pass, failed }: Pick<RunRecord, 'pass' | 'failed'>,
  error?: PandoError,
): void {
  const reason = error === undefined ? `${failed} VMs could not be backed up` : error.message;
  tellFailure(ctx, policy, rule, `given up after ${pass} ${pass === 1 ? 'pass' : 'passes'}: ${reason}`);
}

function tellFailure(
  ctx: PolicyContext,
  { record }: StoredPolicy,
  rule: Rule,
  what: string,
  vm?: string,
): void {
  ctx.onEvent({
    kind: 'policy-run-failed',
    text: `Policy ${record.name}, rule ${rule.name}: ${what}`,
    subject: vm ?? record.name,
    data: { policy: record.name, rule: rule.name, ...(vm === undefined ? {} : { vm }) },
  });
}
