/**
 * `pando verify --rebuild-catalog --data DIR`: the catalog of a store that nobody serves, made anew from its mirror in the
 * segments (docs/adr/0005).
 *
 * The new one is made beside the old one, which then stays under another name. Cut short at any point, it can be called again.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { VerifyReport } from '@pando/api';
import { openLevelCatalog, type Catalog, type RecordName } from '@pando/catalog';
import { findAnchors, restoreCatalog, type FoundAnchor, type RestoredCatalog } from '@pando/catalog-mirror';
import type { ChunkStore } from '@pando/chunk-store';
import { isPandoError, nodeFileSystem, PandoError, systemClock } from '@pando/common';
import { fitToLog, type LogFit } from '@pando/volume';
import { verifyOffline } from './rebuild-index.ts';
import { openChunks, removeIndex } from './store.ts';
import { identityOf, readStoreFile, STORE_FILE, storeOfSegments, type StoreFile } from './store-file.ts';
import type { VerifyWork } from './verify.ts';

const CATALOG = 'catalog';
const WITNESS = 'catalog.commits';
const NEW_CATALOG = 'catalog.rebuilt';

export interface CatalogRebuildOptions {
  /** Also when the catalog is whole, and when only an older mirror than the newest can be read. */
  readonly force?: boolean;
  /** Make the index anew first. */
  readonly rebuildIndex?: boolean;
}

export interface CatalogRebuildReport {
  /** When what the catalog holds now was taken, RFC 3339. What was made, renamed or deleted since is not known to it. */
  readonly mirroredAt: string;
  /** Newer mirrors that could not be read to their end. */
  readonly unreadableMirrors: number;
  readonly records: number;
  readonly vms: number;
  readonly backups: number;
  readonly disks: number;
  /** Records that were damaged in the catalog already when they were mirrored, and are not there. */
  readonly unreadable: readonly RecordName[];
  /** Disks that only the log knows: they were made since, and nothing leads to them any more. */
  readonly unknownDisks: LogFit['unknown'];
  /** Numbers of disks that lack writes which were flushed. */
  readonly cutDisks: readonly number[];
  /** What is wrong with the log, if anything. */
  readonly logProblem?: string;
  /** Where the old catalog is, if there was one: name in the data directory. */
  readonly movedTo?: string;
}

export interface CatalogRebuilt {
  readonly catalog: CatalogRebuildReport;
  /** What the disks of the new catalog look like in the segments. */
  readonly verification: VerifyReport;
}

/**
 * Makes the catalog anew, and verifies the store.
 * @throws `store-locked` while a server runs, `store-missing`, `store-foreign`, `store-newer`; `catalog-whole` for one that need not be made anew,
 * `catalog-unmirrored` when there is nothing to make it from, `catalog-corrupt` when only an older mirror can be read, the last but one and the last
 * but not with `force`
 */
export async function rebuildCatalog(
  path: string,
  options: CatalogRebuildOptions = {},
  work: VerifyWork = {},
): Promise<CatalogRebuilt> {
  const store = await storeAt(path);
  const old = await openOld(path, options.force === true);
  try {
    const catalog = await rebuild(path, store, old, options);
    return { catalog, verification: await verifyOffline(path, work) };
  } finally {
    await old?.close();
  }
}

async function storeAt(path: string): Promise<StoreFile> {
  const names = await readdir(path).catch((): string[] => []);
  const found = names.includes(STORE_FILE) ? await readStoreFile(join(path, STORE_FILE)) : undefined;
  const store = found ?? (await storeOfSegments(path, systemClock));
  if (store === undefined) throw new PandoError('store-missing', `there is no store in ${path}`);
  return store;
}

/** The catalog that is there, as far as it opens; as long as it is open, no server starts. @throws `catalog-whole`, `store-locked` */
async function openOld(path: string, force: boolean): Promise<Catalog | undefined> {
  let old: Catalog;
  try {
    old = await openLevelCatalog(join(path, CATALOG), { witness: join(path, WITNESS), mustExist: true });
  } catch (error) {
    if (isPandoError(error, 'catalog-corrupt') || isPandoError(error, 'store-failed')) return undefined;
    throw error;
  }
  const damage = await old.verify?.().catch(() => undefined);
  if (damage?.length !== 0 || force) return old;
  await old.close();
  throw new PandoError('catalog-whole', `the catalog in ${path} can be read to its end`);
}

