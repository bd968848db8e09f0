/** What a backup is told about itself besides its disks: note, labels, lock, date of expiry. */
import {
  LABELS_MAX,
  LABEL_NAME_BYTES_MAX,
  LABEL_VALUE_BYTES_MAX,
  LOCK_DAYS_MAX,
  NOTE_BYTES_MAX,
  PandoError,
} from '@pando/common';
import type { FleetContext } from './context.ts';
import type { BackupRecord } from './records.ts';
import type { BackupAttributes } from './types.ts';

const DAY_MS = 24 * 60 * 60_000;
/** The last day of the year 9999: what RFC 3339 can say. */
const INSTANT_MAX = 253_402_300_799_999;

/** The attributes that a change says; one that is there and undefined is taken away. */
export interface AttributeChange {
  note?: string | undefined;
  labels?: Readonly<Record<string, string>> | undefined;
  lockedUntil?: number | undefined;
  expiresAt?: number | 'never' | undefined;
}

/**
 * What the record gets; null takes an attribute away.
 * @throws `request-invalid`; `backup-locked` when a lock would be shortened, or undercut by a date; `clock-set-back`
 */
export function checkAttributes(
  ctx: FleetContext,
  given: BackupAttributes,
  before: Pick<BackupRecord, 'lockedUntil' | 'expiresAt'> = {},
): AttributeChange {
  const change: AttributeChange = {};
  if (given.note !== undefined) change.note = checkNote(given.note);
  if (given.labels !== undefined) change.labels = checkLabels(given.labels);
  if (given.lockedUntil === undefined && given.expiresAt === undefined) return change;
  const now = ctx.time.now();
  const locked = isLocked(before, now) ? before.lockedUntil : undefined;
  if (given.lockedUntil !== undefined) {
    const until = given.lockedUntil ?? undefined;
    if (locked !== undefined && (until === undefined || until < locked)) throw lockedError(locked);
    if (until !== undefined && until !== before.lockedUntil) {
      ctx.time.check();
      checkInstant('lockedUntil', until, now);
      if (until > now + LOCK_DAYS_MAX * DAY_MS) {
        throw new PandoError('request-invalid', `a backup is locked for ${LOCK_DAYS_MAX} days at most`);
      }
    }
    change.lockedUntil = until;
  }
  if (given.expiresAt !== undefined) {
    const at = given.expiresAt ?? undefined;
    if (typeof at === 'number') {
      ctx.time.check();
      checkInstant('expiresAt', at, now);
      const lock = 'lockedUntil' in change ? change.lockedUntil : locked;
      if (lock !== undefined && at < lock) throw lockedError(lock);
    }
    change.expiresAt = at;
  }
  return change;
}

export function isLocked({ lockedUntil }: Pick<BackupRecord, 'lockedUntil'>, now: number): boolean {
  return lockedUntil !== undefined && lockedUntil > now;
}

export function lockedError(until: number): PandoError {
  return new PandoError('backup-locked', `the backup is locked until ${new Date(until).toISOString()}`);
}

function checkInstant(what: string, ms: number, now: number): void {
  if (!Number.isSafeInteger(ms) || ms > INSTANT_MAX) {
    throw new PandoError('request-invalid', `${what} is no time`);
  }
  if (ms <= now) throw new PandoError('request-invalid', `${what} is in the past`);
}

function checkNote(note: string | null): string | undefined {
  if (note === null || note === '') return undefined;
  if (!note.isWellFormed() || note.includes('\u0000')) {
    throw new PandoError('request-invalid', 'the note is not text');
  }
  const bytes = Buffer.byteLength(note);
  if (bytes > NOTE_BYTES_MAX) {
    throw new PandoError('request-invalid', `a note has at most ${NOTE_BYTES_MAX} bytes, not ${bytes}`);
  }
  return note;
}

function checkLabels(labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> | undefined {
  const names = Object.keys(labels).sort();
  if (names.length > LABELS_MAX) {
    throw new PandoError('request-invalid', `a backup has at most ${LABELS_MAX} labels, not ${names.length}`);
  }
  for (const name of names) checkLabel(name, labels[name]!);
  return names.length === 0 ? undefined : Object.fromEntries(names.map((name) => [name, labels[name]!]));
}

/** @throws `request-invalid` */
export function checkLabel(name: string, value: string): void {
  // `__proto__` as a name would not become a property.
  if (!/^[A-Za-z0-9][A-Za-z0-9._/-]*$/.test(name) || name.length > LABEL_NAME_BYTES_MAX) {
    throw new PandoError(
      'request-invalid',
      `the name of a label is 1 to ${LABEL_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ / -, the first a letter or digit, not ${JSON.stringify(name.slice(0, 80))}`,
    );
  }
  if (!value.isWellFormed() || /\p{Cc}/u.test(value) || Buffer.byteLength(value) > LABEL_VALUE_BYTES_MAX) {
    throw new PandoError(
      'request-invalid',
      `the value of label ${name} is not text without control characters of at most ${LABEL_VALUE_BYTES_MAX} bytes`,
    );
  }
}
