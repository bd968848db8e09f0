/**
 * Who shares what with whom: accounts that add up, who holds the space of a VM or backup, what deleting some of them frees, and
 * whom to delete for so many bytes. All of it is sums over the sets of owners that the accounts found (HeldSets of the gc room);
 * nothing is walked for it but what the space report walks.
 */
import { PandoError } from '@pando/common';
import { planFew, planInOrder, type HeldSets, type reclaimable } from '@pando/gc';
import { isLocked } from './backup-attributes.ts';
import type { FleetContext } from './context.ts';
import { decodeCursor, encodeCursor, pageLimit } from './cursors.ts';
import { findOwner } from './lookup.ts';
import { groupOwners, type OwnerGroups } from './owner-groups.ts';
import { listOwners, newListing, ownerKey, type ListedOwner } from './owner-list.ts';
import type {
  AccountGrouping,
  AccountLine,
  AccountsPage,
  AccountTotals,
  HoldersPage,
  OwnerChoice,
  OwnerName,
  ReclaimPage,
  ReclaimPlanPage,
  ReclaimPlanRequest,
} from './answer-types.ts';
import type { Measured, Space } from './space.ts';
import type { Page, PageRequest } from './page-types.ts';
import type { Work } from './types.ts';

/** Most VMs and backups that one request names. */
const OWNERS_NAMED_MAX = 1000;

/** A table by groups, and the accounts that it is of. */
interface Grouped extends OwnerGroups {
  readonly accounts: Measured['accounts'];
  readonly by: AccountGrouping;
  readonly held: HeldSets;
}

/** A plan, and what it is the answer to. */
interface Planned {
  readonly accounts: Measured['accounts'];
  readonly request: string;
  readonly owners: readonly number[];
  readonly freedBytes: number;
  readonly isFewest: boolean;
}

/** An owner by its position, and bytes that it is listed by. */
interface Weighed {
  readonly owner: number;
  readonly key: string;
  readonly bytes: number;
}

type SignalOf = Pick<Work<never>, 'signal'>;

export class Sharing {
  readonly #ctx: FleetContext;
  readonly #space: Space;
  readonly #reclaimable: typeof reclaimable;
  /** The newest of each: pages behind the first one are of the same. */
  #grouped: Grouped | undefined;
  #planned: Planned | undefined;

  /** @param walk `reclaimable` of the gc room, for where sets of owners are not told apart */
  constructor(ctx: FleetContext, space: Space, walk: typeof reclaimable) {
    this.#ctx = ctx;
    this.#space = space;
    this.#reclaimable = walk;
  }

