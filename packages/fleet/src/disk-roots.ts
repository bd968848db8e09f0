/** All disks of VMs and backups with their roots, for whoever walks their trees. */
import type { Catalog, CatalogSnapshot } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { Root } from '@pando/tree';
import type { DiskNumber } from '@pando/volume';
import { diskKey, readAs, type StoredDisk } from './records.ts';

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

/** Records that are read at once: many enough that the call does not count, few enough to be nothing in memory. */
export const READ_AT_ONCE = 256;

/**
 * The roots of these disks, in their order; equal neighbours are one object.
 * @throws `catalog-corrupt`, `store-newer`
 */
export async function readRoots(
  snapshot: CatalogSnapshot,
  disks: readonly Pick<StoredDisk, 'name' | 'disk'>[],
): Promise<readonly Root[]> {
  const keys = disks.map(({ disk }) => diskKey(disk));
  const values = await snapshot.getMany('disk', keys);
  let last: Root | undefined;
  return values.map((value, i) => {
    if (value === undefined) {
      const { name, disk } = disks[i]!;
      throw new PandoError('catalog-corrupt', `disk ${disk} (${name}) has no record`);
    }
    const { rootId, rootHeight: height, rootSize: size } = readAs('disk', keys[i]!, value);
    const isSame = last?.height === height && last.size === size && Buffer.compare(last.id, rootId) === 0;
    // A copy: the record's bytes would be kept for the sake of 32 of them.
    return isSame ? last! : (last = { id: Uint8Array.from(rootId), height, size });
  });
}

/**
 * The disks of the instant at which the first one is asked for: VMs first, each kind in the order of creation.
 * @throws `catalog-corrupt`, `store-newer`
 */
export async function* listOwnedDisks(catalog: Catalog): AsyncGenerator<OwnedDisk, void, undefined> {
  const snapshot = catalog.snapshot();
  try {
    for (const kind of ['vm', 'backup'] as const) {
      let found: Omit<OwnedDisk, 'root'>[] = [];
      for await (const { key: id, value } of snapshot.entries(kind)) {
        const owner = readAs(kind, id, value);
        const name = 'vmName' in owner ? `${owner.vmName}@${owner.name}` : owner.name;
        for (const { name: disk, disk: number } of owner.disks) found.push({ kind, id, name, disk, number });
        if (found.length < READ_AT_ONCE) continue;
        yield* withRoots(snapshot, found);
        found = [];
      }
      yield* withRoots(snapshot, found);
    }
  } finally {
    await snapshot.close();
  }
}

async function* withRoots(
  snapshot: CatalogSnapshot,
  found: readonly Omit<OwnedDisk, 'root'>[],
): AsyncGenerator<OwnedDisk, void, undefined> {
  const disks = found.map(({ name, disk, number }) => ({ name: `${name}/${disk}`, disk: number }));
  const roots = await readRoots(snapshot, disks);
  for (const [i, disk] of found.entries()) yield { ...disk, root: roots[i]! };
}
