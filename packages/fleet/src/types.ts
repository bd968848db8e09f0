/**
 * The fleet: VMs and backups by name, and what people do with them.
 *
 * Records live in the catalog, never all in memory: lists go by cursor, names by index. Each operation
 * is one commit. A VM or backup is named by its id or its name (`VmRef`, `BackupRef`); ids win.
 */
import type { BlockDevice, Extents, StatusExtents } from '@pando/block-device';
import type { ChunkStore } from '@pando/chunk-store';
import type { DiskPart } from '@pando/common';
import type { Answers, DiskRoot } from './answer-types.ts';
import type { Page, PageRequest } from './page-types.ts';

export interface VmDisk {
  readonly name: string;
  readonly sizeBytes: number;
}

export interface Vm {
  readonly id: string;
  readonly name: string;
  /** All VMs and backups that descend from one import or creation share this id. */
  readonly lineage: string;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly disks: readonly VmDisk[];
  /** What it is grouped by, for policies, tokens and reports; sorted. A clone carries those that it is given. */
  readonly tags: readonly string[];
  /** Clients that have one of its disks open now. */
  readonly attachedClients: number;
}

export interface Backup {
  readonly id: string;
  readonly name: string;
  readonly vmId: string;
  /** Name of the VM when the backup was taken. */
  readonly vmName: string;
  readonly lineage: string;
  readonly createdAt: string;
  readonly disks: readonly VmDisk[];
  /** Those of the VM when the backup was taken. */
  readonly tags: readonly string[];
  /** `application`: the guest's file systems were at rest; `crash`: as after a power cut at that instant. */
  readonly consistency: 'crash' | 'application';
  readonly note?: string;
  readonly labels: Readonly<Record<string, string>>;
  /** RFC 3339. Until then it cannot be deleted and does not expire. */
  readonly lockedUntil?: string;
  /** RFC 3339, or `never`; absent: a policy that took it decides, and without one it never does. */
  readonly expiresAt?: string;
  /** What took it; absent: somebody by hand. */
  readonly policy?: {
    readonly id: string;
    /** Its name when the backup was taken. */
    readonly name: string;
    readonly rule: string;
    /** The time at which the backup was due. */
    readonly dueAt: string;
  };
  /** Whether all of its disks are what they are in the VM's backup before it; absent until that is known. */
  readonly unchanged?: boolean;
}

/** What can be said about a backup; times in milliseconds since 1970, null takes it away. */
export interface BackupAttributes {
  readonly note?: string | null;
  readonly labels?: Readonly<Record<string, string>>;
  /** Can be extended, and not shortened as long as it lasts. */
  readonly lockedUntil?: number | null;
  /** `never` takes a backup out of the hands of its policy. */
  readonly expiresAt?: number | 'never' | null;
}

/** Which backups; of `label`, `policy` and `vm` one, or a policy with a VM, and with a rule. */
export interface BackupFilter {
  readonly vm?: string;
  /** Backups that carry this label. */
  readonly label?: { readonly name: string; readonly value: string };
  /** Id of the policy that took them. */
  readonly policy?: string;
  readonly rule?: string;
}

/** How much of a VM changes in how long, by its own backups. */
export interface ChangeHistory {
  /** Of all its disks. */
  readonly logicalBytes: number;
  /** Bytes that a backup holds and one that was taken `gapMs` later does not; none when there are no two. */
  readonly samples: readonly { readonly gapMs: number; readonly bytes: number }[];
  /** What such bytes come to when they are compressed; 1 when nothing is known. */
  readonly storedRatio: number;
}

/** What the fleet did in a moment that it was given. */
export interface Tended {
  /** Backups that had a date of expiry of their own, and are gone. */
  readonly expired: number;
  /** Whether there is more to do at once. */
  readonly isMore: boolean;
}

export interface SpaceReport {
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  readonly uniqueBytes: number;
  readonly dataStoredBytes: number;
  /** Nodes, run headers and segment footers. */
  readonly metadataBytes: number;
  readonly garbageBytes: number;
  readonly indexBytes: number;
  /** What is not in the tree yet; 0 once everything is. */
  readonly logBytes: number;
  /** Files of the log that wait to be used again, and what stands behind the end of the others. */
  readonly logSpareBytes: number;
  readonly catalogBytes: number;
  /** Everything on disk: the sum of segments, index, log and catalog. */
  readonly storedBytes: number;
  readonly ratios: SpaceRatios;
  /** The same ratios with VMs only, backups left out. */
  readonly ratiosWithoutBackups: SpaceRatios;
  readonly vms: number;
  readonly backups: number;
  /** Whether the ids of chunks are keyed with a secret of the store. */
  readonly keyed: boolean;
}

/** Each is "bytes before / bytes after" of one kind of saving; their product is `total`. */
export interface SpaceRatios {
  readonly thin: number;
  readonly lineage: number;
  readonly dedupe: number;
  readonly compression: number;
  readonly total: number;
}