  async accounts(request: PageRequest & { readonly by: AccountGrouping }): Promise<AccountsPage> {
    const limit = pageLimit(request);
    const list = `accounts/${request.by}`;
    const after = decodeCursor(list, request.cursor);
    const measured = await this.#space.latest(after !== undefined);
    const { groups, held } = await this.#group(measured, request.by);
    const exclusive = held.exclusive();
    const shares = held.fairShares();
    let first = 0;
    if (after !== undefined) while (first < groups.length && groups[first]!.key <= after) first++;
    const items = groups.slice(first, first + limit).map(({ about, vms, backups }, i): AccountLine => {
      const exclusiveBytes = exclusive[first + i]!;
      const totalBytes = shares[first + i]!;
      return { ...about, vms, backups, exclusiveBytes, sharedBytes: totalBytes - exclusiveBytes, totalBytes };
    });
    const page = { by: request.by, items, totals: await this.#totals(measured) };
    return first + limit < groups.length
      ? { ...page, nextCursor: encodeCursor(list, groups[first + limit - 1]!.key) }
      : page;
  }

  /** Who shares its space with a VM or backup: those with most first. */
  async holders(ref: string, request: PageRequest): Promise<HoldersPage> {
    const { id } = await findOwner(this.#ctx, ref);
    const measured = await this.#space.latest(request.cursor !== undefined);
    const { owners, accounts } = measured;
    const at = positionsOf(owners).get(id);
    if (at === undefined) throw unknown(ref);
    const shared = accounts.held.sharedWith(at);
    const holders = weigh(owners, shared, (owner) => owner !== at);
    return {
      ...pageOfWeighed(`holders/${id}`, holders, request, ({ owner, bytes }) => ({
        ...nameOf(owners[owner]!),
        sharedBytes: bytes,
      })),
      owner: nameOf(owners[at]!),
      reachedBytes: shared[at]!,
      exclusiveBytes: accounts.owners[at]!.exclusiveBytes,
      untoldBytes: accounts.held.untoldBytes,
      holders: holders.length,
    };
  }

  /** What deleting some owners frees, and what stays because of whom. */
  async reclaim(request: OwnerChoice & PageRequest, work: SignalOf = {}): Promise<ReclaimPage> {
    const named = await this.#idsOf(request);
    const measured = await this.#space.latest(request.cursor !== undefined);
    const { owners, accounts } = measured;
    const chosen = choose(owners, request, named);
    const staying = accounts.held.staying(chosen);
    const holders = weigh(owners, staying.held, () => true);
    return {
      ...pageOfWeighed('reclaim', holders, request, ({ owner, bytes }) => ({
        ...nameOf(owners[owner]!),
        sharedBytes: bytes,
        aloneBytes: staying.alone[owner]!,
      })),
      ...countsOf(owners, chosen),
      locked: owners.filter((owner, i) => chosen[i] === 1 && this.#isLocked(owner)).length,
      freedBytes: await this.#freedBy(measured, chosen, work),
      aloneBytes: accounts.owners.reduce((sum, one, i) => sum + chosen[i]! * one.exclusiveBytes, 0),
      stayingBytes: staying.bytes,
      inFlightBytes: staying.inFlightBytes,
      untoldBytes: accounts.held.untoldBytes,
      holders: holders.length,
    };
  }

  /** Whom to delete so that so many bytes are freed; nothing is deleted. */
  async planReclaim(request: ReclaimPlanRequest, work: SignalOf = {}): Promise<ReclaimPlanPage> {
    const limit = pageLimit(request);
    const after = decodeCursor('plan', request.cursor);
    const measured = await this.#space.latest(after !== undefined);
    const { owners } = measured;
    const plan = await this.#plan(measured, request, work);
    let first = 0;
    if (after !== undefined)
      while (first < plan.owners.length && ownerKey(owners[plan.owners[first]!]!) !== after) first++;
    if (after !== undefined) first++;
    const chosen = new Uint8Array(owners.length);
    for (const owner of plan.owners) chosen[owner] = 1;
    const page = {
      items: plan.owners.slice(first, first + limit).map((owner) => ({
        ...nameOf(owners[owner]!),
        createdAt: new Date(owners[owner]!.createdAt).toISOString(),
      })),
      wantedBytes: request.bytes,
      freedBytes: plan.freedBytes,
      isEnough: plan.freedBytes >= request.bytes,
      isFewest: plan.isFewest,
      locked: owners.filter((owner) => isMeant(owner, request) && this.#isLocked(owner)).length,
      ...countsOf(owners, chosen),
    };
    return first + limit < plan.owners.length
      ? { ...page, nextCursor: encodeCursor('plan', ownerKey(owners[plan.owners[first + limit - 1]!]!)) }
      : page;
  }

  async #plan(measured: Measured, request: ReclaimPlanRequest, work: SignalOf): Promise<Planned> {
    const { accounts, owners } = measured;
    const { cursor: _, limit: __, ...wish } = request;
    const key = JSON.stringify(wish);
    const before = this.#planned;
    if (request.cursor !== undefined && before?.accounts === accounts && before.request === key)
      return before;
    const order = owners
      .map((_owner, position) => position)
      .filter((position) => this.#mayGo(owners[position]!, request))
      .sort((a, b) => compareByAge(owners[a]!, owners[b]!));
    const candidates = new Uint8Array(owners.length);
    for (const position of order) candidates[position] = 1;
    const { held } = accounts;
    const { owners: chosen, isFewest } =
      request.prefer === 'oldest'
        ? await planInOrder(held, order, request.bytes, work.signal)
        : await planFew(held, candidates, request.bytes, work.signal);
    const marks = new Uint8Array(owners.length);
    for (const owner of chosen) marks[owner] = 1;
    this.#planned = {
      accounts,
      request: key,
      owners: chosen.toSorted((a, b) => compareByAge(owners[a]!, owners[b]!)),
      freedBytes: await this.#freedBy(measured, marks, work),
      // What is not told apart may be freed by fewer.
      isFewest: isFewest && held.untoldBytes === 0,
    };
    return this.#planned;
  }

  #mayGo(owner: ListedOwner, request: ReclaimPlanRequest): boolean {
    if (!isMeant(owner, request)) return false;
    if (owner.kind === 'backup') return !this.#isLocked(owner);
    return request.includeVms === true && this.#ctx.attachments.count(owner.id) === 0;
  }

  #isLocked(owner: ListedOwner): boolean {
    return owner.kind === 'backup' && isLocked(owner, this.#ctx.time.now());
  }

  async #group(measured: Measured, by: AccountGrouping): Promise<Grouped> {
    const { accounts, owners } = measured;
    const before = this.#grouped;
    // Names and tags may have changed without the accounts.
    const grouping = groupOwners(owners, by);
    const isSame =
      before?.accounts === accounts &&
      before.by === by &&
      owners.every((_, i) => String(before.of(i)) === String(grouping.of(i)));
    const held = isSame ? before.held : await accounts.held.grouped(grouping.groups.length, grouping.of);
    this.#grouped = { ...grouping, accounts, by, held };
    return this.#grouped;
  }

  async #totals({ accounts }: Measured): Promise<AccountTotals> {
    const [{ indexBytes }, catalogBytes] = await Promise.all([
      this.#ctx.store.stats(),
      this.#ctx.catalog.bytes(),
    ]);
    const logBytes = this.#ctx.volumes.stats.logDiskBytes;
    const ownedBytes = accounts.dataStoredBytes + accounts.nodeStoredBytes;
    const { inFlightBytes, garbageBytes, held } = accounts;
    return {
      ownedBytes,
      untoldBytes: held.untoldBytes,
      inFlightBytes,
      garbageBytes,
      indexBytes,
      logBytes,
      catalogBytes,
      storedBytes: ownedBytes + inFlightBytes + garbageBytes + indexBytes + logBytes + catalogBytes,
    };
  }

