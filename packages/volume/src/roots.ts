/** The roots that a collection of garbage starts from. */
import type { Catalog } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { Root } from '@pando/tree';
import { DISK_TABLE, checkRecord, rootOf } from './disk.ts';

/**
 * Roots of all disks at the instant of the call: the snapshot is taken before anything is awaited.
 * @throws `store-failed` when a commit to the catalog has failed: whether it is there after a restart nobody knows, and so
 * what only its roots reach may not be taken for garbage
 */
export function rootsNow(catalog: Catalog, chunkBytes: number): AsyncGenerator<Root, void, undefined> {
  if (catalog.failure !== undefined) {
    throw new PandoError('store-failed', 'nothing is collected since a commit to the catalog has failed', {
      cause: catalog.failure,
    });
  }
  const snapshot = catalog.snapshot();
  return (async function* () {
    try {
      for await (const { key, value } of snapshot.entries(DISK_TABLE))
        yield rootOf(checkRecord(Number(key), value, chunkBytes));
    } finally {
      await snapshot.close();
    }
  })();
}
