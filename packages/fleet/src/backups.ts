/** Backups: take, list, change, delete, expire. */
import type { CatalogEntry, CatalogOperation } from '@pando/catalog';
import { isPandoError, PandoError } from '@pando/common';
import {
  checkAttributes,
  checkLabel,
  isLocked,
  lockedError,
  type AttributeChange,
} from './backup-attributes.ts';
import type { FleetContext } from './context.ts';
import { decodeCursor, pageLimit, pageOf } from './cursors.ts';
import { backupMissing, findBackup, holdBackup, holdVm, lookUpVm, vmMissing } from './lookup.ts';
import { checkName, looksLikeId, timeName } from './names.ts';
import {
  backupNameKey,
  changeBackup as changed,
  expiryOf,
  getRecord,
  labelPrefix,
  policyPrefix,
  put,
  putBackup,
  readAs,
  remove,
  removeBackup,
  vmBackupKey,
  withTags,
  type BackupRecord,
  type StoredBackup,
} from './records.ts';
import type { Page, PageRequest } from './page-types.ts';
import type { Backup, BackupAttributes, BackupFilter, Fleet } from './types.ts';

/** Suffixes -2, -3, … that a default name tries before it takes a part of the id. */
const NAME_SUFFIX_MAX = 9;

export function toBackup({ id, record }: StoredBackup): Backup {
  const { note, lockedUntil, expiresAt, policy, unchanged } = record;
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
    labels: record.labels ?? {},
    ...(note === undefined ? {} : { note }),
    ...(lockedUntil === undefined ? {} : { lockedUntil: toInstant(lockedUntil) }),
    ...(expiresAt === undefined ? {} : { expiresAt: expiresAt === 'never' ? 'never' : toInstant(expiresAt) }),
    ...(policy === undefined ? {} : { policy: { ...policy, dueAt: toInstant(policy.dueAt) } }),
    ...(unchanged === undefined ? {} : { unchanged }),
  };
}

const toInstant = (ms: number): string => new Date(ms).toISOString();

