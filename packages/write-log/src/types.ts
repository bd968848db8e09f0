/**
 * The write log: what guests have written and the tree does not hold yet, durable and in order.
 *
 * One log a store, shared by all disks; a sequence of files, appended to only. Records are gathered
 * while a write is under way and go out together in the next one. A record is *written* when it is in
 * the page cache (it survives the process) and *synced* after a later fdatasync (it survives the
 * machine). One sync is under way at a time; the next covers everyone who asked meanwhile.
 *
 * Records name overlays, not disks: an overlay is opened by a record that says whose it is, so that
 * a fork needs nothing in the log but that later writes go to another overlay.
 */
import { PandoError, type Durations } from '@pando/common';

/**
 * Position of a record: a number that grows by one with each record. It starts anew only when a log is opened that
 * holds no records; nothing outside the log keeps positions over a restart.
 */
export type LogPosition = number;

/** What replay hands over, in log order. `data` is a view that is valid during the call only. */
export type LogRecord =
  | {
      readonly type: 'open';
      readonly position: LogPosition;
      readonly overlay: number;
      readonly disk: number;
      readonly size: number;
    }
  | {
      readonly type: 'write';
      readonly position: LogPosition;
      readonly overlay: number;
      readonly offset: number;
      readonly data: Uint8Array;
    }
  | {
      /** A write of which damage has taken the data. */
      readonly type: 'lost';
      readonly position: LogPosition;
      readonly overlay: number;
      readonly offset: number;
      readonly length: number;
    }
  | {
      readonly type: 'zero';
      readonly position: LogPosition;
      readonly overlay: number;
      readonly offset: number;
      readonly length: number;
    };

/** What is damaged of a log, before the end of what had been synced. */
export interface LogDamage {
  readonly places: readonly {
    readonly file: string;
    readonly offset: number;
    readonly bytes: number;
    readonly problem: string;
  }[];
  /** Writes that are lost, as their headers prove them. */
  readonly lost: readonly (LogRecord & { readonly type: 'lost' })[];
  /** Whether these are all: else any overlay that is in the log, or was to be, may have lost writes. */
  readonly isAllKnown: boolean;
  /** Where not: whether disks of overlays that are not even named here may have lost writes. */
  readonly isAnyDisk: boolean;
  /** The overlays that were opened in the log, with their disks. */
  readonly disks: ReadonlyMap<number, number>;
}

/** `log-corrupt`, with what is known of it. */
export class LogDamageError extends PandoError {
  readonly damage: LogDamage;

  constructor(damage: LogDamage) {
    const [first, ...more] = damage.places;
    const others = more.length === 0 ? '' : `, and ${more.length} more places`;
    super(
      'log-corrupt',
      `the write log is damaged: ${first!.file} at byte ${first!.offset}: ${first!.problem}${others}`,
    );
    this.damage = damage;
  }
}

export interface WriteLog {
  /** What was damaged when it was opened, and accepted. */
  readonly damage: LogDamage | undefined;

  /** Position that the next record will get. */
  readonly nextPosition: LogPosition;

  /**
   * The append calls copy what they are given into the next group and return the record's position at once;
   * nothing is promised before `written` or `sync` resolves. They throw `store-failed` after a failed sync.
   * `open` says that writes to `overlay` belong to `disk`, whose size from then on is `size` bytes.
   */
  appendOpen(overlay: number, disk: number, size: number): LogPosition;
  /** `data` is at most WRITE_BYTES_MAX bytes. */
  appendWrite(overlay: number, offset: number, data: Uint8Array): LogPosition;
  appendZero(overlay: number, offset: number, length: number): LogPosition;

  /**
   * Resolves when every record appended so far is written. Rejects with `store-full` when the disk is full:
   * none of the write and zero records of that group is in the log then, and never will be; earlier and later groups
   * are not affected, and `open` records go out again with the next group.
   */
  written(): Promise<void>;

  /**
   * Resolves when every record appended so far that could be written is synced: records that the full disk kept out are
   * no error here, `written` told their writers. @throws `store-failed` for good after a failed fdatasync
   */
  sync(): Promise<void>;

  /**
   * As `sync`, and every `open` record appended so far is in the log, also those that a full disk kept out before:
   * to be called before anything durable names their overlays. @throws `store-full` when they still do not fit
   */
  syncOpens(): Promise<void>;

  /** Lets go of all records before `position`; files that hold no later ones are removed, oldest first, or kept as spare files. */
  release(position: LogPosition): Promise<void>;

  /** Bytes gathered and not yet written: callers wait for `written` while this is above a bound of theirs. */
  readonly pendingBytes: number;

  /** Bytes of all files of the log; cheap, for back-pressure. */
  readonly bytes: number;

  /** Bytes that all its files take on the disk, spare ones included. */
  readonly diskBytes: number;

  /** Removes the spare files that are there: their room is needed. */
  dropSpares(): Promise<void>;

  /** Set for good once nothing is appended or synced any more. */
  readonly failure: PandoError | undefined;

  readonly stats: LogStats;

  /** Writes and syncs what is gathered, then closes. */
  close(): Promise<void>;
}

export interface LogStats {
  readonly files: number;
  /** Records and bytes appended, groups written and syncs done, since the log was opened. */
  readonly records: number;
  readonly appendedBytes: number;
  readonly groups: number;
  readonly syncs: number;
  /** Files that had been other ones before. */
  readonly reusedFiles: number;
  /** Times that writing a group took, and that a sync did. */
  readonly groupTimes: Durations;
  readonly syncTimes: Durations;
}

/** Longest data of one record; larger guest writes become several records. */
export const WRITE_BYTES_MAX = 1024 * 1024;
