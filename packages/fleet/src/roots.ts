/** Roots of disks as users see them. */
import { idToHex } from '@pando/common';
import type { Root } from '@pando/tree';
import { chooseDisk } from './attach.ts';
import type { FleetContext } from './context.ts';
import { holdBackup } from './lookup.ts';
import type { DiskRoot } from './types.ts';

export function toDiskRoot(ctx: FleetContext, { id, size }: Root): DiskRoot {
  return { root: idToHex(id), sizeBytes: size, chunkBytes: ctx.store.chunkBytes };
}

/** Destages what is still in overlays first. */
export function diskRoot(ctx: FleetContext, ref: string, diskName: string): Promise<DiskRoot> {
  return holdBackup(ctx, ref, 'shared', async ({ record }) => {
    const { disk } = chooseDisk(`${record.vmName}@${record.name}`, record.disks, diskName);
    return toDiskRoot(ctx, await ctx.volumes.settle(disk));
  });
}
