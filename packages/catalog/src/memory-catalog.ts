/**
 * The catalog in memory, for tests and stores that need not outlive the process. Records are kept as
 * bytes, so that what a caller gets is never what another one holds.
 */
import { PandoError } from '@pando/common';
import { isMeta, keyBytes, keyRange, keyText, recordName, type KeyRange } from './keys.ts';
import { decodeRecord, encodeRecord } from './records.ts';
import { SortedRecords, type StoredRecord } from './sorted-records.ts';
import type { Catalog, CatalogEntry, CatalogOperation, CatalogSnapshot, ListOptions } from './types.ts';

export class MemoryCatalog implements Catalog {
  /** Another one after each commit, so that a snapshot is a reference. */
  #records = new SortedRecords();
  #closed = false;

  get(table: string, key: string): Promise<unknown> {
    return this.#attempt(() => find(this.#records, keyBytes(table, key)));
  }

  getMany(table: string, keys: readonly string[]): Promise<unknown[]> {
    return this.#attempt(() => keys.map((key) => find(this.#records, keyBytes(table, key))));
  }

  list(table: string, options: ListOptions = {}): Promise<CatalogEntry[]> {
    return this.#attempt(() => {
      const range = keyRange(table, options);
      if (range === undefined) return [];
      const limit = options.limit ?? 100;
      const found: CatalogEntry[] = [];
      for (const record of inRange(this.#records, range, options.reverse === true)) {
        if (found.length >= limit) break;
        found.push(entryOf(table, record));
      }
      return found;
    });
  }

  commit(operations: readonly CatalogOperation[]): Promise<void> {
    return this.#attempt(() => {
      const changes = operations.map((operation) => {
        const key = keyBytes(operation.table, operation.key);
        return { key, value: operation.type === 'put' ? encodeRecord(key, operation.value) : undefined };
      });
      // Stable: of several changes of one key the last one stays last, and counts.
      changes.sort((a, b) => Buffer.compare(a.key, b.key));
      this.#records = this.#records.with(
        changes.filter(({ key }, i) => changes[i + 1]?.key.equals(key) !== true),
      );
    });
  }

  snapshot(): CatalogSnapshot {
    if (this.#closed) throw closedError();
    let records: SortedRecords | undefined = this.#records;
    const opened = (): SortedRecords => {
      if (records === undefined || this.#closed) throw closedError();
      return records;
    };
    return {
      get: (table, key) => this.#attempt(() => find(opened(), keyBytes(table, key))),
      getMany: (table, keys) => this.#attempt(() => keys.map((key) => find(opened(), keyBytes(table, key)))),
      async *entries(table, options = {}) {
        const range = keyRange(table, options);
        if (range === undefined) return;
        for (const record of inRange(opened(), range, false)) {
          yield await Promise.resolve(entryOf(table, record));
          opened();
        }
      },
      async *stored({ from, to } = {}) {
        const found = opened().between(
          from && keyBytes(from.table, from.key),
          to && keyBytes(to.table, to.key),
        );
        const stored = [...found].filter(({ key }) => !isMeta(key));
        if (stored.length > 0) {
          yield await Promise.resolve(
            stored.map(({ key, value }) => ({ ...recordName(key), value: Buffer.from(value) })),
          );
        }
      },
      close: () => {
        records = undefined;
        return Promise.resolve();
      },
    };
  }

  bytes(): Promise<number> {
    return this.#attempt(() =>
      this.#records.blocks.flat().reduce((sum, { key, value }) => sum + key.byteLength + value.byteLength, 0),
    );
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  /** Runs synchronously; errors become rejections, as a caller of a promise expects. */
  #attempt<T>(action: () => T): Promise<T> {
    return new Promise((resolve) => {
      if (this.#closed) throw closedError();
      resolve(action());
    });
  }
}

function closedError(): PandoError {
  return new PandoError('shutting-down', 'the catalog, or this snapshot of it, is closed');
}

function entryOf(table: string, { key, value }: StoredRecord): CatalogEntry {
  return { key: keyText(key, table), value: decodeRecord(key, value) };
}

function find(records: SortedRecords, key: Buffer): unknown {
  const found = records.get(key);
  return found === undefined ? undefined : decodeRecord(key, found.value);
}

function* inRange(
  records: SortedRecords,
  { from, fromIncluded, to }: KeyRange,
  isReverse: boolean,
): Generator<StoredRecord, void, undefined> {
  for (const record of isReverse ? records.backwards(from, to) : records.between(from, to))
    if (fromIncluded || !record.key.equals(from)) yield record;
}