export interface OwnerSpace {
  readonly kind: 'vm' | 'backup';
  readonly id: string;
  readonly name: string;
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  /** What deleting it alone would free (after the next gc). */
  readonly exclusiveBytes: number;
  /** That, and an equal part of whatever it shares with each set of others: all owners' are what is stored of data and nodes. */
  readonly fairBytes: number;
}

/** What an attachment can say about ranges of its disk besides what is allocated. */
export interface DiskContext {
  readonly name: string;
  /**
   * Canonical export name of the backup's disk that is compared with, `<vm>@<backup>/<disk>`: who may not read that
   * must not be told what differs from it.
   */
  readonly comparedWith?: string;
  /** Errors as BlockDevice.read; `shutting-down` when the backup was taken away. */
  describe(offset: number, length: number, extentsMax: number): Promise<StatusExtents>;
  close(): Promise<void>;
}

/**
 * A disk opened for a client: a BlockDevice, a name and an end.
 *
 * Contexts: `qemu:allocation-depth`; `qemu:dirty-bitmap:<backup>`, what has changed since a backup: `<name>` of a backup
 * of the same VM, or any `<vm>@<name>`, with `/<disk>` behind it to choose a disk (default: the one of the same name,
 * or the only one), an id of a backup in place of its name; for a disk of a backup, the VM is the one that it was taken of;
 * `x-pando:root`, 1 where bytes are not in the root yet, and `x-pando:root:<64 hex digits>`, the same,
 * there while that is the root.
 */
export interface Attachment extends BlockDevice {
  readonly exportName: string;
  /** Aborted when the fleet throws the client out (a forced restore or delete, shutdown). */
  readonly revoked: AbortSignal;
  /**
   * Full names of contexts that begin with `prefix`: at most `limit`, backups of the same VM last and newest first. With a
   * prefix that goes into the name of a backup, the newest of the first `limit` such names.
   */
  contextNames(prefix: string, limit: number): Promise<readonly string[]>;
  /**
   * Opens a context; undefined for a name that is none. A backup that is compared with cannot be deleted meanwhile, as
   * if a client had it attached; when the fleet throws the backup's clients out, this attachment is revoked.
   * @throws errors of kind `data`; `too-busy`; `shutting-down` and the reason of `revoked` when it is over
   */
  openContext(name: string): Promise<DiskContext | undefined>;
  /** Only what is in flight is still carried out, and `close` follows: what needs the VM to itself waits for it. Idempotent. */
  leave(): void;
  close(): Promise<void>;
}

/** Whole chunks that the store has already, by their ids, one after another; zeros stand for a hole. */
export interface ChunkIds {
  readonly ids: Uint8Array;
}

export interface ImportSource {
  /** Bytes of the disk to be made; not known for an upload without a length: then undefined. */
  readonly sizeBytes?: number;
  /**
   * The bytes in order; a hole costs nothing. Buffers may be reused by the source after the next pull. Where chunks come by
   * their ids, all whole ones, and the source is not to be verified, whoever made it may read the whole store.
   */
  parts(signal: AbortSignal): AsyncIterable<DiskPart | ChunkIds>;
}

export interface ImportProgress {
  /** `verifying` while the source, or what is stored, is read again. */
  readonly phase?: 'verifying';
  readonly doneBytes: number;
  readonly allBytes?: number;
}

/** What an import read and stored; the root is that of the imported disk. */
export interface ImportFigures extends DiskRoot {
  /** Bytes read from the source that were not holes. */
  readonly readBytes: number;
  readonly newBytes: number;
  /** What the import added to the segments, compressed. */
  readonly storedBytes: number;
  readonly chunks: number;
  readonly zeroChunks: number;
  readonly knownChunks: number;
  readonly newChunks: number;
}

export interface ImportResult extends ImportFigures {
  readonly vm: Vm;
}

export interface BackupImportResult extends ImportFigures {
  readonly backup: Backup;
  /** Bytes, in whole chunks, in which the disk differs from that of the backup it was imported since. */
  readonly changedBytes: number;
}

/** What every long operation takes. */
export interface Work<P> {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: P) => void;
}

