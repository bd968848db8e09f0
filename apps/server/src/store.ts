/** Opens the engine of a data directory, from the bottom up: segments and index, chunk store, volumes, fleet. */
import { rm } from 'node:fs/promises';
import type { Catalog } from '@pando/catalog';
import { openCatalogMirror, type CatalogMirror } from '@pando/catalog-mirror';
import {
  DirectorySegmentStorage,
  LevelChunkIndex,
  openChunkStore,
  type ChunkStore,
} from '@pando/chunk-store';
import {
  isPandoError,
  MiB,
  nodeFileSystem,
  PAGE_BYTES,
  PagePool,
  PandoError,
  systemRandom,
  type Clock,
  type SpaceGuard,
} from '@pando/common';
import type { OnEvent } from '@pando/events';
import { openFleet, type Backup, type OpenFleet } from '@pando/fleet';
import { collect, type GcReport } from '@pando/gc';
import { openVolumes, rootsNow, type OnDestaged, type Volumes } from '@pando/volume';
import type { DataDirectory } from './data-directory.ts';
import { withNames } from './log-loss.ts';
import { FORMAT, writeStoreFile } from './store-file.ts';

/** Memory for what is not destaged yet (176 MiB of it at most) and for cached runs (144). */
const SHARED_PAGES_MAX = (192 * MiB) / PAGE_BYTES;

export interface OpenStore {
  /** What is committed to it is mirrored. */
  readonly catalog: Catalog;
  readonly store: ChunkStore;
  /** Closed after the volumes, before the store. */
  readonly mirror: CatalogMirror;
  readonly volumes: Volumes;
  readonly fleet: OpenFleet;
}

/** What of a data directory the chunk store needs. */
export type ChunkParts = Pick<DataDirectory, 'index' | 'segments' | 'identity'>;

/**
 * Opens the chunk store alone; closing it closes segments and index. An index that is damaged is made anew from the segments:
 * `onRebuild` is told why, before that.
 */
export async function openChunks(
  directory: ChunkParts,
  space?: SpaceGuard,
  onRebuild?: (error: PandoError) => void,
  pages?: PagePool,
): Promise<ChunkStore> {
  try {
    return await openChunksOnce(directory, space, pages);
  } catch (error) {
    if (!isPandoError(error, 'index-corrupt')) throw error;
    onRebuild?.(error);
    await removeIndex(directory);
    return openChunksOnce(directory, space, pages);
  }
}

/** Leaves an empty index, which opening the chunk store fills again from the segments. */
export async function removeIndex(directory: Pick<ChunkParts, 'index'>): Promise<void> {
  await rm(directory.index, { recursive: true, force: true });
  await nodeFileSystem.makeDirectory(directory.index);
}

async function openChunksOnce(
  directory: ChunkParts,
  space?: SpaceGuard,
  pages?: PagePool,
): Promise<ChunkStore> {
  const index = await LevelChunkIndex.open(directory.index);
  const storage = new DirectorySegmentStorage(nodeFileSystem, directory.segments);
  try {
    return await openChunkStore({
      storage,
      index,
      ...directory.identity,
      ...(space === undefined ? {} : { space }),
      ...(pages === undefined ? {} : { pages }),
    });
  } catch (error) {
    await index.close();
    await storage.close();
    throw error;
  }
}

export interface StoreEvents {
  /** Open the write log although it is damaged: `volumes.logLoss` says then what is lost. */
  readonly acceptLogDamage?: boolean;
  /** The directory's catalog was opened although it may be damaged: what it has lost may be of its mirror. */
  readonly acceptCatalogDamage?: boolean;
  /** The index is damaged, and about to be made anew from the segments. */
  readonly onIndexRebuild?: (error: PandoError) => void;
  /** The catalog could not be mirrored; or could again. */
  readonly onMirrorTrouble?: (error: PandoError | undefined) => void;
  readonly onEvent?: OnEvent;
  readonly onExpired?: (backup: Backup) => void;
  readonly onDestaged?: OnDestaged;
}

/** Opens everything; what was opened before something failed is closed again, the directory's catalog excepted. */
export async function openStore(
  directory: DataDirectory,
  clock: Clock,
  space: SpaceGuard,
  {
    acceptLogDamage = false,
    acceptCatalogDamage = false,
    onIndexRebuild,
    onMirrorTrouble,
    onEvent,
    onExpired,
    onDestaged,
  }: StoreEvents = {},
): Promise<OpenStore> {
  const { storeId } = directory;
  const closers: (() => Promise<void>)[] = [];
  try {
    const pages = new PagePool(SHARED_PAGES_MAX);
    const store = await openChunks(directory, space, onIndexRebuild, pages);
    closers.push(() => store.close());
    await raiseFormat(directory);
    const mirror = await openCatalogMirror({
      ...{ catalog: directory.catalog, store, storeId, clock, isDamaged: acceptCatalogDamage },
      ...(onMirrorTrouble === undefined ? {} : { onTrouble: onMirrorTrouble }),
    });
    closers.push(() => mirror.close());
    const { catalog } = mirror;
    const volumes = await openVolumes({
      ...{ store, catalog, fs: nodeFileSystem, logDirectory: directory.log, storeId, clock, space },
      pages,
      ...{ acceptLogDamage, logGate: mirror },
      ...(onDestaged === undefined ? {} : { onDestaged }),
    }).catch(async (error: unknown) => {
      throw await withNames(catalog, error);
    });
    closers.push(() => volumes.close());
    const fleet = await openFleet({
      ...{ catalog, store, volumes, clock, random: systemRandom },
      ...(onEvent === undefined ? {} : { onEvent }),
      ...(onExpired === undefined ? {} : { onExpired }),
    });
    return { catalog, store, mirror, volumes, fleet };
  } catch (error) {
    for (const close of closers.reverse()) await close().catch(() => undefined);
    throw error;
  }
}

/** A program that knows nothing of mirrors would leave this one behind: from now on it refuses the store. */
async function raiseFormat({ path, store }: DataDirectory): Promise<void> {
  if (store.format < FORMAT) await writeStoreFile(path, { ...store, format: FORMAT });
}

export interface GcWork {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { phase: string; done: number; all: number }) => void;
}

/**
 * Frees what no disk record's root reaches. What destages and imports under way hold, their sessions pin; so does the mirror. Nothing is
 * removed before a mirror is durable that needs none of it; on a full disk, where that may need what is to be freed, it has to wait.
 * @throws `catalog-corrupt` when the catalog is damaged: what it has lost is not to be taken for garbage; `store-failed`
 */
export async function collectGarbage(
  { catalog, store, mirror }: OpenStore,
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
  const beforeSweep = (): Promise<void> =>
    mirror.cover().catch((error: unknown) => {
      if (!isPandoError(error, 'store-full')) throw error;
    });
  const options = { ...work, beforeSweep, ...(thorough ? { compactBelow: 1 } : {}) };
  try {
    return await collect(store, () => rootsNow(catalog, store.chunkBytes), options);
  } catch (error) {
    // It may be what is mirrored that cannot be read.
    if (isPandoError(error) && error.kind === 'data') mirror.renew();
    throw error;
  }
}

export function storeState({ volumes, catalog, store }: OpenStore): 'ready' | 'full' | 'failed' {
  const { failure = catalog.failure ?? store.failure, full } = volumes.stats;
  return failure !== undefined ? 'failed' : full ? 'full' : 'ready';
}
