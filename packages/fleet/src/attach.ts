/** From export names to attachments, and the list of export names. */
import { PandoError } from '@pando/common';
import type { OpenVolume } from '@pando/volume';
import { contextsOf } from './contexts.ts';
import type { FleetContext } from './context.ts';
import { holdBackup, holdVm, lookUpBackup, lookUpVm } from './lookup.ts';
import { splitExportName } from './names.ts';
import { readAs, type StoredDisk } from './records.ts';
import type { Attachment } from './types.ts';

/** Records that a list of export names reads at once. */
const LIST_RECORDS = 256;

/**
 * Opens the disk that an export name means: `<vm>`, `<vm>/<disk>`, `<vm>@<backup>`, `<vm>@<backup>/<disk>`, with ids in place of
 * names, also of a backup alone. Waits while the VM is being deleted, resized or restored.
 * @throws `vm-missing`, `backup-missing`, `disk-missing`, `too-busy`, `shutting-down`
 */
export async function attach(ctx: FleetContext, exportName: string): Promise<Attachment> {
  const { owner, disk } = splitExportName(exportName);
  const open = async (
    id: string,
    vmId: string,
    label: string,
    disks: readonly StoredDisk[],
  ): Promise<Attachment> => {
    if (ctx.closing.aborted) throw ctx.closing.reason as Error;
    const chosen = chooseDisk(label, disks, disk);
    const contexts = contextsOf(ctx, vmId, chosen.name);
    // Of a VM; what is opened of a backup cannot be written.
    let onGone: (() => void) | undefined;
    const openDisk = async (): Promise<OpenVolume> => {
      if (id === vmId) onGone = ctx.owners.opened(chosen.disk, vmId);
      return ctx.volumes.open(chosen.disk);
    };
    return ctx.attachments.add(id, `${label}/${chosen.name}`, contexts, openDisk, () => onGone?.());
  };
  if (!owner.includes('@')) {
    const vm = await lookUpVm(ctx, owner);
    // Ids win over names, so a backup wins over a VM that is called like its id.
    const isVm = vm?.id === owner || (await lookUpBackup(ctx, owner)) === undefined;
    if (isVm)
      return holdVm(ctx, owner, 'shared', ({ id, record }) => open(id, id, record.name, record.disks));
  }
  return holdBackup(ctx, owner, 'shared', ({ id, record }) =>
    open(id, record.vmId, `${record.vmName}@${record.name}`, record.disks),
  );
}

/** The disk of that name, or the only one. @throws `disk-missing` */
export function chooseDisk(
  label: string,
  disks: readonly StoredDisk[],
  name: string | undefined,
): StoredDisk {
  const wanted = name?.normalize('NFC');
  const found =
    wanted === undefined && disks.length === 1 ? disks[0] : disks.find((disk) => disk.name === wanted);
  if (found !== undefined) return found;
  const names = disks.map((disk) => disk.name).join(', ');
  throw new PandoError(
    'disk-missing',
    wanted === undefined
      ? `${label} has several disks, name one: ${names}`
      : `${label} has no disk ${JSON.stringify(wanted.slice(0, 80))}, but: ${names}`,
  );
}

/** Export names, VMs in order of creation, then backups, newest first: at most `limit`. */
export async function listExports(ctx: FleetContext, limit: number): Promise<readonly string[]> {
  const names: string[] = [];
  for (const table of ['vm', 'backup'] as const) {
    let at: string | undefined;
    while (names.length < limit) {
      const found = await ctx.catalog.list(table, {
        limit: Math.min(LIST_RECORDS, limit - names.length),
        ...(table === 'backup'
          ? { reverse: true, ...(at === undefined ? {} : { before: at }) }
          : at === undefined
            ? {}
            : { after: at }),
      });
      for (const { key, value } of found) {
        const record = readAs(table, key, value);
        const label = 'vmName' in record ? `${record.vmName}@${record.name}` : record.name;
        for (const disk of record.disks) names.push(`${label}/${disk.name}`);
      }
      at = found.at(-1)?.key;
      if (at === undefined) break;
    }
  }
  return names.slice(0, limit);
}
