/**
 * The catalog in LevelDB: a directory of its own, whose LOCK keeps a second process out.
 *
 * Durable when `commit` resolves (LevelDB's log, synced). After a crash every batch is there wholly or not
 * at all, and none without those before it. Table `catalog-meta` holds the version of the layout, and how many
 * batches there have been.
 *
 * A catalog that has lost records is worse than one that does not open: what they named would be collected as garbage.
 * So its files are checked before LevelDB sees them (`checkLevelFiles`), and a witness tells whether the newest batches
 * are there.
 */
import { join } from 'node:path';
import {
  checkLevelFiles,
  directoryBytes,
  DurationHistogram,
  isPandoError,
  nodeFileSystem,
  PandoError,
  Witness,
  type LevelDamage,
} from '@pando/common';
import { CommitQueue, type StoredOperation } from './commit-queue.ts';
import { META_TABLE, describeKey, isMeta, keyBytes, keyRange, keyText, recordName } from './keys.ts';
import {
  ENCODINGS,
  LevelDatabase,
  closedError,
  type Database,
  type DatabaseSnapshot,
} from './level-database.ts';
import { checkRecord, decodeRecord, encodeRecord } from './records.ts';
import type {
  Catalog,
  CatalogDamage,
  CatalogEntry,
  CatalogOperation,
  CatalogSnapshot,
  ListOptions,
} from './types.ts';

/** Version of keys and record envelopes; records have versions of their own. */
const LAYOUT_VERSION = 1;
const LAYOUT_KEY = 'layout';
const COMMITS_KEY = 'commits';

/**
 * So many records are read by the main thread itself. A get takes some 10 µs, and a trip to another thread and back waits for the
 * turns of everybody else: milliseconds under load, several times in each operation on a VM.
 */
const SYNC_GETS_MAX = 64;

/** Records that a walk of a snapshot reads at once. */
const WALK_RECORDS = 256;

/** Damaged places that `verify` names. */
const DAMAGED_MAX = 100;

export interface LevelCatalogOptions {
  /** File of the witness that counts batches; without it the loss of the newest ones goes unnoticed. */
  readonly witness?: string;
  /** There has been a catalog here: one that is not there any more is damage. */
  readonly mustExist?: boolean;
  /** Open it in spite of damage to its files, without what that takes away; not when that is everything. */
  readonly acceptDamage?: boolean;
}

interface CommitsRecord {
  readonly version: 1;
  readonly count: number;
}

/**
 * Opens the catalog in `directory`, which is created where missing.
 * @throws `store-locked` when another process (or this one) has it open, `store-foreign` when the files there are
 * not a catalog's, `store-newer` when a later Pando wrote it, `catalog-corrupt`, `store-full`
 */
export async function openLevelCatalog(
  directory: string,
  options: LevelCatalogOptions = {},
): Promise<LevelCatalog> {
  const accept = options.acceptDamage === true;
  const damage = await checkLevelFiles(directory, { tables: !accept });
  // Of a database without CURRENT LevelDB leaves nothing at all: no damage that can be accepted.
  const fatal = accept ? damage.filter(({ file }) => file === 'CURRENT') : damage;
  if (fatal.length > 0) throw damaged(directory, fatal);
  const database = await LevelDatabase.open(directory);
  let witness: Witness | undefined;
  try {
    await checkLayout(database, options.mustExist === true);
    const commits = await readCommits(database);
    if (options.witness !== undefined) witness = await Witness.open(nodeFileSystem, options.witness);
    if (witness !== undefined && witness.value > commits) {
      if (!accept) throw lostCommits(directory, witness.value, commits);
      await witness.set(0);
    }
    return new LevelCatalog(directory, database, commits, witness);
  } catch (error) {
    await witness?.close();
    await database.close();
    throw error;
  }
}

function damaged(directory: string, damage: readonly LevelDamage[]): PandoError {
  const [{ file, offset, problem }, ...more] = damage as [LevelDamage, ...LevelDamage[]];
  const others = more.length === 0 ? '' : `; and ${more.length} more`;
  return new PandoError(
    'catalog-corrupt',
    `the catalog is damaged: ${join(directory, file)} at byte ${offset}: ${problem}${others}`,
  );
}

