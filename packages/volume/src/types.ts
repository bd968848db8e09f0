/**
 * Disks: their roots, and the overlays of writes that are not in the tree yet.
 *
 * A *disk* is a numbered record: a root, the overlays on top of it, a size. A volume is a disk that can
 * be written; a disk of a backup cannot. The overlays of a disk form a chain: frozen ones, oldest
 * first, then at most one active. Frozen overlays are shared by every disk that was forked at or after
 * their freezing; once one has been destaged, all of them point at the new root in one commit.
 *
 * Every change of records is one catalog batch, and callers add records of their own to it (the VM that
 * a disk belongs to) with `records`, which is called synchronously with the numbers of the new disks.
 */
import type { BlockDevice, StatusExtents } from '@pando/block-device';
import type { CatalogOperation } from '@pando/catalog';
import type { Durations, PandoError } from '@pando/common';
import type { DataCounts } from '@pando/chunk-store';
import type { Root } from '@pando/tree';
import type { LogPosition, LogStats } from '@pando/write-log';

export type DiskNumber = number;

/** A disk as it stands in the catalog, table `disk`, key: the number as 12 digits, zero-padded. */
export interface DiskRecord {
  readonly version: 1;
  readonly rootId: Uint8Array;
  readonly rootHeight: number;
  readonly rootSize: number;
  /** Bytes of the disk now; the root's size may still be that of before a resize. */
  readonly size: number;
  /** Numbers of overlays on top of the root that other disks may hold too, oldest first; newer ones the log opens. */
  readonly overlays: readonly number[];
  /** Overlays that the log opens for this disk count only when their number is greater than this. */
  readonly overlayFloor: number;
  readonly readOnly: boolean;
  /**
   * What the disk was at its newest fork, or at its birth as a clone. Absent for one that was never forked, and for a
   * disk of a backup, which never was anything else. Keeps no chunk alive.
   */
  readonly forked?: ForkRecord;
}

/** One of the overlays of the disk's record, all that lies below it included; or, once that was destaged, a root. */
export type ForkRecord =
  { readonly overlay: number } | Pick<DiskRecord, 'rootId' | 'rootHeight' | 'rootSize'>;

export interface OpenVolume extends BlockDevice {
  readonly disk: DiskNumber;

  /**
   * Where this disk and another of the same store hold different bytes now, exact to the chunk: flag 1 where they
   * differ, 0 where not. Content counts, not history: a chunk that was written with what it held is equal, also while
   * it is in an overlay (hashed and compared with the id in the other tree). Past the end of the smaller disk there are
   * holes. All of the answer is of one instant. Costs what differs inside the range, not what is stored; ends early when that is much.
   * @throws as `read`; `shutting-down` when one of the handles is closed
   */
  differences(other: OpenVolume, offset: number, length: number, extentsMax: number): Promise<StatusExtents>;

  /**
   * How old the bytes are: 0 hole, 1 changed since the newest fork of this disk (a backup or clone of it, or its own
   * birth as a clone or by an in-place restore), 2 older; 1 everywhere when there was none. By content, as `differences`: what was
   * written with what it held stays old. Exact while the fork's nodes are stored; where they are collected already, 1.
   */
  depths(offset: number, length: number, extentsMax: number): Promise<StatusExtents>;

  /** Flag 1 where the bytes are not in the tree of `root` yet, 0 where they are read from it. */
  pending(offset: number, length: number, extentsMax: number): Promise<StatusExtents>;

  /** The root that is read through just now where nothing is pending. */
  readonly root: Root;

  /** Releases this handle; waits for writes under way on it. Reads must have ended. Idempotent. */
  close(): Promise<void>;
}

export interface ForkRequest {
  /** Disks to fork, all at one instant. */
  readonly sources: readonly DiskNumber[];
  /** How many times; every copy gets one new disk for each source. */
  readonly copies: number;
  /** Whether the new disks are disks of a backup. */
  readonly readOnly: boolean;
  /** Records of the caller for the same commit; `disks[copy][source]` are the new numbers. */
  readonly records: (disks: readonly (readonly DiskNumber[])[]) => readonly CatalogOperation[];
}

/**
 * Told of each destage: what became of the chunks that were written to a disk. Of an overlay that several disks share by now, it is the
 * one that wrote it, as long as it is there; none for one that only backups hold. Must not wait; what it throws is ignored.
 */
export type OnDestaged = (disk: DiskNumber, counts: DataCounts) => void;

/** What of a disk is lost, or was to be written where, in order. */
export interface DiskLoss {
  readonly disk: DiskNumber;
  readonly ranges: readonly { readonly offset: number; readonly bytes: number }[];
}

/** What damage to the log costs. */
export interface LogLoss {
  /** The damaged places; a file has its path. */
  readonly places: readonly {
    readonly file: string;
    readonly offset: number;
    readonly bytes: number;
    readonly problem: string;
  }[];
  /** Disks that have lost writes, clones and backups included. */
  readonly disks: readonly DiskLoss[];
  /** Whether these are all. */
  readonly isAllKnown: boolean;
  /** Where not: disks that may have lost writes, or more of them; and whether any other may have as well. */
  readonly maybe: readonly DiskNumber[];
  readonly isAnyDisk: boolean;
}

