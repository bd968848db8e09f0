/**
 * The catalog: the small, precious records. Tables of msgpack records under string keys, ordered by
 * the UTF-8 bytes of the key; one atomic, durable batch an operation.
 *
 * The catalog knows tables and batches, not what a VM is: what a table holds, and which secondary
 * indexes (tables of their own, written in the same batch) it needs, is decided by its owner.
 */
import type { Durations, PandoError } from '@pando/common';

export type CatalogOperation =
  | { readonly type: 'put'; readonly table: string; readonly key: string; readonly value: unknown }
  | { readonly type: 'delete'; readonly table: string; readonly key: string };

export interface ListOptions {
  /** Only keys that begin so. */
  readonly prefix?: string;
  /** Only keys after this one (exclusive): what a cursor holds. */
  readonly after?: string;
  /** Only keys before this one (exclusive); with `reverse`, where to start. */
  readonly before?: string;
  readonly reverse?: boolean;
  /** At most so many; default 100. */
  readonly limit?: number;
}

export interface CatalogEntry {
  readonly key: string;
  readonly value: unknown;
}

/** Where a record lies. */
export interface RecordName {
  readonly table: string;
  readonly key: string;
}

/** A record as it is stored: for copies of a catalog as a whole. */
export interface StoredRecord extends RecordName {
  /** CRC and msgpack (docs/format.md), not checked; the caller's. */
  readonly value: Uint8Array;
}

/** A consistent view of one instant. Close it. */
export interface CatalogSnapshot {
  get(table: string, key: string): Promise<unknown>;
  /** As get, for each of the keys, in their order; at once, which for hundreds is several times as fast. */
  getMany(table: string, keys: readonly string[]): Promise<unknown[]>;
  /** All entries of a table in key order, as they were at the instant of the snapshot. */
  entries(table: string, options?: { readonly prefix?: string }): AsyncIterable<CatalogEntry>;
  /**
   * Records of all tables from `from` on, up to `to`, which is not among them, as they are stored; in the order of their stored keys, some
   * at a time. What the catalog keeps of itself (`catalog-meta`) is not among them.
   */
  stored(range?: {
    readonly from?: RecordName | undefined;
    readonly to?: RecordName | undefined;
  }): AsyncIterable<readonly StoredRecord[]>;
  close(): Promise<void>;
}

export interface CatalogDamage {
  /** Name of a file, or a table and key. */
  readonly file: string;
  readonly offset: number;
  readonly problem: string;
}

export interface Catalog {
  /** The record, or undefined. @throws `catalog-corrupt` */
  get(table: string, key: string): Promise<unknown>;
  getMany(table: string, keys: readonly string[]): Promise<unknown[]>;
  list(table: string, options?: ListOptions): Promise<CatalogEntry[]>;

  /**
   * Applies the operations as one atomic batch; durable (synced) when it resolves. Batches take effect in
   * the order of the calls; those that wait while one is synced share the next sync.
   * A batch that rejects (`store-full`) has had no effect. After a failed sync: `store-failed` for good.
   */
  commit(operations: readonly CatalogOperation[]): Promise<void>;

  /** Synchronous: the snapshot is of the instant of the call, and holds every commit that has resolved by then. */
  snapshot(): CatalogSnapshot;

  /** Bytes on disk, approximately. */
  bytes(): Promise<number>;

  /** Set for good once commits are refused because a write or sync failed. */
  readonly failure?: PandoError | undefined;
  /** Times that synced batches took since it was opened; commits that wait together go in one. */
  readonly commitTimes?: Durations;

  /**
   * Reads all that is stored (`filesOnly`: and does not decode every record) and names what is damaged, a bounded number of
   * places. Mends nothing. Absent where there are no files.
   */
  verify?(options?: { readonly filesOnly?: boolean }): Promise<CatalogDamage[]>;

  close(): Promise<void>;
}
