/** What is done about a jump: the last backup before it is locked, and somebody is told, once for as long as it goes on. */
import { formatSize, isPandoError } from '@pando/common';
import type { OnEvent, ServiceEvent } from '@pando/events';
import type { Backup, Fleet } from '@pando/fleet';
import type { Jump } from './detector.ts';
import { BACKUP_GUARD_MS, BACKUPS_LOOKED_AT_MAX, EPISODE_QUIET_MS } from './limits.ts';
import type { Trip } from './records.ts';

/** Backups a page. */
const PAGE = 1000;
/** How often it is noted that a jump goes on. */
const SEEN_EVERY_MS = 60 * 60_000;

export interface TripParts {
  readonly fleet: Pick<Fleet, 'getVm' | 'listBackups' | 'changeBackup' | 'trustedTime'>;
  readonly onEvent: OnEvent;
  readonly lockMs: number;
}

export interface Seen {
  readonly vmId: string;
  /** The trip on record. */
  readonly before: Trip | undefined;
  readonly jump: Jump;
  readonly usualShare: number;
  readonly now: number;
}

/**
 * What is to be recorded of a jump that is seen now, after backup and event are seen to; undefined: nothing.
 * @throws `vm-missing`, and what the fleet throws when it cannot be asked
 */
export async function nextTrip(
  parts: TripParts,
  { vmId, before, jump, usualShare, now }: Seen,
): Promise<{ readonly trip: Trip; readonly isNew: boolean } | undefined> {
  if (before !== undefined && Math.abs(now - before.seenAt) < EPISODE_QUIET_MS) {
    const { notLocked, ...known } = before;
    if (notLocked !== undefined) {
      const locked = await lockBackup(parts, vmId, before.since);
      if (locked.notLocked === notLocked) return undefined;
      const trip = { ...known, ...locked, seenAt: now };
      parts.onEvent(await eventOf(parts, vmId, trip, usualShare));
      return { trip, isNew: false };
    }
    return Math.abs(now - before.seenAt) < SEEN_EVERY_MS
      ? undefined
      : { trip: { ...before, seenAt: now }, isNew: false };
  }
  const { since, window, rawBytes, newBytes, limitBytes } = jump;
  const seen = { at: now, seenAt: now, ...{ since, window, rawBytes, newBytes, limitBytes } };
  const trip = { ...seen, ...(await lockBackup(parts, vmId, since)) };
  parts.onEvent(await eventOf(parts, vmId, trip, usualShare));
  return { trip, isNew: true };
}

async function lockBackup(
  { fleet, lockMs }: TripParts,
  vmId: string,
  since: number,
): Promise<Pick<Trip, 'backup' | 'lockedUntil' | 'notLocked'>> {
  const found = await lastBackupBefore(fleet, vmId, since - BACKUP_GUARD_MS);
  if (found === undefined) return {};
  const { id, name } = found;
  const backup = { id, name };
  if (lockMs === 0) return { backup };
  const locked = found.lockedUntil === undefined ? -Infinity : Date.parse(found.lockedUntil);
  const lockedUntil = Math.max(locked, Math.round(fleet.trustedTime().now + lockMs));
  try {
    if (locked < lockedUntil) await fleet.changeBackup(id, { lockedUntil });
    return { backup, lockedUntil };
  } catch (error) {
    return { backup, notLocked: isPandoError(error) ? error.code : 'internal' };
  }
}

async function lastBackupBefore(
  fleet: TripParts['fleet'],
  vmId: string,
  before: number,
): Promise<Backup | undefined> {
  let cursor: string | undefined;
  for (let looked = 0; looked < BACKUPS_LOOKED_AT_MAX; looked += PAGE) {
    const page = await fleet.listBackups({
      vm: vmId,
      limit: PAGE,
      ...(cursor === undefined ? {} : { cursor }),
    });
    const found = page.items.find(({ createdAt }) => Date.parse(createdAt) < before);
    if (found !== undefined || page.nextCursor === undefined) return found;
    cursor = page.nextCursor;
  }
  return undefined;
}

async function eventOf(
  { fleet, lockMs }: TripParts,
  vmId: string,
  trip: Trip,
  usualShare: number,
): Promise<ServiceEvent> {
  const { name } = await fleet.getVm(vmId);
  const { window, rawBytes, newBytes, limitBytes, backup, lockedUntil, notLocked } = trip;
  const since = new Date(trip.since).toISOString();
  const share = percent(rawBytes / newBytes);
  const what =
    `${name} writes as if its disk were being encrypted, since ${since}: ${formatSize(rawBytes)} that nothing compresses in the last ${window} ` +
    `(more than ${formatSize(limitBytes)} is unlike it), ${share} of what is new (usually ${percent(usualShare)}).`;
  const label = backup === undefined ? undefined : `${name}@${backup.name}`;
  const kept =
    label === undefined
      ? 'There is no backup from before.'
      : lockedUntil !== undefined
        ? `The last backup before that, ${label}, is locked until ${new Date(lockedUntil).toISOString()}.`
        : notLocked !== undefined
          ? `The last backup before that, ${label}, could not be locked (${notLocked}); it is tried again.`
          : `The last backup before that is ${label}${lockMs === 0 ? '; the server is not to lock it' : ''}.`;
  return {
    kind: 'encryption-suspected',
    text: `${what} ${kept} Look at what runs in it; docs/tripwire.md says what to do.`,
    subject: name,
    data: {
      vmId,
      ...{ since, window, rawBytes, newBytes, limitBytes },
      ...(backup === undefined ? {} : { backupId: backup.id, backup: label! }),
      ...(lockedUntil === undefined ? {} : { lockedUntil: new Date(lockedUntil).toISOString() }),
      ...(notLocked === undefined ? {} : { notLocked }),
    },
  };
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
