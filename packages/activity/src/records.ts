/**
 * What is kept in the catalog:
 *
 *     ~activity     VM id / grain → HistoryRecord     three of a VM that wrote; not in the mirror of the catalog
 *     tripwire      VM id         → TripwireRecord    of a VM with a sensitivity of its own, or that it tripped for
 */
import { checkRecord, type CatalogOperation } from '@pando/catalog';
import { GRAIN_NAMES, type Bucket, type Grain, type History } from './buckets.ts';
import type { Window } from './detector.ts';

export const HISTORY_TABLE = '~activity';
export const TRIPWIRE_TABLE = 'tripwire';
const VERSION = 1;

interface HistoryRecord {
  readonly version: 1;
  /** Eight numbers a bucket, in the order of FIELDS. */
  readonly buckets: readonly number[];
}

const FIELDS = [
  'start',
  'writtenBytes',
  'zeroBytes',
  'knownBytes',
  'newBytes',
  'storedBytes',
  'rawBytes',
  'peakRawBytes',
] as const satisfies readonly (keyof Bucket)[];

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

/** @param values the records of `historyKeys` */
export function readHistory(vmId: string, values: readonly unknown[]): History {
  const of = (grain: Grain): readonly Bucket[] => {
    const value = values[GRAIN_NAMES.indexOf(grain)];
    if (value === undefined) return [];
    checkRecord(HISTORY_TABLE, historyKey(vmId, grain), value, VERSION);
    return bucketsOf((value as HistoryRecord).buckets);
  };
  return { '5m': of('5m'), '1h': of('1h'), '1d': of('1d') };
}

function bucketsOf(numbers: readonly number[]): Bucket[] {
  const buckets: Bucket[] = [];
  for (let at = 0; at + FIELDS.length <= numbers.length; at += FIELDS.length) {
    const field = (name: (typeof FIELDS)[number]): number => numbers[at + FIELDS.indexOf(name)]!;
    buckets.push({
      start: field('start'),
      writtenBytes: field('writtenBytes'),
      zeroBytes: field('zeroBytes'),
      knownBytes: field('knownBytes'),
      newBytes: field('newBytes'),
      storedBytes: field('storedBytes'),
      rawBytes: field('rawBytes'),
      peakRawBytes: field('peakRawBytes'),
    });
  }
  return buckets;
}

/** The operations that make `before` `after`. */
export function putHistory(vmId: string, before: History, after: History): CatalogOperation[] {
  return GRAIN_NAMES.filter((grain) => before[grain] !== after[grain]).map((grain) => {
    const buckets = after[grain].flatMap((bucket) => FIELDS.map((field) => bucket[field]));
    const value: HistoryRecord = { version: VERSION, buckets };
    return { type: 'put', table: HISTORY_TABLE, key: historyKey(vmId, grain), value };
  });
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
