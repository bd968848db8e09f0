/**
 * What a policy, or a change of one, brings about: how many backups it takes and lets go of until a day, and what they hold then, and in
 * the long run. Nothing is changed.
 *
 * Which backups there are follows from schedule and retention: what is kept backup by backup is what one look at all of them keeps. What they hold
 * comes from the VM's own history: a kept backup that stands before the next one by a time holds what changes in that time.
 * As if the VM had no other backups; dedupe with others makes it less.
 */
import { isPandoError, PandoError } from '@pando/common';
import type { ChangeHistory, Page, PageRequest, Vm } from '@pando/fleet';
import { checkPolicyTags, checkRules } from './check.ts';
import { findPolicy, type PolicyContext, type StoredPolicy } from './context.ts';
import { listAll, type TakenBackup } from './expire.ts';
import { IMPACT_DAYS_MAX, IMPACT_RUNS_MAX, IMPACT_VMS_MAX, TARGETS_MAX } from './limits.ts';
import { decodeSource, encodeSource } from './pages.ts';
import { pair } from './records.ts';
import { retain } from './retention.ts';
import { runsBetween } from './schedule.ts';
import { steadyTimes } from './steady.ts';
import { targetPage } from './targets.ts';
import type { HeldBackups, ImpactRequest, Rule, VmImpact } from './types.ts';

const DAY_MS = 24 * 60 * 60_000;
const HORIZON_DAYS = 30;
const VMS_DEFAULT = 20;
/** Pages without a VM that are passed by at once. */
const EMPTY_PAGES_MAX = 40;

/** What is the same for all VMs. */
interface Plan {
  readonly rules: readonly Rule[];
  readonly policy: StoredPolicy | undefined;
  readonly now: number;
  readonly until: number;
  /** Of each rule, newest first. */
  readonly runs: readonly (readonly number[])[];
  /** Of all rules, newest first; undefined: they grow without end. */
  readonly steady: readonly number[] | undefined;
}

/** @throws `policy-missing`, `vm-missing`, `request-invalid` */
export async function impact(
  ctx: PolicyContext,
  request: ImpactRequest & PageRequest,
): Promise<Page<VmImpact>> {
  const limit = request.limit ?? VMS_DEFAULT;
  if (!Number.isInteger(limit) || limit < 1 || limit > IMPACT_VMS_MAX) {
    throw new PandoError('request-invalid', `limit is from 1 to ${IMPACT_VMS_MAX}, not ${limit}`);
  }
  const policy = request.policy === undefined ? undefined : await findPolicy(ctx, request.policy);
  const plan = planOf(ctx, request, policy);
  let { vms, nextCursor } = await vmsOf(ctx, request, policy, limit);
  // Nobody is assigned by name, or all with a tag were listed before.
  for (let i = 0; i < EMPTY_PAGES_MAX && vms.length === 0 && nextCursor !== undefined; i++) {
    ({ vms, nextCursor } = await vmsOf(ctx, { ...request, cursor: nextCursor }, policy, limit));
  }
  const items: VmImpact[] = [];
  for (const vm of vms) items.push(await impactOf(ctx, plan, vm));
  return nextCursor === undefined ? { items } : { items, nextCursor };
}

function planOf(ctx: PolicyContext, request: ImpactRequest, policy: StoredPolicy | undefined): Plan {
  const days = request.horizonDays ?? HORIZON_DAYS;
  if (!Number.isInteger(days) || days < 1 || days > IMPACT_DAYS_MAX) {
    throw new PandoError('request-invalid', `horizonDays is from 1 to ${IMPACT_DAYS_MAX}, not ${days}`);
  }
  if (request.rules === undefined && policy === undefined) {
    throw new PandoError('request-invalid', 'name a policy, or say the rules of one');
  }
  const rules = request.rules === undefined ? policy!.record.rules : checkRules(request.rules);
  const now = ctx.clock.now();
  const until = now + days * DAY_MS;
  let left = IMPACT_RUNS_MAX;
  const runs = rules.map(({ schedule }) => {
    const times: number[] = [];
    for (const time of runsBetween(schedule, now, until)) {
      if (left-- === 0) {
        throw new PandoError(
          'request-invalid',
          `there are more than ${IMPACT_RUNS_MAX} runs in ${days} days: look at fewer`,
        );
      }
      times.push(time);
    }
    return times.reverse();
  });
  const steady = rules.map((rule) => steadyTimes(rule, until));
  return {
    ...{ rules, policy, now, until, runs },
    steady: steady.some((times) => times === undefined)
      ? undefined
      : newestFirst(steady.flatMap((times) => times!)),
  };
}

function newestFirst(times: readonly number[]): readonly number[] {
  return [...new Set(times)].sort((a, b) => b - a);
}

async function impactOf(ctx: PolicyContext, plan: Plan, vm: Vm): Promise<VmImpact> {
  const { rules, policy, now, until, runs } = plan;
  const isResting =
    policy !== undefined && (await ctx.catalog.get('policy-rest', pair(policy.id, vm.id))) !== undefined;
  let created = 0;
  let expired = 0;
  const before: number[] = [];
  const after: number[] = [];
  /** What stays of those that there are. */
  const forever: number[] = [];
  for (const [i, rule] of rules.entries()) {
    const backups = policy === undefined ? [] : await listAll(ctx, policy.id, vm.id, rule.name);
    const times = backups.map(({ createdAt }) => createdAt);
    const taken = isResting ? [] : runs[i]!;
    const all = [...taken, ...times];
    const kept = keptOf(rule, all, [...taken.map(() => undefined), ...backups], until);
    created += taken.length;
    expired += all.length - kept.length;
    for (const time of times) before.push(time);
    for (const time of kept) after.push(time);
    const staying = isResting
      ? keptOf(rule, times, backups, Infinity)
      : times.filter((_, at) => backups[at]!.expiresAt === 'never');
    for (const time of staying) forever.push(time);
  }
  const steady = isResting ? [] : plan.steady;
  const history = await historyOf(ctx, vm.id);
  return {
    vm: { id: vm.id, name: vm.name },
    created,
    expired,
    now: held(newestFirst(before), now, history),
    then: held(newestFirst(after), until, history),
    ...(steady === undefined ? {} : { steady: held(newestFirst([...steady, ...forever]), until, history) }),
  };
}

