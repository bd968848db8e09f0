/**
 * A machine with the real engine: chunk store in segments, garbage collection, write log and volumes, on a
 * simulated disk that loses power. The index forgets what it had not made durable, as LevelDB may; the
 * catalog is the one in memory, whose commits are durable when they resolve.
 */
import { MemoryCatalog, type Catalog } from '@pando/catalog';
import { findAnchors, openCatalogMirror, restoreCatalog, type CatalogMirror } from '@pando/catalog-mirror';
import {
  DirectorySegmentStorage,
  MemoryChunkIndex,
  openChunkStore,
  type ChunkIndex,
  type ChunkStore,
} from '@pando/chunk-store';
import { systemClock, type Clock } from '@pando/common';
import { CrashFileSystem } from '@pando/common/testing';
import { collect } from '@pando/gc';
import { fitToLog, rootsNow, type LogGate } from '@pando/volume';
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

  findStale(...args: Parameters<ChunkIndex['findStale']>): ReturnType<ChunkIndex['findStale']> {
    return this.#memory.findStale(...args);
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

const STORE_ID = new Uint8Array(16).fill(9);

/** A world of which nothing has happened yet. */
type MakeWorld = (random: () => number) => World;

export function realWorld(hashKey?: Uint8Array): MakeWorld {
  return (random) => new RealWorld(random, newMachine(hashKey));
}

/** What of a world is there when the power is gone. */
interface Disks {
  readonly fs: CrashFileSystem;
  readonly index: Promise<CrashIndex>;
  readonly records: MemoryCatalog;
  /** With which ids are keyed; undefined when they are not. */
  readonly hashKey: Uint8Array | undefined;
}

function newMachine(hashKey: Uint8Array | undefined): Disks {
  return {
    fs: new CrashFileSystem(),
    index: Promise.resolve(new CrashIndex()),
    records: new MemoryCatalog(),
    hashKey,
  };
}

class RealWorld implements World {
  protected readonly random: () => number;
  protected disks: Disks;
  #mortal: ReturnType<typeof mortalCatalog> | undefined;
  #store: ChunkStore | undefined;

  constructor(random: () => number, disks: Disks) {
    this.random = random;
    this.disks = disks;
  }

  get fs(): CrashFileSystem {
    return this.disks.fs;
  }

  /** The catalog as this process sees it. */
  get catalog(): Catalog {
    this.#mortal ??= mortalCatalog(this.disks.records);
    return this.#mortal.catalog;
  }

  async openStore(): Promise<ChunkStore> {
    this.#store = await openChunkStore({
      storage: new DirectorySegmentStorage(this.fs, 'segments'),
      index: await this.disks.index,
      storeId: STORE_ID,
      chunkBytes: CHUNK,
      hashKey: this.disks.hashKey,
      limits: { segmentBytesMax: 200_000, workers: 0 },
    });
    return this.#store;
  }

  collect(store: ChunkStore): Promise<unknown> {
    return collect(store, () => rootsNow(this.catalog, CHUNK), { compactBelow: 0.9 });
  }

  crash(): World {
    return new RealWorld(this.random, this.end());
  }

  /** The power is gone: what is on the disks at the next boot. */
  protected end(): Disks {
    const { fs, index, records, hashKey } = this.disks;
    this.#mortal ??= mortalCatalog(records);
    this.#mortal.kill();
    const after = fs.crash(this.random);
    void this.#store?.close().catch(() => undefined);
    return { fs: after, index: index.then((old) => old.crash(this.random)), records, hashKey };
  }
}

/** A thousand times faster than the real one, so that mirrors come in the middle of everything. */
const quick: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * 1000,
  sleep: (ms, signal) => systemClock.sleep(ms / 1000, signal),
};

/** A world whose catalog is mirrored, and can be lost. */
export function mirroredWorld(hashKey?: Uint8Array): MakeWorld {
  return (random) => new MirroredWorld(random, newMachine(hashKey));
}

class MirroredWorld extends RealWorld {
  #mirror: CatalogMirror | undefined;

  override get catalog(): Catalog {
    return this.#mirror?.catalog ?? super.catalog;
  }

  override async openStore(): Promise<ChunkStore> {
    const store = await super.openStore();
    // Mirrors all the time, or when one is asked for: then much happens after the newest.
    const clock = this.random() < 0.5 ? quick : systemClock;
    this.#mirror = await openCatalogMirror({ catalog: super.catalog, store, storeId: STORE_ID, clock });
    return store;
  }

  override collect(store: ChunkStore): Promise<unknown> {
    const beforeSweep = (): Promise<void> => this.#mirror!.cover();
    return collect(store, () => rootsNow(this.catalog, CHUNK), { compactBelow: 0.9, beforeSweep });
  }

  override crash(): World {
    const mirror = this.#mirror;
    const disks = this.end();
    void mirror?.close().catch(() => undefined);
    return new MirroredWorld(this.random, disks);
  }

  gate(): LogGate {
    return this.#mirror!;
  }

  cover(): Promise<void> {
    return this.#mirror!.cover();
  }

  async loseCatalog(): Promise<void> {
    const { current } = (await this.disks.records.get('~mirror', 'state')) as { current?: Sequence };
    const store = await super.openStore();
    // The newest, also one that was being written: an anchor is there when all that it leads to is.
    const [anchor] = await findAnchors(store, STORE_ID);
    if (current !== undefined && (anchor === undefined || compare(anchor, current) < 0))
      throw new Error('the recorded mirror is gone');
    if (anchor === undefined) {
      await store.close();
      return;
    }
    const catalog = new MemoryCatalog();
    await restoreCatalog(store, anchor, catalog, anchor.epoch + 1);
    await store.close();
    const log = { fs: this.fs, logDirectory: 'log', storeId: STORE_ID };
    const { cut } = await fitToLog({ ...log, catalog, chunkBytes: CHUNK });
    if (cut.length > 0) throw new Error(`overlays of disks ${cut.join(', ')} are not in the log any more`);
    this.disks = { ...this.disks, records: catalog };
  }
}

interface Sequence {
  readonly epoch: number;
  readonly count: number;
}

function compare(a: Sequence, b: Sequence): number {
  return a.epoch - b.epoch || a.count - b.count;
}
