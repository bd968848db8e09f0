/** Restore: as a new VM, or in place. */
import { PandoError } from '@pando/common';
import type { FleetContext } from './context.ts';
import { chooseDisk } from './attach.ts';
import { findBackup, holdBackup, withVmNames } from './lookup.ts';
import { checkName, checkTags } from './names.ts';
import {
  getRecord,
  put,
  readAs,
  remove,
  type StoredBackup,
  type StoredDisk,
  type StoredVm,
} from './records.ts';
import type { Fleet, ImportProgress, Vm, Work } from './types.ts';
import { verifyBackup } from './verify.ts';
import { detachClients, newVm, toVm } from './vms.ts';

export async function restoreBackup(
  ctx: FleetContext,
  ref: string,
  request: Parameters<Fleet['restoreBackup']>[1] & object,
  work: Work<ImportProgress>,
): Promise<Vm> {
  const { id } = await findBackup(ctx, ref);
  const verify = async (): Promise<void> => {
    if (request.verify === true) await verifyBackup(ctx, id, work);
  };
  if (request.as === undefined) {
    await verify();
    return holdBackup(ctx, id, 'shared', (backup) =>
      restoreInPlace(ctx, backup, chosenDisks(backup, request.disk), request.force === true),
    );
  }
  const name = checkName('VM name', request.as);
  const tags = checkTags(request.tags ?? []);
  return withVmNames(ctx, [name], async () => {
    await verify();
    return holdBackup(ctx, id, 'shared', (backup) =>
      restoreAs(ctx, backup, chosenDisks(backup, request.disk), name, tags),
    );
  });
}

/** All disks of a backup, or one. @throws `disk-missing` */
function chosenDisks({ record }: StoredBackup, disk: string | undefined): readonly StoredDisk[] {
  return disk === undefined
    ? record.disks
    : [chooseDisk(`${record.vmName}@${record.name}`, record.disks, disk)];
}

async function restoreAs(
  ctx: FleetContext,
  { record }: StoredBackup,
  disks: readonly StoredDisk[],
  name: string,
  tags: readonly string[],
): Promise<Vm> {
  const vm = newVm(ctx, { name, lineage: record.lineage, tags });
  await ctx.volumes.fork({
    sources: disks.map(({ disk }) => disk),
    copies: 1,
    readOnly: false,
    records: ([numbers]) => vm.store(disks.map((disk, i) => ({ ...disk, disk: numbers![i]! }))),
  });
  return vm.made();
}

async function restoreInPlace(
  ctx: FleetContext,
  backup: StoredBackup,
  disks: readonly StoredDisk[],
  force: boolean,
): Promise<Vm> {
  const { vmId, vmName } = backup.record;
  const isWhole = disks === backup.record.disks;
  return ctx.locks.hold(vmId, 'exclusive', async () => {
    const record = await getRecord(ctx.catalog, 'vm', vmId);
    if (record === undefined) {
      throw new PandoError(
        'vm-missing',
        `the VM ${vmName} of this backup is gone: restore it as a new VM (\`--as\`, \`"as"\`)`,
      );
    }
    const vm = { id: vmId, record };
    const targets = disks.flatMap((disk) => record.disks.filter(({ name }) => name === disk.name));
    if (!isWhole && targets.length === 0) chooseDisk(record.name, record.disks, disks[0]!.name);
    await detachClients(ctx, vm, force, 'restored');
    const same = targets.length === disks.length && (!isWhole || record.disks.length === disks.length);
    const restored = same ? await replaceDisks(ctx, vm, disks, targets) : await swapDisks(ctx, vm, backup);
    return toVm(ctx, restored);
  });
}

/** The usual case: the same disks, or one of them, whose contents and sizes become those of the backup. */
async function replaceDisks(
  ctx: FleetContext,
  vm: StoredVm,
  sources: readonly StoredDisk[],
  targets: readonly StoredDisk[],
): Promise<StoredVm> {
  const pairs = sources.map((source, i) => ({ source, target: targets[i]! }));
  const restored = pairs.map(({ source, target }) => ({ ...target, size: source.size }));
  // All of them in the order of the backup; one of them where it was.
  const isAll = restored.length === vm.record.disks.length;
  const record = {
    ...vm.record,
    disks: isAll
      ? restored
      : vm.record.disks.map((disk) => restored.find(({ name }) => name === disk.name) ?? disk),
  };
  await ctx.volumes.replace(
    pairs.map(({ source, target }) => ({ source: source.disk, target: target.disk })),
    () => [put('vm', vm.id, record)],
  );
  return { id: vm.id, record };
}

/**
 * The VM has other disks than the backup: it gets forks of all of the backup's in one commit, which also notes
 * which old ones have to go. They go in a second commit; after a crash in between, when the fleet is opened.
 */
async function swapDisks(ctx: FleetContext, vm: StoredVm, backup: StoredBackup): Promise<StoredVm> {
  const removal = ctx.newId();
  const old = vm.record.disks.map(({ disk }) => disk);
  let record = vm.record;
  await ctx.volumes.fork({
    sources: backup.record.disks.map(({ disk }) => disk),
    copies: 1,
    readOnly: false,
    records: ([numbers]) => {
      record = {
        ...vm.record,
        disks: backup.record.disks.map((disk, i) => ({ ...disk, disk: numbers![i]! })),
      };
      return [put('vm', vm.id, record), put('disk-removal', removal, { disks: old })];
    },
  });
  await removeDisks(ctx, removal, old);
  return { id: vm.id, record };
}

/** Removes disks that a restore replaced, or an import needed for a moment, also those that an earlier run of the process did not get to. */
export async function finishRemovals(ctx: FleetContext): Promise<void> {
  for (;;) {
    const found = await ctx.catalog.list('disk-removal');
    for (const { key, value } of found) {
      if (!(await removeDisks(ctx, key, readAs('disk-removal', key, value).disks))) return;
    }
    if (found.length === 0) return;
  }
}

/** Resolves to false when it has to be tried again later: the restore itself is done. */
export async function removeDisks(
  ctx: FleetContext,
  removal: string,
  disks: readonly number[],
): Promise<boolean> {
  try {
    await ctx.volumes.remove(disks, () => [remove('disk-removal', removal)]);
    return true;
  } catch (error) {
    if (error instanceof PandoError && error.kind === 'unavailable') return false;
    throw error;
  }
}
