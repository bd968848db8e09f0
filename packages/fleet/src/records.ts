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
    put('vm-backup', vmBackupKey(backup.vmId, id), {}),
    put('backup-name', backupNameKey(backup.vmId, backup.name), { id }),
    put('backup-label', backupLabelPrefix(backup.vmName, backup.name) + id, {}),
  ];
}

export function removeBackup({ id, record }: StoredBackup): CatalogOperation[] {
  return [
    remove('backup', id),
    remove('vm-backup', vmBackupKey(record.vmId, id)),
    remove('backup-name', backupNameKey(record.vmId, record.name)),
    remove('backup-label', backupLabelPrefix(record.vmName, record.name) + id),
  ];
}
