/** From what people type to records: VMs by id or name, backups by id or `vm@name`. Each costs a few gets. */
import { PandoError, type LockMode } from '@pando/common';
import type { FleetContext } from './context.ts';
import { checkName, looksLikeId, splitBackupRef } from './names.ts';
import { backupLabelPrefix, backupNameKey, getRecord, type StoredBackup, type StoredVm } from './records.ts';

/** @throws `vm-missing` */
export async function findVm(ctx: FleetContext, ref: string): Promise<StoredVm> {
  const found = await lookUpVm(ctx, ref);
  if (found === undefined) throw vmMissing(ref);
  return found;
}

export async function lookUpVm(ctx: FleetContext, ref: string): Promise<StoredVm | undefined> {
  if (looksLikeId(ref)) {
    const record = await getRecord(ctx.catalog, 'vm', ref);
    if (record !== undefined) return { id: ref, record };
  }
  const name = asName(ref);
  const named = name === undefined ? undefined : await getRecord(ctx.catalog, 'vm-name', name);
  if (named === undefined) return undefined;
  const record = await getRecord(ctx.catalog, 'vm', named.id);
  return record === undefined ? undefined : { id: named.id, record };
}

/** @throws `backup-missing` */
export async function findBackup(ctx: FleetContext, ref: string): Promise<StoredBackup> {
  const found = await lookUpBackup(ctx, ref);
  if (found === undefined) throw backupMissing(ref);
  return found;
}

export async function lookUpBackup(ctx: FleetContext, ref: string): Promise<StoredBackup | undefined> {
  const id = looksLikeId(ref) ? ref : await lookUpBackupId(ctx, ref);
  const record = id === undefined ? undefined : await getRecord(ctx.catalog, 'backup', id);
  return id === undefined || record === undefined ? undefined : { id, record };
}

/** As lookUpBackup; a name without `vm@` is one of a backup of the given VM, which may be gone. */
export async function lookUpBackupFrom(
  ctx: FleetContext,
  vmId: string,
  ref: string,
): Promise<StoredBackup | undefined> {
  const found = await lookUpBackup(ctx, ref);
  const name = found === undefined ? asName(ref) : undefined;
  const named =
    name === undefined ? undefined : await getRecord(ctx.catalog, 'backup-name', backupNameKey(vmId, name));
  return named === undefined ? found : lookUpBackup(ctx, named.id);
}

/**
 * `vm@backup`, in this order: of the VM that has this name or id now; of the VM with this id that is gone; of the VM
 * that had this name last; the newest of that name taken of a VM that was called so then. So `vm@backup` keeps its
 * meaning when the VM is deleted, until a new VM of that name has such a backup.
 */
async function lookUpBackupId(ctx: FleetContext, ref: string): Promise<string | undefined> {
  const parts = splitBackupRef(ref);
  const name = parts === undefined ? undefined : asName(parts.name);
  const vm = parts === undefined ? undefined : asName(parts.vm);
  if (name === undefined || vm === undefined) return undefined;

  const live = await lookUpVm(ctx, vm);
  const gone = looksLikeId(vm) ? { id: vm } : await getRecord(ctx.catalog, 'vm-gone-name', vm);
  for (const vmId of [live?.id, gone?.id]) {
    if (vmId === undefined) continue;
    const named = await getRecord(ctx.catalog, 'backup-name', backupNameKey(vmId, name));
    if (named !== undefined) return named.id;
    if (looksLikeId(name) && (await getRecord(ctx.catalog, 'backup', name))?.vmId === vmId) return name;
  }
  const prefix = backupLabelPrefix(vm, name);
  const [labelled] = await ctx.catalog.list('backup-label', { prefix, reverse: true, limit: 1 });
  return labelled?.key.slice(prefix.length);
}

/** A VM, or a backup: by id, `vm` or `vm@backup`. @throws `vm-missing`, `backup-missing` */
export async function findOwner(
  ctx: FleetContext,
  ref: string,
): Promise<({ readonly kind: 'vm' } & StoredVm) | ({ readonly kind: 'backup' } & StoredBackup)> {
  if (ref.includes('@')) return { kind: 'backup', ...(await findBackup(ctx, ref)) };
  const vm = await lookUpVm(ctx, ref);
  // Ids win over names, so a backup wins over a VM that is called like its id.
  if (vm?.id !== ref) {
    const backup = await lookUpBackup(ctx, ref);
    if (backup !== undefined) return { kind: 'backup', ...backup };
  }
  if (vm === undefined) throw vmMissing(ref);
  return { kind: 'vm', ...vm };
}

/** Runs the action on the VM as it is once its lock is held. @throws `vm-missing` */
export async function holdVm<T>(
  ctx: FleetContext,
  ref: string,
  mode: LockMode,
  action: (vm: StoredVm) => Promise<T>,
): Promise<T> {
  const { id } = await findVm(ctx, ref);
  return ctx.locks.hold(id, mode, async () => {
    const record = await getRecord(ctx.catalog, 'vm', id);
    if (record === undefined) throw vmMissing(ref);
    return action({ id, record });
  });
}

/** As holdVm, of a backup. @throws `backup-missing` */
export async function holdBackup<T>(
  ctx: FleetContext,
  ref: string,
  mode: LockMode,
  action: (backup: StoredBackup) => Promise<T>,
): Promise<T> {
  const { id } = await findBackup(ctx, ref);
  return ctx.locks.hold(id, mode, async () => {
    const record = await getRecord(ctx.catalog, 'backup', id);
    if (record === undefined) throw backupMissing(ref);
    return action({ id, record });
  });
}

/**
 * Runs the action while the names (in their one form) are reserved and known to be free.
 * @throws `name-taken`
 */
export async function withVmNames<T>(
  ctx: FleetContext,
  names: readonly string[],
  action: () => Promise<T>,
): Promise<T> {
  const release = ctx.reservations.reserve(
    names.map((name) => `vm/${name}`),
    (key) => `the name ${JSON.stringify(key.slice(3))}`,
  );
  try {
    const holders = await ctx.catalog.getMany('vm-name', names);
    const taken = holders.findIndex((holder) => holder !== undefined);
    if (taken >= 0) throw new PandoError('name-taken', `there is a VM named ${JSON.stringify(names[taken])}`);
    return await action();
  } finally {
    release();
  }
}

/** The text as a name, or undefined when nothing can have that name. */
function asName(text: string): string | undefined {
  try {
    return checkName('name', text);
  } catch {
    return undefined;
  }
}

export function vmMissing(ref: string): PandoError {
  return new PandoError('vm-missing', `there is no VM ${JSON.stringify(ref.slice(0, 80))}`);
}

export function backupMissing(ref: string): PandoError {
  return new PandoError('backup-missing', `there is no backup ${JSON.stringify(ref.slice(0, 160))}`);
}
