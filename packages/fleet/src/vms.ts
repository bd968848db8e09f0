/** VMs: create, clone, rename, resize, delete, list. Each is one commit. */
import type { CatalogOperation } from '@pando/catalog';
import { CLONES_MAX, PandoError, VM_DISKS_MAX } from '@pando/common';
import type { FleetContext } from './context.ts';
import { decodeCursor, pageLimit, pageOf } from './cursors.ts';
import { findVm, holdVm, withVmNames } from './lookup.ts';
import { checkName, checkSize, checkTags } from './names.ts';
import {
  put,
  putVm,
  readAs,
  remove,
  removeVm,
  vmBackupKey,
  vmTagKey,
  withTags,
  type StoredVm,
  type VmRecord,
} from './records.ts';
import type { Page, PageRequest } from './page-types.ts';
import type { Fleet, Vm } from './types.ts';

/** The VM as users see it. */
export function toVm(ctx: FleetContext, { id, record }: StoredVm): Vm {
  return {
    id,
    name: record.name,
    lineage: record.lineage,
    createdAt: new Date(record.createdAt).toISOString(),
    disks: record.disks.map(({ name, size }) => ({ name, sizeBytes: size })),
    tags: record.tags ?? [],
    attachedClients: ctx.attachments.count(id),
  };
}

export async function createVm(ctx: FleetContext, request: Parameters<Fleet['createVm']>[0]): Promise<Vm> {
  const name = checkName('VM name', request.name);
  const disks = request.disks.map((disk) => ({
    name: checkName('disk name', disk.name),
    size: disk.sizeBytes,
  }));
  if (disks.length < 1 || disks.length > VM_DISKS_MAX) {
    throw new PandoError('request-invalid', `a VM has 1 to ${VM_DISKS_MAX} disks, not ${disks.length}`);
  }
  if (new Set(disks.map((disk) => disk.name)).size < disks.length) {
    throw new PandoError('request-invalid', 'two disks of a VM cannot have the same name');
  }
  for (const disk of disks) checkSize(disk.size);
  const tags = checkTags(request.tags ?? []);
  return withVmNames(ctx, [name], async () => {
    const vm = newVm(ctx, { name, tags });
    await ctx.volumes.createMany(
      disks.map(({ size }) => ({ size })),
      (numbers) => vm.store(disks.map((disk, i) => ({ ...disk, disk: numbers[i]! }))),
    );
    return vm.made();
  });
}

/**
 * A VM in the making: `store` gives the operations that put it into the catalog once the numbers of its disks are
 * known, `made` the VM after their commit. A VM without an ancestor begins a lineage.
 */
export function newVm(
  ctx: FleetContext,
  about: { readonly name: string; readonly lineage?: string; readonly tags: readonly string[] },
): { store(disks: VmRecord['disks']): readonly CatalogOperation[]; made(): Vm } {
  const id = ctx.newId();
  const record = {
    version: 1,
    name: about.name,
    lineage: about.lineage ?? id,
    createdAt: ctx.clock.now(),
    ...withTags(about.tags),
  } as const;
  let stored: VmRecord | undefined;
  return {
    store: (disks) => {
      stored = { ...record, disks };
      return putVm(id, stored);
    },
    made: () => toVm(ctx, { id, record: stored! }),
  };
}

export async function cloneVm(
  ctx: FleetContext,
  ref: string,
  request: { readonly name: string; readonly count?: number; readonly tags?: readonly string[] },
): Promise<readonly Vm[]> {
  const names = cloneNames(request.name, request.count);
  const tags = checkTags(request.tags ?? []);
  return withVmNames(ctx, names, () =>
    holdVm(ctx, ref, 'shared', async ({ record: source }) => {
      const clones = names.map((name) => newVm(ctx, { name, lineage: source.lineage, tags }));
      await ctx.volumes.fork({
        sources: source.disks.map(({ disk }) => disk),
        copies: clones.length,
        readOnly: false,
        records: (numbers) =>
          clones.flatMap((clone, copy) =>
            clone.store(source.disks.map((disk, i) => ({ ...disk, disk: numbers[copy]![i]! }))),
          ),
      });
      return clones.map((clone) => clone.made());
    }),
  );
}

function cloneNames(base: string, count: number | undefined): string[] {
  const name = checkName('VM name', base);
  if (count === undefined) return [name];
  if (!Number.isInteger(count) || count < 1 || count > CLONES_MAX) {
    throw new PandoError('request-invalid', `count is from 1 to ${CLONES_MAX}, not ${count}`);
  }
  // The last name is the longest.
  checkName('VM name', `${name}-${count}`);
  return Array.from({ length: count }, (_, i) => `${name}-${i + 1}`);
}

export async function getVm(ctx: FleetContext, ref: string): Promise<Vm> {
  return toVm(ctx, await findVm(ctx, ref));
}

export async function listVms(
  ctx: FleetContext,
  request: PageRequest & { readonly namePrefix?: string; readonly tag?: string },
): Promise<Page<Vm>> {
  const limit = pageLimit(request);
  if (request.tag !== undefined) return listTagged(ctx, request.tag, limit, request.cursor);
  const prefix = request.namePrefix?.normalize('NFC') ?? '';
  const list = prefix === '' ? 'vms' : `vms/${prefix}`;
  const after = decodeCursor(list, request.cursor);
  const range = { limit: limit + 1, ...(after === undefined ? {} : { after }) };
  if (prefix === '') {
    return pageOf(list, limit, await ctx.catalog.list('vm', range), (entries) =>
      entries.map(({ key, value }) => toVm(ctx, { id: key, record: readAs('vm', key, value) })),
    );
  }
  if (!isNamePrefix(prefix)) return { items: [] };
  return pageOf(list, limit, await ctx.catalog.list('vm-name', { ...range, prefix }), async (entries) => {
    return vmsOf(
      ctx,
      entries.map(({ key, value }) => readAs('vm-name', key, value).id),
    );
  });
}

