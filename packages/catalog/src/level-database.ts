/**
 * LevelDB as the catalog uses it: opens it with explicit options, turns its errors into PandoErrors,
 * and opens it again under its users after the disk was full (`level-log.ts` says why).
 *
 * State: `open` → (full disk) → `full` → (room again) → `open`; any other failed write → `failed`, for good.
 * Reads go on in each of them. While it is being opened again, reads and snapshots wait for that.
 */
import { readdir } from 'node:fs/promises';
import { PandoError, fromIoError, nodeFileSystem } from '@pando/common';
import { Level } from 'level';
import type { StoredOperation } from './commit-queue.ts';
import { cutLog, logEnd, looksLikeLevel, probeRoom, saysFull, type LogEnd } from './level-log.ts';

export type Database = Level<Buffer, Buffer>;
export type DatabaseSnapshot = ReturnType<Database['snapshot']>;

export const ENCODINGS = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const;

const OPEN_OPTIONS = {
  createIfMissing: true,
  errorIfExists: false,
  compression: true,
  cacheSize: 8 * 1024 * 1024,
  writeBufferSize: 4 * 1024 * 1024,
  blockSize: 4096,
  maxOpenFiles: 500,
  blockRestartInterval: 16,
  maxFileSize: 2 * 1024 * 1024,
} as const;

export class LevelDatabase {
  readonly #directory: string;
  readonly #database: Database;
  #state: 'open' | 'full' | 'failed' = 'open';
  #cause: PandoError | undefined;
  /** Where the log must end, when the last write failed for want of room. */
  #cutAt: LogEnd | undefined;
  #reopening: Promise<void> | undefined;
  #users = 0;
  #snapshots = 0;
  #idle: (() => void) | undefined;
  #closed = false;

  private constructor(directory: string) {
    this.#directory = directory;
    this.#database = new Level<Buffer, Buffer>(directory, { ...ENCODINGS });
  }

