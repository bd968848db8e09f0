/** Backups: take, list, delete. */
import { PandoError } from '@pando/common';
import type { FleetContext } from './context.ts';
import { decodeCursor, pageLimit, pageOf } from './cursors.ts';
import { findBackup, holdBackup, holdVm, lookUpVm, vmMissing } from './lookup.ts';
import { checkName, looksLikeId, timeName } from './names.ts';
import {
  backupNameKey,
  getRecord,
  putBackup,
  readAs,
  remove,
  removeBackup,
  vmBackupKey,
  withTags,
  type BackupRecord,
  type StoredBackup,
} from './records.ts';
import type { Backup, Page, PageRequest } from './types.ts';

/** Suffixes -2, -3, … that a default name tries before it takes a part of the id. */
const NAME_SUFFIX_MAX = 9;

export function toBackup({ id, record }: StoredBackup): Backup {
  return {
    id,
    name: record.name,
    vmId: record.vmId,
    vmName: record.vmName,
    lineage: record.lineage,
    createdAt: new Date(record.createdAt).toISOString(),
    disks: record.disks.map(({ name, size }) => ({ name, sizeBytes: size })),
    tags: record.tags ?? [],
    consistency: record.consistency ?? 'crash',
  };
}

/** All disks at one instant; one fork, one commit. */
export async function createBackup(
  ctx: FleetContext,
  ref: string,
  request: { readonly name?: string; readonly consistency?: 'application' },
): Promise<Backup> {
  const given = request.name === undefined ? undefined : checkName('backup name', request.name);
  return holdVm(ctx, ref, 'shared', async (vm) => {
    const id = ctx.newId();
    const createdAt = ctx.clock.now();
    const { name, release } = await reserveName(ctx, vm.id, given, createdAt, id);
    try {
      const about = {
        version: 1,
        name,
        vmId: vm.id,
        vmName: vm.record.name,
        lineage: vm.record.lineage,
        createdAt,
        ...withTags(vm.record.tags),
        ...(request.consistency === undefined ? {} : { consistency: request.consistency }),
      } as const;
      let record: BackupRecord | undefined;
      await ctx.volumes.fork({
        sources: vm.record.disks.map(({ disk }) => disk),
        copies: 1,
        readOnly: true,
        records: ([numbers]) => {
          record = { ...about, disks: vm.record.disks.map((disk, i) => ({ ...disk, disk: numbers![i]! })) };
          return putBackup(id, record);
        },
      });
      return toBackup({ id, record: record! });
    } finally {
      release();
    }
  });
}

/** The given name, or one made of the time; free and reserved. @throws `name-taken` when the given one is not free */
export async function reserveName(
  ctx: FleetContext,
  vmId: string,
  given: string | undefined,
  createdAt: number,
  id: string,
): Promise<{ name: string; release: () => void }> {
  const attempt = async (name: string): Promise<{ name: string; release: () => void }> => {
    const release = ctx.reservations.reserve(
      [`backup/${backupNameKey(vmId, name)}`],
      () => `the backup name ${JSON.stringify(name)}`,
    );
    try {
      if ((await getRecord(ctx.catalog, 'backup-name', backupNameKey(vmId, name))) !== undefined) {
        throw new PandoError('name-taken', `there is a backup named ${JSON.stringify(name)}`);
      }
      return { name, release };
    } catch (error) {
      release();
      throw error;
    }
  };
  if (given !== undefined) return attempt(given);
  const base = timeName(createdAt);
  for (let suffix = 1; suffix <= NAME_SUFFIX_MAX; suffix++) {
    try {
      return await attempt(suffix === 1 ? base : `${base}-${suffix}`);
    } catch (error) {
      if (!(error instanceof PandoError && error.code === 'name-taken')) throw error;
    }
  }
  return attempt(`${base}-${id}`);
}

export async function getBackup(ctx: FleetContext, ref: string): Promise<Backup> {
  return toBackup(await findBackup(ctx, ref));
}

/** Newest first. `vm` may be the name or id of a VM that is gone, as long as it has backups. */
export async function listBackups(
  ctx: FleetContext,
  request: PageRequest & { readonly vm?: string },
): Promise<Page<Backup>> {
  const limit = pageLimit(request);
  if (request.vm === undefined) {
    const before = decodeCursor('backups', request.cursor);
    const found = await ctx.catalog.list('backup', {
      reverse: true,
      limit: limit + 1,
      ...(before === undefined ? {} : { before }),
    });
    return pageOf('backups', limit, found, (entries) =>
      entries.map(({ key, value }) => toBackup({ id: key, record: readAs('backup', key, value) })),
    );
  }
  const vmId = await idOfVm(ctx, request.vm);
  const list = `backups/${vmId}`;
  const before = decodeCursor(list, request.cursor);
  const prefix = vmBackupKey(vmId, '');
  const found = await ctx.catalog.list('vm-backup', {
    prefix,
    reverse: true,
    limit: limit + 1,
    ...(before === undefined ? {} : { before }),
  });
  return pageOf(list, limit, found, async (entries) => {
    const ids = entries.map(({ key }) => key.slice(prefix.length));
    const records = await ctx.catalog.getMany('backup', ids);
    // One that was deleted between the two reads is left out.
    return records.flatMap((value, i) =>
      value === undefined ? [] : [toBackup({ id: ids[i]!, record: readAs('backup', ids[i]!, value) })],
    );
  });
}

/** Id of a VM that is, or that was and has backups. @throws `vm-missing` */
async function idOfVm(ctx: FleetContext, ref: string): Promise<string> {
  const live = await lookUpVm(ctx, ref);
  if (live !== undefined) return live.id;
  if (looksLikeId(ref) && (await getRecord(ctx.catalog, 'vm-gone', ref)) !== undefined) return ref;
  const gone =
    ref.isWellFormed() && Buffer.byteLength(ref) <= 1024 && !ref.includes('\u0000')
      ? await getRecord(ctx.catalog, 'vm-gone-name', ref.normalize('NFC'))
      : undefined;
  if (gone === undefined) throw vmMissing(ref);
  return gone.id;
}

/** @throws `disk-in-use` while a client reads it */
export async function deleteBackup(ctx: FleetContext, ref: string): Promise<void> {
  await holdBackup(ctx, ref, 'exclusive', (backup) =>
    // The VM's lock, so that of the last two backups of a VM that is gone one sees that it is the last.
    ctx.locks.hold(backup.record.vmId, 'exclusive', async () => {
      const clients = ctx.attachments.count(backup.id);
      if (clients > 0) {
        throw new PandoError('disk-in-use', `${clients} clients have backup ${backup.record.name} open`);
      }
      const operations = [...removeBackup(backup), ...(await forgetGoneVm(ctx, backup))];
      await ctx.volumes.remove(
        backup.record.disks.map(({ disk }) => disk),
        () => operations,
      );
    }),
  );
}

/** What to remove with the last backup of a VM that is gone. */
async function forgetGoneVm(
  ctx: FleetContext,
  { record }: StoredBackup,
): Promise<ReturnType<typeof remove>[]> {
  const gone = await getRecord(ctx.catalog, 'vm-gone', record.vmId);
  if (gone === undefined) return [];
  const left = await ctx.catalog.list('vm-backup', { prefix: vmBackupKey(record.vmId, ''), limit: 2 });
  if (left.length > 1) return [];
  const operations = [remove('vm-gone', record.vmId)];
  // A VM of the same name that was deleted later keeps its entry.
  const named = await getRecord(ctx.catalog, 'vm-gone-name', gone.name);
  if (named?.id === record.vmId) operations.push(remove('vm-gone-name', gone.name));
  return operations;
}
