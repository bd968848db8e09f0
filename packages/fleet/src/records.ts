/**
 * What the fleet keeps in the catalog. Ids are UUIDv7, so key order is the order of creation.
 *
 *     vm              id                       → VmRecord
 *     vm-name         name                     → IdRecord
 *     vm-tag          tag / vm id              → MarkRecord       VMs that carry a tag
 *     backup          id                       → BackupRecord
 *     vm-backup       vm id / backup id        → MarkRecord       backups of a VM, also of one that is gone
 *     backup-name     vm id / name             → IdRecord
 *     backup-label    vm name @ name / id      → MarkRecord       by the VM's name when it was taken
 *     backup-mark     l/label=value/id         → MarkRecord       backups with a label; percent-encoded
 *                     p/policy/vm/rule/id      → MarkRecord       backups that a rule of a policy took
 *     backup-expiry   time/id                  → MarkRecord       when a date of its own, and its lock, let it expire
 *     backup-compare  id                       → MarkRecord       backups not yet compared with the one before
 *     clock           mark                     → ClockRecord      the latest time that was trusted
 *     vm-gone         id                       → GoneRecord       deleted VMs that have backups
 *     vm-gone-name    name                     → IdRecord         the latest of them by its last name
 *     disk-removal    id                       → RemovalRecord    disks that a restore replaced, or an import needs for a moment, until they are removed
 *
 * Table `disk` belongs to the volumes; the fleet reads it for reports. Names hold no `/` and no `@`.
 */
import { checkRecord, type Catalog, type CatalogOperation } from '@pando/catalog';
import type { DiskRecord } from '@pando/volume';

const VERSION = 1;

export interface StoredDisk {
  readonly name: string;
  /** Number of the disk in table `disk`. */
  readonly disk: number;
  readonly size: number;
}

export interface VmRecord {
  readonly version: 1;
  readonly name: string;
  readonly lineage: string;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  readonly disks: readonly StoredDisk[];
  /** Sorted, each once; absent: none. */
  readonly tags?: readonly string[];
}

export interface BackupRecord {
  readonly version: 1;
  readonly name: string;
  readonly vmId: string;
  readonly vmName: string;
  readonly lineage: string;
  readonly createdAt: number;
  readonly disks: readonly StoredDisk[];
  /** Those of the VM when the backup was taken. */
  readonly tags?: readonly string[];
  /** The guest was at rest; absent: it was not. */
  readonly consistency?: 'application';
  readonly note?: string;
  /** In the order of their names. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Milliseconds since 1970; until then it cannot be deleted. */
  readonly lockedUntil?: number;
  /** Milliseconds since 1970, or that it never does; absent: its policy decides. */
  readonly expiresAt?: number | 'never';
  /** What took it. */
  readonly policy?: PolicyOfBackup;
  /** Whether its disks are those of the VM's backup before it; absent: not known yet. */
  readonly unchanged?: boolean;
}

export interface PolicyOfBackup {
  readonly id: string;
  /** Its name when the backup was taken. */
  readonly name: string;
  readonly rule: string;
  /** The time at which the backup was due, in milliseconds since 1970. */
  readonly dueAt: number;
}

export interface ClockRecord {
  readonly version: 1;
  /** Milliseconds since 1970. */
  readonly at: number;
}

export interface IdRecord {
  readonly version: 1;
  readonly id: string;
}

export interface GoneRecord {
  readonly version: 1;
  readonly name: string;
}

export interface RemovalRecord {
  readonly version: 1;
  readonly disks: readonly number[];
}

/** A record with the id that is its key. */
export interface WithId<R> {
  readonly id: string;
  readonly record: R;
}

export type StoredVm = WithId<VmRecord>;
export type StoredBackup = WithId<BackupRecord>;

interface RecordOf {
  'vm': VmRecord;
  'vm-name': IdRecord;
  'vm-tag': { readonly version: 1 };
  'backup': BackupRecord;
  'vm-backup': { readonly version: 1 };
  'backup-name': IdRecord;
  'backup-label': { readonly version: 1 };
  'backup-mark': { readonly version: 1 };
  'backup-expiry': { readonly version: 1 };
  'backup-compare': { readonly version: 1 };
  'clock': ClockRecord;
  'vm-gone': GoneRecord;
  'vm-gone-name': IdRecord;
  'disk-removal': RemovalRecord;
  'disk': DiskRecord;
}

export type Table = keyof RecordOf;

/** @throws `store-newer` for a record of a later version */
export function readAs<T extends Table>(table: T, key: string, value: unknown): RecordOf[T] {
  checkRecord(table, key, value, VERSION);
  return value as RecordOf[T];
}

