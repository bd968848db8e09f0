/** The accounts: who holds what, exactly, from one walk over every owner's roots. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ChunkStore, Collection } from '@pando/chunk-store';
import { allocationOf, chunkCount, type ChunkReader, type Root } from '@pando/tree';
import { gateOf } from './gate.ts';
import { HeldSetsBuilder, type HeldSets } from './held-sets.ts';
import { Lineage } from './lineage.ts';
import { IN_FLIGHT, MANY, MANY_IN_SUBSET, NOBODY } from './owner-sets.ts';
import { Ownership } from './ownership.ts';
import { cancelled } from './subtree-walk.ts';
import type { AccountOwner, Accounts, AccountTotals, AccountWork, OwnerAccount } from './types.ts';

/** Owners that are gone through between two turns of the event loop. */
const OWNERS_A_TURN = 4096;

type Owners = AsyncIterable<AccountOwner> | Iterable<AccountOwner>;

/**
 * Accounts of everything that `owners` hold. The owners are first asked for after other collections have ended, so
 * a generator that takes its catalog snapshot when it starts lists what is still there. What sessions in
 * flight have written is nobody's, and no garbage either.
 * @throws `chunk-missing` and other errors of kind `data` when an owner's disks are not whole; `cancelled`
 */
export function account(store: ChunkStore, owners: Owners, work: AccountWork = {}): Promise<Accounts> {
  return inCollection(store, work.signal, async (collection) => {
    const stats = store.stats(); // begun in the same turn: the bytes of the same instant
    stats.catch(() => undefined); // awaited below, unless something else fails first
    const ownership = newOwnership(store, collection, work);
    const listed: { readonly key: string; readonly isInSubset: boolean; readonly roots: readonly Root[] }[] =
      [];
    const lineages = new Map<string, { readonly all: Lineage; subset: Lineage | undefined }>();
    for await (const { key, lineage, roots, isInSubset = false } of owners) {
      listed.push({ key, isInSubset, roots });
      ownership.sets.addOwner(isInSubset);
      let of = lineages.get(lineage);
      if (of === undefined) lineages.set(lineage, (of = { all: new Lineage(), subset: undefined }));
      for (const root of roots) of.all.add(root);
      if (isInSubset) for (const root of roots) (of.subset ??= new Lineage()).add(root);
    }
    for (const [at, { roots }] of listed.entries()) {
      if (at % OWNERS_A_TURN === 0) await nextTurn();
      for (const root of roots) ownership.addRoot(root, ownership.sets.single(at + 1));
    }
    await ownership.walk();

    const all = newSums();
    const subset = newSums();
    const logical = new Float64Array(listed.length);
    const allocated = new Float64Array(listed.length);
    for (const [at, { isInSubset, roots }] of listed.entries()) {
      if (at % OWNERS_A_TURN === 0) await nextTurn();
      let logicalBytes = 0;
      let allocatedBytes = 0;
      for (const root of roots) {
        logicalBytes += root.size;
        allocatedBytes += await allocatedBytesOf(store, ownership, root);
      }
      logical[at] = logicalBytes;
      allocated[at] = allocatedBytes;
      for (const sums of isInSubset ? [all, subset] : [all]) {
        sums.logicalBytes += logicalBytes;
        sums.allocatedBytes += allocatedBytes;
      }
    }
    let walked = 0;
    for (const of of lineages.values()) {
      work.onProgress?.({ phase: 'lineages', done: walked++, all: lineages.size });
      const bytesOf = (lineage: Lineage): Promise<number> =>
        lineage.bytes(
          store,
          (ids, offset, level) => ownership.allocatedChunks(ids, offset, level),
          work.signal,
        );
      const bytes = await bytesOf(of.all);
      all.lineageBytes += bytes;
      if (of.subset !== undefined)
        subset.lineageBytes += of.subset.isAs(of.all) ? bytes : await bytesOf(of.subset);
    }
    const stored = await addUp(collection, ownership, { all, subset }, store.chunkBytes, work);
    const { segmentBytes } = await stats;
    const exclusive = stored.held.exclusive();
    const accounts: OwnerAccount[] = [];
    for (const [at, { key }] of listed.entries()) {
      if (at % OWNERS_A_TURN === 0) await nextTurn();
      const own = { logicalBytes: logical[at]!, allocatedBytes: allocated[at]! };
      accounts.push({ key, ...own, exclusiveBytes: exclusive[at]! });
    }
    return {
      ...all,
      owners: accounts,
      subset,
      held: stored.held,
      nodeStoredBytes: stored.nodeBytes,
      inFlightBytes: stored.inFlightBytes,
      garbageBytes: Math.max(0, segmentBytes - all.dataStoredBytes - stored.nodeBytes - stored.inFlightBytes),
      liveChunks: stored.chunks,
    };
  });
}