  /** Where owners are not told apart, only a walk of its own knows whether deleting these frees something of that. */
  async #freedBy({ accounts, owners }: Measured, chosen: Uint8Array, work: SignalOf): Promise<number> {
    if (accounts.held.untoldBytes === 0) return accounts.held.freedBy(chosen);
    const keys = new Set(owners.filter((_, i) => chosen[i] === 1).map(ownerKey));
    return this.#reclaimable(this.#ctx.store, listOwners(this.#ctx, newListing()), keys, work);
  }

  async #idsOf({ owners = [], tag, prefix }: OwnerChoice): Promise<ReadonlyMap<string, string>> {
    if (owners.length === 0 && tag === undefined && prefix === undefined) {
      throw new PandoError('request-invalid', 'name VMs or backups, a tag, or how names begin');
    }
    if (owners.length > OWNERS_NAMED_MAX) {
      throw new PandoError('request-invalid', `name at most ${OWNERS_NAMED_MAX} VMs and backups`);
    }
    const ids = new Map<string, string>();
    for (const ref of owners) ids.set((await findOwner(this.#ctx, ref)).id, ref);
    return ids;
  }
}

/** Marks the owners that a request means. @throws `vm-missing`, `backup-missing` for one that is too new, or gone since */
function choose(
  owners: readonly ListedOwner[],
  request: OwnerChoice,
  named: ReadonlyMap<string, string>,
): Uint8Array {
  const positions = positionsOf(owners);
  for (const [id, ref] of named) if (!positions.has(id)) throw unknown(ref);
  const { tag, prefix, kind, withBackups } = request;
  const isOneOf = (owner: ListedOwner): boolean =>
    (tag !== undefined || prefix !== undefined) &&
    (kind === undefined || owner.kind === kind) &&
    isMeant(owner, request);
  const chosen = Uint8Array.from(owners, (owner) => (named.has(owner.id) || isOneOf(owner) ? 1 : 0));
  if (withBackups !== true) return chosen;
  const vms = new Set(owners.filter(({ kind: of }, i) => of === 'vm' && chosen[i] === 1).map(({ id }) => id));
  return Uint8Array.from(owners, (owner, i) => (vms.has(owner.vmId) ? 1 : chosen[i]!));
}

function isMeant(owner: ListedOwner, { tag, prefix }: Pick<OwnerChoice, 'tag' | 'prefix'>): boolean {
  return (tag === undefined || owner.tags.includes(tag)) && owner.name.startsWith(prefix ?? '');
}

/** Backups before VMs, each the oldest first. */
function compareByAge(a: ListedOwner, b: ListedOwner): number {
  if (a.kind !== b.kind) return a.kind === 'backup' ? -1 : 1;
  return a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1);
}

