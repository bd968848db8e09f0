/**
 * What is stored, and why it is that small.
 *
 * The accounts are of the trees as the catalog's disk records have them at one instant. Nothing is destaged for
 * them: bytes that are still in overlays are part of `logBytes`, and in no logical or allocated number.
 */
import { createHash, type Hash } from 'node:crypto';
import type { CatalogSnapshot } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { AccountOwner, Accounts, account } from '@pando/gc';
import type { FleetContext } from './context.ts';
import { decodeCursor, encodeCursor, pageLimit } from './cursors.ts';
import { diskKey, getRecord, readAs, type StoredDisk } from './records.ts';
import type { OwnerSpace, Page, PageRequest, SpaceRatios, SpaceReport, Work } from './types.ts';

export interface SpaceProgress {
  readonly phase: string;
  readonly done: number;
  readonly all: number;
}

/** What one walk found; kept until the catalog or the store has changed. */
interface Measured {
  readonly fingerprint: string;
  readonly accounts: Accounts;
  readonly withoutBackups: Accounts;
  /** Of all owners, VMs first, each kind in order of creation. */
  readonly owners: readonly OwnerSpace[];
  readonly vms: number;
}

/** What a listing of the owners came by; complete when the listing has ended. */
interface Listing {
  fingerprint: string;
  readonly names: string[];
  vms: number;
}

const VM_KEY = 'vm/';
const BACKUP_KEY = 'backup/';

export class Space {
  readonly #ctx: FleetContext;
  readonly #account: typeof account;
  #measured: Measured | undefined;
  #running: SharedRun<Measured> | undefined;

  /** @param walk `account` of the gc room, which waits for collections and keeps them away */
  constructor(ctx: FleetContext, walk: typeof account) {
    this.#ctx = ctx;
    this.#account = walk;
  }

