/** All disks of VMs and backups with their roots, for whoever walks their trees. */
import type { Catalog } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { Root } from '@pando/tree';
import type { DiskNumber } from '@pando/volume';
import { diskKey, getRecord, readAs } from './records.ts';

export interface OwnedDisk {
  readonly kind: 'vm' | 'backup';
  /** Id of the VM or backup. */
  readonly id: string;
  /** `web`, or `web@monday`. */
  readonly name: string;
  /** Name of the disk. */
  readonly disk: string;
  readonly number: DiskNumber;
  /** What of it has been destaged; what is in an overlay is not in the tree yet. */
  readonly root: Root;
}

/**
 * The disks of the instant at which the first one is asked for: VMs first, each kind in the order of creation.
 * @throws `catalog-corrupt`, `store-newer`
 */
export async function* listOwnedDisks(catalog: Catalog): AsyncGenerator<OwnedDisk, void, undefined> {
  const snapshot = catalog.snapshot();
  try {
    for (const kind of ['vm', 'backup'] as const) {
      for await (const { key: id, value } of snapshot.entries(kind)) {
        const owner = readAs(kind, id, value);
        const name = 'vmName' in owner ? `${owner.vmName}@${owner.name}` : owner.name;
        for (const { name: diskName, disk } of owner.disks) {
          const record = await getRecord(snapshot, 'disk', diskKey(disk));
          if (record === undefined) {
            throw new PandoError('catalog-corrupt', `disk ${disk} (${name}/${diskName}) has no record`);
          }
          const { rootId, rootHeight, rootSize } = record;
          const root = { id: rootId, height: rootHeight, size: rootSize };
          yield { kind, id, name, disk: diskName, number: disk, root };
        }
      }
    }
  } finally {
    await snapshot.close();
  }
}