function lostCommits(directory: string, made: number, there: number): PandoError {
  return new PandoError(
    'catalog-corrupt',
    `the catalog is damaged: the newest log in ${directory} ends with commit ${there}, and ${made} were made`,
  );
}

export class LevelCatalog implements Catalog {
  readonly #directory: string;
  readonly #database: LevelDatabase;
  readonly #queue: CommitQueue;
  readonly #witness: Witness | undefined;
  readonly commitTimes = new DurationHistogram();
  #commits: number;
  #closing: Promise<void> | undefined;

  constructor(directory: string, database: LevelDatabase, commits: number, witness: Witness | undefined) {
    this.#directory = directory;
    this.#database = database;
    this.#commits = commits;
    this.#witness = witness;
    this.#queue = new CommitQueue((operations) => this.#write(operations));
  }

  get failure(): PandoError | undefined {
    return this.#database.failure;
  }

  async get(table: string, key: string): Promise<unknown> {
    const bytes = keyBytes(table, key);
    return decodeFound(bytes, await this.#database.read(async (level) => level.getSync(bytes, ENCODINGS)));
  }

  async getMany(table: string, keys: readonly string[]): Promise<unknown[]> {
    const bytes = keys.map((key) => keyBytes(table, key));
    const found = await this.#database.read(async (level) =>
      bytes.length > SYNC_GETS_MAX
        ? level.getMany(bytes, ENCODINGS)
        : bytes.map((key) => level.getSync(key, ENCODINGS)),
    );
    return bytes.map((key, i) => decodeFound(key, found[i]));
  }

