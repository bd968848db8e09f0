/** What the fleet answers about who shares what with whom. Bytes are stored bytes, of data and nodes, with all that files add to them. */
import type { Page, PageRequest } from './page-types.ts';

/** Names the whole content of a disk; equal for equal disks of stores with chunks of one size, or, where it is keyed, of one store. */
export interface DiskRoot {
  /** Id of the top node as 64 hex digits; zeros for a disk that is all hole. */
  readonly root: string;
  readonly sizeBytes: number;
  readonly chunkBytes: number;
  /** Whether a secret of the store is in the root: then it cannot be computed from the bytes elsewhere. */
  readonly keyed: boolean;
}

export interface OwnerName {
  readonly kind: 'vm' | 'backup';
  readonly id: string;
  /** `web`, or `web@monday`. */
  readonly name: string;
}

/** What owners are put together by: a VM with its backups, those that carry a tag, backups that a policy took. */
export type AccountGrouping = 'vm' | 'tag' | 'policy';

export interface AccountLine {
  /** Of the VM, the tag or the policy; absent for what carries no tag, for all VMs by policy, and for backups that none took. */
  readonly name?: string;
  /** Of the VM or the policy. */
  readonly id?: string;
  /** By VM: it is gone, and these are backups that are left. */
  readonly isGone?: boolean;
  readonly vms: number;
  readonly backups: number;
  /** What nobody else holds: what deleting all of the line frees. */
  readonly exclusiveBytes: number;
  /** Its part of what it holds with others: each of them has an equal one. */
  readonly sharedBytes: number;
  /** The two together. */
  readonly totalBytes: number;
}

/** Where every byte of the store belongs. */
export interface AccountTotals {
  /** What VMs and backups hold: the sum of all lines, and what is untold. */
  readonly ownedBytes: number;
  /** Shared by several, who are not told apart: 0 but for stores where very many differ from each other in very many ways. */
  readonly untoldBytes: number;
  /** What imports and destages under way have written and nobody holds yet. */
  readonly inFlightBytes: number;
  readonly garbageBytes: number;
  readonly indexBytes: number;
  /** The log, with its spare files. */
  readonly logBytes: number;
  readonly catalogBytes: number;
  /** The sum of these, but for untoldBytes, which is part of ownedBytes. */
  readonly storedBytes: number;
}

export interface AccountsPage extends Page<AccountLine> {
  readonly by: AccountGrouping;
  readonly totals: AccountTotals;
}

export interface Holder extends OwnerName {
  readonly sharedBytes: number;
}

export interface HoldersPage extends Page<Holder> {
  readonly owner: OwnerName;
  /** All that it holds, alone or with others. */
  readonly reachedBytes: number;
  readonly exclusiveBytes: number;
  /** Of the store: what is shared by owners who are not told apart, and in no number here. */
  readonly untoldBytes: number;
  /** How many share with it. */
  readonly holders: number;
}

/** Those that are named, and those that carry the tag or whose names begin so. */
export interface OwnerChoice {
  /** VMs and backups by id or name. */
  readonly owners?: readonly string[];
  readonly tag?: string;
  readonly prefix?: string;
  /** With tag and prefix: only VMs, or only backups. */
  readonly kind?: 'vm' | 'backup';
  /** Backups of all VMs chosen, too. */
  readonly withBackups?: boolean;
}

export interface StayingWith extends OwnerName {
  /** What it holds of what stays. */
  readonly sharedBytes: number;
  /** Of that, what would be freed as well if it went too. */
  readonly aloneBytes: number;
}

export interface ReclaimPage extends Page<StayingWith> {
  readonly vms: number;
  readonly backups: number;
  /** Of these backups, those that cannot be deleted yet. */
  readonly locked: number;
  /** What deleting all of them frees, once it is collected. */
  readonly freedBytes: number;
  /** The sum of what deleting each alone would free. */
  readonly aloneBytes: number;
  /** What of theirs stays, because others hold it, too. */
  readonly stayingBytes: number;
  /** Of that, what only imports and destages under way hold besides them. */
  readonly inFlightBytes: number;
  readonly untoldBytes: number;
  /** How many others hold what stays. */
  readonly holders: number;
}