export async function getRecord<T extends Table>(
  catalog: Pick<Catalog, 'get'>,
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

export const vmBackupKey = (vmId: string, backupId: string): string => `${vmId}/${backupId}`;
export const backupNameKey = (vmId: string, name: string): string => `${vmId}/${name}`;
export const vmTagKey = (tag: string, vmId: string): string => `${tag}/${vmId}`;
export const backupLabelPrefix = (vmName: string, name: string): string => `${vmName}@${name}/`;

/** For a record: none are left out. */
export function withTags(tags: readonly string[] | undefined): { readonly tags?: readonly string[] } {
  return tags === undefined || tags.length === 0 ? {} : { tags };
}

/** Key of a disk in table `disk`. */
export const diskKey = (disk: number): string => String(disk).padStart(12, '0');

/** The operations that store a new VM. */
export function putVm(id: string, vm: Omit<VmRecord, 'version'>): CatalogOperation[] {
  return [
    put('vm', id, vm),
    put('vm-name', vm.name, { id }),
    ...(vm.tags ?? []).map((tag) => put('vm-tag', vmTagKey(tag, id), {})),
  ];
}

/** The operations that remove a VM; its disks and backups are not among them. */
export function removeVm({ id, record }: StoredVm): CatalogOperation[] {
  return [
    remove('vm', id),
    remove('vm-name', record.name),
    ...(record.tags ?? []).map((tag) => remove('vm-tag', vmTagKey(tag, id))),
  ];
}

/** The operations that store a new backup. */
export function putBackup(id: string, backup: Omit<BackupRecord, 'version'>): CatalogOperation[] {
  return [
    put('backup', id, backup),
    ...Array.from(backupIndex(id, backup), ([table, key]) =>
      table === 'backup-name' ? put(table, key, { id }) : put(table, key, {}),
    ),
  ];
}

/** The operations that put another record in the place of a backup's. */
export function changeBackup(
  { id, record }: StoredBackup,
  after: Omit<BackupRecord, 'version'>,
): CatalogOperation[] {
  return [
    ...Array.from(backupIndex(id, record), ([table, key]) => remove(table, key)),
    ...putBackup(id, after),
  ];
}

export function removeBackup({ id, record }: StoredBackup): CatalogOperation[] {
  return [
    remove('backup', id),
    remove('backup-compare', id),
    ...Array.from(backupIndex(id, record), ([table, key]) => remove(table, key)),
  ];
}

type BackupIndex = 'vm-backup' | 'backup-name' | 'backup-label' | 'backup-mark' | 'backup-expiry';

/** Where else a backup is found. */
function* backupIndex(
  id: string,
  backup: Omit<BackupRecord, 'version'>,
): Generator<readonly [table: BackupIndex, key: string]> {
  yield ['vm-backup', vmBackupKey(backup.vmId, id)];
  yield ['backup-name', backupNameKey(backup.vmId, backup.name)];
  yield ['backup-label', backupLabelPrefix(backup.vmName, backup.name) + id];
  for (const [name, value] of Object.entries(backup.labels ?? {})) {
    yield ['backup-mark', labelPrefix(name, value) + id];
  }
  const { policy } = backup;
  if (policy !== undefined) {
    yield ['backup-mark', policyPrefix(policy.id, backup.vmId, policy.rule) + id];
  }
  const expiry = expiryOf(backup);
  if (expiry !== undefined) yield ['backup-expiry', expiryKey(expiry, id)];
}

/** When its own date and its lock let a backup expire; undefined: its own date never does. */
export function expiryOf(backup: Pick<BackupRecord, 'expiresAt' | 'lockedUntil'>): number | undefined {
  const { expiresAt, lockedUntil = 0 } = backup;
  return typeof expiresAt === 'number' ? Math.max(expiresAt, lockedUntil) : undefined;
}

const TIME_DIGITS = 16;

/** Key of a backup in table `backup-expiry`; with an empty id, of the first one at that time. */
export const expiryKey = (at: number, id: string): string =>
  `${String(Math.max(0, Math.floor(at))).padStart(TIME_DIGITS, '0')}/${id}`;
export const labelPrefix = (name: string, value: string): string =>
  `l/${encodeURIComponent(name)}=${encodeURIComponent(value)}/`;
/** Of all backups that a policy took; of one VM; by one rule. */
export const policyPrefix = (policyId: string, vmId?: string, rule?: string): string =>
  ['p', policyId, ...(vmId === undefined ? [] : [vmId]), ...(rule === undefined ? [] : [rule])]
    .map((part) => encodeURIComponent(part))
    .join('/') + '/';