async function listTagged(
  ctx: FleetContext,
  text: string,
  limit: number,
  cursor: string | undefined,
): Promise<Page<Vm>> {
  const tag = checkName('tag', text);
  const list = `vms-tagged/${tag}`;
  const after = decodeCursor(list, cursor);
  const prefix = vmTagKey(tag, '');
  const found = await ctx.catalog.list('vm-tag', {
    prefix,
    limit: limit + 1,
    ...(after === undefined ? {} : { after }),
  });
  return pageOf(list, limit, found, (entries) =>
    vmsOf(
      ctx,
      entries.map(({ key }) => key.slice(prefix.length)),
    ),
  );
}

/** Those of them that have not been deleted since they were listed. */
async function vmsOf(ctx: FleetContext, ids: readonly string[]): Promise<Vm[]> {
  const records = await ctx.catalog.getMany('vm', ids);
  return records.flatMap((value, i) =>
    value === undefined ? [] : [toVm(ctx, { id: ids[i]!, record: readAs('vm', ids[i]!, value) })],
  );
}

/** Whether a name may begin so; a prefix may end in a blank. */
function isNamePrefix(prefix: string): boolean {
  try {
    checkName('prefix', prefix.trimEnd());
    return true;
  } catch {
    return false;
  }
}

export async function renameVm(ctx: FleetContext, ref: string, newName: string): Promise<Vm> {
  const name = checkName('VM name', newName);
  return holdVm(ctx, ref, 'exclusive', async ({ id, record }) => {
    if (record.name === name) return toVm(ctx, { id, record });
    return withVmNames(ctx, [name], async () => {
      const renamed = { ...record, name };
      await ctx.catalog.commit([remove('vm-name', record.name), ...putVm(id, renamed)]);
      return toVm(ctx, { id, record: renamed });
    });
  });
}

export async function setTags(ctx: FleetContext, ref: string, texts: readonly string[]): Promise<Vm> {
  const tags = checkTags(texts);
  return holdVm(ctx, ref, 'exclusive', async ({ id, record: { tags: before = [], ...rest } }) => {
    const record = { ...rest, ...withTags(tags) };
    const gone = before.filter((tag) => !tags.includes(tag));
    await ctx.catalog.commit([
      ...gone.map((tag) => remove('vm-tag', vmTagKey(tag, id))),
      ...putVm(id, record),
    ]);
    return toVm(ctx, { id, record });
  });
}

export async function resizeDisk(
  ctx: FleetContext,
  ref: string,
  diskName: string,
  sizeBytes: number,
  options: { readonly shrink?: boolean; readonly force?: boolean },
): Promise<Vm> {
  checkSize(sizeBytes);
  return holdVm(ctx, ref, 'exclusive', async (vm) => {
    const disk = vm.record.disks.find(({ name }) => name === diskName.normalize('NFC'));
    if (disk === undefined) {
      throw new PandoError(
        'disk-missing',
        `${vm.record.name} has no disk ${JSON.stringify(diskName.slice(0, 80))}`,
      );
    }
    if (sizeBytes === disk.size) return toVm(ctx, vm);
    if (sizeBytes < disk.size) {
      if (options.shrink !== true) {
        throw new PandoError(
          'shrink-refused',
          `disk ${disk.name} has ${disk.size} bytes, more than ${sizeBytes}`,
        );
      }
      await detachClients(ctx, vm, options.force === true, 'shrunk');
    }
    const disks = vm.record.disks.map((other) => (other === disk ? { ...disk, size: sizeBytes } : other));
    const record = { ...vm.record, disks };
    await ctx.volumes.resize(disk.disk, sizeBytes, () => [put('vm', vm.id, record)]);
    return toVm(ctx, { id: vm.id, record });
  });
}

export async function deleteVm(
  ctx: FleetContext,
  ref: string,
  options: { readonly force?: boolean },
): Promise<void> {
  await holdVm(ctx, ref, 'exclusive', async (vm) => {
    await detachClients(ctx, vm, options.force === true, 'deleted');
    const { id, record } = vm;
    const operations = removeVm(vm);
    const [backup] = await ctx.catalog.list('vm-backup', { prefix: vmBackupKey(id, ''), limit: 1 });
    // Its backups stay, and `name@backup` has to find them without the VM.
    if (backup !== undefined) {
      operations.push(put('vm-gone', id, { name: record.name }), put('vm-gone-name', record.name, { id }));
    }
    await ctx.volumes.remove(
      record.disks.map(({ disk }) => disk),
      () => operations,
    );
  });
}

/**
 * Nobody is attached when it resolves; the caller holds the VM's lock exclusively.
 * @throws `vm-attached` when somebody is and must not be thrown out
 */
export async function detachClients(
  ctx: FleetContext,
  vm: StoredVm,
  force: boolean,
  what: string,
): Promise<void> {
  // Whoever is to be thrown out anyway is not waited for twice.
  const clients = force ? ctx.attachments.count(vm.id) : await ctx.attachments.countStaying(vm.id);
  if (clients === 0) return;
  if (!force) {
    throw new PandoError(
      'vm-attached',
      `${vm.record.name} is to be ${what}, and ${clients} clients are attached to it`,
    );
  }
  await ctx.attachments.disconnect(
    vm.id,
    new PandoError('disk-in-use', `${vm.record.name} is being ${what}`),
  );
}
