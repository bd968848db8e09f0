/** All owners of space, VMs and backups, of one instant: for the accounts, and for whoever names them. */
import { createHash, type Hash } from 'node:crypto';
import type { CatalogEntry, CatalogSnapshot } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { AccountOwner } from '@pando/gc';
import type { FleetContext } from './context.ts';
import { diskKey, getRecord, readAs, type StoredDisk } from './records.ts';

export interface ListedOwner {
  readonly kind: 'vm' | 'backup';
  readonly id: string;
  /** `web`, or `web@monday`. */
  readonly name: string;
  /** Of a backup: the VM that it was taken of, which may be gone. */
  readonly vmId: string;
  readonly vmName: string;
  readonly tags: readonly string[];
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  /** Of a backup. */
  readonly lockedUntil?: number;
  readonly policy?: { readonly id: string; readonly name: string } | undefined;
}

/** What a listing came by; complete when it has ended. */
export interface OwnerListing {
  /** Of all that accounts depend on: owners, roots, segments. */
  fingerprint: string;
  readonly owners: ListedOwner[];
}

export function newListing(): OwnerListing {
  return { fingerprint: '', owners: [] };
}

/**
 * The owners of the instant at which the first one is asked for: the accounts ask when no collection can take away any
 * more what they point at. Each VM is followed by its backups, oldest first, VMs in the order of creation: so those who share
 * much stand side by side, which is what sets of owners are small by.
 * @throws `catalog-corrupt`, `store-newer`
 */
export async function* listOwners(
  ctx: FleetContext,
  listing: OwnerListing,
): AsyncGenerator<AccountOwner, void, undefined> {
  const snapshot = ctx.catalog.snapshot();
  try {
    const { segments, segmentBytes } = await ctx.store.stats();
    const hash = createHash('sha256').update(JSON.stringify([segments, segmentBytes]));
    const describe = async (
      owner: ListedOwner,
      lineage: string,
      disks: readonly StoredDisk[],
    ): Promise<AccountOwner> => {
      const roots = await rootsOf(snapshot, disks, hash);
      hash.update(JSON.stringify([owner.kind, owner.id, lineage]));
      listing.owners.push(owner);
      return { key: ownerKey(owner), lineage, roots, isInSubset: owner.kind === 'vm' };
    };
    const vms = snapshot.entries('vm')[Symbol.asyncIterator]();
    const backups = snapshot.entries('vm-backup')[Symbol.asyncIterator]();
    let vm = await nextOf(vms);
    let backup = await nextOf(backups);
    while (vm !== undefined || backup !== undefined) {
      // Both tables are in the order of the VMs' ids.
      if (vm !== undefined && (backup === undefined || vm.key <= backup.key)) {
        const { key: id, value } = vm;
        const { name, tags = [], createdAt, lineage, disks } = readAs('vm', id, value);
        yield describe({ kind: 'vm', id, name, vmId: id, vmName: name, tags, createdAt }, lineage, disks);
        vm = await nextOf(vms);
        continue;
      }
      const id = backup!.key.slice(backup!.key.indexOf('/') + 1);
      const record = await getRecord(snapshot, 'backup', id);
      if (record === undefined) throw new PandoError('catalog-corrupt', `backup ${id} has no record`);
      const { vmId, vmName, tags = [], createdAt, lockedUntil, policy } = record;
      const name = `${vmName}@${record.name}`;
      const locked = lockedUntil === undefined ? {} : { lockedUntil };
      const owner = { kind: 'backup', id, name, vmId, vmName, tags, createdAt, policy, ...locked } as const;
      yield describe(owner, record.lineage, record.disks);
      backup = await nextOf(backups);
    }
    listing.fingerprint = hash.digest('hex');
  } finally {
    await snapshot.close();
  }
}

export function ownerKey({ kind, id }: Pick<ListedOwner, 'kind' | 'id'>): string {
  return `${kind}/${id}`;
}

async function nextOf(entries: AsyncIterator<CatalogEntry>): Promise<CatalogEntry | undefined> {
  const next = await entries.next();
  return next.done === true ? undefined : next.value;
}

async function rootsOf(
  snapshot: CatalogSnapshot,
  disks: readonly StoredDisk[],
  hash: Hash,
): Promise<AccountOwner['roots']> {
  const roots: AccountOwner['roots'][number][] = [];
  for (const { name, disk } of disks) {
    const record = await getRecord(snapshot, 'disk', diskKey(disk));
    if (record === undefined) throw new PandoError('catalog-corrupt', `disk ${disk} (${name}) has no record`);
    roots.push({ id: record.rootId, height: record.rootHeight, size: record.rootSize });
    hash.update(record.rootId).update(JSON.stringify([record.rootHeight, record.rootSize]));
  }
  return roots;
}
