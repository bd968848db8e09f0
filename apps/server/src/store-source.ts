/** The data directory of another store, or a copy of this one, as a source of chunks: read as it lies there, never opened. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DirectorySegmentStorage, openStoredChunks } from '@pando/chunk-store';
import { isPandoError, nodeFileSystem, PandoError, type DiskPart } from '@pando/common';

export interface StoreSource {
  /** Of its data chunks. */
  readonly chunkBytes: number;
  readonly sizeBytes: number;
  /** Runs that could not be read so far. */
  readonly lostRuns: number;
  parts(signal: AbortSignal): AsyncIterable<DiskPart>;
  close(): Promise<void>;
}

/**
 * Opens a data directory, or its directory of segments alone. Needs neither index nor catalog nor lock, and writes nothing.
 * @throws `store-missing` where there are no segments, `store-newer`, `source-failed`
 */
export async function openStoreSource(path: string): Promise<StoreSource> {
  const below = join(path, 'segments');
  const directory = (await isDirectory(below)) ? below : path;
  const storage = new DirectorySegmentStorage(nodeFileSystem, directory);
  const failed = (error: unknown): unknown =>
    isPandoError(error, 'store-failed')
      ? new PandoError('source-failed', `reading ${directory}: ${error.message}`, { cause: error })
      : error;
  try {
    const stored = (await isDirectory(directory)) ? await openStoredChunks(storage) : undefined;
    if (stored === undefined)
      throw new PandoError('store-missing', `there are no segments of one store in ${path}`);
    return {
      chunkBytes: stored.chunkBytes,
      sizeBytes: stored.sizeBytes,
      get lostRuns() {
        return stored.lostRuns;
      },
      parts: (signal) => stored.parts(signal),
      close: () => storage.close(),
    };
  } catch (error) {
    await storage.close();
    throw failed(error);
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return readdir(path).then(
    () => true,
    () => false,
  );
}
