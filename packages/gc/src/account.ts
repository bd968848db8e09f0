/** The accounts: who holds what, exactly, from one walk over every owner's roots. */
import type { ChunkStore, Collection } from '@pando/chunk-store';
import { allocationOf, chunkCount, type ChunkReader, type Root } from '@pando/tree';
import { gateOf } from './gate.ts';
import { Lineage } from './lineage.ts';
import { Marker } from './mark.ts';
import { Marks } from './marks.ts';
import { FIRST_OWNER, IN_FLIGHT, Ownership } from './ownership.ts';
import { NOBODY, SHARED } from './slot-labels.ts';
import { cancelled } from './subtree-walk.ts';
import type { AccountOwner, Accounts, AccountWork, OwnerAccount } from './types.ts';

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
    let accounted = 0;
    const ownership = new Ownership(store, collection, work.signal, () =>
      work.onProgress?.({ phase: 'walk', done: accounted, all: 0 }),
    );
    const lineages = new Map<string, Lineage>();
    const accounts: { key: string; logicalBytes: number; allocatedBytes: number; exclusiveBytes: number }[] =
      [];
    for await (const owner of owners) {
      const label = FIRST_OWNER + accounts.length;
      let lineage = lineages.get(owner.lineage);
      if (lineage === undefined) lineages.set(owner.lineage, (lineage = new Lineage()));
      const sums = { key: owner.key, logicalBytes: 0, allocatedBytes: 0, exclusiveBytes: 0 };
      for (const root of owner.roots) {
        await ownership.addRoot(root, label);
        lineage.add(root);
        sums.logicalBytes += root.size;
        sums.allocatedBytes += await allocatedBytes(store, ownership, root);
      }
      accounts.push(sums);
      accounted = accounts.length;
    }
    const { pins } = collection;
    await ownership.addSubtrees(pins.ids, pins.levels, pins.count, IN_FLIGHT);

    let lineageBytes = 0;
    let walked = 0;
    for (const lineage of lineages.values()) {
      work.onProgress?.({ phase: 'lineages', done: walked++, all: lineages.size });
      lineageBytes += await lineage.bytes(
        store,
        (ids, offset, level) => ownership.allocatedChunks(ids, offset, level),
        work.signal,
      );
    }
    const stored = await addUp(collection, ownership, accounts, store.chunkBytes, work);
    const { segmentBytes } = await stats;
    return {
      owners: accounts satisfies OwnerAccount[],
      logicalBytes: accounts.reduce((sum, one) => sum + one.logicalBytes, 0),
      allocatedBytes: accounts.reduce((sum, one) => sum + one.allocatedBytes, 0),
      lineageBytes,
      uniqueBytes: stored.uniqueBytes,
      dataStoredBytes: stored.dataBytes,
      nodeStoredBytes: stored.nodeBytes,
      garbageBytes: Math.max(0, segmentBytes - stored.dataBytes - stored.nodeBytes - stored.inFlightBytes),
      liveChunks: stored.chunks,
    };
  });
}

/**
 * Stored bytes that deleting all owners with these keys together would free: what they reach and neither the
 * other owners nor sessions in flight do. Keys that no owner has count nothing. Owners and errors as for account.
 */
export function reclaimable(
  store: ChunkStore,
  owners: Owners,
  deletedKeys: ReadonlySet<string>,
  work: AccountWork = {},
): Promise<number> {
  return inCollection(store, work.signal, async (collection) => {
    const kept = new Marks(collection.candidates);
    const keeper = new Marker(store, collection, kept, { signal: work.signal });
    const deleted: Root[] = [];
    for await (const owner of owners) {
      if (deletedKeys.has(owner.key)) deleted.push(...owner.roots);
      else for (const root of owner.roots) await keeper.add(root.id, 0, root.height);
    }
    await keeper.drainWithPins(collection.pins);
    const freed = new Marks(collection.candidates);
    const freer = new Marker(store, collection, freed, { except: kept, signal: work.signal });
    for (const root of deleted) await freer.add(root.id, 0, root.height);
    await freer.drain();
    let bytes = 0;
    for (const segment of freed.segments()) {
      const { storedBytes } = await collection.contents(segment);
      for (let slot = 0; slot < storedBytes.length; slot++) {
        if (freed.isLive(segment, slot) && !kept.isLive(segment, slot)) bytes += storedBytes[slot]!;
      }
    }
    return bytes;
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

/** Bytes of a disk that are not holes; the last chunk counts as far as the disk goes. */
async function allocatedBytes(reader: ChunkReader, ownership: Ownership, root: Root): Promise<number> {
  const chunkBytes = reader.chunkBytes;
  const bytes = ownership.allocatedChunks(root.id, 0, root.height) * chunkBytes;
  const part = root.size % chunkBytes;
  if (part === 0 || bytes === 0) return bytes;
  const last = await allocationOf(reader, root, chunkCount(root.size, chunkBytes) - 1, 1, 1);
  return last.holes[0] ? bytes : bytes - chunkBytes + part;
}

/** Adds the stored share of each labelled slot to whom it belongs. */
async function addUp(
  collection: Collection,
  ownership: Ownership,
  accounts: { exclusiveBytes: number }[],
  chunkBytes: number,
  work: AccountWork,
): Promise<{
  uniqueBytes: number;
  dataBytes: number;
  nodeBytes: number;
  inFlightBytes: number;
  chunks: number;
}> {
  const sums = { uniqueBytes: 0, dataBytes: 0, nodeBytes: 0, inFlightBytes: 0, chunks: 0 };
  const segments = [...ownership.labels.segments()];
  for (const [done, segment] of segments.entries()) {
    if (work.signal?.aborted) throw cancelled('accounting', work.signal);
    work.onProgress?.({ phase: 'segments', done, all: segments.length });
    const { storedBytes, isNode } = await collection.contents(segment);
    for (let slot = 0; slot < storedBytes.length; slot++) {
      const label = ownership.labels.get(segment, slot);
      if (label === NOBODY) continue;
      const bytes = storedBytes[slot]!;
      if (label === IN_FLIGHT) {
        sums.inFlightBytes += bytes;
        continue;
      }
      sums.chunks++;
      if (label !== SHARED) accounts[label - FIRST_OWNER]!.exclusiveBytes += bytes;
      if (isNode[slot] === 0) {
        sums.dataBytes += bytes;
        sums.uniqueBytes += chunkBytes;
      } else sums.nodeBytes += bytes;
    }
  }
  return sums;
}