export interface Fleet {
  /** Of the chunks that all disks are cut into. */
  readonly chunkBytes: number;
  /** Whether the ids of chunks are keyed: then nothing comes by its id, and nothing is proven. */
  readonly isKeyed: boolean;
  /** Which of these chunks an import may bring by their ids at the moment: a byte for each, 1 or 0. @throws `ids-keyed` */
  knownChunks(ids: Uint8Array): Promise<Uint8Array>;
  createVm(request: {
    name: string;
    disks: readonly { name: string; sizeBytes: number }[];
    tags?: readonly string[];
  }): Promise<Vm>;
  /**
   * Makes a VM of a source. `verify`: reads the source again before there is a VM, and compares roots; the source must
   * bear a second reading.
   * @throws `verify-failed`, `size-invalid`, `name-taken`, `import-interrupted`, `cancelled`, and what the source throws;
   *   `chunk-unknown` for a chunk that came by its id and is not, or no longer, stored
   */
  importVm(
    request: {
      name: string;
      diskName?: string;
      source: ImportSource;
      verify?: boolean;
      tags?: readonly string[];
    },
    work?: Work<ImportProgress>,
  ): Promise<ImportResult>;
  /**
   * Makes a backup of a source: the next one of the VM of the backup `since`, which may be gone, with its other disks as
   * they are in `since`. The size of the disk may differ. Until it ends, `since` cannot be deleted. Errors as importVm,
   * `backup-missing`, `disk-missing` (`diskName` is needed where there are several).
   */
  importBackup(
    request: { since: string; name?: string; diskName?: string; source: ImportSource; verify?: boolean },
    work?: Work<ImportProgress>,
  ): Promise<BackupImportResult>;
  /** In order of creation; with a prefix, in order of names. Not both a prefix and a tag. */
  listVms(request?: PageRequest & { namePrefix?: string; tag?: string }): Promise<Page<Vm>>;
  /** @throws `vm-missing` */
  getVm(vm: string): Promise<Vm>;
  renameVm(vm: string, name: string): Promise<Vm>;
  /** Gives it these tags instead of those it has. @throws `name-invalid`, `request-invalid` */
  setTags(vm: string, tags: readonly string[]): Promise<Vm>;
  /** Grows a disk, or shrinks it when `shrink` is set. @throws `shrink-refused`, `size-invalid`, `vm-attached` (shrink) */
  resizeDisk(
    vm: string,
    disk: string,
    sizeBytes: number,
    options?: { shrink?: boolean; force?: boolean },
  ): Promise<Vm>;
  /** @throws `vm-attached` unless forced, which disconnects the clients first */
  deleteVm(vm: string, options?: { force?: boolean }): Promise<void>;
  /** count absent: one VM called `name`. count given: `name-1` … `name-<count>`; all or none. */
  cloneVm(
    vm: string,
    request: { name: string; count?: number; tags?: readonly string[] },
  ): Promise<readonly Vm[]>;

  /** @throws `request-invalid`, `clock-set-back` (a lock, or a date), `name-taken` */
  createBackup(
    vm: string,
    request?: BackupAttributes & {
      name?: string;
      /** What the caller has seen to; the fleet only records it. */
      consistency?: 'application';
      policy?: { id: string; name: string; rule: string; dueAt: number };
    },
  ): Promise<Backup>;
  /** Newest first; those of a policy without a VM, VM by VM. @throws `request-invalid` for filters that do not go together */
  listBackups(request?: PageRequest & BackupFilter): Promise<Page<Backup>>;
  /** By id, or as `vm@name`. @throws `backup-missing` */
  getBackup(backup: string): Promise<Backup>;
  /** @throws `backup-locked` when a lock would be shortened, `clock-set-back`, `name-taken`, `request-invalid` */
  changeBackup(backup: string, change: BackupAttributes & { name?: string }): Promise<Backup>;
  /** @throws `backup-locked`; `disk-in-use` while a client reads it */
  deleteBackup(backup: string): Promise<void>;
  /**
   * Deletes a backup that nothing keeps: its own date has come, or it has none and a policy took it, which is the caller then. False when
   * something does, or it is gone.
   * @throws `disk-in-use` while a client reads it
   */
  expireBackup(backup: string): Promise<boolean>;
  /**
   * From some pairs of backups of a VM, closer and farther apart; bounded work, and nothing is destaged for it.
   * @throws `vm-missing`, errors of kind `data`
   */
  changeHistory(vm: string): Promise<ChangeHistory>;
  /** The time that locks and expiry count by, and whether the clock is behind what it was. */
  trustedTime(): { readonly now: number; readonly isBehind: boolean };
  /** For somebody to call now and then: expires what has a date, compares backups with those before them, a bounded number. */
  tend(): Promise<Tended>;
  /**
   * With `as`: a new VM, with these tags. Without: in place, onto the VM it was taken of. `disk`: that disk only; in place the others stay as they are.
   * `verify`: first every chunk of the backup is read and checked against its id; only that is told as progress, and can be cancelled.
   * @throws `vm-attached` unless forced; `chunk-corrupt` naming disks and ranges when verifying found damage
   */
  restoreBackup(
    backup: string,
    request?: { as?: string; tags?: readonly string[]; disk?: string; force?: boolean; verify?: boolean },
    work?: Work<ImportProgress>,
  ): Promise<Vm>;
  /** The root of a disk of a backup, once all of it is in the tree. @throws `backup-missing`, `disk-missing` */
  diskRoot(backup: string, disk: string): Promise<DiskRoot>;

  /** Export names: `<vm>/<disk>` and `<vm>@<backup>/<disk>`; `<vm>` alone when it has one disk. @throws the missing kinds */
  attach(exportName: string): Promise<Attachment>;
  /** Export names for NBD LIST: at most `limit`. */
  listExports(limit: number): Promise<readonly string[]>;

  space(work?: Work<{ phase: string; done: number; all: number }>): Promise<SpaceReport>;
  ownerSpaces(request?: PageRequest & { kind?: 'vm' | 'backup' }): Promise<Page<OwnerSpace>>;
  readonly answers: Answers;
}

export type { BlockDevice, ChunkStore, Extents };
