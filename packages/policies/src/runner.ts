/**
 * Does what is due, by the agenda: a tick reads its first entries, and one page of VMs of each rule that is under way. With nothing
 * due it costs two reads, whatever there is.
 */
import { isPandoError } from '@pando/common';
import { holdPolicy, type PolicyContext, type StoredPolicy } from './context.ts';
import { findDue } from './due.ts';
import { look } from './expire.ts';
import { LATE_MS, TICK_EXPIRIES_MAX, TICK_MS_MAX, TICK_RUNS_MAX } from './limits.ts';
import {
  expiryKey,
  getRecord,
  partsOf,
  put,
  putState,
  readAs,
  remove,
  ruleKey,
  sweepKey,
  timeKey,
  type RuleState,
} from './records.ts';
import { begin, ended, runPage, tellUnfinished } from './run.ts';
import { nextRun } from './schedule.ts';
import type { Rule } from './types.ts';

/** Backups that one step of a sweep sees, and entries that one step of forgetting removes. */
const SWEEP_PAGE = 500;
const FORGET_PAGE = 500;
const REPLAN_PAGE = 256;
/** A step back of the clock that makes the agenda be planned anew. */
const BACK_MS = 30_000;

export class Runner {
  readonly #ctx: PolicyContext;
  readonly #onError: (error: unknown) => void;
  readonly #stop = new AbortController();
  #wake = new AbortController();
  #loop: Promise<void> | undefined;
  /** The latest time that was planned by. */
  #planned = Infinity;

  constructor(ctx: PolicyContext, onError: (error: unknown) => void) {
    this.#ctx = ctx;
    this.#onError = onError;
  }

  start(): void {
    this.#loop = this.#run();
  }

  wake(): void {
    this.#wake.abort();
  }

  /** Backups that are being taken are finished, at most RUN_PARALLEL_MAX; their page is done again at the next start. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      // After a failure what is due stays due: it is not tried again at once.
      let next = TICK_MS_MAX;
      try {
        if (await this.tick()) continue;
        next = await this.#untilNext();
      } catch (error) {
        this.#tell(error);
      }
      await this.#ctx.clock.sleep(next, AbortSignal.any([signal, this.#wake.signal])).catch(() => undefined);
    }
  }

  #tell(error: unknown): void {
    if (!this.#stop.signal.aborted) this.#onError(error);
  }

  async #untilNext(): Promise<number> {
    const [first] = await this.#ctx.catalog.list('policy-agenda', { limit: 1 });
    const due = first === undefined ? Infinity : partsOf(first.key).at - this.#ctx.clock.now();
    return Math.min(TICK_MS_MAX, Math.max(due, 0));
  }

  /** Whether there is more to do at once. What fails keeps nothing else from being done. @throws the first failure, at the end */
  async tick(): Promise<boolean> {
    const { catalog, clock, fleet } = this.#ctx;
    const now = clock.now();
    if (now < this.#planned - BACK_MS) await this.#replan(now);
    this.#planned = this.#planned === Infinity ? now : Math.max(this.#planned, now);
    if (now < this.#planned - BACK_MS) this.#planned = now;
    await this.#forget();
    const runs = await catalog.list('policy-agenda', { before: timeKey(now + 1), limit: TICK_RUNS_MAX });
    const failures: unknown[] = [];
    const each = async (actions: readonly (() => Promise<void>)[]): Promise<void> => {
      for (const action of actions) {
        if (this.#stop.signal.aborted) return;
        await action().catch((error: unknown) => failures.push(error));
      }
    };
    await each(
      runs.map(
        ({ key }) =>
          () =>
            this.#step(key),
      ),
    );
    const trusted = fleet.trustedTime();
    const looks = trusted.isBehind
      ? []
      : await catalog.list('policy-expiry', {
          before: timeKey(trusted.now + 1),
          limit: TICK_EXPIRIES_MAX,
        });
    await each(
      looks.map(
        ({ key, value }) =>
          () =>
            this.#look(key, value),
      ),
    );
    if (failures.length > 0) throw failures[0];
    return !this.#stop.signal.aborted && (runs.length > 0 || looks.length > 0);
  }

  /** One step of a rule that has something to do. */
  async #step(key: string): Promise<void> {
    const { policyId, rest, at } = partsOf(key);
    const name = rest[0]!;
    try {
      await holdPolicy(this.#ctx, policyId, async (policy) => {
        const { catalog, clock } = this.#ctx;
        const rule = policy.record.rules.find((one) => one.name === name);
        const before = await getRecord(catalog, 'policy-state', ruleKey(policyId, name));
        // Left over, or not the rule's any more.
        if (rule === undefined || before?.agendaAt !== at || policy.record.isSuspended === true) {
          await catalog.commit([remove('policy-agenda', key)]);
          return;
        }
        const now = clock.now();
        if (before.run !== undefined && !isSuperseded(rule, before, now)) {
          await runPage(this.#ctx, policy, rule, { ...before, run: before.run }, this.#stop.signal);
        } else {
          await this.#begin(policy, rule, before, now);
        }
      });
    } catch (error) {
      if (!isPandoError(error, 'policy-missing')) throw error;
      await this.#ctx.catalog.commit([remove('policy-agenda', key)]);
    }
  }

  async #begin(policy: StoredPolicy, rule: Rule, before: RuleState, now: number): Promise<void> {
    const { run } = before;
    const free = run === undefined ? before : ended({ ...before, run }, rule, now);
    const { state, dueAt, lateMs } = findDue(rule.schedule, free, now);
    const after = dueAt === undefined ? state : begin(state, dueAt, now);
    await this.#ctx.catalog.commit(putState(policy.id, rule.name, before, after));
    if (run !== undefined) {
      this.#ctx.counters.runs++;
      tellUnfinished(this.#ctx, policy, rule, run);
    }
    if (dueAt === undefined || lateMs <= LATE_MS) return;
    this.#ctx.onEvent({
      kind: 'policy-run-late',
      text: `Policy ${policy.record.name}, rule ${rule.name}: begins ${Math.round(lateMs / 60_000)} minutes late, for all that was due since.`,
      subject: policy.record.name,
      data: { policy: policy.record.name, rule: rule.name, lateMs },
    });
  }