export interface ReclaimPlanRequest extends PageRequest, Pick<OwnerChoice, 'tag' | 'prefix'> {
  readonly bytes: number;
  /** The oldest that are enough, or as few as can be found. */
  readonly prefer: 'oldest' | 'smallest';
  /** VMs that nobody has attached may go, too; after all backups where the oldest go first. */
  readonly includeVms?: boolean;
}

export interface Reclaimable extends OwnerName {
  readonly createdAt: string;
}

export interface ReclaimPlanPage extends Page<Reclaimable> {
  readonly wantedBytes: number;
  readonly freedBytes: number;
  readonly isEnough: boolean;
  /** Whether it is proven that no fewer free as much; never where the oldest go first. */
  readonly isFewest: boolean;
  readonly vms: number;
  readonly backups: number;
  /** Backups that would have been asked, but are locked. */
  readonly locked: number;
}

/** Two disks, each as an export name says it: `vm/disk`, `vm@backup/disk`; without a disk, that of the other one, or the only one. */
export interface DiffRequest extends PageRequest {
  readonly a: string;
  readonly b: string;
  /** Ranges that are closer together are one: a multiple of the chunk, which it is when absent. */
  readonly grainBytes?: number;
}

export interface DiffItem {
  readonly offset: number;
  readonly bytes: number;
  /** Of these, the bytes of chunks that differ. */
  readonly changedBytes: number;
}

/** The side of a comparison. */
export interface DiffSide {
  readonly name: string;
  readonly disk: string;
  readonly sizeBytes: number;
}

export interface DiffPage extends Page<DiffItem> {
  readonly a: DiffSide;
  readonly b: DiffSide;
  readonly grainBytes: number;
  /** How far this page goes from where it began; it may have no items and still not be the last. */
  readonly comparedBytes: number;
  readonly changedBytes: number;
}

export interface NamedRoot extends DiskRoot {
  readonly disk: string;
  /** Levels of nodes above the chunks: as few as cover the disk. */
  readonly height: number;
}

export interface DiskRoots extends OwnerName {
  readonly items: readonly NamedRoot[];
}

/** Questions that the trees answer, about all owners or some. */
export interface Answers {
  /** What VMs with their backups, all that carry a tag, or the backups of a policy cost: lines that add up to all that is stored. */
  accounts(request: PageRequest & { readonly by: AccountGrouping }): Promise<AccountsPage>;
  /** Who shares its space with a VM or backup. @throws `vm-missing`, `backup-missing` */
  holders(owner: string, request?: PageRequest): Promise<HoldersPage>;
  /** What deleting all of these frees, exactly. @throws `vm-missing`, `backup-missing`, `request-invalid` */
  reclaim(request: OwnerChoice & PageRequest, work?: { readonly signal?: AbortSignal }): Promise<ReclaimPage>;
  /** What to delete to free so much. Deletes nothing. */
  planReclaim(
    request: ReclaimPlanRequest,
    work?: { readonly signal?: AbortSignal },
  ): Promise<ReclaimPlanPage>;
  /** What differs between two disks. @throws `vm-missing`, `backup-missing`, `disk-missing`, `request-invalid` */
  diff(request: DiffRequest): Promise<DiffPage>;
  /**
   * The roots of all disks of a backup, or of a VM: then each of an instant of its own, after the call and before the answer.
   * @throws `vm-missing`, `backup-missing`
   */
  roots(owner: string): Promise<DiskRoots>;
  /**
   * A proof (packages/proof) of what a range of a disk of a backup holds; without a name, of its only disk.
   * @throws `backup-missing`, `disk-missing`, `range-invalid`
   */
  prove(
    backup: string,
    disk: string | undefined,
    range: { readonly offset: number; readonly length: number },
  ): Promise<Uint8Array>;
}
