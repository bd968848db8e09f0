/**
 * Verifications of a store, one by one, and what the last ones of each kind found: kept in the catalog, so that a restart
 * does not forget it.
 *
 *     verification    full | quick    → the last that ran to its end
 */
import type { LastVerifications, VerifyReport } from '@pando/api';
import { checkRecord, type Catalog } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import type { Clock } from '@pando/common';
import { verifyAll, type VerifyWork } from './verify.ts';

const TABLE = 'verification';
const VERSION = 1;

/** Damaged places that are kept; those of the job's own result are more. */
const KEPT_PLACES_MAX = 100;

/** A machine that slept, or was busy elsewhere, does not make up for more than this. */
const LATE_MS_MAX = 100;

interface StoredVerification {
  readonly version: 1;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly endedAt: number;
  readonly seconds: number;
  readonly scheduled: boolean;
  readonly report: VerifyReport;
}

export interface VerificationParts {
  readonly catalog: Catalog;
  readonly store: ChunkStore;
  readonly clock: Clock;
  /** Told what is amiss beside the verification itself: its result could not be kept. */
  readonly onNotKept?: (error: unknown) => void;
}

/** As `verifyAll`, and keeps the result. */
export async function verifyAndKeep(
  parts: VerificationParts,
  work: VerifyWork = {},
  { scheduled = false }: { readonly scheduled?: boolean } = {},
): Promise<VerifyReport> {
  const { catalog, clock, onNotKept } = parts;
  const startedAt = clock.now();
  const start = clock.monotonic();
  const report = await verifyAll(parts, work);
  const { damaged } = report;
  const cut = Math.max(0, damaged.length - KEPT_PLACES_MAX);
  const value: StoredVerification = {
    version: VERSION,
    startedAt,
    endedAt: clock.now(),
    seconds: (clock.monotonic() - start) / 1000,
    scheduled,
    report: {
      ...report,
      damaged: damaged.slice(0, KEPT_PLACES_MAX),
      moreDamaged: report.moreDamaged + cut,
    },
  };
  try {
    await catalog.commit([{ type: 'put', table: TABLE, key: report.quick ? 'quick' : 'full', value }]);
  } catch (error) {
    // What was found is worth more than its record: on a full disk too.
    onNotKept?.(error);
  }
  return report;
}

/** What the last verifications of each kind found. @throws `catalog-corrupt`, `store-newer` */
export async function lastVerifications(catalog: Catalog): Promise<LastVerifications> {
  const [full, quick] = await Promise.all([read(catalog, 'full'), read(catalog, 'quick')]);
  return {
    ...(full === undefined ? {} : { full: asShown(full) }),
    ...(quick === undefined ? {} : { quick: asShown(quick) }),
  };
}

/** Whether it is time for a full one: `everyMs` after the last, or after the store was made. */
export async function isDue(
  catalog: Catalog,
  clock: Clock,
  everyMs: number,
  createdAt: number,
): Promise<boolean> {
  const age = clock.now() - ((await read(catalog, 'full'))?.endedAt ?? createdAt);
  return age >= everyMs || age < 0; // a clock that was set back tells nothing about when that was
}

/** Takes so much time that at most `bytesPerSecond` go by. */
export function paceOf(clock: Clock, bytesPerSecond: number): NonNullable<VerifyWork['pace']> {
  let due = clock.monotonic();
  return async (bytes, signal) => {
    due = Math.max(due, clock.monotonic() - LATE_MS_MAX) + (bytes / bytesPerSecond) * 1000;
    const ms = due - clock.monotonic();
    if (ms >= 1) await clock.sleep(ms, signal);
  };
}

async function read(catalog: Catalog, key: string): Promise<StoredVerification | undefined> {
  const value = await catalog.get(TABLE, key);
  if (value === undefined) return undefined;
  checkRecord(TABLE, key, value, VERSION);
  return value as StoredVerification;
}

function asShown({
  startedAt,
  endedAt,
  seconds,
  scheduled,
  report,
}: StoredVerification): NonNullable<LastVerifications['full']> {
  const shown = (at: number): string => new Date(at).toISOString();
  return { startedAt: shown(startedAt), endedAt: shown(endedAt), seconds, scheduled, report };
}
