/**
 * The write log over a directory of files.
 *
 * Invariants:
 * - One write to one file is under way at a time; records gathered meanwhile go out together in the next.
 * - One fdatasync is under way at a time; it covers everything written before it began.
 * - Bytes up to `#end` of the current file are whole records; a write that failed is cut off again before the
 *   next one starts, and when that cannot be done, the log has failed for good.
 * - After a failed fdatasync nothing is appended or synced any more.
 * - A file that is let go of may be written again as another one (spares.ts), once its old name is gone for good.
 */
import { join } from 'node:path';
import {
  DurationHistogram,
  PandoError,
  Promptness,
  Witness,
  fromIoError,
  isPandoError,
  type FileSystem,
} from '@pando/common';
import { TYPE_OPEN, TYPE_SYNCED, TYPE_WRITE, TYPE_ZERO, crcSeedOf } from './format.ts';
import { BufferPool, Group } from './group.ts';
import { beginFile, isFull, isOpen, type LogFile, type OpenLogFile } from './log-file.ts';
import { logFileName, recover, type Recovered } from './recover.ts';
import { Spares, type Spare } from './spares.ts';
import {
  WRITE_BYTES_MAX,
  type LogDamage,
  type LogPosition,
  type LogRecord,
  type LogStats,
  type WriteLog,
} from './types.ts';

/** A file is left for a new one when it has grown past this. Small enough to free space often. */
export const FILE_BYTES_DEFAULT = 64 * 1024 * 1024;

/** Groups of at most so many bytes are written by the main thread itself, as long as that is quick: see Promptness. */
const BLOCKING_BYTES_MAX = 128 * 1024;

/** A spare file is made when this share of a file has been written: not for a log that only opens overlays. */
const SPARE_AFTER_SHARE = 256;

export interface WriteLogOptions {
  readonly fs: FileSystem;
  readonly directory: string;
  /** 16 bytes that name the store: a log of another store is refused. */
  readonly storeId: Uint8Array;
  readonly fileBytes?: number;
  /** Open a log that is damaged, and replay what is not. */
  readonly acceptDamage?: boolean;
  /** Whether there is room on the disk for spare files; without it there is. */
  readonly hasRoom?: () => boolean;
}

/** How far the log had come, and where it begins: in files beside its directory. */
interface Witnesses {
  readonly synced: Witness;
  readonly oldest: Witness;
}

/**
 * Opens the log in `directory`, which must exist, and replays what it holds, in order, through `visit`.
 * @throws `log-corrupt`, `store-newer`, `store-foreign`, `store-failed`, `store-full`
 */
export async function openWriteLog(
  options: WriteLogOptions,
  visit: (record: LogRecord) => void | Promise<void>,
): Promise<WriteLog> {
  const { fs, directory, storeId, acceptDamage = false } = options;
  try {
    const synced = await Witness.open(fs, `${directory}.synced`);
    const oldest = await Witness.open(fs, `${directory}.oldest`);
    try {
      const recovered = await recover({ fs, directory, storeId, synced, oldest, acceptDamage }, visit);
      return new FileWriteLog(options, recovered, { synced, oldest });
    } catch (error) {
      await Promise.all([synced.close(), oldest.close()]);
      throw error;
    }
  } catch (error) {
    throw fromIoError(error, 'open the write log', 'store-failed');
  }
}

class FileWriteLog implements WriteLog {
  readonly damage: LogDamage | undefined;
  readonly #witnesses: Witnesses;
  readonly #fs: FileSystem;
  readonly #directory: string;
  readonly #storeId: Uint8Array;
  readonly #fileBytes: number;
  readonly #crcSeed: number;
  readonly #pool = new BufferPool();
  readonly #spares: Spares;
  /** Files that are no longer written to, oldest first. */
  #old: LogFile[];
  #current: OpenLogFile | undefined;
  #gathering: Group;
  #writing: Promise<void> | undefined;
  #syncing: Promise<void> | undefined;
  #nextSync: Promise<void> | undefined;
  #failure: PandoError | undefined;
  #nextPosition: number;
  #lastWritten: number;
  /** All records up to here are synced; a `synced` record says so when it is greater than `#syncedMarked`. */
  #synced: number;
  #syncedMarked = 0;
  /** Bytes of the group that is being written. */
  #writingBytes = 0;
  /** Positions of the `open` records that are not written yet, ascending: they go out in this order. */
  #unwrittenOpens: LogPosition[] = [];
  #releasing: Promise<void> = Promise.resolve();
  /** Path of the file that is being removed. */
  #removing: string | undefined;
  #closed = false;
  readonly #counts = { records: 0, appendedBytes: 0, groups: 0, syncs: 0, reusedFiles: 0 };
  readonly #promptness = new Promptness();
  readonly #groupTimes = new DurationHistogram();
  readonly #syncTimes = new DurationHistogram();

