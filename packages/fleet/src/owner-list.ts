/** All owners of space, VMs and backups, of one instant: for the accounts, and for whoever names them. */
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { CatalogEntry, CatalogSnapshot } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { AccountOwner } from '@pando/gc';
import type { Root } from '@pando/tree';
import type { FleetContext } from './context.ts';
import { READ_AT_ONCE, readRoots } from './disk-roots.ts';
import { readAs, type BackupRecord, type VmRecord } from './records.ts';

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
    let last: Described | undefined;
    for await (const found of ownersInOrder(snapshot)) {
      const roots = await readRoots(
        snapshot,
        found.flatMap(({ record }) => record.disks),
      );
      let at = 0;
      for (const one of found) {
        last = describe(one, roots.slice(at, (at += one.record.disks.length)), last);
        const { owner, lineage } = last;
        hash.update(JSON.stringify([owner.kind, owner.id, lineage]));
        for (const { id, height, size } of last.roots) hash.update(id).update(JSON.stringify([height, size]));
        listing.owners.push(owner);
        yield { key: ownerKey(owner), lineage, roots: last.roots, isInSubset: owner.kind === 'vm' };
      }
    }
    listing.fingerprint = hash.digest('hex');
  } finally {
    await snapshot.close();
  }
}

type FoundOwner = { readonly id: string } & (
  | { readonly kind: 'vm'; readonly record: VmRecord }
  | { readonly kind: 'backup'; readonly record: BackupRecord }
);

interface Described {
  readonly owner: ListedOwner;
  readonly lineage: string;
  readonly roots: readonly Root[];
}

const NO_TAGS: readonly string[] = [];

/**
 * Owners are kept by the million, and most are like the one before, a backup of the same VM: what equals that of the `last` one is
 * the same in memory.
 */
function describe(found: FoundOwner, roots: readonly Root[], last: Described | undefined): Described {
  const { kind, id, record } = found;
  const before = last?.owner;
  const tags = record.tags === undefined ? NO_TAGS : shared(before?.tags, record.tags);
  const lineage = shared(last?.lineage, record.lineage);
  const described = { lineage, roots: shared(last?.roots, roots) };
  const { name, createdAt } = record;
  if (kind === 'vm')
    return { ...described, owner: { kind, id, name, vmId: id, vmName: name, tags, createdAt } };
  const { lockedUntil } = record;
  const vmId = shared(before?.vmId, record.vmId);
  const vmName = shared(before?.vmName, record.vmName);
  const policy = record.policy === undefined ? undefined : shared(before?.policy, record.policy);
  const locked = lockedUntil === undefined ? {} : { lockedUntil };
  const owner = { kind, id, name: `${vmName}@${name}`, vmId, vmName, tags, createdAt, policy, ...locked };
  return { ...described, owner };
}

function shared<T>(before: T | undefined, now: T): T {
  return isDeepStrictEqual(before, now) ? before! : now;
}

/** Each VM, and then its backups, oldest first; some at a time. @throws `catalog-corrupt`, `store-newer` */
async function* ownersInOrder(
  snapshot: CatalogSnapshot,
): AsyncGenerator<readonly FoundOwner[], void, undefined> {
  const vms = snapshot.entries('vm')[Symbol.asyncIterator]();
  const marks = snapshot.entries('vm-backup')[Symbol.asyncIterator]();
  let vm = await nextOf(vms);
  let mark = await nextOf(marks);
  while (vm !== undefined || mark !== undefined) {
    // Both tables are in the order of the VMs' ids.
    const batch: (CatalogEntry | { readonly backup: string })[] = [];
    while (batch.length < READ_AT_ONCE && (vm !== undefined || mark !== undefined)) {
      if (vm !== undefined && (mark === undefined || vm.key <= mark.key)) {
        batch.push(vm);
        vm = await nextOf(vms);
      } else {
        batch.push({ backup: mark!.key.slice(mark!.key.indexOf('/') + 1) });
        mark = await nextOf(marks);
      }
    }
    const ids = batch.flatMap((one) => ('backup' in one ? [one.backup] : []));
    const values = (await snapshot.getMany('backup', ids)).values();
    yield batch.map((one): FoundOwner => {
      if (!('backup' in one)) return { kind: 'vm', id: one.key, record: readAs('vm', one.key, one.value) };
      const id = one.backup;
      const value = values.next().value;
      if (value === undefined) throw new PandoError('catalog-corrupt', `backup ${id} has no record`);
      return { kind: 'backup', id, record: readAs('backup', id, value) };
    });
  }
}

async function nextOf(entries: AsyncIterator<CatalogEntry>): Promise<CatalogEntry | undefined> {
  const next = await entries.next();
  return next.done === true ? undefined : next.value;
}

export function ownerKey({ kind, id }: Pick<ListedOwner, 'kind' | 'id'>): string {
  return `${kind}/${id}`;
}
