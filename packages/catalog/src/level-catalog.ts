/**
 * The catalog in LevelDB: a directory of its own, whose LOCK keeps a second process out.
 *
 * Durable when `commit` resolves (LevelDB's log, synced). After a crash every batch is there wholly or not
 * at all, and none without those before it. Table `catalog-meta` holds the version of the layout.
 */
import { directoryBytes, PandoError } from '@pando/common';
import { CommitQueue } from './commit-queue.ts';
import { META_TABLE, isMeta, keyBytes, keyRange, keyText, recordName } from './keys.ts';
import {
  ENCODINGS,
  LevelDatabase,
  closedError,
  type Database,
  type DatabaseSnapshot,
} from './level-database.ts';
import { checkRecord, decodeRecord, encodeRecord } from './records.ts';
import type { Catalog, CatalogEntry, CatalogOperation, CatalogSnapshot, ListOptions } from './types.ts';

/** Version of keys and record envelopes; records have versions of their own. */
const LAYOUT_VERSION = 1;
const LAYOUT_KEY = 'layout';

/** Records that a walk of a snapshot reads at once. */
const WALK_RECORDS = 256;

/**
 * Opens the catalog in `directory`, which is created where missing.
 * @throws `store-locked` when another process (or this one) has it open, `store-foreign` when the files there are
 * not a catalog's, `store-newer` when a later Pando wrote it, `catalog-corrupt`, `store-full`
 */
export async function openLevelCatalog(directory: string): Promise<LevelCatalog> {
  const database = await LevelDatabase.open(directory);
  try {
    await checkLayout(database);
  } catch (error) {
    await database.close();
    throw error;
  }
  return new LevelCatalog(directory, database);
}

export class LevelCatalog implements Catalog {
  readonly #directory: string;
  readonly #database: LevelDatabase;
  readonly #queue: CommitQueue;
  #closing: Promise<void> | undefined;

  constructor(directory: string, database: LevelDatabase) {
    this.#directory = directory;
    this.#database = database;
    this.#queue = new CommitQueue((operations) => database.write(operations));
  }

  async get(table: string, key: string): Promise<unknown> {
    const bytes = keyBytes(table, key);
    return decodeFound(bytes, await this.#database.read((level) => level.get(bytes, ENCODINGS)));
  }

  async getMany(table: string, keys: readonly string[]): Promise<unknown[]> {
    const bytes = keys.map((key) => keyBytes(table, key));
    const found = await this.#database.read((level) => level.getMany(bytes, ENCODINGS));
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

  /** Waits for commits that were called and reads under way. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#queue.close().then(() => this.#database.close());
    return this.#closing;
  }
}

function decodeFound(key: Buffer, bytes: Buffer | undefined): unknown {
  return bytes === undefined ? undefined : decodeRecord(key, bytes);
}

async function checkLayout(database: LevelDatabase): Promise<void> {
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
  await database.write([{ key, value: encodeRecord(key, { version: LAYOUT_VERSION }) }]);
}
