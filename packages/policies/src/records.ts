/**
 * What the policies keep in the catalog. Ids are UUIDs, names of rules are percent-encoded in keys, times have 16 digits.
 *
 *     policy           id                          → PolicyRecord
 *     policy-name      name                        → { id }
 *     policy-state     policy / rule               → RuleState
 *     policy-agenda    time / policy / rule        → {}     when each rule has something to do next, one entry each: by the wall clock
 *     policy-expiry    time / policy / vm / rule   → {}     when to look what of a VM may go: by the time that is trusted
 *                      time / policy               → SweepRecord    to look at all of its VMs, page by page
 *     policy-forget    policy                      → {}     a policy that was removed, with entries left to remove
 *     policy-vm        policy / vm                 → {}     assigned by name
 *     policy-of-vm     vm / policy                 → {}     the same the other way round
 *     policy-tag       tag / policy                → {}     assigned by tag
 *     policy-rest      policy / vm                 → {}     VMs for which it is suspended
 *     policy-failure   policy / vm                 → FailureRecord  VMs whose last run failed
 */
import { checkRecord, type Catalog, type CatalogOperation } from '@pando/catalog';
import type { Rule } from './types.ts';

const VERSION = 1;
const TIME_DIGITS = 16;

export interface PolicyRecord {
  readonly version: 1;
  readonly name: string;
  readonly note?: string;
  /** See PolicyRequest. */
  readonly quiesce?: string;
  readonly rules: readonly Rule[];
  readonly tags: readonly string[];
  readonly isSuspended?: true;
  readonly createdAt: number;
  readonly changedAt: number;
}

export interface RunRecord {
  readonly dueAt: number;
  readonly startedAt: number;
  readonly backups: number;
  readonly failed: number;
  /** From 1 on. */
  readonly pass: number;
  /** Which of the policy's assignments comes next: 0 those by name, then its tags; and how far that one is. */
  readonly source: number;
  readonly cursor?: string;
  /** Some VMs of this pass may be tried again. */
  readonly isAgain?: true;
}

export interface EndedRun extends Pick<RunRecord, 'dueAt' | 'startedAt' | 'backups' | 'failed' | 'pass'> {
  readonly endedAt: number;
}

export interface RuleState {
  readonly version: 1;
  /** Due times up to this one are done with. */
  readonly handled: number;
  /** Due times after that which were begun, ascending; some may be ahead of a clock that was set back since. */
  readonly recent?: readonly number[];
  /** Time of its entry in the agenda; absent: it has none. */
  readonly agendaAt?: number;
  readonly run?: RunRecord;
  readonly last?: EndedRun;
}

export interface SweepRecord {
  readonly version: 1;
  readonly cursor?: string;
}

export interface FailureRecord {
  readonly version: 1;
  readonly vmName: string;
  readonly rule: string;
  readonly dueAt: number;
  readonly at: number;
  readonly code: string;
  readonly detail: string;
}

interface Mark {
  readonly version: 1;
}

interface RecordOf {
  'policy': PolicyRecord;
  'policy-name': { readonly version: 1; readonly id: string };
  'policy-state': RuleState;
  'policy-agenda': Mark;
  'policy-expiry': SweepRecord;
  'policy-forget': Mark;
  'policy-vm': Mark;
  'policy-of-vm': Mark;
  'policy-tag': Mark;
  'policy-rest': Mark;
  'policy-failure': FailureRecord;
}

export type Table = keyof RecordOf;

/** @throws `store-newer` for a record of a later version */
export function readAs<T extends Table>(table: T, key: string, value: unknown): RecordOf[T] {
  checkRecord(table, key, value, VERSION);
  return value as RecordOf[T];
}

export async function getRecord<T extends Table>(
  catalog: Catalog,
  table: T,
  key: string,
): Promise<RecordOf[T] | undefined> {
  const value = await catalog.get(table, key);
  return value === undefined ? undefined : readAs(table, key, value);
}

export function put<T extends Table>(
  table: T,
  key: string,
  value: Omit<RecordOf[T], 'version'>,
): CatalogOperation {
  return { type: 'put', table, key, value: { version: VERSION, ...value } };
}

export function remove(table: Table, key: string): CatalogOperation {
  return { type: 'delete', table, key };
}

export const pair = (first: string, second: string): string => `${first}/${second}`;
export const ruleKey = (policyId: string, rule: string): string => pair(policyId, encodeURIComponent(rule));

/** Smaller than all keys at that time. */
export const timeKey = (at: number): string =>
  `${String(Math.max(0, Math.floor(at))).padStart(TIME_DIGITS, '0')}/`;
export const agendaKey = (at: number, policyId: string, rule: string): string =>
  timeKey(at) + ruleKey(policyId, rule);
export const expiryKey = (at: number, policyId: string, vmId: string, rule: string): string =>
  `${timeKey(at)}${policyId}/${vmId}/${encodeURIComponent(rule)}`;
export const sweepKey = (at: number, policyId: string): string => timeKey(at) + policyId;

/** The parts of a key of the agenda or of table `policy-expiry`. */
export function partsOf(key: string): {
  readonly at: number;
  readonly policyId: string;
  readonly rest: readonly string[];
} {
  const [at, policyId, ...rest] = key.split('/');
  return { at: Number(at), policyId: policyId!, rest: rest.map((part) => decodeURIComponent(part)) };
}

/** The operations that put a rule's state and its entry in the agenda in the place of what was there. */
export function putState(
  policyId: string,
  rule: string,
  before: Omit<RuleState, 'version'> | undefined,
  after: Omit<RuleState, 'version'>,
): CatalogOperation[] {
  const operations: CatalogOperation[] = [];
  if (before?.agendaAt !== undefined && before.agendaAt !== after.agendaAt) {
    operations.push(remove('policy-agenda', agendaKey(before.agendaAt, policyId, rule)));
  }
  if (after.agendaAt !== undefined) {
    operations.push(put('policy-agenda', agendaKey(after.agendaAt, policyId, rule), {}));
  }
  operations.push(put('policy-state', ruleKey(policyId, rule), after));
  return operations;
}