/** What stays of the times, backups with a date of their own and locked ones as the policies do. */
function keptOf(
  { retention, schedule }: Rule,
  times: readonly number[],
  backups: readonly (TakenBackup | undefined)[],
  until: number,
): readonly number[] {
  const own = times.map((_, i) => backups[i]?.expiresAt);
  const governed = times.filter((_, i) => own[i] === undefined);
  const { kept } = retain(governed, retention, schedule.timeZone, until);
  let at = 0;
  return times.filter((_, i) => {
    const locked = (backups[i]?.lockedUntil ?? 0) > until;
    const date = own[i];
    if (date !== undefined) return locked || date === 'never' || date > until;
    return kept[at++] === true || locked;
  });
}

async function historyOf(ctx: PolicyContext, vmId: string): Promise<ChangeHistory | undefined> {
  const history = await ctx.fleet.changeHistory(vmId);
  return history.samples.length === 0 ? undefined : history;
}

function held(times: readonly number[], end: number, history: ChangeHistory | undefined): HeldBackups {
  if (history === undefined) return { backups: times.length };
  const gaps = times.map((time, i) => (i === 0 ? end : times[i - 1]!) - time);
  const bytes = gaps.reduce((sum, gap) => sum + changeIn(history, gap), 0);
  return { backups: times.length, bytes: Math.round(bytes * history.storedRatio) };
}

/**
 * Bytes that change in a time: between the measured ones in a straight line, before the first from nothing, after the last on as from the
 * beginning to there; never less than in a shorter time, never more than the disks have.
 */
export function changeIn({ samples, logicalBytes }: ChangeHistory, gapMs: number): number {
  let [fromMs, fromBytes] = [0, 0];
  for (const sample of [...samples].sort((a, b) => a.gapMs - b.gapMs)) {
    const bytes = Math.max(fromBytes, sample.bytes);
    if (gapMs <= sample.gapMs) {
      const part = sample.gapMs === fromMs ? 1 : (gapMs - fromMs) / (sample.gapMs - fromMs);
      return Math.min(logicalBytes, fromBytes + (bytes - fromBytes) * part);
    }
    [fromMs, fromBytes] = [sample.gapMs, bytes];
  }
  return fromMs === 0 ? 0 : Math.min(logicalBytes, (fromBytes * gapMs) / fromMs);
}

/** Those that are named, then those with the tags, each once; without either, those of the policy. */
async function vmsOf(
  ctx: PolicyContext,
  request: ImpactRequest & PageRequest,
  policy: StoredPolicy | undefined,
  limit: number,
): Promise<{ vms: readonly Vm[]; nextCursor?: string | undefined }> {
  const { vms: refs, tags: given } = request;
  const isOwn = (refs ?? given) === undefined;
  if (isOwn && policy === undefined) {
    throw new PandoError('request-invalid', 'name VMs ("vms") or tags ("tags"), or a policy that has some');
  }
  if ((refs?.length ?? 0) > TARGETS_MAX) {
    throw new PandoError('request-invalid', `at most ${TARGETS_MAX} VMs at a time`);
  }
  const tags = isOwn ? policy!.record.tags : checkPolicyTags(given ?? []);
  const list = `policy-impact/${isOwn ? policy!.id : [...(refs ?? []), '/', ...tags].join('/').slice(0, 500)}`;
  const { source, cursor } = decodeSource(list, request.cursor);
  if (!isOwn && source === 0) {
    const from = Number(cursor ?? 0);
    const some = (refs ?? []).slice(from, from + limit);
    const vms = await Promise.all(some.map((ref) => ctx.fleet.getVm(ref)));
    const isMore = from + limit < (refs ?? []).length;
    if (!isMore && tags.length === 0) return { vms };
    return { vms, nextCursor: encodeSource(list, isMore ? 0 : 1, isMore ? String(from + limit) : undefined) };
  }
  // The names of a policy that is none yet are nobody's.
  const target = isOwn ? policy! : { id: '-', record: { ...emptyRecord, tags } };
  const page = await targetPage(ctx, target, source, cursor, limit);
  if (page === undefined) return { vms: [] };
  const named = new Set(isOwn ? [] : await idsOf(ctx, refs ?? []));
  const vms = page.vms.filter(({ id }) => !named.has(id));
  const next = page.cursor === undefined ? source + 1 : source;
  const isLast = page.cursor === undefined && next > tags.length;
  return isLast ? { vms } : { vms, nextCursor: encodeSource(list, next, page.cursor) };
}

const emptyRecord = { version: 1, name: '', rules: [], createdAt: 0, changedAt: 0 } as const;

async function idsOf(ctx: PolicyContext, refs: readonly string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const ref of refs) {
    try {
      ids.push((await ctx.fleet.getVm(ref)).id);
    } catch (error) {
      if (!isPandoError(error, 'vm-missing')) throw error;
    }
  }
  return ids;
}
