/** Opens the policies over a catalog and a fleet; whoever opened them starts them, and closes them before the fleet. */
import type { Catalog } from '@pando/catalog';
import type { Clock } from '@pando/common';
import type { OnEvent } from '@pando/events';
import type { Quiesce } from '@pando/guest-agent';
import { findPolicy, PolicyLocks, type PolicyContext } from './context.ts';
import { impact } from './impact.ts';
import { assignPolicy, changePolicy, createPolicy, removePolicy, runNow, suspendPolicy } from './manage.ts';
import { policiesOf, runForVm } from './own.ts';
import { Runner } from './runner.ts';
import { dueLagMs, findTrouble } from './trouble.ts';
import type { Policies, PolicyFleet } from './types.ts';
import { listDue, listFailures, listOfVm, listPolicies, listVms, toPolicy } from './views.ts';

export interface PoliciesOptions {
  readonly catalog: Catalog;
  readonly fleet: PolicyFleet;
  readonly clock: Clock;
  /** A fresh id, greater than those before. */
  readonly newId: () => string;
  readonly onEvent?: OnEvent;
  /** What went wrong in a tick; it is tried again. */
  /** How guests are brought to rest, for policies that want it. */
  readonly quiesce?: Quiesce;
  readonly onError?: (error: unknown) => void;
}

export interface OpenPolicies extends Policies {
  /** From now on what is due is done. */
  start(): void;
  /** Does what is due once, without `start`; resolves to whether there is more. */
  tick(): Promise<boolean>;
  /** Ends in bounded time; what was under way goes on at the next start. Idempotent. */
  close(): Promise<void>;
}

export function openPolicies(options: PoliciesOptions): OpenPolicies {
  const { catalog, fleet, clock, newId } = options;
  const ctx: PolicyContext = {
    catalog,
    fleet,
    clock,
    newId,
    quiesce: options.quiesce,
    onEvent: options.onEvent ?? (() => undefined),
    locks: new PolicyLocks(),
    counters: { runs: 0, backups: 0, failures: 0, expired: 0 },
    wake: () => runner.wake(),
  };
  const runner = new Runner(ctx, options.onError ?? (() => undefined));
  const shown = async (policy: Parameters<typeof toPolicy>[1]): ReturnType<typeof toPolicy> =>
    toPolicy(ctx, policy);
  return {
    create: async (request) => shown(await createPolicy(ctx, request)),
    list: (request = {}) => listPolicies(ctx, request),
    get: async (policy) => shown(await findPolicy(ctx, policy)),
    change: async (policy, change) => shown(await changePolicy(ctx, policy, change)),
    remove: (policy) => removePolicy(ctx, policy),
    assign: async (policy, targets) => shown(await assignPolicy(ctx, policy, targets, true)),
    unassign: async (policy, targets) => shown(await assignPolicy(ctx, policy, targets, false)),
    vms: (policy, request = {}) => listVms(ctx, policy, request),
    ofVm: (vm) => listOfVm(ctx, vm),
    ofVms: (vms, tags) => policiesOf(ctx, vms, tags),
    suspend: async (policy, vm) => shown(await suspendPolicy(ctx, policy, vm, true)),
    resume: async (policy, vm) => shown(await suspendPolicy(ctx, policy, vm, false)),
    runNow: async (policy, rule, vm) =>
      shown(await (vm === undefined ? runNow(ctx, policy, rule) : runForVm(ctx, policy, rule, vm))),
    failures: (policy, request = {}) => listFailures(ctx, policy, request),
    due: (request = {}) => listDue(ctx, request),
    impact: (request) => impact(ctx, request),
    counters: ctx.counters,
    dueLagMs: () => dueLagMs(ctx),
    trouble: () => findTrouble(ctx),
    start: () => runner.start(),
    tick: () => runner.tick(),
    close: () => runner.close(),
  };
}