  async report(work: Work<SpaceProgress>): Promise<SpaceReport> {
    const { accounts, withoutBackups, owners, vms } = await this.#measure(work);
    const [stats, catalogBytes] = await Promise.all([this.#ctx.store.stats(), this.#ctx.catalog.bytes()]);
    const { logBytes, logDiskBytes } = this.#ctx.volumes.stats;
    return {
      logicalBytes: accounts.logicalBytes,
      allocatedBytes: accounts.allocatedBytes,
      uniqueBytes: accounts.uniqueBytes,
      dataStoredBytes: accounts.dataStoredBytes,
      metadataBytes: accounts.nodeStoredBytes,
      garbageBytes: accounts.garbageBytes,
      indexBytes: stats.indexBytes,
      logBytes,
      logSpareBytes: logDiskBytes - logBytes,
      catalogBytes,
      storedBytes: stats.segmentBytes + stats.indexBytes + logDiskBytes + catalogBytes,
      ratios: ratiosOf(accounts),
      ratiosWithoutBackups: ratiosOf(withoutBackups),
      vms,
      backups: owners.length - vms,
    };
  }

  /** The first page is of fresh accounts, further ones of the latest that there are, so that a list costs one walk. */
  async owners(request: PageRequest & { readonly kind?: 'vm' | 'backup' }): Promise<Page<OwnerSpace>> {
    const limit = pageLimit(request);
    const list = `owners/${request.kind ?? 'all'}`;
    const after = decodeCursor(list, request.cursor);
    const { owners, vms } = (after === undefined ? undefined : this.#measured) ?? (await this.#measure({}));
    const end = request.kind === 'vm' ? vms : owners.length;
    let first = request.kind === 'backup' ? vms : 0;
    if (after !== undefined) first = Math.max(first, positionAfter(owners, vms, after));
    const items = owners.slice(first, Math.min(end, first + limit));
    const last = items.at(-1);
    return last !== undefined && first + limit < end
      ? { items, nextCursor: encodeCursor(list, keyOf(last)) }
      : { items };
  }

  /** One walk for all who ask meanwhile; none when nothing has changed. */
  #measure(work: Work<SpaceProgress>): Promise<Measured> {
    if (this.#running === undefined) {
      const run = new SharedRun<Measured>((shared) => this.#run(shared));
      this.#running = run;
      run.ended.then(
        () => {
          if (this.#running === run) this.#running = undefined;
        },
        () => undefined,
      );
    }
    const run = this.#running;
    return run.join(work, () => {
      if (this.#running === run) this.#running = undefined;
    });
  }

  async #run(work: Required<Work<SpaceProgress>>): Promise<Measured> {
    if (this.#measured !== undefined) {
      const now = newListing();
      for await (const _ of this.#list(now, 'all')) work.signal.throwIfAborted();
      if (now.fingerprint === this.#measured.fingerprint) return this.#measured;
    }
    const { store } = this.#ctx;
    const listing = newListing();
    const accounts = await this.#account(store, this.#list(listing, 'all'), work);
    const { fingerprint, names, vms } = listing;
    const withoutBackups =
      vms === names.length ? accounts : await this.#account(store, this.#list(newListing(), 'vm'), work);
    this.#measured = {
      fingerprint,
      accounts,
      withoutBackups,
      vms,
      owners: accounts.owners.map((owner, i) => ({
        kind: i < vms ? 'vm' : 'backup',
        id: owner.key.slice((i < vms ? VM_KEY : BACKUP_KEY).length),
        name: names[i]!,
        logicalBytes: owner.logicalBytes,
        allocatedBytes: owner.allocatedBytes,
        exclusiveBytes: owner.exclusiveBytes,
      })),
    };
    return this.#measured;
  }

  /**
   * All owners, of the instant at which the first one is asked for: the walk asks when no collection can take away any
   * more what they point at. The fingerprint is of all that the accounts depend on: owners, roots, segments.
   */
  async *#list(listing: Listing, which: 'all' | 'vm'): AsyncGenerator<AccountOwner, void, undefined> {
    const snapshot = this.#ctx.catalog.snapshot();
    try {
      const { segments, segmentBytes } = await this.#ctx.store.stats();
      const hash = createHash('sha256').update(JSON.stringify([segments, segmentBytes]));
      for (const [table, prefix] of [
        ['vm', VM_KEY],
        ['backup', BACKUP_KEY],
      ] as const) {
        if (table === 'backup' && which === 'vm') break;
        for await (const { key, value } of snapshot.entries(table)) {
          const record = readAs(table, key, value);
          const name = 'vmName' in record ? `${record.vmName}@${record.name}` : record.name;
          const roots = await rootsOf(snapshot, record.disks, hash);
          hash.update(JSON.stringify([key, name, record.lineage]));
          listing.names.push(name);
          if (table === 'vm') listing.vms++;
          yield { key: prefix + key, lineage: record.lineage, roots };
        }
      }
      listing.fingerprint = hash.digest('hex');
    } finally {
      await snapshot.close();
    }
  }
}

function newListing(): Listing {
  return { fingerprint: '', names: [], vms: 0 };
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

/** "Before / after" of each kind of saving; nothing before and nothing after is no saving: 1. */
export function ratiosOf(accounts: Accounts): SpaceRatios {
  const thin = ratio(accounts.logicalBytes, accounts.allocatedBytes);
  const lineage = ratio(accounts.allocatedBytes, accounts.lineageBytes);
  const dedupe = ratio(accounts.lineageBytes, accounts.uniqueBytes);
  const compression = ratio(accounts.uniqueBytes, accounts.dataStoredBytes);
  return { thin, lineage, dedupe, compression, total: thin * lineage * dedupe * compression };
}

function ratio(before: number, after: number): number {
  return after === 0 ? 1 : before / after;
}

function keyOf(owner: OwnerSpace): string {
  return (owner.kind === 'vm' ? VM_KEY : BACKUP_KEY) + owner.id;
}

/** Position of the first owner after the key, also when that owner is gone. */
function positionAfter(owners: readonly OwnerSpace[], vms: number, key: string): number {
  const isVm = key.startsWith(VM_KEY);
  const id = key.slice((isVm ? VM_KEY : BACKUP_KEY).length);
  let low = isVm ? 0 : vms;
  let high = isVm ? vms : owners.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (owners[middle]!.id <= id) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** One piece of work that several wait for; it is cancelled when none of them is left. */
class SharedRun<T> {
  readonly ended: Promise<T>;
  readonly #abort = new AbortController();
  readonly #listeners = new Set<(progress: SpaceProgress) => void>();
  #waiting = 0;

  constructor(start: (work: Required<Work<SpaceProgress>>) => Promise<T>) {
    this.ended = start({
      signal: this.#abort.signal,
      onProgress: (progress) => {
        for (const listener of this.#listeners) listener(progress);
      },
    });
  }

  /** @throws `cancelled` when the caller's signal aborts; the work goes on for the others */
  async join(work: Work<SpaceProgress>, onAbandoned: () => void): Promise<T> {
    const { signal, onProgress } = work;
    if (onProgress !== undefined) this.#listeners.add(onProgress);
    this.#waiting++;
    const left = Promise.withResolvers<never>();
    const leave = (): void => {
      left.reject(new PandoError('cancelled', 'the report was cancelled', { cause: signal?.reason }));
    };
    signal?.addEventListener('abort', leave, { once: true });
    if (signal?.aborted === true) leave();
    try {
      return await Promise.race([this.ended, left.promise]);
    } finally {
      signal?.removeEventListener('abort', leave);
      if (onProgress !== undefined) this.#listeners.delete(onProgress);
      if (--this.#waiting === 0) {
        onAbandoned();
        this.#abort.abort();
      }
    }
  }
}
