/**
 * What an attachment can say about its disk besides what is allocated, by the name of the context:
 *
 *     qemu:allocation-depth            how old it is: OpenVolume.depths
 *     qemu:dirty-bitmap:<backup>       what has changed since a backup: OpenVolume.differences
 *     x-pando:root[:<root>]            what is not in the tree yet: OpenVolume.pending
 *
 * Nothing is kept for any of them: all is found out when it is asked for, so a backup needs no preparation to be
 * compared with. No lock is taken: a backup that is deleted while it is looked up cannot be opened.
 */
import { idToHex, isPandoError } from '@pando/common';
import type { OpenVolume } from '@pando/volume';
import type { ContextsOf, Reference } from './attachments.ts';
import type { FleetContext } from './context.ts';
import { lookUpBackupFrom } from './lookup.ts';
import { splitExportName } from './names.ts';
import { backupNameKey, readAs, vmBackupKey, type BackupRecord, type StoredDisk } from './records.ts';
import type { DiskContext } from './types.ts';

const DEPTH = 'qemu:allocation-depth';
const BITMAP = 'qemu:dirty-bitmap:';
const ROOT = 'x-pando:root';

/** Records that a list of names reads at once, and in all: a VM may have any number of backups without this disk. */
const LIST_RECORDS = 256;
const LIST_RECORDS_MAX = 10_000;
const NAME_CHARACTERS_MAX = 1024;

/** Contexts of the disk of this name of a VM, or of a backup of that VM. */
export function contextsOf(ctx: FleetContext, vmId: string, diskName: string): ContextsOf {
  return {
    names: (prefix, limit, volume) => contextNames(ctx, vmId, diskName, volume, prefix, limit),
    async open(name, volume, refer) {
      if (name === DEPTH) return context(name, (...range) => volume.depths(...range));
      if (name === ROOT) return context(name, (...range) => volume.pending(...range));
      if (name.startsWith(`${ROOT}:`)) return rootContext(name, volume);
      if (!name.startsWith(BITMAP)) return undefined;
      return openBitmap(ctx, vmId, diskName, volume, name, refer);
    },
  };
}

function context(name: string, describe: DiskContext['describe']): DiskContext {
  return { name, describe, close: () => Promise.resolve() };
}

/** A client knows by the name of the context which root it reads. When there is a new one, nothing is known to be in the old. */
function rootContext(name: string, volume: OpenVolume): DiskContext | undefined {
  const isRoot = (): boolean => name === rootName(volume);
  if (!isRoot()) return undefined;
  return context(name, (offset, length, extentsMax) =>
    isRoot()
      ? volume.pending(offset, length, extentsMax)
      : Promise.resolve({ lengths: [length], flags: [1] }),
  );
}

function rootName(volume: OpenVolume): string {
  return `${ROOT}:${idToHex(volume.root.id)}`;
}

async function openBitmap(
  ctx: FleetContext,
  vmId: string,
  diskName: string,
  volume: OpenVolume,
  name: string,
  refer: (ownerId: string, open: () => Promise<OpenVolume>) => Promise<Reference>,
): Promise<DiskContext | undefined> {
  if (name.length > NAME_CHARACTERS_MAX) return undefined;
  const { owner, disk: wanted } = splitExportName(name.slice(BITMAP.length));
  const backup = await lookUpBackupFrom(ctx, vmId, owner);
  const disk = backup === undefined ? undefined : comparable(backup.record, diskName, wanted);
  if (backup === undefined || disk === undefined) return undefined;
  try {
    const reference = await refer(backup.id, () => ctx.volumes.open(disk.disk));
    return {
      name,
      comparedWith: `${backup.record.vmName}@${backup.record.name}/${disk.name}`,
      describe: (...range) => volume.differences(reference.volume, ...range),
      close: () => reference.close(),
    };
  } catch (error) {
    // It was deleted since it was looked up, or is just being deleted.
    if (isPandoError(error, 'disk-missing') || isPandoError(error, 'disk-in-use')) return undefined;
    throw error;
  }
}

/** The disk of a backup that a disk of this name is compared with. */
function comparable(backup: BackupRecord, diskName: string, wanted?: string): StoredDisk | undefined {
  const name = wanted?.normalize('NFC') ?? diskName;
  const found = backup.disks.find((disk) => disk.name === name);
  return found === undefined && wanted === undefined && backup.disks.length === 1 ? backup.disks[0] : found;
}

async function contextNames(
  ctx: FleetContext,
  vmId: string,
  diskName: string,
  volume: OpenVolume,
  prefix: string,
  limit: number,
): Promise<readonly string[]> {
  const names = [DEPTH, ROOT, rootName(volume)].filter((name) => name.startsWith(prefix)).slice(0, limit);
  const wanted = limit - names.length;
  if (wanted <= 0) return names;
  if (BITMAP.startsWith(prefix)) names.push(...(await newestBitmaps(ctx, vmId, diskName, wanted)));
  else if (prefix.startsWith(BITMAP)) {
    names.push(...(await bitmapsNamed(ctx, vmId, diskName, prefix.slice(BITMAP.length), wanted)));
  }
  return names;
}

/** Of all backups of the VM, newest first. */
async function newestBitmaps(
  ctx: FleetContext,
  vmId: string,
  diskName: string,
  limit: number,
): Promise<string[]> {
  const names: string[] = [];
  const prefix = vmBackupKey(vmId, '');
  let before: string | undefined;
  for (let read = 0; read < LIST_RECORDS_MAX && names.length < limit; read += LIST_RECORDS) {
    const found = await ctx.catalog.list('vm-backup', {
      prefix,
      reverse: true,
      limit: LIST_RECORDS,
      ...(before === undefined ? {} : { before }),
    });
    const ids = found.map(({ key }) => key.slice(prefix.length));
    names.push(...(await bitmapNames(ctx, ids, diskName)));
    before = found.at(-1)?.key;
    if (found.length < LIST_RECORDS) break;
  }
  return names.slice(0, limit);
}

/** Of the backups whose names begin so. */
async function bitmapsNamed(
  ctx: FleetContext,
  vmId: string,
  diskName: string,
  namePrefix: string,
  limit: number,
): Promise<string[]> {
  const isPossible =
    namePrefix.length <= NAME_CHARACTERS_MAX && namePrefix.isWellFormed() && !namePrefix.includes('\u0000');
  if (!isPossible) return [];
  const found = await ctx.catalog.list('backup-name', {
    prefix: backupNameKey(vmId, namePrefix),
    limit: Math.min(limit, LIST_RECORDS_MAX),
  });
  const ids = found.map(({ key, value }) => readAs('backup-name', key, value).id);
  return bitmapNames(ctx, ids.sort().reverse(), diskName);
}

/** Without those that were deleted since, and those that have no disk to compare with. */
async function bitmapNames(ctx: FleetContext, ids: readonly string[], diskName: string): Promise<string[]> {
  const records = await ctx.catalog.getMany('backup', ids);
  return records.flatMap((value, i) => {
    if (value === undefined) return [];
    const record = readAs('backup', ids[i]!, value);
    return comparable(record, diskName) === undefined ? [] : [BITMAP + record.name];
  });
}