async function rebuild(
  path: string,
  store: StoreFile,
  old: Catalog | undefined,
  { force = false, rebuildIndex = false }: CatalogRebuildOptions,
): Promise<CatalogRebuildReport> {
  const part = (name: string): string => join(path, name);
  const identity = identityOf(store);
  const { storeId } = identity;
  const parts = { identity, index: part('index'), segments: part('segments') };
  for (const name of ['index', 'segments', 'log']) await nodeFileSystem.makeDirectory(part(name));
  if (rebuildIndex) await removeIndex(parts);
  // Its index has a lock too, should the catalog's be gone under a server that runs.
  const chunks = await openChunks(parts);
  let made: Made;
  try {
    made = await makeNew(part(NEW_CATALOG), chunks, storeId, force);
  } finally {
    await chunks.close();
  }
  const { catalog, anchor, restored, unreadableMirrors } = made;
  let report: Omit<CatalogRebuildReport, 'movedTo'>;
  try {
    const fit = await fitToLog({
      ...{ catalog, fs: nodeFileSystem, logDirectory: part('log'), storeId },
      chunkBytes: store.chunkBytes,
    });
    report = {
      mirroredAt: new Date(anchor.at).toISOString(),
      unreadableMirrors,
      ...restored,
      vms: await countOf(catalog, 'vm'),
      backups: await countOf(catalog, 'backup'),
      disks: await countOf(catalog, 'disk'),
      unknownDisks: fit.unknown,
      cutDisks: fit.cut,
      ...(fit.problem === undefined ? {} : { logProblem: fit.problem.message }),
    };
  } finally {
    await catalog.close();
  }
  await old?.close();
  const movedTo = await swap(path);
  return { ...report, ...(movedTo === undefined ? {} : { movedTo }) };
}

interface Made {
  readonly catalog: Catalog;
  readonly anchor: FoundAnchor;
  readonly restored: RestoredCatalog;
  readonly unreadableMirrors: number;
}

/** A catalog in `directory` from the newest mirror that can be read to its end. */
async function makeNew(
  directory: string,
  chunks: ChunkStore,
  storeId: Uint8Array,
  force: boolean,
): Promise<Made> {
  const anchors = await findAnchors(chunks, storeId);
  const [newest] = anchors;
  if (newest === undefined) {
    throw new PandoError('catalog-unmirrored', 'no mirror of the catalog is in the segments');
  }
  let unreadableMirrors = 0;
  let why: PandoError | undefined;
  for (const anchor of anchors) {
    await rm(directory, { recursive: true, force: true });
    const catalog = await openLevelCatalog(directory);
    try {
      const restored = await restoreCatalog(chunks, anchor, catalog, newest.epoch + 1);
      if (why === undefined || force) return { catalog, anchor, restored, unreadableMirrors };
    } catch (error) {
      await catalog.close();
      if (!isPandoError(error) || error.kind !== 'data') throw error;
      why ??= error;
      unreadableMirrors++;
      continue;
    }
    await catalog.close();
    throw new PandoError(
      'catalog-corrupt',
      `${unreadableMirrors} newer mirrors of the catalog cannot be read (${why.message}); with --force, that of ${new Date(anchor.at).toISOString()} is taken`,
      { cause: why },
    );
  }
  throw new PandoError('catalog-unmirrored', `no mirror of the catalog can be read: ${why!.message}`, {
    cause: why,
  });
}

/** Puts the new catalog into the place of the old one; returns where that is now. */
async function swap(path: string): Promise<string | undefined> {
  const fs = nodeFileSystem;
  let movedTo: string | undefined;
  if ((await readdir(path)).includes(CATALOG)) {
    movedTo = `${CATALOG}.damaged-${new Date(systemClock.now()).toISOString().replace(/[-:.]/g, '')}`;
    await fs.rename(join(path, CATALOG), join(path, movedTo));
    await fs.syncDirectory(path);
  }
  // It speaks of the old one; as long as that is there, it may be all that keeps a server from taking it for whole.
  await rm(join(path, WITNESS), { force: true });
  await fs.syncDirectory(path);
  await fs.rename(join(path, NEW_CATALOG), join(path, CATALOG));
  await fs.syncDirectory(path);
  return movedTo;
}

async function countOf(catalog: Catalog, table: string): Promise<number> {
  const snapshot = catalog.snapshot();
  try {
    let count = 0;
    for await (const _ of snapshot.entries(table)) count++;
    return count;
  } finally {
    await snapshot.close();
  }
}
