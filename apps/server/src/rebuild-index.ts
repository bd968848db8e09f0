/** `pando verify --rebuild-index --data DIR`: the index of a store that nobody serves, made anew from its segments. */
import type { RepairReport, RepairSource, VerifyReport } from '@pando/api';
import type { ChunkStore } from '@pando/chunk-store';
import { systemClock } from '@pando/common';
import { openDataDirectory, type DataDirectory } from './data-directory.ts';
import { openChunks, removeIndex } from './store.ts';
import { repair, type RepairWork } from './repair.ts';
import { verifyAndKeep, type VerificationParts } from './verification.ts';
import { verifyLogOf, type VerifyWork } from './verify.ts';

/**
 * Removes the index, makes it anew, and checks every chunk. Cut short, the next start makes it anew as well.
 * @throws `store-locked` while a server runs, `store-missing`, `store-foreign`, `store-newer`
 */
export async function rebuildIndex(path: string, work: VerifyWork = {}): Promise<VerifyReport> {
  return offline(path, async (directory) => {
    await removeIndex(directory);
    return verifyChunks(directory, work);
  });
}

/** Verifies a store that nobody serves; with `resume` from where an unfinished one was cut off. */
export async function verifyOffline(
  path: string,
  work: VerifyWork = {},
  options: { readonly resume?: boolean } = {},
): Promise<VerifyReport> {
  return offline(path, (directory) => verifyChunks(directory, work, options));
}

/** Repairs a store that nobody serves: see `repair`. */
export async function repairOffline(
  path: string,
  source: RepairSource,
  work: RepairWork = {},
): Promise<RepairReport> {
  return offline(path, async (directory) => {
    const store = await openChunks(directory);
    try {
      return await repair(partsOf(directory, store), source, work);
    } finally {
      await store.close();
    }
  });
}

async function offline<T>(path: string, action: (directory: DataDirectory) => Promise<T>): Promise<T> {
  const directory = await openDataDirectory(path, { clock: systemClock, create: false });
  try {
    return await action(directory);
  } finally {
    await directory.catalog.close();
  }
}

async function verifyChunks(
  directory: DataDirectory,
  work: VerifyWork,
  options: { readonly resume?: boolean } = {},
): Promise<VerifyReport> {
  const store = await openChunks(directory);
  try {
    return await verifyAndKeep(partsOf(directory, store), work, options);
  } finally {
    await store.close();
  }
}

function partsOf(directory: DataDirectory, store: ChunkStore): VerificationParts {
  const { catalog } = directory;
  return { catalog, store, clock: systemClock, verifyLog: () => verifyLogOf(directory) };
}
