/**
 * What is stored, and why it is that small.
 *
 * The accounts are of the trees as the catalog's disk records have them at one instant. Nothing is destaged for
 * them: bytes that are still in overlays are part of `logBytes`, and in no logical or allocated number.
 */
import type { Accounts, AccountTotals, account } from '@pando/gc';
import type { FleetContext } from './context.ts';
import { decodeCursor, encodeCursor, pageLimit } from './cursors.ts';
import { listOwners, newListing, ownerKey, type ListedOwner } from './owner-list.ts';
import { orderOf } from './owner-order.ts';
import { SharedRun, type SpaceProgress } from './shared-run.ts';
import type { Page, PageRequest } from './page-types.ts';
import type { OwnerSpace, SpaceRatios, SpaceReport, Work } from './types.ts';

/** What one walk found; kept until the catalog or the store has changed. */
export interface Measured {
  readonly fingerprint: string;
  readonly accounts: Accounts;
  /** As they were listed now, one for each of the accounts' owners. */
  readonly owners: readonly ListedOwner[];
  readonly vms: number;
}

export class Space {
  readonly #ctx: FleetContext;
  readonly #account: typeof account;
  #measured: Measured | undefined;
  #running: SharedRun<Measured> | undefined;
  #ordered: { readonly of: Measured['owners']; readonly order: Promise<Uint32Array> } | undefined;

  /** @param walk `account` of the gc room, which waits for collections and keeps them away */
  constructor(ctx: FleetContext, walk: typeof account) {
    this.#ctx = ctx;
    this.#account = walk;
  }

  async report(work: Work<SpaceProgress>): Promise<SpaceReport> {
    const { accounts, owners, vms } = await this.measure(work);
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
      ratiosWithoutBackups: ratiosOf(accounts.subset),
      vms,
      backups: owners.length - vms,
      keyed: this.#ctx.store.isKeyed,
    };
  }

  /** The first page is of fresh accounts, further ones of the latest that there are, so that a list costs one walk. */
  async owners(request: PageRequest & { readonly kind?: 'vm' | 'backup' }): Promise<Page<OwnerSpace>> {
    const limit = pageLimit(request);
    const list = `owners/${request.kind ?? 'all'}`;
    const after = decodeCursor(list, request.cursor);
    const measured = await this.latest(after !== undefined);
    const { accounts, owners, vms } = measured;
    const order = await this.#orderOf(measured);
    const shares = accounts.held.fairShares();
    const end = request.kind === 'vm' ? vms : order.length;
    let first = request.kind === 'backup' ? vms : 0;
    if (after !== undefined) first = Math.max(first, positionAfter(measured, order, after));
    const positions = [...order.subarray(first, Math.min(end, first + limit))];
    const items = positions.map((at): OwnerSpace => {
      const { kind, id, name } = owners[at]!;
      const { logicalBytes, allocatedBytes, exclusiveBytes } = accounts.owners[at]!;
      return { kind, id, name, logicalBytes, allocatedBytes, exclusiveBytes, fairBytes: shares[at]! };
    });
    const last = positions.at(-1);
    return last !== undefined && first + limit < end
      ? { items, nextCursor: encodeCursor(list, ownerKey(owners[last]!)) }
      : { items };
  }

  /** For a page of a list: fresh accounts for the first one, the latest for those behind it. */
  async latest(isLaterPage: boolean): Promise<Measured> {
    return (isLaterPage ? this.#measured : undefined) ?? this.measure({});
  }

  /** One walk for all who ask meanwhile; none when nothing has changed. */
  measure(work: Work<SpaceProgress>): Promise<Measured> {
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

  /** Found when it is first asked for, once for those who ask meanwhile. */
  #orderOf(measured: Measured): Promise<Uint32Array> {
    if (this.#ordered?.of !== measured.owners)
      this.#ordered = { of: measured.owners, order: orderOf(measured.owners, measured.vms) };
    return this.#ordered.order;
  }

  async #run(work: Required<Work<SpaceProgress>>): Promise<Measured> {
    const before = this.#measured;
    if (before !== undefined) {
      const now = newListing();
      for await (const _ of listOwners(this.#ctx, now)) work.signal.throwIfAborted();
      if (now.fingerprint === before.fingerprint) {
        // Names and tags may be others by now.
        return (this.#measured = { ...before, owners: now.owners });
      }
    }
    const listing = newListing();
    const accounts = await this.#account(this.#ctx.store, listOwners(this.#ctx, listing), work);
    const { fingerprint, owners } = listing;
    let vms = 0;
    for (const { kind } of owners) if (kind === 'vm') vms++;
    this.#measured = { fingerprint, accounts, owners, vms };
    return this.#measured;
  }
}

/** "Before / after" of each kind of saving; nothing before and nothing after is no saving: 1. */
export function ratiosOf(accounts: AccountTotals): SpaceRatios {
  const thin = ratio(accounts.logicalBytes, accounts.allocatedBytes);
  const lineage = ratio(accounts.allocatedBytes, accounts.lineageBytes);
  const dedupe = ratio(accounts.lineageBytes, accounts.uniqueBytes);
  const compression = ratio(accounts.uniqueBytes, accounts.dataStoredBytes);
  return { thin, lineage, dedupe, compression, total: thin * lineage * dedupe * compression };
}

function ratio(before: number, after: number): number {
  return after === 0 ? 1 : before / after;
}

/** Where in the order the first owner after the key stands, also when that owner is gone. */
function positionAfter({ owners, vms }: Measured, order: Uint32Array, key: string): number {
  const isVm = key.startsWith('vm/');
  const id = key.slice(key.indexOf('/') + 1);
  let low = isVm ? 0 : vms;
  let high = isVm ? vms : order.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (owners[order[middle]!]!.id <= id) low = middle + 1;
    else high = middle;
  }
  return low;
}