export interface Volumes {
  readonly chunkBytes: number;

  /** Creates a disk: empty of `size` bytes, or with the given root (whose chunks are durable and pinned). */
  create(
    from: { readonly size: number } | { readonly root: Root },
    records: (disk: DiskNumber) => readonly CatalogOperation[],
  ): Promise<DiskNumber>;

  /** Creates several empty disks or disks with roots in one commit. */
  createMany(
    from: readonly ({ readonly size: number } | { readonly root: Root })[],
    records: (disks: readonly DiskNumber[]) => readonly CatalogOperation[],
  ): Promise<readonly DiskNumber[]>;

  /**
   * Forks disks: the new ones hold what the sources hold at one instant, the same for all of them. Every
   * write acknowledged before the call is in it. Durable when it resolves. Neither waits for destage
   * nor stops writes to the sources.
   * @throws `disk-missing`
   */
  fork(request: ForkRequest): Promise<readonly (readonly DiskNumber[])[]>;

  /**
   * In-place restore: each target (not open for writing by anyone) becomes what `source` is. Target numbers stay. One commit.
   * @throws `disk-missing`, `disk-in-use` when a target is open
   */
  replace(
    pairs: readonly { readonly target: DiskNumber; readonly source: DiskNumber }[],
    records: () => readonly CatalogOperation[],
  ): Promise<void>;

  /**
   * Changes the size of a disk. What lies past a smaller size is gone: growing again reads zeros there.
   * Open handles keep the size that they were opened with; a shrink needs that there are none.
   * @throws `disk-missing`, `disk-in-use`, `size-invalid`
   */
  resize(disk: DiskNumber, size: number, records: () => readonly CatalogOperation[]): Promise<void>;

  /** Removes disks. @throws `disk-missing`, `disk-in-use` when one is open */
  remove(disks: readonly DiskNumber[], records: () => readonly CatalogOperation[]): Promise<void>;

  /** Opens a disk; several handles may be open at once, and see each other's writes. @throws `disk-missing`, `disk-in-use` while it is removed, replaced or shrunk */
  open(disk: DiskNumber): Promise<OpenVolume>;

  /** Whether any handle of the disk is open. */
  isOpen(disk: DiskNumber): boolean;

  /** The disk's root and size with nothing left in overlays: destages what there is first. For export, reports and tests. */
  settle(disk: DiskNumber): Promise<Root>;

  /** Destages everything that was written before the call, of all disks. */
  settleAll(): Promise<void>;

  readonly stats: VolumeStats;

  /**
   * What was lost when a damaged log was accepted. It reads as an error on all disks that are named, until it is written
   * anew; of disks that may have lost more, that reads as what it was before.
   */
  readonly logLoss: LogLoss | undefined;

  /** Destages what fits into the given time, keeps the rest in the log; then closes. */
  close(): Promise<void>;
}

/** How a catalog that was made anew and the log beside it fit together. */
export interface LogFit {
  /** Disks that only the log knows, because they were made after what the catalog holds: nothing leads to what was written to them. */
  readonly unknown: readonly {
    readonly disk: DiskNumber;
    readonly size: number;
    /** Bytes that guests wrote to it and that were still in the log. */
    readonly writtenBytes: number;
  }[];
  /** Disks without some writes that were flushed: the log has been released further than what the catalog holds. */
  readonly cut: readonly DiskNumber[];
  /** Why the log could not be read to its end, when that is so. */
  readonly problem?: PandoError;
}

/**
 * Who has to agree before the log lets go of what disks do not need any more: a copy of the catalog is as old as it is, and what was
 * destaged since must still be in the log.
 */
export interface LogGate {
  /**
   * How far the log may be released, of which nothing before `position` is needed here: the records that say so are committed. Asks for
   * what is missing; with `urgent`, the log is running full.
   */
  release(position: LogPosition, urgent: boolean): LogPosition;
  /** Whom to tell when more may be released. */
  onRelease(listener: () => void): void;
  /** Resolves when everything that is committed by now is in the copy, or cannot be brought there. */
  settle(): Promise<void>;
}

export interface VolumeStats {
  /** Bytes of guest data held in overlays. */
  readonly overlayBytes: number;
  readonly overlays: number;
  /** Bytes that guests wrote, and that were destaged, since start. */
  readonly writtenBytes: number;
  readonly destagedBytes: number;
  /** Times that destage of one overlay took. */
  readonly destageTimes: Durations;
  /** Bytes that the log holds, and those of its files on disk, which may be larger, and spare. */
  readonly logBytes: number;
  readonly logDiskBytes: number;
  /** Above this writers wait. */
  readonly logBytesMax: number;
  readonly log: LogStats;
  /** True while the disk under the store is full and writes are refused. */
  readonly full: boolean;
  /** Set for good after a failed sync: no more writes are taken. */
  readonly failure: PandoError | undefined;
  /** Times since start that writes which damage keeps out of the tree were appended to the log anew, to free what lies before them. */
  readonly logRewrites: number;
  /** Disks whose overlays cannot be destaged because of damage; their writes stay in the log. */
  readonly damaged: readonly DiskNumber[];
}
