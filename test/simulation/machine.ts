/**
 * A simulated machine, the engine's whole world: a disk for log and segments, the databases of index and catalog, a clock,
 * dice. A boot runs on it until the power goes, the process is killed, or it ends; the machine of the next boot has what
 * survived. `image` keeps what it holds at one instant, cheaply: bytes are shared.
 */
import {
  DirectorySegmentStorage,
  MemoryChunkIndex,
  MemorySegmentStorage,
  openChunkStore,
  type ChunkStore,
} from '@pando/chunk-store';
import { CrashFileSystem, seededRandom } from '@pando/common/testing';
import type { Catalog } from '@pando/catalog';
import { openFleet, type OpenFleet } from '@pando/fleet';
import { collect, type GcReport } from '@pando/gc';
import { openVolumes, rootsNow, type Volumes } from '@pando/volume';
import { Database } from './database.ts';
import { SimulatedCatalog, SimulatedIndex, type CatalogBatch, type IndexBatch } from './level-models.ts';
import { Scheduler, type Operation } from './scheduler.ts';

export const CHUNK_BYTES = 4096;
const STORE_ID = new Uint8Array(16).fill(9);

/** What is stored, at one instant. */
export interface Image {
  readonly disk: CrashFileSystem;
  readonly index: Database<IndexBatch>;
  readonly catalog: Database<CatalogBatch>;
  readonly now: number;
}

/** How a boot ends. */
export type Ending = 'kill' | 'powerCut';

/** Sizes that differ from run to run: small ones, so that little work meets every bound. */
export interface Tuning {
  readonly segmentBytesMax: number;
  readonly logFileBytes: number;
  readonly logBytesMax: number;
  readonly overlayBytesMax: number;
  readonly destageAfterMs: number;
  readonly cacheBytes: number;
  readonly pendingBytesMax: number;
  /** With which ids are keyed; undefined when they are not. */
  readonly hashKey?: Uint8Array | undefined;
}

export interface Engine {
  readonly store: ChunkStore;
  readonly catalog: Catalog;
  readonly volumes: Volumes;
  readonly fleet: OpenFleet;
  collect(thorough: boolean): Promise<GcReport>;
  close(): Promise<void>;
}

export class Machine {
  readonly scheduler: Scheduler;
  readonly #disk: CrashFileSystem;
  readonly #index: Database<IndexBatch>;
  readonly #catalog: Database<CatalogBatch>;
  readonly #random: () => number;

  /** @param seed of this boot: of the order of operations, and of the engine's own dice */
  constructor(image: Image, seed: number) {
    const random = seededRandom(seed);
    this.#random = random;
    this.scheduler = new Scheduler(random, image.now);
    this.#disk = image.disk;
    this.#index = image.index;
    this.#catalog = image.catalog;
    this.#disk.schedule = (operation, run) => {
      const { kind, path, at, parts } = operation;
      return this.scheduler.run(
        { kind, path, at, parts, isRead: kind === 'read' || kind === 'open' } satisfies Operation,
        run,
      );
    };
  }

  get disk(): CrashFileSystem {
    return this.#disk;
  }

  image(): Image {
    return {
      disk: this.#disk.copy(),
      index: this.#index.copy(),
      catalog: this.#catalog.copy(),
      now: this.scheduler.now,
    };
  }

  /** Nothing of this boot happens any more. */
  off(): void {
    this.scheduler.stop();
  }

  /** Starts the engine as a server does. */
  async open(tuning: Tuning): Promise<Engine> {
    const { clock } = this.scheduler;
    const catalog = new SimulatedCatalog(this.#catalog, this.scheduler);
    const { cacheBytes, pendingBytesMax, segmentBytesMax, hashKey } = tuning;
    const store = await openChunkStore({
      storage: new DirectorySegmentStorage(this.#disk, 'segments', 4),
      index: new SimulatedIndex(this.#index, this.scheduler, this.#random),
      storeId: STORE_ID,
      chunkBytes: CHUNK_BYTES,
      hashKey,
      limits: {
        segmentBytesMax,
        pendingBytesMax,
        runCacheBytes: cacheBytes,
        nodeCacheBytes: cacheBytes,
        recentPlacesMax: 64,
        placeHintsMax: 256,
        batchesInFlightMax: 2,
        staleEntriesFew: 0, // so that they are swept now and then
        workers: 0,
      },
    });
    const volumes = await openVolumes({
      store,
      catalog,
      fs: this.#disk,
      logDirectory: 'log',
      storeId: STORE_ID,
      clock,
      overlayBytesMax: tuning.overlayBytesMax,
      logBytesMax: tuning.logBytesMax,
      logFileBytes: tuning.logFileBytes,
      destageAfterMs: tuning.destageAfterMs,
    });
    const fill = (target: Uint8Array): void => {
      for (let i = 0; i < target.byteLength; i++) target[i] = Math.floor(this.#random() * 256);
    };
    const fleet = await openFleet({ catalog, store, volumes, clock, random: { fill } });
    return {
      store,
      catalog,
      volumes,
      fleet,
      collect: (thorough) =>
        collect(store, () => rootsNow(catalog, CHUNK_BYTES), thorough ? { compactBelow: 1 } : {}),
      close: async () => {
        await fleet.close();
        await volumes.close();
        await store.close();
        await catalog.close();
      },
    };
  }
}

/** Gets ready, once for the process, what the engine does with the real clock: its decoder is WebAssembly that has to be compiled. */
export async function prepare(): Promise<void> {
  const store = await openChunkStore({
    storage: new MemorySegmentStorage(),
    index: new MemoryChunkIndex(),
    storeId: STORE_ID,
    chunkBytes: CHUNK_BYTES,
    limits: { workers: 0 },
  });
  await store.close();
}

export function emptyImage(): Image {
  return { disk: new CrashFileSystem(), index: new Database(), catalog: new Database(), now: 0 };
}

/** A copy that can be booted, beside others of the same image. */
export function copyOf(image: Image): Image {
  const { disk, index, catalog, now } = image;
  return { disk: disk.copy(), index: index.copy(), catalog: catalog.copy(), now };
}

/** What the next boot finds. Consumes the image. */
export function ended(image: Image, how: Ending, random: () => number): Image {
  const { disk, index, catalog, now } = image;
  if (how === 'kill') return { disk: disk.kill(), index: index.kill(), catalog: catalog.kill(), now };
  return {
    disk: disk.powerCut(random),
    index: index.powerCut(random),
    catalog: catalog.powerCut(random),
    now,
  };
}