function countsOf(owners: readonly ListedOwner[], chosen: Uint8Array): { vms: number; backups: number } {
  let vms = 0;
  let backups = 0;
  owners.forEach(({ kind }, i) => {
    if (chosen[i] === 0) return;
    if (kind === 'vm') vms++;
    else backups++;
  });
  return { vms, backups };
}

function nameOf({ kind, id, name }: ListedOwner): OwnerName {
  return { kind, id, name };
}

function positionsOf(owners: readonly ListedOwner[]): ReadonlyMap<string, number> {
  return new Map(owners.map(({ id }, position) => [id, position]));
}

/** Those with any bytes, most first. */
function weigh(
  owners: readonly ListedOwner[],
  bytes: Float64Array,
  isMeant: (owner: number) => boolean,
): readonly Weighed[] {
  const weighed: Weighed[] = [];
  owners.forEach((owner, i) => {
    if (bytes[i]! > 0 && isMeant(i)) weighed.push({ owner: i, key: ownerKey(owner), bytes: bytes[i]! });
  });
  return weighed.sort(compareWeights);
}

function compareWeights(a: Pick<Weighed, 'bytes' | 'key'>, b: Pick<Weighed, 'bytes' | 'key'>): number {
  return b.bytes - a.bytes || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
}

function pageOfWeighed<T>(
  list: string,
  weighed: readonly Weighed[],
  request: PageRequest,
  toItem: (one: Weighed) => T,
): Page<T> {
  const limit = pageLimit(request);
  const after = decodeCursor(list, request.cursor);
  let first = 0;
  if (after !== undefined) {
    const blank = after.indexOf(' ');
    const last = { bytes: Number(after.slice(0, blank)), key: after.slice(blank + 1) };
    while (first < weighed.length && compareWeights(weighed[first]!, last) <= 0) first++;
  }
  const items = weighed.slice(first, first + limit);
  const last = items.at(-1);
  return last !== undefined && first + limit < weighed.length
    ? { items: items.map(toItem), nextCursor: encodeCursor(list, `${last.bytes} ${last.key}`) }
    : { items: items.map(toItem) };
}

function unknown(ref: string): PandoError {
  const code = ref.includes('@') ? 'backup-missing' : 'vm-missing';
  return new PandoError(code, `${JSON.stringify(ref.slice(0, 80))} came or went while it was looked for`);
}
