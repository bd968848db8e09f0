/**
 * A machine with the real engine: chunk store in segments, garbage collection, write log and volumes, on a
 * simulated disk that loses power. The index forgets what it had not made durable, as LevelDB may; the
 * catalog is the one in memory, whose commits are durable when they resolve.
 */
import { MemoryCatalog, type Catalog, type CatalogSnapshot } from '@pando/catalog';
import {
  DirectorySegmentStorage,
  MemoryChunkIndex,
  openChunkStore,
  type ChunkIndex,
  type ChunkStore,
} from '@pando/chunk-store';
import { CrashFileSystem } from '@pando/common/testing';
import { collect } from '@pando/gc';
import { DISK_TABLE, checkRecord, rootOf } from '@pando/volume';
import { mortalCatalog, type World } from '@pando/volume/testing';

const CHUNK = 4096;

/** An index that can be crashed: batches after the last durable one survive up to a random point. */
class CrashIndex implements ChunkIndex {
  readonly #memory = new MemoryChunkIndex();
  readonly #history: ((index: MemoryChunkIndex) => Promise<void>)[] = [];
  #durable = 0;
  #dead = false;

  get(ids: Uint8Array, offset: number): Uint8Array | undefined {
    return this.#memory.get(ids, offset);
  }

  write(batch: Parameters<ChunkIndex['write']>[0], durable: boolean): Promise<void> {
    const kept = {
      ids: batch.ids.slice(),
      places: batch.places.slice(),
      count: batch.count,
      ...(batch.deletes === undefined ? {} : { deletes: batch.deletes.slice() }),
    };
    return this.#apply((index) => index.write(kept, true), durable);
  }

  setMark(name: string, value: Uint8Array): Promise<void> {
    const kept = value.slice();
    return this.#apply((index) => index.setMark(name, kept), true);
  }

  getMark(name: string): Promise<Uint8Array | undefined> {
    return this.#memory.getMark(name);
  }

  count(): Promise<number> {
    return this.#memory.count();
  }

  clear(): Promise<void> {
    return this.#apply((index) => index.clear(), true);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async crash(random: () => number): Promise<CrashIndex> {
    this.#dead = true;
    const next = new CrashIndex();
    const kept = this.#durable + Math.floor(random() * (this.#history.length - this.#durable + 1));
    for (const change of this.#history.slice(0, kept)) await next.#apply(change, true);
    return next;
  }

  async #apply(change: (index: MemoryChunkIndex) => Promise<void>, durable: boolean): Promise<void> {
    if (this.#dead) throw new Error('the machine has lost power');
    await change(this.#memory);
    this.#history.push(change);
    if (durable) this.#durable = this.#history.length;
  }
}

export function realWorld(random: () => number): World {
  const records = new MemoryCatalog();
  const boot = (fs: CrashFileSystem, index: Promise<CrashIndex>): World => {
    const { catalog, kill } = mortalCatalog(records);
    let stores: ChunkStore | undefined;
    return {
      fs,
      catalog,
      openStore: async () => {
        stores = await openChunkStore({
          storage: new DirectorySegmentStorage(fs, 'segments'),
          index: await index,
          storeId: new Uint8Array(16).fill(9),
          chunkBytes: CHUNK,
          limits: { segmentBytesMax: 200_000, workers: 0 },
        });
        return stores;
      },
      collect: (store) => collect(store, () => rootsOf(catalog), { compactBelow: 0.9 }),
      crash: () => {
        kill();
        const next = fs.crash(random);
        void stores?.close().catch(() => undefined);
        return boot(
          next,
          index.then((old) => old.crash(random)),
        );
      },
    };
  };
  return boot(new CrashFileSystem(), Promise.resolve(new CrashIndex()));
}

async function* rootsFrom(snapshot: CatalogSnapshot): AsyncGenerator<ReturnType<typeof rootOf>> {
  try {
    for await (const { key, value } of snapshot.entries(DISK_TABLE))
      yield rootOf(checkRecord(Number(key), value, CHUNK));
  } finally {
    await snapshot.close();
  }
}

/** The snapshot is of the instant of the call, not of the first pull. */
function rootsOf(catalog: Catalog): AsyncGenerator<ReturnType<typeof rootOf>> {
  return rootsFrom(catalog.snapshot());
}