  async list(table: string, options: ListOptions = {}): Promise<CatalogEntry[]> {
    const range = keyRange(table, options);
    const limit = options.limit ?? 100;
    if (range === undefined || limit <= 0) return [];
    const found = await this.#database.read((level) =>
      level
        .iterator({
          ...ENCODINGS,
          ...(range.fromIncluded ? { gte: range.from } : { gt: range.from }),
          lt: range.to,
          reverse: options.reverse === true,
          limit,
        })
        .all(),
    );
    return found.map(([key, value]) => ({ key: keyText(key, table), value: decodeRecord(key, value) }));
  }

  async commit(operations: readonly CatalogOperation[]): Promise<void> {
    // Encoded before the first await: the caller may change its records afterwards.
    const encoded = operations.map((operation) => {
      const key = keyBytes(operation.table, operation.key);
      return { key, value: operation.type === 'put' ? encodeRecord(key, operation.value) : undefined };
    });
    await this.#queue.submit(encoded);
  }

  snapshot(): CatalogSnapshot {
    if (this.#closing !== undefined) throw closedError();
    const { snapshot, release } = this.#database.snapshot();
    const read = async <T>(action: (level: Database, at: DatabaseSnapshot) => Promise<T>): Promise<T> => {
      const at = await snapshot;
      return this.#database.read((level) => action(level, at));
    };
    return {
      get: async (table, key) => {
        const bytes = keyBytes(table, key);
        return decodeFound(
          bytes,
          await read((level, at) => level.get(bytes, { ...ENCODINGS, snapshot: at })),
        );
      },
      getMany: async (table, keys) => {
        const bytes = keys.map((key) => keyBytes(table, key));
        const found = await read((level, at) => level.getMany(bytes, { ...ENCODINGS, snapshot: at }));
        return bytes.map((key, i) => decodeFound(key, found[i]));
      },
      async *entries(table, options = {}) {
        const range = keyRange(table, options);
        if (range === undefined) return;
        // Each part is a read of its own: the snapshot keeps the view, and nothing stays open while the caller works.
        let from = range.fromIncluded ? { gte: range.from } : { gt: range.from };
        for (;;) {
          const bounds = { ...ENCODINGS, ...from, lt: range.to, limit: WALK_RECORDS };
          const part = await read((level, at) => level.iterator({ ...bounds, snapshot: at }).all());
          for (const [key, value] of part)
            yield { key: keyText(key, table), value: decodeRecord(key, value) };
          if (part.length < WALK_RECORDS) return;
          from = { gt: part.at(-1)![0] };
        }
      },
      async *stored({ from, to } = {}) {
        const end = to === undefined ? {} : { lt: keyBytes(to.table, to.key) };
        let start: { gt: Buffer } | { gte: Buffer } =
          from === undefined ? { gt: Buffer.alloc(0) } : { gte: keyBytes(from.table, from.key) };
        for (;;) {
          const bounds = { ...ENCODINGS, ...start, ...end, limit: WALK_RECORDS };
          const part = await read((level, at) => level.iterator({ ...bounds, snapshot: at }).all());
          const records = part.filter(([key]) => !isMeta(key));
          if (records.length > 0) yield records.map(([key, value]) => ({ ...recordName(key), value }));
          if (part.length < WALK_RECORDS) return;
          start = { gt: part.at(-1)![0] };
        }
      },
      close: release,
    };
  }

  async bytes(): Promise<number> {
    if (this.#closing !== undefined) throw closedError();
    return directoryBytes(this.#directory);
  }

  async verify({ filesOnly = false }: { readonly filesOnly?: boolean } = {}): Promise<CatalogDamage[]> {
    if (this.#closing !== undefined) throw closedError();
    const files = await checkLevelFiles(this.#directory, { tables: true });
    if (filesOnly || files.length > 0) return files.slice(0, DAMAGED_MAX);
    const found: CatalogDamage[] = [];
    // The files are as they were written: then so are the records, unless it was done before they were.
    let from: Record<string, Buffer> = {};
    for (;;) {
      const part = await this.#database.read((level) =>
        level.iterator({ ...ENCODINGS, ...from, limit: WALK_RECORDS }).all(),
      );
      for (const [key, value] of part) {
        try {
          decodeRecord(key, value);
        } catch (error) {
          if (!isPandoError(error, 'catalog-corrupt')) throw error;
          found.push({ file: describeKey(key), offset: 0, problem: error.message });
        }
      }
      if (part.length < WALK_RECORDS || found.length >= DAMAGED_MAX) return found.slice(0, DAMAGED_MAX);
      from = { gt: part.at(-1)![0] };
    }
  }

  /** Waits for commits that were called and reads under way. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#queue
      .close()
      .then(() => this.#witness?.close())
      .then(() => this.#database.close());
    return this.#closing;
  }

  /** With each batch goes how many there have been; the witness hears of it when the batch is durable. */
  async #write(operations: readonly StoredOperation[]): Promise<void> {
    const count = this.#commits + 1;
    const key = keyBytes(META_TABLE, COMMITS_KEY);
    const value = encodeRecord(key, { version: 1, count } satisfies CommitsRecord);
    const began = performance.now();
    await this.#database.write([...operations, { key, value }]);
    this.commitTimes.record(performance.now() - began);
    this.#commits = count;
    this.#witness?.note(count);
  }
}

/** Batches that there have been; 0 before anybody counted. */
async function readCommits(database: LevelDatabase): Promise<number> {
  const key = keyBytes(META_TABLE, COMMITS_KEY);
  const found = decodeFound(key, await database.read((level) => level.get(key, ENCODINGS)));
  if (found === undefined) return 0;
  checkRecord(META_TABLE, COMMITS_KEY, found, 1);
  return (found as CommitsRecord).count;
}

function decodeFound(key: Buffer, bytes: Buffer | undefined): unknown {
  return bytes === undefined ? undefined : decodeRecord(key, bytes);
}

async function checkLayout(database: LevelDatabase, mustExist: boolean): Promise<void> {
  const key = keyBytes(META_TABLE, LAYOUT_KEY);
  const found = decodeFound(key, await database.read((level) => level.get(key, ENCODINGS)));
  if (found !== undefined) {
    checkRecord(META_TABLE, LAYOUT_KEY, found, LAYOUT_VERSION);
    return;
  }
  const others = await database.read((level) => level.keys({ keyEncoding: 'buffer', limit: 1 }).all());
  if (others.length > 0) {
    throw new PandoError('store-foreign', 'the database holds keys, and none says that it is a catalog');
  }
  if (mustExist) throw new PandoError('catalog-corrupt', 'the catalog is damaged: there is nothing in it');
  await database.write([{ key, value: encodeRecord(key, { version: LAYOUT_VERSION }) }]);
}