  async #look(key: string, value: unknown): Promise<void> {
    const { policyId, rest } = partsOf(key);
    const { catalog } = this.#ctx;
    const [vmId, ruleName] = rest;
    try {
      await holdPolicy(this.#ctx, policyId, async (policy) => {
        if (policy.record.isSuspended === true) {
          // It is all looked at when it is resumed.
          await catalog.commit([remove('policy-expiry', key)]);
        } else if (vmId === undefined) {
          await this.#sweep(policyId, key, readAs('policy-expiry', key, value).cursor);
        } else {
          const rule = policy.record.rules.find((one) => one.name === ruleName);
          const next = rule === undefined ? [] : await look(this.#ctx, policyId, rule, vmId);
          // In this order: the next look may have the same key.
          await catalog.commit([remove('policy-expiry', key), ...next]);
        }
      });
    } catch (error) {
      if (!isPandoError(error, 'policy-missing')) throw error;
      await catalog.commit([remove('policy-expiry', key)]);
    }
  }

  /** Brings about a look at each VM of which the policy has backups; a page of backups at a time. */
  async #sweep(policyId: string, key: string, cursor: string | undefined): Promise<void> {
    const page = await this.#ctx.fleet.listBackups({
      ...{ policy: policyId, limit: SWEEP_PAGE },
      ...(cursor === undefined ? {} : { cursor }),
    });
    const { at } = partsOf(key);
    const keys = new Set(page.items.map(({ vmId, policy }) => expiryKey(at, policyId, vmId, policy!.rule)));
    const more = page.nextCursor === undefined ? {} : { cursor: page.nextCursor };
    await this.#ctx.catalog.commit([
      remove('policy-expiry', key),
      ...Array.from(keys, (one) => put('policy-expiry', one, {})),
      ...(page.nextCursor === undefined ? [] : [put('policy-expiry', sweepKey(at, policyId), more)]),
    ]);
  }

  /** The clock went back, or this is the start: no entry may lie further ahead than the rule's next due time. */
  async #replan(now: number): Promise<void> {
    const { catalog } = this.#ctx;
    let after: string | undefined;
    for (;;) {
      const found = await catalog.list('policy-state', {
        limit: REPLAN_PAGE,
        ...(after === undefined ? {} : { after }),
      });
      for (const { key, value } of found) {
        const { agendaAt } = readAs('policy-state', key, value);
        if (agendaAt === undefined || agendaAt <= now) continue;
        const [policyId, rule] = key.split('/') as [string, string];
        await this.#ctx.locks.hold(policyId, async () => {
          const state = await getRecord(catalog, 'policy-state', key);
          if (state?.agendaAt === undefined) return;
          await catalog.commit(
            putState(policyId, decodeURIComponent(rule), state, { ...state, agendaAt: now }),
          );
        });
      }
      if (found.length < REPLAN_PAGE) return;
      after = found.at(-1)!.key;
    }
  }

  /** Removes what a removed policy has left, some at a time. */
  async #forget(): Promise<void> {
    const { catalog } = this.#ctx;
    const [first] = await catalog.list('policy-forget', { limit: 1 });
    if (first === undefined) return;
    const prefix = `${first.key}/`;
    const operations = [];
    for (const table of ['policy-vm', 'policy-rest', 'policy-failure'] as const) {
      for (const { key } of await catalog.list(table, { prefix, limit: FORGET_PAGE })) {
        operations.push(remove(table, key));
        if (table === 'policy-vm') {
          operations.push(remove('policy-of-vm', `${key.slice(prefix.length)}/${first.key}`));
        }
      }
    }
    await catalog.commit(operations.length > 0 ? operations : [remove('policy-forget', first.key)]);
  }
}

/** Whether a run waits for another pass while the next one is due. */
function isSuperseded(rule: Rule, { run }: RuleState, now: number): boolean {
  if (run === undefined || run.pass === 1) return false;
  const next = nextRun(rule.schedule, run.dueAt);
  return next !== undefined && next <= now;
}
