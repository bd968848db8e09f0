/**
 * What of the backups that a rule took of a VM may go: one look, which lets go of a bounded number, and says when to look again.
 * A look that was cut off has let go of fewer; the next one finds the rest.
 */
import type { CatalogOperation } from '@pando/catalog';
import { isPandoError } from '@pando/common';
import type { PolicyContext } from './context.ts';
import { EXPIRED_MAX, EXPIRE_AGAIN_MS } from './limits.ts';
import { expiryKey, put } from './records.ts';
import { keepsAll, retain } from './retention.ts';
import type { Rule } from './types.ts';

const PAGE = 1000;

/** What retention asks of a backup. Times in milliseconds since 1970. */
export interface TakenBackup {
  readonly id: string;
  readonly createdAt: number;
  readonly lockedUntil?: number;
  readonly expiresAt?: number | 'never';
}

/** The operations that bring about the next look. */
export async function look(
  ctx: PolicyContext,
  policyId: string,
  rule: Rule,
  vmId: string,
): Promise<CatalogOperation[]> {
  const { now, isBehind } = ctx.fleet.trustedTime();
  if (keepsAll(rule.retention)) return [];
  // When the clock is right again.
  if (isBehind) return [put('policy-expiry', expiryKey(now, policyId, vmId, rule.name), {})];
  // Those with a date of their own are out of the policy's hands, and keep no other one from being the newest.
  const backups = (await listAll(ctx, policyId, vmId, rule.name)).filter(
    ({ expiresAt }) => expiresAt === undefined,
  );
  const times = backups.map(({ createdAt }) => createdAt);
  const { kept, nextExpiry } = retain(times, rule.retention, rule.schedule.timeZone, now);
  let lookAt = nextExpiry ?? Infinity;
  let gone = 0;
  for (const [i, backup] of backups.entries()) {
    if (kept[i] === true) continue;
    const { lockedUntil = 0 } = backup;
    if (lockedUntil > now) {
      lookAt = Math.min(lookAt, lockedUntil);
    } else if (gone === EXPIRED_MAX) {
      lookAt = now;
      break;
    } else {
      try {
        if (await ctx.fleet.expireBackup(backup.id)) gone++;
      } catch (error) {
        if (!isPandoError(error, 'disk-in-use')) throw error;
        lookAt = Math.min(lookAt, now + EXPIRE_AGAIN_MS);
      }
    }
  }
  ctx.counters.expired += gone;
  return lookAt === Infinity ? [] : [put('policy-expiry', expiryKey(lookAt, policyId, vmId, rule.name), {})];
}

/**
 * Newest first, in the order of their making and not of their times: one that was taken while the clock was a year ahead is not to be
 * the newest for a year, and the reason to let go of all that are taken since. All that there are: those that go are the oldest.
 */
export async function listAll(
  ctx: PolicyContext,
  policy: string,
  vm: string,
  rule: string,
): Promise<readonly TakenBackup[]> {
  const backups: TakenBackup[] = [];
  let cursor: string | undefined;
  try {
    do {
      const page = await ctx.fleet.listBackups({
        ...{ policy, vm, rule, limit: PAGE },
        ...(cursor === undefined ? {} : { cursor }),
      });
      for (const { id, createdAt, lockedUntil, expiresAt } of page.items) {
        backups.push({
          id,
          createdAt: Date.parse(createdAt),
          ...(lockedUntil === undefined ? {} : { lockedUntil: Date.parse(lockedUntil) }),
          ...(expiresAt === undefined
            ? {}
            : { expiresAt: expiresAt === 'never' ? expiresAt : Date.parse(expiresAt) }),
        });
      }
      cursor = page.nextCursor;
    } while (cursor !== undefined);
  } catch (error) {
    // The VM is gone, and so are its backups.
    if (!isPandoError(error, 'vm-missing')) throw error;
  }
  return backups;
}
