/**
 * What is kept in the catalog:
 *
 *     ~activity     VM id / grain → HistoryRecord     three of a VM that wrote; not in the mirror of the catalog
 *     tripwire      VM id         → TripwireRecord    of a VM with a sensitivity of its own, or that it tripped for
 */
import { checkRecord, type CatalogOperation } from '@pando/catalog';
import { GRAIN_NAMES, startOf, type Bucket, type Grain, type History } from './buckets.ts';
import type { Window } from './detector.ts';
import { packBuckets, unpackBuckets } from './packed.ts';

export const HISTORY_TABLE = '~activity';
export const TRIPWIRE_TABLE = 'tripwire';
const VERSION = 1;

interface HistoryRecord {
  readonly version: 1;
  /** See packed.ts. */
  readonly buckets: Uint8Array;
  /** Of five minutes: start of the hour in which it was written; what lies before is in the coarser ones. */
  readonly rolledTo?: number;
}

export const SENSITIVITIES = ['off', 'low', 'normal', 'high'] as const;
export type Sensitivity = (typeof SENSITIVITIES)[number];

/** What was seen, and what was done. Times in milliseconds since 1970. */
export interface Trip {
  readonly at: number;
  /** When the jump was seen last: what comes soon after is the same. */
  readonly seenAt: number;
  readonly since: number;
  readonly window: Window;
  readonly rawBytes: number;
  readonly newBytes: number;
  readonly limitBytes: number;
  /** The last backup before it; absent: there was none. */
  readonly backup?: { readonly id: string; readonly name: string };
  readonly lockedUntil?: number;
  /** Why it could not be locked: the code of the error. It is tried again. */
  readonly notLocked?: string;
}

export interface TripwireRecord {
  readonly version: 1;
  /** Absent: normal. */
  readonly sensitivity?: Sensitivity;
  readonly trip?: Trip;
}

export const historyKey = (vmId: string, grain: Grain): string => `${vmId}/${grain}`;
export const historyKeys = (vmId: string): string[] => GRAIN_NAMES.map((grain) => historyKey(vmId, grain));

/** @param values the records of `historyKeys` @throws `store-newer`, `catalog-corrupt` */
export function readHistory(vmId: string, values: readonly unknown[]): History {
  const of = (grain: Grain): readonly Bucket[] =>
    readBuckets(vmId, grain, values[GRAIN_NAMES.indexOf(grain)]).buckets;
  return { '5m': of('5m'), '1h': of('1h'), '1d': of('1d') };
}

/** @throws `store-newer`, `catalog-corrupt` */
export function readBuckets(
  vmId: string,
  grain: Grain,
  value: unknown,
): { readonly buckets: readonly Bucket[]; readonly rolledTo?: number } {
  if (value === undefined) return { buckets: [] };
  checkRecord(HISTORY_TABLE, historyKey(vmId, grain), value, VERSION);
  const { buckets, rolledTo } = value as HistoryRecord;
  return { buckets: unpackBuckets(grain, buckets), ...(rolledTo === undefined ? {} : { rolledTo }) };
}

/** The operations that make `before` `after`, at `now`. */
export function putHistory(vmId: string, before: History, after: History, now: number): CatalogOperation[] {
  return GRAIN_NAMES.filter((grain) => before[grain] !== after[grain]).map((grain) =>
    putBuckets(vmId, grain, after[grain], now),
  );
}

export function putBuckets(
  vmId: string,
  grain: Grain,
  buckets: readonly Bucket[],
  now: number,
): CatalogOperation {
  const packed = { version: VERSION, buckets: packBuckets(grain, buckets) } as const;
  const value: HistoryRecord = grain === '5m' ? { ...packed, rolledTo: startOf('1h', now) } : packed;
  return { type: 'put', table: HISTORY_TABLE, key: historyKey(vmId, grain), value };
}

export function readTripwire(vmId: string, value: unknown): TripwireRecord {
  if (value === undefined) return { version: VERSION };
  checkRecord(TRIPWIRE_TABLE, vmId, value, VERSION);
  return value as TripwireRecord;
}

export function putTripwire(vmId: string, record: TripwireRecord): CatalogOperation {
  return { type: 'put', table: TRIPWIRE_TABLE, key: vmId, value: record };
}

/** Everything of a VM. */
export function removeAll(vmId: string): CatalogOperation[] {
  const removed = historyKeys(vmId).map((key) => ({ type: 'delete', table: HISTORY_TABLE, key }) as const);
  return [...removed, { type: 'delete', table: TRIPWIRE_TABLE, key: vmId }];
}
