/** Index and catalog over the model of LevelDB: see database.ts. */
import {
  MemoryCatalog,
  type Catalog,
  type CatalogOperation,
  type CatalogSnapshot,
  type ListOptions,
} from '@pando/catalog';
import { MemoryChunkIndex, type ChunkIndex } from '@pando/chunk-store';
import { PandoError, fromIoError } from '@pando/common';
import type { Database } from './database.ts';
import type { Scheduler } from './scheduler.ts';

export type IndexBatch =
  | {
      readonly ids: Uint8Array;
      readonly places: Uint8Array;
      readonly count: number;
      readonly deletes?: Uint8Array;
    }
  | { readonly mark: string; readonly value: Uint8Array }
  | 'clear';

export class SimulatedIndex implements ChunkIndex {
  readonly #memory = new MemoryChunkIndex();
  readonly #database: Database<IndexBatch>;
  readonly #scheduler: Scheduler;
  readonly #random: () => number;
  #failure: PandoError | undefined;

  constructor(database: Database<IndexBatch>, scheduler: Scheduler, random: () => number) {
    this.#database = database;
    this.#scheduler = scheduler;
    this.#random = random;
    for (const batch of database.batches()) this.#apply(batch);
  }

  get failure(): PandoError | undefined {
    return this.#failure;
  }

  get(ids: Uint8Array, offset: number): Uint8Array | undefined {
    return this.#memory.get(ids, offset);
  }

  write(batch: Parameters<ChunkIndex['write']>[0], durable: boolean): Promise<void> {
    const { ids, places, count, deletes } = batch;
    const kept = {
      ids: ids.slice(0, count * 32),
      places: places.slice(),
      count,
      ...(deletes === undefined ? {} : { deletes: deletes.slice() }),
    };
    return this.#write('index write', kept, durable, false);
  }

  setMark(name: string, value: Uint8Array): Promise<void> {
    return this.#write('index mark', { mark: name, value: value.slice() }, true, true);
  }

  getMark(name: string): Promise<Uint8Array | undefined> {
    return this.#scheduler
      .run({ kind: 'index read', path: name, isRead: true }, () => this.#memory.getMark(name))
      .then((value) => value);
  }

  findStale(...args: Parameters<ChunkIndex['findStale']>): ReturnType<ChunkIndex['findStale']> {
    return this.#memory.findStale(...args);
  }

  count(): Promise<number> {
    return this.#memory.count();
  }

  bytes(): Promise<number> {
    return this.#memory.bytes();
  }

  clear(): Promise<void> {
    return this.#write('index clear', 'clear', true, true);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #write(kind: string, batch: IndexBatch, durable: boolean, syncsAll: boolean): Promise<void> {
    const path = 'index';
    const parts =
      batch === 'clear'
        ? []
        : 'mark' in batch
          ? [batch.value]
          : [batch.ids, batch.places, batch.deletes ?? new Uint8Array(0)];
    try {
      if (syncsAll)
        await this.#scheduler.run({ kind: 'index sync', path }, (fault) => {
          this.#refuse(fault);
          this.#database.sync(true);
        });
      await this.#scheduler.run({ kind, path, parts }, (fault) => {
        this.#refuse(fault);
        if (this.#random() < 0.1) this.#database.rotate();
        this.#database.append(batch);
        if (!durable) this.#apply(batch);
      });
      if (!durable) return;
      await this.#scheduler.run({ kind: 'index sync', path }, (fault) => {
        this.#refuse(fault);
        this.#database.sync();
        this.#apply(batch);
      });
    } catch (error) {
      const failure = fromIoError(error, 'writing the index', 'store-failed');
      if (failure.code !== 'store-full') this.#failure ??= failure;
      throw failure;
    }
  }

  #refuse(fault: { readonly code: string } | undefined): void {
    if (this.#failure !== undefined)
      throw new PandoError('store-failed', 'the index stopped writing after a failure');
    if (fault !== undefined) throw Object.assign(new Error(fault.code), { code: fault.code });
  }

  /** MemoryChunkIndex does everything in the turn of the call. */
  #apply(batch: IndexBatch): void {
    if (batch === 'clear') void this.#memory.clear();
    else if ('mark' in batch) void this.#memory.setMark(batch.mark, batch.value);
    else void this.#memory.write(batch, true);
  }
}

export type CatalogBatch = readonly CatalogOperation[];

interface Waiting {
  readonly operations: CatalogBatch;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class SimulatedCatalog implements Catalog {
  readonly #memory = new MemoryCatalog();
  readonly #database: Database<CatalogBatch>;
  readonly #scheduler: Scheduler;
  #waiting: Waiting[] = [];
  #running = false;
  #failure: PandoError | undefined;

  constructor(database: Database<CatalogBatch>, scheduler: Scheduler) {
    this.#database = database;
    this.#scheduler = scheduler;
    // Of each record the newest operation is enough. It commits in the turn of the call.
    const newest = new Map<string, CatalogOperation>();
    for (const operation of database.batches().flat())
      newest.set(`${operation.table}\0${operation.key}`, operation);
    void this.#memory.commit([...newest.values()]);
  }

  get failure(): PandoError | undefined {
    return this.#failure;
  }

  get(table: string, key: string): Promise<unknown> {
    return this.#read(table, () => this.#memory.get(table, key));
  }

  getMany(table: string, keys: readonly string[]): Promise<unknown[]> {
    return this.#read(table, () => this.#memory.getMany(table, keys));
  }

  list(table: string, options?: ListOptions): ReturnType<Catalog['list']> {
    return this.#read(table, () => this.#memory.list(table, options));
  }

  commit(operations: readonly CatalogOperation[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ operations: structuredClone(operations), resolve, reject });
      if (!this.#running) void this.#work();
    });
  }

  snapshot(): CatalogSnapshot {
    return this.#memory.snapshot();
  }

  bytes(): Promise<number> {
    return this.#memory.bytes();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #read<T>(path: string, read: () => Promise<T>): Promise<T> {
    return this.#scheduler.run({ kind: 'catalog read', path, isRead: true }, read).then((value) => value);
  }

  /** Those that wait while one is synced go together in the next. */
  async #work(): Promise<void> {
    this.#running = true;
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      try {
        await this.#write(group.flatMap(({ operations }) => operations));
        for (const { resolve } of group) resolve();
      } catch (error) {
        for (const { reject } of group) reject(error as Error);
      }
    }
    this.#running = false;
  }

  async #write(batch: CatalogBatch): Promise<void> {
    const path = 'catalog';
    const parts = [Buffer.from(JSON.stringify(batch))];
    const refuse = (fault: { readonly code: string } | undefined): void => {
      if (this.#failure !== undefined)
        throw new PandoError('store-failed', 'a write to the catalog failed earlier');
      if (fault !== undefined) throw Object.assign(new Error(fault.code), { code: fault.code });
    };
    try {
      await this.#scheduler.run({ kind: 'catalog commit', path, parts }, (fault) => {
        refuse(fault);
        this.#database.append(batch);
      });
      await this.#scheduler.run({ kind: 'catalog sync', path }, (fault) => {
        refuse(fault?.code === 'ENOSPC' ? undefined : fault);
        this.#database.sync();
        void this.#memory.commit(batch);
      });
    } catch (error) {
      const failure = fromIoError(error, 'write to the catalog', 'store-failed');
      if (failure.code !== 'store-full') this.#failure ??= failure;
      throw failure;
    }
  }
}