  /** @throws `store-locked`, `store-foreign`, `store-full`, `catalog-corrupt` */
  static async open(directory: string): Promise<LevelDatabase> {
    const files = await readdir(directory).catch((error: unknown): string[] => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw fromIoError(error, `open the catalog in ${directory}`, 'store-failed');
    });
    if (!looksLikeLevel(files)) {
      throw new PandoError('store-foreign', `${directory} holds files that are not of a catalog`);
    }
    const database = new LevelDatabase(directory);
    await database.#open();
    return database;
  }

  /** Why no write is taken any more, if so. */
  get failure(): PandoError | undefined {
    return this.#state === 'failed' ? this.#cause : undefined;
  }

  /** Applies the operations as one atomic, synced batch, or has no effect. One at a time. */
  async write(operations: readonly StoredOperation[]): Promise<void> {
    if (this.#state === 'failed') {
      throw new PandoError('store-failed', 'a write to the catalog failed earlier; it takes no more', {
        cause: this.#cause,
      });
    }
    if (this.#state === 'full') await this.#resume();
    const end = logEnd(this.#directory);
    try {
      await this.#database.batch(
        operations.map(({ key, value }) =>
          value === undefined ? { type: 'del', key } : { type: 'put', key, value },
        ),
        { ...ENCODINGS, sync: true },
      );
    } catch (error) {
      throw await this.#writeFailed(error, end);
    }
  }

  /** Runs a read; the database stays open until it has ended. */
  async read<T>(action: (database: Database) => Promise<T>): Promise<T> {
    this.#refuseClosed();
    while (this.#reopening !== undefined) await this.#reopening.catch(() => undefined);
    // Opening again failed half-way: the database is closed, and a read is worth another attempt.
    while (this.#database.status !== 'open') await this.#reopen();
    this.#refuseClosed();
    this.#users++;
    try {
      return await action(this.#database);
    } catch (error) {
      throw fromLevelError(error, 'read the catalog');
    } finally {
      this.#users--;
      this.#tellIdle();
    }
  }

  /**
   * A snapshot of this instant. While the database is being opened again it is made right after: no
   * write can come in between.
   */
  snapshot(): { readonly snapshot: Promise<DatabaseSnapshot>; release: () => Promise<void> } {
    this.#refuseClosed();
    this.#snapshots++;
    const make = (): DatabaseSnapshot => this.#database.snapshot();
    const ready = this.#reopening === undefined && this.#database.status === 'open';
    const snapshot = ready ? Promise.resolve(make()) : this.#reopen().then(make);
    snapshot.catch(() => undefined); // reported to those who read through it
    let released = false;
    return {
      snapshot,
      release: async () => {
        if (released) return;
        released = true;
        await snapshot.then(
          (made) => made.close(),
          () => undefined,
        );
        this.#snapshots--;
      },
    };
  }

  /** Waits for reads under way. No write may be under way. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#reopening?.catch(() => undefined);
    await this.#untilIdle();
    await this.#database.close();
    if (this.#cutAt !== undefined) await cutLog(this.#directory, this.#cutAt);
  }

  async #writeFailed(error: unknown, end: LogEnd): Promise<PandoError> {
    const failure = fromLevelError(error, 'write to the catalog');
    this.#cause = failure;
    if (failure.code !== 'store-full') {
      this.#state = 'failed';
      return failure;
    }
    this.#state = 'full';
    this.#cutAt = end;
    try {
      await cutLog(this.#directory, end);
      return failure;
    } catch (cutError) {
      // Whether the batch is there after a restart is not known: that is what store-failed means.
      this.#state = 'failed';
      this.#cause = new PandoError(
        'store-failed',
        'the log of the catalog cannot be cut back after a failed write',
        { cause: cutError },
      );
      return this.#cause;
    }
  }

  /** @throws `store-full` when there is no room yet */
  async #resume(): Promise<void> {
    this.#refuseWhileSnapshots();
    await probeRoom(this.#directory).catch((error: unknown) => {
      throw fromIoError(error, 'write to the catalog', 'store-full');
    });
    this.#refuseWhileSnapshots(); // the probe took a while
    await this.#reopen();
  }

  /** Closing LevelDB ends its snapshots; they are short, so the next write tries again. */
  #refuseWhileSnapshots(): void {
    if (this.#snapshots === 0 || this.#database.status !== 'open') return;
    throw new PandoError(
      'store-full',
      'the disk was full, and the catalog waits for an open snapshot to be closed',
      {
        cause: this.#cause,
      },
    );
  }

  #reopen(): Promise<void> {
    this.#reopening ??= (async () => {
      await this.#untilIdle();
      await this.#database.close();
      // LevelDB may have flushed a rest of the failed record when it closed the file.
      if (this.#cutAt !== undefined) await cutLog(this.#directory, this.#cutAt);
      await this.#open();
      this.#cutAt = undefined;
      if (this.#state === 'full') this.#state = 'open';
    })().finally(() => {
      this.#reopening = undefined;
    });
    return this.#reopening;
  }

  async #open(): Promise<void> {
    try {
      await this.#database.open({ ...OPEN_OPTIONS });
    } catch (error) {
      const cause = (error as { cause?: unknown }).cause ?? error;
      if ((cause as { code?: unknown }).code === 'LEVEL_LOCKED') {
        throw new PandoError('store-locked', `the catalog in ${this.#directory} is open already`, { cause });
      }
      throw fromLevelError(cause, `open the catalog in ${this.#directory}`);
    }
    // LevelDB renames CURRENT and syncs no name after that. Until it is durable, a power cut may go back to the files from
    // before, and those may hold less than what is built on now: a sync of an earlier process may have failed.
    await nodeFileSystem.syncDirectory(this.#directory).catch((error: unknown) => {
      throw fromIoError(error, `open the catalog in ${this.#directory}`, 'store-failed');
    });
  }

  #refuseClosed(): void {
    if (this.#closed) throw closedError();
  }

  async #untilIdle(): Promise<void> {
    while (this.#users > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  #tellIdle(): void {
    if (this.#users === 0) {
      this.#idle?.();
      this.#idle = undefined;
    }
  }
}

export function closedError(): PandoError {
  return new PandoError('shutting-down', 'the catalog, or this snapshot of it, is closed');
}

function fromLevelError(error: unknown, what: string): PandoError {
  if (error instanceof PandoError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = (error as { code?: unknown } | undefined)?.code;
  if (saysFull(message)) return new PandoError('store-full', `${what}: ${message}`, { cause: error });
  if (code === 'LEVEL_CORRUPTION')
    return new PandoError('catalog-corrupt', `${what}: ${message}`, { cause: error });
  if (
    code === 'LEVEL_SNAPSHOT_NOT_OPEN' ||
    code === 'LEVEL_DATABASE_NOT_OPEN' ||
    code === 'LEVEL_ITERATOR_NOT_OPEN'
  ) {
    return new PandoError('shutting-down', `${what}: ${message}`, { cause: error });
  }
  return fromIoError(error, what, 'store-failed');
}
