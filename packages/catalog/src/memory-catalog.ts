/**
 * The catalog in memory, for tests and stores that need not outlive the process. Records are kept as
 * bytes, so that what a caller gets is never what another one holds.
 */
import { PandoError } from '@pando/common';
import { isMeta, keyBytes, keyRange, keyText, recordName, type KeyRange } from './keys.ts';
import { decodeRecord, encodeRecord } from './records.ts';
import type { Catalog, CatalogEntry, CatalogOperation, CatalogSnapshot, ListOptions } from './types.ts';

interface Stored {
  readonly key: Buffer;
  readonly value: Buffer;
}

export class MemoryCatalog implements Catalog {
  /** Ascending by key; replaced as a whole by each commit, so that a snapshot is a reference. */
  #records: readonly Stored[] = [];
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
      const [first, end] = positions(this.#records, range);
      const limit = options.limit ?? 100;
      const found =
        options.reverse === true
          ? this.#records.slice(Math.max(first, end - limit), end).reverse()
          : this.#records.slice(first, Math.min(end, first + limit));
      return found.map((record) => entryOf(table, record));
    });
  }

  commit(operations: readonly CatalogOperation[]): Promise<void> {
    return this.#attempt(() => {
      const changes = operations.map((operation) => {
        const key = keyBytes(operation.table, operation.key);
        return { key, value: operation.type === 'put' ? encodeRecord(key, operation.value) : undefined };
      });
      // Stable: of several changes of one key the last one stays last.
      changes.sort((a, b) => Buffer.compare(a.key, b.key));
      const merged: Stored[] = [];
      let old = 0;
      for (let i = 0; i < changes.length; i++) {
        const { key, value } = changes[i]!;
        const next = changes[i + 1];
        if (next !== undefined && key.equals(next.key)) continue;
        while (old < this.#records.length && Buffer.compare(this.#records[old]!.key, key) < 0)
          merged.push(this.#records[old++]!);
        if (old < this.#records.length && this.#records[old]!.key.equals(key)) old++;
        if (value !== undefined) merged.push({ key, value });
      }
      while (old < this.#records.length) merged.push(this.#records[old++]!);
      this.#records = merged;
    });
  }

  snapshot(): CatalogSnapshot {
    if (this.#closed) throw closedError();
    let records: readonly Stored[] | undefined = this.#records;
    const opened = (): readonly Stored[] => {
      if (records === undefined || this.#closed) throw closedError();
      return records;
    };
    return {
      get: (table, key) => this.#attempt(() => find(opened(), keyBytes(table, key))),
      getMany: (table, keys) => this.#attempt(() => keys.map((key) => find(opened(), keyBytes(table, key)))),
      async *entries(table, options = {}) {
        const range = keyRange(table, options);
        if (range === undefined) return;
        const [first, end] = positions(opened(), range);
        for (let i = first; i < end; i++) {
          yield await Promise.resolve(entryOf(table, opened()[i]!));
        }
      },
      async *stored({ from, to } = {}) {
        const first = from === undefined ? 0 : lowerBound(opened(), keyBytes(from.table, from.key));
        const end = to === undefined ? opened().length : lowerBound(opened(), keyBytes(to.table, to.key));
        const found = opened().slice(first, Math.max(first, end));
        const stored = found.filter(({ key }) => !isMeta(key));
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
      this.#records.reduce((sum, { key, value }) => sum + key.byteLength + value.byteLength, 0),
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

function entryOf(table: string, { key, value }: Stored): CatalogEntry {
  return { key: keyText(key, table), value: decodeRecord(key, value) };
}

function find(records: readonly Stored[], key: Buffer): unknown {
  const found = records[lowerBound(records, key)];
  return found?.key.equals(key) === true ? decodeRecord(key, found.value) : undefined;
}

/** First and end position of what lies in the range. */
function positions(records: readonly Stored[], range: KeyRange): [number, number] {
  let first = lowerBound(records, range.from);
  if (!range.fromIncluded && records[first]?.key.equals(range.from) === true) first++;
  return [first, lowerBound(records, range.to)];
}

/** Position of the first record whose key is not less than `key`. */
function lowerBound(records: readonly Stored[], key: Buffer): number {
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (Buffer.compare(records[middle]!.key, key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
