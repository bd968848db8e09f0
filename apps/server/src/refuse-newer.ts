/**
 * Parts of a store that a newer Pando wrote, found before anything of the store is opened: opening alone would write to its
 * LevelDB databases, and recovery to its segments. store.json says it as a rule; this is for one that was put back.
 */
import { join } from 'node:path';
import { DirectorySegmentStorage, refuseNewerSegment } from '@pando/chunk-store';
import { nodeFileSystem } from '@pando/common';
import { refuseNewerLog } from '@pando/write-log';

const SEGMENT = /^(\d{12})\.seg$/;

/** Looks at the newest segment and at the log of a data directory. @throws `store-newer` */
export async function refuseNewerParts(path: string): Promise<void> {
  const directory = join(path, 'segments');
  const names = await nodeFileSystem.list(directory).catch(() => []);
  const newest = Math.max(0, ...names.map((name) => Number(SEGMENT.exec(name)?.[1] ?? 0)));
  const storage = new DirectorySegmentStorage(nodeFileSystem, directory);
  try {
    if (newest > 0) await refuseNewerSegment(storage, newest);
  } finally {
    await storage.close();
  }
  await refuseNewerLog(nodeFileSystem, join(path, 'log'));
}
