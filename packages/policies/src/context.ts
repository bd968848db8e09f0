/** What the parts of the policies share. */
import type { Catalog } from '@pando/catalog';
import { PandoError, SharedLock, type Clock } from '@pando/common';
import type { OnEvent } from '@pando/events';
import type { Quiesce } from '@pando/guest-agent';
import { getRecord, type PolicyRecord } from './records.ts';
import type { PolicyFleet } from './types.ts';

export interface PolicyContext {
  readonly catalog: Catalog;
  readonly fleet: PolicyFleet;
  readonly clock: Clock;
  readonly onEvent: OnEvent;
  /** Absent: guests cannot be brought to rest here. */
  readonly quiesce?: Quiesce | undefined;
  readonly newId: () => string;
  readonly locks: PolicyLocks;
  readonly counters: { runs: number; backups: number; failures: number; expired: number };
  /** Something may be due sooner than the runner thinks. */
  wake(): void;
}

/** Changes of a policy one after another, those of its runs included; and of names. */
export class PolicyLocks {
  readonly #locks = new Map<string, SharedLock>();

  async hold<T>(key: string, action: () => Promise<T>): Promise<T> {
    const lock = this.#locks.get(key) ?? new SharedLock();
    this.#locks.set(key, lock);
    try {
      return await lock.hold('exclusive', action);
    } finally {
      if (lock.idle && this.#locks.get(key) === lock) this.#locks.delete(key);
    }
  }
}

export interface StoredPolicy {
  readonly id: string;
  readonly record: PolicyRecord;
}

/** By id, or by name. @throws `policy-missing` */
export async function findPolicy(ctx: PolicyContext, ref: string): Promise<StoredPolicy> {
  const isKey = ref.isWellFormed() && !ref.includes('\u0000') && ref.length <= 1024;
  const byId = isKey ? await getRecord(ctx.catalog, 'policy', ref) : undefined;
  if (byId !== undefined) return { id: ref, record: byId };
  const named = isKey ? await getRecord(ctx.catalog, 'policy-name', ref.normalize('NFC')) : undefined;
  const record = named === undefined ? undefined : await getRecord(ctx.catalog, 'policy', named.id);
  if (record === undefined) throw policyMissing(ref);
  return { id: named!.id, record };
}

export function policyMissing(ref: string): PandoError {
  return new PandoError('policy-missing', `there is no policy ${JSON.stringify(ref.slice(0, 80))}`);
}

/** Runs the action on the policy as it is once nothing else changes it. @throws `policy-missing` */
export async function holdPolicy<T>(
  ctx: PolicyContext,
  ref: string,
  action: (policy: StoredPolicy) => Promise<T>,
): Promise<T> {
  const { id } = await findPolicy(ctx, ref);
  return ctx.locks.hold(id, async () => {
    const record = await getRecord(ctx.catalog, 'policy', id);
    if (record === undefined) throw policyMissing(ref);
    return action({ id, record });
  });
}