  constructor(options: WriteLogOptions, recovered: Recovered, witnesses: Witnesses) {
    const { files, lastPosition } = recovered;
    this.damage = recovered.damage;
    this.#witnesses = witnesses;
    this.#fs = options.fs;
    this.#directory = options.directory;
    this.#storeId = options.storeId;
    this.#fileBytes = options.fileBytes ?? FILE_BYTES_DEFAULT;
    this.#crcSeed = crcSeedOf(options.storeId);
    this.#spares = new Spares({
      ...{ fs: options.fs, directory: options.directory, fileBytes: this.#fileBytes },
      hasRoom: options.hasRoom ?? (() => true),
    });
    this.#old = files.map((file) => ({
      ...{ ...file, allocatedBytes: file.bytes, file: undefined, synced: true },
    }));
    this.#lastWritten = lastPosition;
    this.#synced = lastPosition;
    this.#nextPosition = lastPosition + 1;
    this.#gathering = new Group(this.#pool, this.#crcSeed);
  }

  get nextPosition(): LogPosition {
    return this.#nextPosition;
  }

  get pendingBytes(): number {
    return this.#gathering.bytes + this.#writingBytes;
  }

  get bytes(): number {
    let bytes = this.#current?.bytes ?? 0;
    for (const file of this.#old) bytes += file.bytes;
    return bytes;
  }

  get failure(): PandoError | undefined {
    return this.#failure;
  }

  get diskBytes(): number {
    let bytes = this.#spares.bytes + (this.#current?.allocatedBytes ?? 0);
    for (const file of this.#old) bytes += file.allocatedBytes;
    return bytes;
  }

  get stats(): LogStats {
    return {
      files: this.#old.length + (this.#current === undefined ? 0 : 1),
      ...this.#counts,
      groupTimes: this.#groupTimes,
      syncTimes: this.#syncTimes,
    };
  }

  appendOpen(overlay: number, disk: number, size: number): LogPosition {
    const position = this.#append(TYPE_OPEN, overlay, size, disk, undefined);
    this.#unwrittenOpens.push(position);
    return position;
  }

  appendWrite(overlay: number, offset: number, data: Uint8Array): LogPosition {
    if (data.byteLength > WRITE_BYTES_MAX) {
      throw new PandoError(
        'internal',
        `a log record holds at most ${WRITE_BYTES_MAX} bytes, not ${data.byteLength}`,
      );
    }
    return this.#append(TYPE_WRITE, overlay, offset, data.byteLength, data);
  }

  appendZero(overlay: number, offset: number, length: number): LogPosition {
    return this.#append(TYPE_ZERO, overlay, offset, length, undefined);
  }

  written(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#gathering.records > 0) return this.#gathering.promise;
    return this.#writing ?? Promise.resolve();
  }

  async sync(): Promise<void> {
    // Writes of the group that found the disk full were told so; what was acknowledged is not among them.
    await this.written().catch((error: unknown) => {
      if (!isPandoError(error, 'store-full')) throw error;
    });
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#synced >= this.#lastWritten) return;
    // The one under way may have begun before our records were written: the next one covers us.
    if (this.#nextSync !== undefined) return this.#nextSync;
    if (!this.#closed && this.#counts.appendedBytes >= this.#fileBytes / SPARE_AFTER_SHARE)
      this.#spares.prepare();
    if (this.#syncing === undefined) return this.#startSync();
    this.#nextSync = this.#syncing.then(
      () => this.#startSync(),
      () => this.#startSync(),
    );
    return this.#nextSync;
  }

  async syncOpens(): Promise<void> {
    const last = this.#nextPosition - 1;
    const missing = (): boolean => this.#unwrittenOpens.length > 0 && this.#unwrittenOpens[0]! <= last;
    while (missing()) {
      // Carried ones wait for something to go out with: this is it.
      if (this.#writing === undefined && this.#gathering.records === 0) {
        this.#append(TYPE_SYNCED, 0, this.#synced, 0, undefined);
      }
      await this.written().catch((error: unknown) => {
        if (missing()) throw error;
      });
    }
    await this.sync();
  }

  dropSpares(): Promise<void> {
    return this.#spares.drop();
  }

  release(position: LogPosition): Promise<void> {
    this.#releasing = this.#releasing.then(() => this.#release(position));
    const done = this.#releasing;
    this.#releasing = done.catch(() => undefined);
    return done;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    let failure: unknown;
    try {
      await this.sync();
    } catch (error) {
      failure = error;
    }
    this.#closed = true;
    while (this.#writing !== undefined || this.#syncing !== undefined) {
      await Promise.allSettled([this.#writing, this.#syncing]);
    }
    await this.#releasing;
    await this.#spares.close();
    for (const file of this.#old) await file.file?.close();
    await this.#current?.file.close();
    await Promise.all([this.#witnesses.synced.close(), this.#witnesses.oldest.close()]);
    if (failure !== undefined) throw failure as Error;
  }

  #append(type: number, overlay: number, a: number, b: number, data: Uint8Array | undefined): LogPosition {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closed) throw new PandoError('shutting-down', 'the write log is closed');
    const group = this.#gathering;
    if (group.records === 0) queueMicrotask(this.#pump);
    if (this.#synced > this.#syncedMarked) {
      this.#syncedMarked = this.#synced;
      group.add(TYPE_SYNCED, this.#nextPosition++, 0, this.#synced, 0, undefined);
    }
    const position = this.#nextPosition++;
    const before = group.bytes;
    group.add(type, position, overlay, a, b, data);
    this.#counts.records++;
    this.#counts.appendedBytes += group.bytes - before;
    return position;
  }

  /** Starts writing the gathered group, unless one is being written: its end starts the next. */
  readonly #pump = (): void => {
    if (this.#writing !== undefined || this.#gathering.records === 0) return;
    const group = this.#gathering;
    this.#gathering = new Group(this.#pool, this.#crcSeed);
    this.#writing = group.promise;
    this.#writingBytes = group.bytes;
    void this.#write(group).finally(() => {
      this.#writing = undefined;
      this.#pump();
    });
  };

  /** Never rejects: the outcome is the group's promise. */
  async #write(group: Group): Promise<void> {
    const began = performance.now();
    try {
      if (this.#failure !== undefined) throw this.#failure;
      const current = this.#current;
      const target =
        current === undefined || this.#isLeft(current, group) ? await this.#nextFile(group) : current;
      const end = target.bytes;
      try {
        const now = performance.now(); // making a new file may have taken long, and says nothing about writes
        if (group.bytes <= BLOCKING_BYTES_MAX && target.file.writeSync && this.#promptness.mayBlock(now)) {
          target.file.writeSync(group.parts(), end);
          this.#promptness.done(now, performance.now());
        } else {
          await target.file.write(group.parts(), end);
        }
      } catch (error) {
        await this.#cut(target, end, error);
        throw error;
      }
      target.bytes = end + group.bytes;
      target.allocatedBytes = Math.max(target.allocatedBytes, target.bytes);
      target.lastPosition = group.lastPosition;
      target.synced = false;
      this.#lastWritten = group.lastPosition;
      this.#counts.groups++;
      this.#groupTimes.record(performance.now() - began);
      this.#unwrittenOpens.splice(0, group.opens.length);
      group.resolve();
    } catch (error) {
      // Writes that come after them would be lost at replay without the group's `open` records.
      if (this.#failure === undefined) this.#gathering.carry(group.opens);
      group.reject(this.#failure ?? fromIoError(error, 'write to the log', 'store-failed'));
    } finally {
      this.#writingBytes = 0;
      group.recycle();
    }
  }

  /** Removes what a failed write left behind; a log that cannot even do that must not be appended to. */
  async #cut(target: OpenLogFile, end: number, cause: unknown): Promise<void> {
    try {
      await target.file.truncate(end);
      target.allocatedBytes = end;
    } catch (error) {
      this.#fail(error, 'cut a torn write off the log');
      return;
    }
    if (!isFull(cause)) this.#fail(cause, 'write to the log');
  }

  /** Whether the group goes to another file: also as soon as this one would have to grow, and there is one that need not. */
  #isLeft(file: OpenLogFile, group: Group): boolean {
    return (
      file.bytes >= this.#fileBytes ||
      (file.bytes + group.bytes > file.allocatedBytes && !this.#spares.isEmpty)
    );
  }

  async #nextFile(group: Group): Promise<OpenLogFile> {
    const current = this.#current;
    const path = join(this.#directory, logFileName(group.firstPosition));
    // A file that got no record, because the disk was full, may be on its way out under this name, or about to be.
    while (this.#removing === path) await this.#releasing;
    const last = this.#old.at(-1);
    if (last !== undefined && last.path === path && isOpen(last)) {
      this.#old.pop();
      return (this.#current = last);
    }
    const spare = this.#spares.take();
    let file: OpenLogFile;
    try {
      file = await beginFile({
        ...{ fs: this.#fs, directory: this.#directory, storeId: this.#storeId, path, spare },
        ...{ firstPosition: group.firstPosition, previousPosition: this.#lastWritten },
      });
    } catch (error) {
      // Whether its name is durable nobody can tell any more, so records behind it could not be promised.
      if (!isFull(error)) this.#fail(error, 'start a log file');
      throw error;
    }
    if (spare !== undefined) this.#counts.reusedFiles++;
    if (current !== undefined) this.#old.push(current);
    if (this.#old.length === 0) this.#witnesses.oldest.note(group.firstPosition);
    this.#current = file;
    return file;
  }

  #startSync(): Promise<void> {
    this.#nextSync = undefined;
    const run = this.#sync().finally(() => {
      if (this.#syncing === run) this.#syncing = undefined;
    });
    this.#syncing = run;
    return run;
  }

  async #sync(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const began = performance.now();
    const upTo = this.#lastWritten;
    const files = this.#current === undefined ? this.#old : [...this.#old, this.#current];
    const unsynced = files.filter((file) => !file.synced);
    try {
      for (const file of unsynced) {
        const bytes = file.bytes;
        await file.file?.sync();
        if (file.bytes === bytes) file.synced = true;
      }
    } catch (error) {
      throw this.#fail(error, 'sync the log');
    }
    this.#synced = Math.max(this.#synced, upTo);
    // Without a file, all is released, and the witness was told so before.
    if (files.length > 0) this.#witnesses.synced.note(this.#synced);
    this.#counts.syncs++;
    this.#syncTimes.record(performance.now() - began);
  }

  /**
   * Makes a file durable that is about to be removed: syncs that come after do not know it any more, and say that all before
   * them is synced; after a power cut it may be there all the same, and must not look damaged then.
   */
  async #settle(file: LogFile): Promise<void> {
    if (file.synced) return;
    try {
      await file.file?.sync();
    } catch (error) {
      throw this.#fail(error, 'sync the log');
    }
    file.synced = true;
  }

  /** Before the oldest file is removed, which is out of `#old` already: nobody is to miss it after a power cut. */
  async #setWitnesses(): Promise<void> {
    const next = this.#old[0] ?? this.#current;
    try {
      await this.#witnesses.oldest.set(next?.firstPosition ?? 0);
      if (next === undefined) await this.#witnesses.synced.set(0);
    } catch (error) {
      throw isFull(error) ? error : this.#fail(error, 'sync a witness of the log');
    }
  }

  #fail(cause: unknown, what: string): PandoError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.#failure ??= new PandoError(
      'store-failed',
      `could not ${what}: ${reason}; the log takes no more writes`,
      { cause },
    );
    return this.#failure;
  }

  async #release(position: LogPosition): Promise<void> {
    // What cannot be trusted to stay removed, in order, is not removed.
    if (this.#failure !== undefined) return;
    const current = this.#current;
    // All of the current file is free: leave it, so that a quiet store ends up with an empty log.
    if (
      current !== undefined &&
      current.lastPosition < position &&
      this.#writing === undefined &&
      this.#gathering.records === 0
    ) {
      this.#current = undefined;
      this.#old.push(current);
    }
    while (this.#old.length > 0 && this.#old[0]!.lastPosition < position) {
      const file = this.#old[0]!;
      // From here on nobody takes it up again: what would be written to it then might count as synced, or go with it.
      this.#removing = file.path;
      let spare: Spare | undefined;
      try {
        await this.#settle(file);
        this.#old.shift();
        // A sync under way may hold the file; one that starts from now on does not know it any more.
        await this.#syncing?.catch(() => undefined);
        await this.#setWitnesses();
        spare = this.#spareOf(file);
        if (spare === undefined) await this.#fs.remove(file.path);
        else await this.#fs.rename(file.path, spare.path);
      } catch (error) {
        if (this.#old[0] !== file) this.#old.unshift(file);
        throw fromIoError(error, 'remove a log file', 'store-failed');
      } finally {
        this.#removing = undefined;
      }
      // One at a time and in order: a crash must not leave a gap between files that stayed.
      await this.#fs.syncDirectory(this.#directory).catch((error: unknown) => {
        throw this.#fail(error, 'sync the directory of the log');
      });
      // Not before its old name is gone for good: a power cut could bring it back, and the log would be damaged then.
      if (spare !== undefined) await this.#spares.add(spare);
      else await file.file?.close();
    }
  }

  #spareOf({ file, allocatedBytes: bytes }: LogFile): Spare | undefined {
    const path = file === undefined ? undefined : this.#spares.pathFor(bytes);
    return path === undefined ? undefined : { path, file: file!, bytes };
  }
}
