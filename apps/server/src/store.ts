/** Opens the engine of a data directory, from the bottom up: segments and index, chunk store, volumes, fleet. */
import { rm } from 'node:fs/promises';
import type { Catalog } from '@pando/catalog';
import {
  DirectorySegmentStorage,
  LevelChunkIndex,
  openChunkStore,
  type ChunkStore,
} from '@pando/chunk-store';
import {
  isPandoError,
  nodeFileSystem,
  PandoError,
  systemRandom,
  type Clock,
  type SpaceGuard,
} from '@pando/common';
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

/**
 * Opens the chunk store alone; closing it closes segments and index. An index that is damaged is made anew from the segments:
 * `onRebuild` is told why, before that.
 */
export async function openChunks(
  directory: DataDirectory,
  space?: SpaceGuard,
  onRebuild?: (error: PandoError) => void,
): Promise<ChunkStore> {
  try {
    return await openChunksOnce(directory, space);
  } catch (error) {
    if (!isPandoError(error, 'index-corrupt')) throw error;
    onRebuild?.(error);
    await removeIndex(directory);
    return openChunksOnce(directory, space);
  }
}

/** Leaves an empty index, which opening the chunk store fills again from the segments. */
export async function removeIndex(directory: DataDirectory): Promise<void> {
  await rm(directory.index, { recursive: true, force: true });
  await nodeFileSystem.makeDirectory(directory.index);
}

async function openChunksOnce(directory: DataDirectory, space?: SpaceGuard): Promise<ChunkStore> {
  const index = await LevelChunkIndex.open(directory.index);
  const storage = new DirectorySegmentStorage(nodeFileSystem, directory.segments);
  try {
    return await openChunkStore({
      storage,
      index,
      storeId: directory.storeId,
      chunkBytes: directory.store.chunkBytes,
      ...(space === undefined ? {} : { space }),
    });
  } catch (error) {
    await index.close();
    await storage.close();
    throw error;
  }
}

/** Opens everything; what was opened before something failed is closed again, the directory's catalog excepted. */
export async function openStore(
  directory: DataDirectory,
  clock: Clock,
  space: SpaceGuard,
  onRebuild?: (error: PandoError) => void,
): Promise<OpenStore> {
  const { catalog } = directory;
  const store = await openChunks(directory, space, onRebuild);
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

/**
 * Frees what no disk record's root reaches. What destages and imports under way hold, their sessions pin.
 * @throws `catalog-corrupt` when the catalog is damaged: what it has lost is not to be taken for garbage
 */
export async function collectGarbage(
  { catalog, store }: OpenStore,
  work: GcWork,
  { thorough = false }: { readonly thorough?: boolean } = {},
): Promise<GcReport> {
  const [damage] = (await catalog.verify?.({ filesOnly: true })) ?? [];
  if (damage !== undefined) {
    const { file, offset, problem } = damage;
    throw new PandoError(
      'catalog-corrupt',
      `nothing is collected: the catalog is damaged: ${file} at byte ${offset}: ${problem}`,
    );
  }
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
