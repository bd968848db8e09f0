/**
 * The index in LevelDB, through `level`. Key: the 32 bytes of the id; value: the 18 bytes of the place, and 4 of a CRC
 * over both. Marks have shorter keys: a zero byte and the name.
 *
 * LevelDB does not verify what it reads. An entry whose CRC is wrong, or that LevelDB stumbles over, is none: a chunk
 * that is not found is an error, and one that is found in a wrong place would be taken for live by a collection
 * while the right one is freed. Damage to the log is found when the index is opened, and to its tables then
 * or by verification; both is a reason to make the index anew. LevelDB is built with its assertions, so the structure of
 * a block that was damaged while it is open can end the process.
 *
 * LevelDB syncs only the log file that it writes to. What was written without a sync can lie in the
 * log before that one, which no later sync of LevelDB touches while its memory table is on the way to
 * the disk. A mark promises that everything before it is durable, so it first syncs all logs there are.
 *
 * A full disk: LevelDB goes on appending behind a record that it could write only in part, and when it is opened
 * the next time it silently skips what follows there. So after a batch that met a full disk nothing is written until
 * the database has been opened again, which turns its log into tables; that is tried with each further write, once a
 * probe shows that there is room. Any other failed write is final.
 */
import { open as openFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { Level } from 'level';
import {
  checkLevelFiles,
  directoryBytes,
  fromIoError,
  ID_BYTES,
  KiB,
  MiB,
  nodeFileSystem,
  PandoError,
  type LevelDamage,
} from '@pando/common';
import { GrowingBytes } from './growing-bytes.ts';
import { IdFilter } from './id-filter.ts';
import { readPlace } from './place.ts';
import { SerialQueue } from './serial-queue.ts';
import { PLACE_BYTES, type ChunkIndex, type IndexCompactions } from './types.ts';

const ENTRY_BYTES = PLACE_BYTES + 4;

/** Tables of so many bytes are checked whole when the index is opened, which takes a second; larger ones by verification. */
const CHECKED_BYTES_MAX = 512 * MiB;
/** Set when verification has found damage: the next opening refuses the index. */
const DAMAGED_MARK = 'damaged';

/**
 * LevelDB maps the tables that it has open into memory, and whoever goes through all of them (a collection, the filter) makes all of that resident: half a
 * gibibyte of an index of 6,000,000 entries. So not more than 96 of 2 MiB are open, besides 10 other files. A look-up in one that is not takes 30 µs instead of 7, which
 * concerns readers of more than 13 GiB of chunks, all over; others hardly ask (hints, filter).
 */
const OPEN_FILES_MAX = 106;
const TABLE_BYTES_MAX = 2 * MiB;

/** Of the filter: for a new index, and at most. 32 MiB are enough for 100 GiB of chunks of 4 KiB, and of use up to twice that. */
const FILTER_BYTES_MIN = 256 * KiB;
const FILTER_BYTES_MAX = 32 * MiB;
/** Keys that are read at a time for it. */
const FILTER_KEYS = 1000;

/** One pass over everything: not into the cache of blocks, and so many bytes at a time that they are not copied one entry at a time. */
const SWEEPING = { keys: true, values: true, fillCache: false, highWaterMarkBytes: 128 * KiB } as const;

/** Longest name of a mark: its key must be shorter than an id. */
const MARK_NAME_MAX = 16;

export interface LevelChunkIndexOptions {
  /** Blocks of tables in memory; default 32 MiB. */
  readonly cacheBytes?: number;
  /** Memory table, of which there can be two, and log; default 8 MiB. */
  readonly writeBufferBytes?: number;
}

/** Room that there must be beyond the bytes of the log before the database is opened again. */
const PROBE_SLACK_BYTES = 1 * MiB;

/** What LevelDB passes on of ENOSPC, EDQUOT and EFBIG: strerror's text, never the number. */
const SAYS_FULL = /No space left on device|quota exceeded|File too large/i;

type Batch = Parameters<ChunkIndex['write']>[0];

export class LevelChunkIndex implements ChunkIndex {
  readonly #db: Level<Uint8Array, Uint8Array>;
  readonly #directory: string;
  #state: 'open' | 'full' | 'failed' = 'open';
  #failure: PandoError | undefined;
  #reopening: Promise<void> | undefined;
  /** LevelDB takes what several threads bring it at a time in any order. */
  readonly #writes = new SerialQueue();
  /** Of all ids in the index; undefined until it has been made. */
  #filter: IdFilter | undefined;
  /** One that is being made: it gets what is written meanwhile. */
  #nextFilter: IdFilter | undefined;
  #filtering: Promise<void> | undefined;
  /** Whether anybody has asked for it. */
  #isFiltered = false;
  #closing = false;

  private constructor(directory: string, db: Level<Uint8Array, Uint8Array>) {
    this.#directory = directory;
    this.#db = db;
  }

  /**
   * Opens the index in `directory`, which is created when it is not there.
   * @throws `store-locked` when another process has it open; `index-corrupt` when it is damaged (make it anew)
   */
  static async open(directory: string, options: LevelChunkIndexOptions = {}): Promise<LevelChunkIndex> {
    const [damage] = await damageIn(directory);
    if (damage !== undefined) {
      const { file, offset, problem } = damage;
      throw corrupt(directory, `${join(directory, file)} at byte ${offset}: ${problem}`);
    }
    const db = new Level<Uint8Array, Uint8Array>(directory, {
      keyEncoding: 'view',
      valueEncoding: 'view',
      createIfMissing: true,
      errorIfExists: false,
      compression: false, // ids are random bytes
      cacheSize: options.cacheBytes ?? 32 * MiB,
      writeBufferSize: options.writeBufferBytes ?? 8 * MiB,
      blockSize: 4096,
      blockRestartInterval: 16,
      maxOpenFiles: OPEN_FILES_MAX,
      maxFileSize: TABLE_BYTES_MAX,
    });
    try {
      await db.open();
    } catch (error) {
      throw openError(directory, error);
    }
    const index = new LevelChunkIndex(directory, db);
    try {
      await syncNames(directory);
      if ((await index.getMark(DAMAGED_MARK)) !== undefined)
        throw corrupt(directory, 'verification has found damage in it');
    } catch (error) {
      await db.close();
      throw error;
    }
    return index;
  }

  get(ids: Uint8Array, offset: number): Uint8Array | undefined {
    const id = ids.subarray(offset, offset + ID_BYTES);
    let entry: Uint8Array | undefined;
    try {
      entry = this.#db.getSync(id);
    } catch (error) {
      if (isCorruption(error)) return undefined;
      throw fromIoError(error, 'reading the index', 'store-failed');
    }
    if (entry === undefined || !isWhole(id, entry)) return undefined;
    return entry.byteLength === PLACE_BYTES ? entry : entry.subarray(0, PLACE_BYTES);
  }

  mayHave(ids: Uint8Array, offset: number): boolean {
    // Begun by the first who asks: it takes a second of a processor for each million ids, and who has just been started is
    // mostly asked to read.
    if (!this.#isFiltered) {
      this.#isFiltered = true;
      this.#startFilter(FILTER_BYTES_MIN);
    }
    return this.#filter === undefined || this.#filter.mayHave(ids, offset);
  }

  get failure(): PandoError | undefined {
    return this.#failure;
  }

  ready(): Promise<void> | undefined {
    return this.#reopening;
  }

  write(batch: Batch, durable: boolean): Promise<void> {
    return this.#writes.run(() => this.#write(batch, durable));
  }

  async #write(batch: Batch, durable: boolean): Promise<void> {
    await this.#mend();
    // A chained batch, one native call per entry: 1 µs each on this thread; an array of objects takes 1.3–5 µs.
    const chained = this.#db.batch();
    const entries = Buffer.allocUnsafe(batch.count * ENTRY_BYTES);
    this.#filter?.addAll(batch.ids, batch.count);
    this.#nextFilter?.addAll(batch.ids, batch.count);
    try {
      const deletes = batch.deletes;
      if (deletes !== undefined) {
        for (let at = 0; at < deletes.byteLength; at += ID_BYTES)
          chained.del(deletes.subarray(at, at + ID_BYTES));
      }
      for (let i = 0; i < batch.count; i++) {
        const id = batch.ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES);
        const at = i * ENTRY_BYTES;
        entries.set(batch.places.subarray(i * PLACE_BYTES, (i + 1) * PLACE_BYTES), at);
        const entry = entries.subarray(at, at + ENTRY_BYTES);
        entries.writeUInt32LE(crcOf(id, entry), at + PLACE_BYTES);
        chained.put(id, entry);
      }
      await chained.write({ sync: durable });
      if (this.#filter?.isFull === true) this.#startFilter(this.#filter.bytes * 4);
    } catch (error) {
      await chained.close();
      throw this.#writeFailed(error);
    }
  }

  async findStale(
    isGone: (segment: number) => boolean,
    after: Uint8Array,
    max: number,
  ): Promise<{ ids: Uint8Array; next: Uint8Array | undefined }> {
    try {
      const iterator = this.#db.iterator({ gt: after, ...SWEEPING });
      try {
        const entries = await iterator.nextv(max);
        const stale = new GrowingBytes();
        for (const [key, entry] of entries) {
          if (key.byteLength === ID_BYTES && isWhole(key, entry) && isGone(readPlace(entry).segment))
            stale.append(key);
        }
        return { ids: stale.bytes, next: entries.at(-1)?.[0] };
      } finally {
        await iterator.close();
      }
    } catch (error) {
      throw fromIoError(error, 'reading the index', 'store-failed');
    }
  }

  async setMark(name: string, value: Uint8Array): Promise<void> {
    const key = markKey(name);
    await this.#writes.run(async () => {
      await this.#mend();
      try {
        await this.#syncLogs();
        await this.#db.put(key, value, { sync: true });
      } catch (error) {
        throw this.#writeFailed(error);
      }
    });
  }

  async getMark(name: string): Promise<Uint8Array | undefined> {
    try {
      return await this.#db.get(markKey(name));
    } catch (error) {
      if (isCorruption(error)) throw corrupt(this.#directory, `mark ${name} cannot be read`, error);
      throw fromIoError(error, 'reading the index', 'store-failed');
    }
  }

  async verify(): Promise<LevelDamage[]> {
    const damage = await checkLevelFiles(this.#directory, { tables: true, isSynced: isMark });
    if (damage.length > 0) await this.setMark(DAMAGED_MARK, Uint8Array.of(1));
    return damage;
  }

  async count(): Promise<number> {
    let count = 0;
    for await (const key of this.#db.keys()) {
      if (key.byteLength === ID_BYTES) count++;
    }
    return count;
  }

  /** Bytes of tables on disk, as LevelDB estimates them: what is still in its log is not counted. */
  bytes(): Promise<number> {
    return directoryBytes(this.#directory);
  }

  /** LevelDB's own sums of memory tables written out and tables merged, in whole seconds and MiB for each level. */
  compactions(): IndexCompactions | undefined {
    if (this.#db.status !== 'open') return undefined;
    const db = this.#db as unknown as { getProperty: (name: string) => string }; // typed for browsers too, which have none
    const done = { seconds: 0, readBytes: 0, writtenBytes: 0 };
    for (const line of db.getProperty('leveldb.stats').split('\n')) {
      const [, , , seconds, read, written] = line.trim().split(/ +/).map(Number);
      if (written === undefined || Number.isNaN(written)) continue; // the table's head
      done.seconds += seconds!;
      done.readBytes += read! * MiB;
      done.writtenBytes += written * MiB;
    }
    return done;
  }

  clear(): Promise<void> {
    return this.#writes.run(() => this.#db.clear());
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#filtering;
    await this.#db.close();
  }

  /** Makes a filter of `bytes`, or more when it turns out to be too small, behind the back of everybody. */
  #startFilter(bytes: number): void {
    if (bytes > FILTER_BYTES_MAX || this.#filtering !== undefined || this.#closing) return;
    this.#filtering = this.#makeFilter(bytes)
      .catch(() => undefined) // without it every look-up asks the database, which is where damage is reported
      .finally(() => {
        this.#nextFilter = undefined;
        this.#filtering = undefined;
      });
  }

  async #makeFilter(bytes: number): Promise<void> {
    const filter = new IdFilter(bytes);
    // Between two writes: each is either in the snapshot that an iterator reads, or comes to the filter as well.
    const keys = await this.#writes.run(async () => {
      this.#nextFilter = filter;
      return this.#db.keys();
    });
    try {
      for (;;) {
        const some = await keys.nextv(FILTER_KEYS);
        if (some.length === 0) break;
        for (const key of some) if (key.byteLength === ID_BYTES) filter.add(key, 0);
        if (this.#closing) return;
        if (filter.isFull && bytes < FILTER_BYTES_MAX) break;
      }
    } finally {
      await keys.close();
    }
    if (!filter.isFull || bytes >= FILTER_BYTES_MAX) this.#filter = filter;
    else await this.#makeFilter(Math.min(FILTER_BYTES_MAX, bytes * 4));
  }

  #writeFailed(error: unknown): PandoError {
    const cause = (error as { cause?: unknown }).cause ?? error;
    const message = cause instanceof Error ? cause.message : String(cause);
    if (SAYS_FULL.test(message)) {
      this.#state = 'full';
      return new PandoError('store-full', `writing the index: ${message}`, { cause: error });
    }
    const failure = fromIoError(cause, 'writing the index', 'store-failed');
    this.#state = failure.code === 'store-full' ? 'full' : 'failed';
    if (this.#state === 'failed') this.#failure = failure;
    return failure;
  }

  /** Makes the database fit to be written to after the disk was full. @throws `store-full`, `store-failed` */
  async #mend(): Promise<void> {
    if (this.#state === 'open') return;
    if (this.#state === 'failed')
      throw new PandoError('store-failed', 'the index stopped writing after a failure');
    await this.#probe();
    this.#reopening ??= this.#reopen().finally(() => {
      this.#reopening = undefined;
    });
    await this.#reopening;
  }

  async #reopen(): Promise<void> {
    try {
      await this.#db.close();
      await this.#db.open();
      await syncNames(this.#directory);
      this.#state = 'open';
      if (this.#isFiltered && this.#filter === undefined) this.#startFilter(FILTER_BYTES_MIN);
    } catch (error) {
      throw this.#writeFailed(error); // closed, until a later write finds the room to open it
    }
  }

  async #probe(): Promise<void> {
    const file = join(this.#directory, 'room.probe');
    try {
      let bytes = PROBE_SLACK_BYTES;
      for (const name of await readdir(this.#directory)) {
        if (name.endsWith('.log')) bytes += (await stat(join(this.#directory, name))).size;
      }
      await writeFile(file, new Uint8Array(bytes), { flush: true });
    } catch (error) {
      throw fromIoError(error, 'looking for room for the index', 'store-full');
    } finally {
      await rm(file, { force: true });
    }
  }

  async #syncLogs(): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      if (!name.endsWith('.log')) continue;
      try {
        const handle = await openFile(join(this.#directory, name), 'r+');
        try {
          await handle.datasync();
        } finally {
          await handle.close();
        }
      } catch (error) {
        // A log that is gone has become a table, which LevelDB syncs.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    }
  }
}

/**
 * LevelDB renames CURRENT when it is opened, and syncs no name after that. Until it is durable, a power cut may go back to the
 * files from before, and those may hold less than what is built on now: a sync of an earlier process may have failed.
 */
async function syncNames(directory: string): Promise<void> {
  await nodeFileSystem.syncDirectory(directory).catch((error: unknown) => {
    throw fromIoError(error, `opening the index in ${directory}`, 'store-failed');
  });
}

function markKey(name: string): Uint8Array {
  const text = Buffer.from(name, 'utf8');
  if (text.byteLength === 0 || text.byteLength > MARK_NAME_MAX) {
    throw new PandoError('internal', `a mark's name has 1 to ${MARK_NAME_MAX} bytes: ${name}`);
  }
  return Uint8Array.of(0, ...text);
}

/** Whether an entry is what was written; entries had no CRC once. */
function isWhole(id: Uint8Array, entry: Uint8Array): boolean {
  if (entry.byteLength === PLACE_BYTES) return true;
  return entry.byteLength === ENTRY_BYTES && crcOf(id, entry) === readCrc(entry);
}

function crcOf(id: Uint8Array, entry: Uint8Array): number {
  return crc32(entry.subarray(0, PLACE_BYTES), crc32(id));
}

function readCrc(entry: Uint8Array): number {
  return new DataView(entry.buffer, entry.byteOffset + PLACE_BYTES, 4).getUint32(0, true);
}

async function damageIn(directory: string): Promise<LevelDamage[]> {
  const bytes = await directoryBytes(directory).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw fromIoError(error, `opening the index in ${directory}`, 'store-failed');
  });
  return checkLevelFiles(directory, { tables: bytes <= CHECKED_BYTES_MAX, isSynced: isMark });
}

/**
 * Whether a record of LevelDB's log (db/write_batch.cc: 12 bytes, then for each operation its type, and key and value with
 * their lengths) writes a mark. What comes after the last mark is stored again when the chunk store is opened.
 */
function isMark(record: Buffer): boolean {
  const PUT = 1;
  return record.byteLength > 14 && record[12] === PUT && record[13]! < ID_BYTES && record[14] === 0;
}

function isCorruption(error: unknown): boolean {
  const cause = (error as { cause?: unknown }).cause ?? error;
  return (cause as { code?: string }).code === 'LEVEL_CORRUPTION';
}

function corrupt(directory: string, problem: string, cause?: unknown): PandoError {
  return new PandoError('index-corrupt', `the index in ${directory} is damaged: ${problem}`, { cause });
}

function openError(directory: string, error: unknown): PandoError {
  const cause = (error as { cause?: unknown }).cause ?? error;
  const code = (cause as { code?: string }).code;
  if (code === 'LEVEL_LOCKED') {
    return new PandoError('store-locked', `the index in ${directory} is open in another process`, {
      cause: error,
    });
  }
  if (code === 'LEVEL_CORRUPTION') {
    return corrupt(directory, cause instanceof Error ? cause.message : String(cause), error);
  }
  return fromIoError(cause, `opening the index in ${directory}`, 'store-failed');
}