/**
 * Stored bytes that deleting all owners with these keys together would free: what they reach and neither the
 * other owners nor sessions in flight do. Keys that no owner has count nothing. Owners and errors as for account. For who
 * has no accounts at hand, or such with sets that are not told apart: here there are two sides and no more.
 */
export function reclaimable(
  store: ChunkStore,
  owners: Owners,
  deletedKeys: ReadonlySet<string>,
  work: AccountWork = {},
): Promise<number> {
  return inCollection(store, work.signal, async (collection) => {
    const ownership = newOwnership(store, collection, work);
    const [kept, deleted] = [ownership.sets.addOwner(false), ownership.sets.addOwner(false)];
    for await (const { key, roots } of owners) {
      for (const root of roots) ownership.addRoot(root, deletedKeys.has(key) ? deleted : kept);
    }
    await ownership.walk();
    const ignored = { all: newSums(), subset: newSums() };
    const { held } = await addUp(collection, ownership, ignored, store.chunkBytes, work);
    return held.freedBy(Uint8Array.of(0, 1));
  });
}

function newOwnership(store: ChunkStore, collection: Collection, work: AccountWork): Ownership {
  return new Ownership(store, collection, {
    signal: work.signal,
    setBytesMax: work.setBytesMax,
    onBatch: (nodes) => work.onProgress?.({ phase: 'walk', done: nodes, all: 0 }),
  });
}

/** Runs work as a collection that frees nothing: hits need no notice, as places do not change under it. */
function inCollection<T>(
  store: ChunkStore,
  signal: AbortSignal | undefined,
  work: (collection: Collection) => Promise<T>,
): Promise<T> {
  return gateOf(store).run(async () => {
    if (signal?.aborted) throw cancelled('accounting', signal);
    const collection = store.beginCollection(() => undefined);
    try {
      return await work(collection);
    } finally {
      collection.end();
    }
  });
}

type Sums = { -readonly [K in keyof AccountTotals]: AccountTotals[K] };

function newSums(): Sums {
  return { logicalBytes: 0, allocatedBytes: 0, lineageBytes: 0, uniqueBytes: 0, dataStoredBytes: 0 };
}

/** Bytes of a disk that are not holes; the last chunk counts as far as the disk goes. */
async function allocatedBytesOf(reader: ChunkReader, ownership: Ownership, root: Root): Promise<number> {
  const chunkBytes = reader.chunkBytes;
  const bytes = ownership.allocatedChunks(root.id, 0, root.height) * chunkBytes;
  const part = root.size % chunkBytes;
  if (part === 0 || bytes === 0) return bytes;
  const last = await allocationOf(reader, root, chunkCount(root.size, chunkBytes) - 1, 1, 1);
  return last.holes[0] ? bytes : bytes - chunkBytes + part;
}

/** Adds the stored share of each labelled slot to the set of owners that it belongs to. */
async function addUp(
  collection: Collection,
  { labels, sets }: Ownership,
  totals: { readonly all: Sums; readonly subset: Sums },
  chunkBytes: number,
  work: AccountWork,
): Promise<{ held: HeldSets; nodeBytes: number; inFlightBytes: number; chunks: number }> {
  const bySet = new Float64Array(sets.count);
  let nodeBytes = 0;
  let chunks = 0;
  const segments = [...labels.segments()];
  for (const [done, segment] of segments.entries()) {
    if (work.signal?.aborted) throw cancelled('accounting', work.signal);
    work.onProgress?.({ phase: 'segments', done, all: segments.length });
    const { storedBytes, isNode } = await collection.contents(segment);
    for (let slot = 0; slot < storedBytes.length; slot++) {
      const set = labels.get(segment, slot);
      if (set === NOBODY) continue;
      const bytes = storedBytes[slot]!;
      bySet[set]! += bytes;
      if (set === IN_FLIGHT) continue;
      chunks++;
      if (isNode[slot] !== 0) {
        nodeBytes += bytes;
        continue;
      }
      totals.all.dataStoredBytes += bytes;
      totals.all.uniqueBytes += chunkBytes;
      if (!sets.isInSubset(set)) continue;
      totals.subset.dataStoredBytes += bytes;
      totals.subset.uniqueBytes += chunkBytes;
    }
  }
  const held = new HeldSetsBuilder(sets.owners);
  for (let set = IN_FLIGHT + 1; set < sets.count; set++) {
    const ranges = sets.ranges(set);
    if (ranges[0] !== 0) held.add(ranges, false, bySet[set]!);
    else held.add(withoutInFlight(ranges), true, bySet[set]!);
  }
  return {
    held: held.finish(bySet[MANY]! + bySet[MANY_IN_SUBSET]!),
    nodeBytes,
    inFlightBytes: bySet[IN_FLIGHT]!,
    chunks,
  };
}

/** Ranges of a set without owner 0, which is its first. */
function withoutInFlight(ranges: Uint32Array): Uint32Array {
  if (ranges[1] === 1) return ranges.subarray(2);
  const rest = ranges.slice();
  rest[0] = 1;
  return rest;
}
