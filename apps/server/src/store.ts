/** Opens the engine of a data directory, from the bottom up: segments and index, chunk store, volumes, fleet. */
import type { Catalog } from '@pando/catalog';
import {
  DirectorySegmentStorage,
  LevelChunkIndex,
  openChunkStore,
  type ChunkStore,
} from '@pando/chunk-store';
import { nodeFileSystem, systemRandom, type Clock, type SpaceGuard } from '@pando/common';
import { openFleet, type OpenFleet } from '@pando/fleet';
import { collect, type GcReport } from '@pando/gc';
import type { Root } from '@pando/tree';
import { checkRecord, DISK_TABLE, openVolumes, rootOf, type Volumes } from '@pando/volume';
import type { DataDirectory } from './data-directory.ts';

export interface OpenStore {
  readonly catalog: Catalog;
  readonly store: ChunkStore;
  readonly volumes: Volumes;
  readonly fleet: OpenFleet;
}

/** Opens the chunk store alone; closing it closes segments and index. */
export async function openChunks(directory: DataDirectory, space?: SpaceGuard): Promise<ChunkStore> {
  const index = await LevelChunkIndex.open(directory.index);
  try {
    return await openChunkStore({
      storage: new DirectorySegmentStorage(nodeFileSystem, directory.segments),
      index,
      storeId: directory.storeId,
      chunkBytes: directory.store.chunkBytes,
      ...(space === undefined ? {} : { space }),
    });
  } catch (error) {
    await index.close();
    throw error;
  }
}

/** Opens everything; what was opened before something failed is closed again, the directory's catalog excepted. */
export async function openStore(
  directory: DataDirectory,
  clock: Clock,
  space: SpaceGuard,
): Promise<OpenStore> {
  const { catalog } = directory;
  const store = await openChunks(directory, space);
  try {
    const volumes = await openVolumes({
      store,
      catalog,
      fs: nodeFileSystem,
      logDirectory: directory.log,
      storeId: directory.storeId,
      clock,
      space,
    });
    try {
      const fleet = await openFleet({ catalog, store, volumes, clock, random: systemRandom });
      return { catalog, store, volumes, fleet };
    } catch (error) {
      await volumes.close();
      throw error;
    }
  } catch (error) {
    await store.close();
    throw error;
  }
}

export interface GcWork {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { phase: string; done: number; all: number }) => void;
}

/** Frees what no disk record's root reaches. What destages and imports under way hold, their sessions pin. */
export function collectGarbage(
  { catalog, store }: OpenStore,
  work: GcWork,
  { thorough = false }: { readonly thorough?: boolean } = {},
): Promise<GcReport> {
  const options = thorough ? { ...work, compactBelow: 1 } : work;
  return collect(store, () => rootsNow(catalog, store.chunkBytes), options);
}

/** Roots of all disks at the instant of the call: the snapshot is taken before anything is awaited. */
function rootsNow(catalog: Catalog, chunkBytes: number): AsyncIterable<Root> {
  const snapshot = catalog.snapshot();
  return (async function* () {
    try {
      for await (const { key, value } of snapshot.entries(DISK_TABLE)) {
        yield rootOf(checkRecord(Number(key), value, chunkBytes));
      }
    } finally {
      await snapshot.close();
    }
  })();
}