/** The record with these attributes instead of its own. */
function withAttributes(record: BackupRecord, change: AttributeChange): BackupRecord {
  const entries = Object.entries({ ...record, ...change }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as unknown as BackupRecord;
}

/** The mark of the clock goes with every lock and date. */
function marked(ctx: FleetContext, { lockedUntil, expiresAt }: AttributeChange): CatalogOperation[] {
  return lockedUntil !== undefined || typeof expiresAt === 'number' ? ctx.time.mark() : [];
}

/** All disks at one instant; one fork, one commit. */
export async function createBackup(
  ctx: FleetContext,
  ref: string,
  { name: named, policy, consistency, ...attributes }: Parameters<Fleet['createBackup']>[1] & object,
): Promise<Backup> {
  const given = named === undefined ? undefined : checkName('backup name', named);
  const change = checkAttributes(ctx, attributes);
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
        ...(consistency === undefined ? {} : { consistency }),
        ...(policy === undefined ? {} : { policy }),
      } as const;
      let record: BackupRecord | undefined;
      await ctx.volumes.fork({
        sources: vm.record.disks.map(({ disk }) => disk),
        copies: 1,
        readOnly: true,
        records: ([numbers]) => {
          const disks = vm.record.disks.map((disk, i) => ({ ...disk, disk: numbers![i]! }));
          record = withAttributes({ ...about, disks }, change);
          return [...putBackup(id, record), put('backup-compare', id, {}), ...marked(ctx, change)];
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
  request: PageRequest & BackupFilter,
): Promise<Page<Backup>> {
  const limit = pageLimit(request);
  const index = await indexOf(ctx, request);
  const list = index === undefined ? 'backups' : `backups/${index.prefix}`;
  const before = decodeCursor(list, request.cursor);
  const range = { reverse: true, limit: limit + 1, ...(before === undefined ? {} : { before }) };
  if (index === undefined) {
    return pageOf(list, limit, await ctx.catalog.list('backup', range), (entries) =>
      entries.map(({ key, value }) => toBackup({ id: key, record: readAs('backup', key, value) })),
    );
  }
  const found = await ctx.catalog.list(index.table, { ...range, prefix: index.prefix });
  return pageOf(list, limit, found, (entries) => backupsOf(ctx, entries));
}

/** The index that lists the backups that are asked for; undefined: all there are. */
async function indexOf(
  ctx: FleetContext,
  { vm, label, policy, rule }: BackupFilter,
): Promise<{ table: 'vm-backup' | 'backup-mark'; prefix: string } | undefined> {
  if (label !== undefined && (vm ?? policy) !== undefined) {
    throw new PandoError('request-invalid', 'either "label", or "vm" and "policy"');
  }
  if (rule !== undefined && (vm === undefined || policy === undefined)) {
    throw new PandoError('request-invalid', '"rule" needs "policy" and "vm"');
  }
  if (label !== undefined) {
    checkLabel(label.name, label.value);
    return { table: 'backup-mark', prefix: labelPrefix(label.name, label.value) };
  }
  const vmId = vm === undefined ? undefined : await idOfVm(ctx, vm);
  if (policy !== undefined) return { table: 'backup-mark', prefix: policyPrefix(policy, vmId, rule) };
  return vmId === undefined ? undefined : { table: 'vm-backup', prefix: vmBackupKey(vmId, '') };
}

/** Those of an index whose keys end in their ids; one that was deleted between the two reads is left out. */
async function backupsOf(ctx: FleetContext, entries: readonly CatalogEntry[]): Promise<Backup[]> {
  const ids = entries.map(({ key }) => key.slice(key.lastIndexOf('/') + 1));
  const records = await ctx.catalog.getMany('backup', ids);
  return records.flatMap((value, i) =>
    value === undefined ? [] : [toBackup({ id: ids[i]!, record: readAs('backup', ids[i]!, value) })],
  );
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

export async function changeBackup(
  ctx: FleetContext,
  ref: string,
  { name: named, ...attributes }: BackupAttributes & { readonly name?: string },
): Promise<Backup> {
  const given = named === undefined ? undefined : checkName('backup name', named);
  return holdRecord(ctx, ref, async (backup) => {
    const { id, record } = backup;
    const change = checkAttributes(ctx, attributes, record);
    const renamed =
      given === undefined || given === record.name
        ? undefined
        : await reserveName(ctx, record.vmId, given, record.createdAt, id);
    try {
      const after = withAttributes({ ...record, name: given ?? record.name }, change);
      await ctx.catalog.commit([...changed(backup, after), ...marked(ctx, change)]);
      return toBackup({ id, record: after });
    } finally {
      renamed?.release();
    }
  });
}

/**
 * Runs the action while nobody else changes the record or deletes the backup. Not with the backup's lock held exclusively: who
 * waits for a destage of it, or forks it, does not mind.
 */
export function holdRecord<T>(
  ctx: FleetContext,
  ref: string,
  action: (backup: StoredBackup) => Promise<T>,
): Promise<T> {
  return holdBackup(ctx, ref, 'shared', ({ id }) =>
    ctx.locks.hold(`record/${id}`, 'exclusive', async () => {
      const record = await getRecord(ctx.catalog, 'backup', id);
      if (record === undefined) throw backupMissing(ref);
      return action({ id, record });
    }),
  );
}

/** @throws `backup-locked`; `disk-in-use` while a client reads it */
export async function deleteBackup(ctx: FleetContext, ref: string): Promise<void> {
  await holdBackup(ctx, ref, 'exclusive', async (backup) => {
    if (isLocked(backup.record, ctx.time.now())) throw lockedError(backup.record.lockedUntil!);
    await removeHeld(ctx, backup);
  });
}

/** Whether it was there, and nothing kept it. */
export async function expireBackup(ctx: FleetContext, ref: string): Promise<boolean> {
  try {
    return await holdBackup(ctx, ref, 'exclusive', async (backup) => {
      const { record } = backup;
      const now = ctx.time.now();
      const ownDate = expiryOf(record);
      const isKept =
        ctx.time.isBehind ||
        isLocked(record, now) ||
        (record.expiresAt === undefined
          ? record.policy === undefined
          : ownDate === undefined || ownDate > now);
      if (isKept) return false;
      await removeHeld(ctx, backup);
      ctx.onExpired(toBackup(backup));
      return true;
    });
  } catch (error) {
    if (isPandoError(error, 'backup-missing')) return false;
    throw error;
  }
}

function removeHeld(ctx: FleetContext, backup: StoredBackup): Promise<void> {
  // The VM's lock, so that of the last two backups of a VM that is gone one sees that it is the last.
  return ctx.locks.hold(backup.record.vmId, 'exclusive', async () => {
    const clients = await ctx.attachments.countStaying(backup.id);
    if (clients > 0) {
      throw new PandoError('disk-in-use', `${clients} clients have backup ${backup.record.name} open`);
    }
    const operations = [...removeBackup(backup), ...(await forgetGoneVm(ctx, backup))];
    await ctx.volumes.remove(
      backup.record.disks.map(({ disk }) => disk),
      () => operations,
    );
  });
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
