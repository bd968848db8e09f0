import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  MemoryChunkIndex,
  MemorySegmentStorage,
  createMemoryChunkStore,
  openChunkStore,
  type ChunkStore,
  type SegmentWriter,
} from '@pando/chunk-store';
import { ID_BYTES, KiB, LOST_ID, PandoError, idToHex } from '@pando/common';
import { FANOUT, NODE_BYTES, TreeBuilder, walkTree, type Root } from '@pando/tree';
import { afterEach, describe, expect, test } from 'vitest';
import { account, collect, reclaimable, type Accounts, type GcReport } from './index.ts';
import { World } from './world.ts';

const stores: ChunkStore[] = [];

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});

async function newWorld(
  seed: number,
  options: { kinds?: number; segmentBytesMax?: number; chunkBytes?: number } = {},
): Promise<World> {
  const store = await createMemoryChunkStore(options.chunkBytes ?? 4 * KiB, {
    segmentBytesMax: options.segmentBytesMax ?? 256 * KiB,
  });
  stores.push(store);
  return new World(store, seed, options.kinds ?? 600);
}

/** Segments whose appends take many turns of the event loop, so that chunks are long on their way. */
class SlowStorage extends MemorySegmentStorage {
  override async create(segment: number): Promise<SegmentWriter> {
    const writer = await super.create(segment);
    const append = writer.append.bind(writer);
    writer.append = async (parts) => {
      for (let i = 0; i < 40; i++) await nextTurn();
      await append(parts);
    };
    return writer;
  }
}

/** Segments of which bytes can go bad. */
class RottenStorage extends MemorySegmentStorage {
  rotten: { readonly segment: number; readonly position: number } | undefined;

  override async read(segment: number, target: Uint8Array, position: number): Promise<number> {
    const read = await super.read(segment, target, position);
    const at = (this.rotten?.position ?? -1) - position;
    if (segment === this.rotten?.segment && at >= 0 && at < read) target[at]! ^= 1;
    return read;
  }
}

/** Segments on a disk that is full when it is told so. */
class FullStorage extends MemorySegmentStorage {
  full = false;

  override async create(segment: number): Promise<SegmentWriter> {
    this.#throwIfFull();
    return this.#failing(await super.create(segment));
  }

  override async reopen(segment: number): Promise<SegmentWriter> {
    return this.#failing(await super.reopen(segment));
  }

  #failing(writer: SegmentWriter): SegmentWriter {
    const append = writer.append.bind(writer);
    writer.append = async (parts) => {
      await nextTurn();
      this.#throwIfFull();
      await append(parts);
    };
    return writer;
  }

  #throwIfFull(): void {
    if (this.full) throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' });
  }
}

async function slowWorld(seed: number): Promise<World> {
  const slow = await openChunkStore({
    storage: new SlowStorage(),
    index: new MemoryChunkIndex(),
    storeId: new Uint8Array(16),
    chunkBytes: 4 * KiB,
    limits: { workers: 0 },
  });
  stores.push(slow);
  return new World(slow, seed, 100);
}

/** Every stored copy of every chunk: id, kind and stored share, straight from the segments. */
async function inventory(store: ChunkStore): Promise<{ id: string; bytes: number; isNode: boolean }[]> {
  await store.seal();
  const collection = store.beginCollection(() => undefined);
  const all: { id: string; bytes: number; isNode: boolean }[] = [];
  try {
    for (const { segment, bytes, slots } of collection.candidates) {
      const contents = await collection.contents(segment);
      let sum = 0;
      for (let slot = 0; slot < slots; slot++) {
        const share = contents.storedBytes[slot]!;
        sum += share;
        all.push({
          id: idToHex(contents.ids, slot * ID_BYTES),
          bytes: share,
          isNode: contents.isNode[slot] === 1,
        });
      }
      expect(sum).toBe(bytes);
    }
  } finally {
    collection.end();
  }
  return all;
}

async function reachable(world: World): Promise<Map<string, 'node' | 'data'>> {
  const all = new Map<string, 'node' | 'data'>();
  for (const owner of world.owners.values())
    for (const disk of owner.disks) await world.reach(disk.root, all);
  return all;
}

/** Compacts whatever has anything dead in it. */
const THOROUGH = { compactBelow: 1 };

/** After a collection with nobody about, what is stored is what is reachable and nothing else. */
async function checkQuiet(world: World, seed: number): Promise<GcReport> {
  const report = await collect(world.store, () => world.rootsAt(), THOROUGH);
  const alive = await reachable(world);
  const stored = await inventory(world.store);
  const extra = stored.filter(({ id }) => !alive.has(id));
  expect(extra, `seed ${seed}`).toEqual([]);
  expect(stored.length, `seed ${seed}`).toBe(alive.size); // nothing twice, and nothing is missing
  expect(report.liveChunks, `seed ${seed}`).toBe(alive.size);
  return report;
}

describe('a collection', () => {
  test('asks before it removes anything, and removes nothing when it is told so', async () => {
    const world = await newWorld(7);
    await world.import();
    await world.import();
    world.delete();
    const before = await world.store.stats();
    const refused = new PandoError('store-failed', 'not now');
    let asked = 0;
    const beforeSweep = async (): Promise<void> => {
      await nextTurn();
      // The open segment has been sealed, so there is a footer more.
      expect((await world.store.stats()).segmentBytes).toBeGreaterThanOrEqual(before.segmentBytes);
      if (asked++ === 0) throw refused;
    };
    await expect(collect(world.store, () => world.rootsAt(), { beforeSweep })).rejects.toBe(refused);
    expect((await world.store.stats()).segmentBytes).toBeGreaterThanOrEqual(before.segmentBytes);
    const report = await collect(world.store, () => world.rootsAt(), { beforeSweep, compactBelow: 1 });
    expect(report.freedBytes).toBeGreaterThan(0);
    expect(asked).toBe(2);
    await world.check();
  });

  test('of an empty store does nothing', async () => {
    const world = await newWorld(1);
    expect(await collect(world.store, () => world.rootsAt())).toEqual({
      roots: 0,
      liveChunks: 0,
      liveBytes: 0,
      deadChunks: 0,
      droppedSegments: 0,
      compactedSegments: 0,
      damagedSegments: 0,
      freedBytes: 0,
    });
  });

  test('leaves a segment that is damaged and frees what others hold', async () => {
    const storage = new RottenStorage();
    const store = await openChunkStore({
      storage,
      index: new MemoryChunkIndex(),
      storeId: new Uint8Array(16),
      chunkBytes: 4 * KiB,
      limits: { workers: 0, segmentBytesMax: 256 * KiB },
    });
    stores.push(store);
    const world = new World(store, 3, 600);
    // Two disks in turns, so that no segment is of one alone.
    const write = async (first: number): Promise<Uint8Array> => {
      const session = store.openSession();
      const chunks = Buffer.concat(Array.from({ length: 16 }, (_, i) => world.bytesOf(first + i)));
      const ids = await session.writeChunks(chunks, 16);
      await session.flush();
      session.release();
      return ids;
    };
    const kept: Uint8Array[] = [];
    for (let i = 0; i < 12; i++) {
      kept.push((await write(i * 32)).slice(0, 32));
      await write(i * 32 + 16);
    }
    await store.seal();
    const keeper = store.openSession();
    const leaf = new Uint8Array(NODE_BYTES);
    kept.forEach((id, i) => leaf.set(id, i * ID_BYTES));
    const id = await keeper.writeNodes(leaf, 1, 1);
    await keeper.flush();
    keeper.release();
    const roots = async function* (): AsyncGenerator<Root> {
      yield await Promise.resolve({ id, height: 1, size: kept.length * 4 * KiB });
    };
    storage.rotten = { segment: 1, position: 4000 };
    const report = await collect(store, roots);
    expect(report.damagedSegments).toBe(1);
    expect(report.compactedSegments).toBeGreaterThan(0);
    for (let i = 0; i < kept.length; i++) {
      const read = store.readChunk(kept[i]!, 0);
      if (i === 0) await expect(read).rejects.toMatchObject({ code: 'chunk-corrupt' });
      else expect(Buffer.from(await read).equals(world.bytesOf(i * 32)), `chunk ${i}`).toBe(true);
    }
    // The same bytes come again: the next collection finds nothing in its way.
    await write(0);
    const healed = await collect(store, roots);
    expect(healed).toMatchObject({ damagedSegments: 0 });
    expect((await store.stats()).damagedRuns).toBe(0);
    for (let i = 0; i < kept.length; i++) {
      expect(Buffer.from(await store.readChunk(kept[i]!, 0)).equals(world.bytesOf(i * 32))).toBe(true);
    }
  });

  test('frees everything once nothing is left, and what was freed can be written again', async () => {
    const world = await newWorld(2);
    await world.import();
    await world.import();
    await world.check();
    world.owners.clear();
    const before = await world.store.stats();
    const report = await checkQuiet(world, 2);
    expect(report.liveChunks).toBe(0);
    expect(report.freedBytes).toBeGreaterThanOrEqual(before.segmentBytes);
    expect((await world.store.stats()).segmentBytes).toBe(0);
    await world.import();
    await world.check();
  });

  test('visits shared trees once, and reports progress', async () => {
    const world = await newWorld(3);
    await world.import();
    for (let i = 0; i < 50; i++) world.fork();
    const phases: string[] = [];
    const report = await collect(world.store, () => world.rootsAt(), {
      onProgress: ({ phase, done, all }) => {
        expect(done).toBeLessThanOrEqual(all);
        if (phases.at(-1) !== phase) phases.push(phase);
      },
    });
    expect(report.roots).toBe(51);
    expect(report.liveChunks).toBe((await reachable(world)).size);
    expect(phases).toEqual(['mark', 'sweep']);
  });

  test.each(Array.from({ length: 10 }, (_, i) => 100 + i))('quiet, model, seed %i', async (seed) => {
    const world = await newWorld(seed);
    for (let round = 0; round < 3; round++) {
      for (let step = 0; step < 10; step++) {
        const r = world.random.below(8);
        if (r < 2) await world.import();
        else if (r < 5) await world.update();
        else if (r < 7) world.fork();
        else world.delete();
      }
      await checkQuiet(world, seed);
      await world.check();
    }
  });

  test.each(Array.from({ length: 12 }, (_, i) => 200 + i))(
    'among imports, updates and deletions, model, seed %i',
    async (seed) => {
      const world = await newWorld(seed, { kinds: 250 });
      await world.import();
      for (let round = 0; round < 4; round++) {
        const lanes = Array.from({ length: 3 }, async () => {
          for (let step = 0; step < 4; step++) {
            const r = world.random.below(8);
            if (r < 3) await world.import();
            else if (r < 6) await world.update();
            else if (r === 6) world.fork();
            else world.delete();
            await world.pause();
          }
        });
        const collections = (async () => {
          for (let i = 0; i < 3; i++) {
            await world.pause();
            await collect(world.store, () => world.rootsAt(), i === 2 ? {} : THOROUGH);
          }
        })();
        await Promise.all([...lanes, collections]).catch((error: unknown) => {
          throw new Error(`seed ${seed}`, { cause: error });
        });
        await world.check();
        if (world.random.below(2) === 0) world.delete();
      }
      await checkQuiet(world, seed);
      await world.check();
      expect((await world.store.verify()).damaged).toEqual([]);
    },
  );

  test('keeps what a session wrote or found until it is released, however many collections pass', async () => {
    const world = await newWorld(4);
    const kinds = Array.from({ length: 300 }, (_, i) => 1 + i);
    const first = world.store.openSession();
    const builder = new TreeBuilder(first);
    first.setPinSource(builder);
    await builder.append(await world.write(first, kinds), 300);
    for (let i = 0; i < 3; i++) await collect(world.store, () => world.rootsAt(), THOROUGH);
    const root = await builder.finish(300 * 4096);
    await first.flush();
    await collect(world.store, () => world.rootsAt(), THOROUGH);
    const content = new Map(kinds.map((kind, i) => [i, kind]));
    world.owners.set('one', { key: 'one', lineage: 'one', disks: [{ root, content }] });
    first.release();
    await world.check();
    world.owners.clear();
    await checkQuiet(world, 4);
    expect((await world.store.stats()).segmentBytes).toBe(0);
  });

  test.each(['mark', 'sweep'])('keeps garbage that is used again during the %s', async (phase) => {
    const world = await newWorld(12);
    const kinds = Array.from({ length: 1000 }, (_, i) => 1 + i);
    const store = async (): Promise<void> => {
      const session = world.store.openSession();
      const builder = new TreeBuilder(session);
      session.setPinSource(builder);
      await builder.append(await world.write(session, kinds), kinds.length);
      const root = await builder.finish(kinds.length * 4096);
      await session.flush();
      const content = new Map(kinds.map((kind, i) => [i, kind]));
      world.owners.set('again', { key: 'again', lineage: 'again', disks: [{ root, content }] });
      session.release();
    };
    await store();
    world.owners.clear();
    let again: Promise<void> | undefined;
    async function* rootsThatTakeTheirTime(): AsyncGenerator<Root> {
      again = store();
      await again;
      yield* [];
    }
    const report = await collect(
      world.store,
      phase === 'mark' ? rootsThatTakeTheirTime : () => world.rootsAt(),
      {
        onProgress: (progress) => {
          if (phase === 'sweep' && progress.phase === 'sweep') again ??= store();
        },
      },
    );
    await again;
    if (phase === 'mark') expect(report.deadChunks).toBe(0);
    await world.check();
    await checkQuiet(world, 12);
    await world.check();
  });

  test('walks pinned nodes that are still on their way into a segment', async () => {
    const world = await slowWorld(13);
    const kinds = Array.from({ length: 2 * FANOUT }, (_, i) => 1 + i);
    const session = world.store.openSession();
    session.setPinSource({ forEachPin: () => undefined });
    const ids = await world.write(session, kinds);
    await session.flush();
    // The two leaves are handed in after the seal: pinned when the collection begins, and nowhere yet.
    let leaves: Promise<Uint8Array> | undefined;
    const store = new Proxy(world.store, {
      get: (target, name: keyof ChunkStore) => {
        if (name !== 'seal')
          return typeof target[name] === 'function' ? target[name].bind(target) : target[name];
        return async () => {
          await target.seal();
          leaves = session.writeNodes(ids.slice(), 2, 1);
          await leaves;
        };
      },
    });
    await collect(store, () => world.rootsAt(), THOROUGH);
    const top = new Uint8Array(NODE_BYTES);
    top.set(await leaves!);
    const id = await session.writeNodes(top, 1, 2);
    await session.flush();
    const content = new Map(kinds.map((kind, i) => [i, kind]));
    const root = { id, height: 2, size: kinds.length * 4096 };
    world.owners.set('one', { key: 'one', lineage: 'one', disks: [{ root, content }] });
    session.release();
    await world.check();
  });

  test('is given up before the sweep when a root cannot be walked to the end', async () => {
    const world = await newWorld(5);
    await world.import();
    const before = (await inventory(world.store)).length;
    const good = [...world.owners.values()];
    world.owners.clear();
    const id = new Uint8Array(32).fill(7);
    world.owners.set('bad', {
      key: 'bad',
      lineage: 'bad',
      disks: [{ root: { id, height: 2, size: 1 << 20 }, content: new Map() }],
    });
    await expect(collect(world.store, () => world.rootsAt())).rejects.toMatchObject({
      code: 'chunk-missing',
    });
    expect((await inventory(world.store)).length).toBe(before);
    world.owners.clear();
    for (const owner of good) world.owners.set(owner.key, owner);
    await world.check();
    await checkQuiet(world, 5);
  });

  test('a data chunk with the bytes of a node does not hide what is below the node', async () => {
    const world = await newWorld(6);
    await world.import();
    const [victim] = [...world.owners.values()];
    // The bytes of each node of the disk, written by somebody as data, in a disk that is walked first.
    const nodes: Uint8Array[] = [];
    for (const [key, kind] of await world.reach(victim!.disks[0]!.root)) {
      if (kind === 'node') nodes.push(await world.store.readChunk(Buffer.from(key, 'hex'), 0));
    }
    const session = world.store.openSession();
    const builder = new TreeBuilder(session);
    await builder.append(await session.writeChunks(Buffer.concat(nodes), nodes.length), nodes.length);
    const root = await builder.finish(nodes.length * 4096);
    await session.flush();
    world.owners.clear();
    world.owners.set('evil', { key: 'evil', lineage: 'evil', disks: [{ root, content: new Map() }] });
    world.owners.set(victim!.key, victim!);
    session.release();
    await collect(world.store, () => world.rootsAt(), THOROUGH);
    await world.check();
    const accounts = await account(world.store, world.accountOwners());
    expect(accounts.garbageBytes).toBe(0);
    expect(await reclaimable(world.store, world.accountOwners(), new Set(['evil']))).toBe(
      accounts.owners[0]!.exclusiveBytes,
    );
  });

  test('stops when it is cancelled, and the next one works', async () => {
    const world = await newWorld(7);
    await world.import();
    await world.import();
    world.delete();
    for (const phase of ['mark', 'sweep']) {
      const abort = new AbortController();
      const collection = collect(world.store, () => world.rootsAt(), {
        signal: abort.signal,
        onProgress: (progress) => {
          if (progress.phase === phase) abort.abort();
        },
      });
      await expect(collection).rejects.toBeInstanceOf(PandoError);
      await world.check();
    }
    await checkQuiet(world, 7);
  });

  test('moves tiny segments together, and then leaves the one that is left alone', async () => {
    const world = await newWorld(8, { segmentBytesMax: 8 * 1024 * KiB });
    for (let i = 0; i < 4; i++) {
      await world.import();
      await world.store.seal();
    }
    expect((await world.store.stats()).segments).toBeGreaterThanOrEqual(4);
    expect((await collect(world.store, () => world.rootsAt())).compactedSegments).toBe(4);
    expect((await collect(world.store, () => world.rootsAt())).compactedSegments).toBe(0);
    expect((await world.store.stats()).segments).toBeLessThanOrEqual(2);
    await world.check();
  });
});

type Numbers = Omit<Accounts, 'held' | 'subset'>;

/** What each set of owners holds, its keys in order and joined. */
type Held = Record<string, number>;

function heldOf({ owners, held }: Accounts): Held {
  const found: Held = {};
  for (let set = 0; set < held.count; set++) {
    const keys = owners.filter((_, i) => held.has(set, i)).map(({ key }) => key);
    expect(keys.length).toBe(held.sizeOf(set));
    expect(held.bytes[set]).toBeGreaterThan(0);
    found[keys.join(' ')] = (found[keys.join(' ')] ?? 0) + held.bytes[set]!;
  }
  return found;
}

const numbersOf = ({ held: _held, subset: _subset, ...numbers }: Accounts): Numbers => numbers;

/** The accounts, counted the plain way, nothing being in flight. */
async function bruteForce(world: World): Promise<Numbers & { readonly held: Held }> {
  const stored = new Map((await inventory(world.store)).map((chunk) => [chunk.id, chunk]));
  const holders = new Map<string, Set<string>>();
  const owners = [...world.owners.values()];
  const accounts = [];
  const places = new Map<string, number>();
  for (const owner of owners) {
    let logicalBytes = 0;
    let allocatedBytes = 0;
    for (const { root, content } of owner.disks) {
      for (const id of (await world.reach(root)).keys()) {
        const set = holders.get(id) ?? new Set();
        holders.set(id, set.add(owner.key));
      }
      logicalBytes += root.size;
      for (const [chunk, kind] of content) {
        allocatedBytes += world.chunkBytes;
        places.set(`${owner.lineage} ${chunk} ${kind}`, world.chunkBytes);
      }
    }
    accounts.push({ key: owner.key, logicalBytes, allocatedBytes, exclusiveBytes: 0 });
  }
  for (const [id, keys] of holders) {
    if (keys.size === 1) accounts.find((one) => keys.has(one.key))!.exclusiveBytes += stored.get(id)!.bytes;
  }
  let dataStoredBytes = 0;
  let nodeStoredBytes = 0;
  let garbageBytes = 0;
  let data = 0;
  for (const chunk of stored.values()) {
    if (!holders.has(chunk.id)) garbageBytes += chunk.bytes;
    else if (chunk.isNode) nodeStoredBytes += chunk.bytes;
    else {
      dataStoredBytes += chunk.bytes;
      data++;
    }
  }
  const held: Held = {};
  for (const [id, keys] of holders) {
    const name = owners
      .map(({ key }) => key)
      .filter((key) => keys.has(key))
      .join(' ');
    held[name] = (held[name] ?? 0) + stored.get(id)!.bytes;
  }
  return {
    held,
    inFlightBytes: 0,
    owners: accounts,
    logicalBytes: accounts.reduce((sum, one) => sum + one.logicalBytes, 0),
    allocatedBytes: accounts.reduce((sum, one) => sum + one.allocatedBytes, 0),
    lineageBytes: [...places.values()].reduce((sum, bytes) => sum + bytes, 0),
    uniqueBytes: data * world.chunkBytes,
    dataStoredBytes,
    nodeStoredBytes,
    garbageBytes,
    liveChunks: holders.size,
  };
}

describe('accounts', () => {
  test.each(Array.from({ length: 8 }, (_, i) => 300 + i))(
    'are what a plain count says, model, seed %i',
    async (seed) => {
      const world = await newWorld(seed);
      for (let round = 0; round < 2; round++) {
        for (let step = 0; step < 12; step++) {
          const r = world.random.below(9);
          if (r < 2) await world.import(undefined, 1 + world.random.below(2));
          else if (r < 3) await world.import(world.any()?.lineage);
          else if (r < 6) await world.update();
          else if (r < 8) world.fork();
          else world.delete();
        }
        const { held, ...expected } = await bruteForce(world);
        const found = await account(world.store, world.accountOwners());
        expect(numbersOf(found), `seed ${seed}`).toEqual(expected);
        expect(heldOf(found), `seed ${seed}`).toEqual(held);
        expect(found.held.untoldBytes).toBe(0);
        const shares = found.held.fairShares().reduce((sum, share) => sum + share, 0);
        expect(shares, `seed ${seed}`).toBe(found.dataStoredBytes + found.nodeStoredBytes);
        for (const one of found.owners) {
          expect(await reclaimable(world.store, world.accountOwners(), new Set([one.key]))).toBe(
            one.exclusiveBytes,
          );
        }
        const keys = new Set(found.owners.filter(() => world.random.below(2) === 0).map(({ key }) => key));
        const freed = await reclaimable(world.store, world.accountOwners(), keys);
        const deleted = Uint8Array.from(found.owners, ({ key }) => (keys.has(key) ? 1 : 0));
        expect(found.held.freedBy(deleted), `seed ${seed}`).toBe(freed);
        for (const key of keys) world.owners.delete(key);
        const after = await bruteForce(world);
        expect(freed, `seed ${seed}`).toBe(after.garbageBytes - expected.garbageBytes);
      }
    },
  );

  test('and collections work with chunks of 64 KiB', async () => {
    const world = await newWorld(15, { kinds: 20, chunkBytes: 64 * KiB, segmentBytesMax: 1024 * KiB });
    for (let round = 0; round < 2; round++) {
      await world.import();
      world.fork();
      await world.update();
      await world.update();
      const { held, ...expected } = await bruteForce(world); // seals: with a footer the shares are a little larger
      const found = await account(world.store, world.accountOwners());
      expect(numbersOf(found)).toEqual(expected);
      expect(heldOf(found)).toEqual(held);
      world.delete();
      await checkQuiet(world, 15);
      await world.check();
    }
  });

  test('what a session in flight has written is neither anybody’s nor garbage', async () => {
    const world = await newWorld(10);
    await world.import();
    const session = world.store.openSession();
    await world.write(session, [2001, 2002, 2003]);
    await session.flush();
    const [key] = [...world.owners.keys()];
    const during = await account(world.store, world.accountOwners());
    expect(during.garbageBytes).toBe(0);
    session.release();
    const after = await account(world.store, world.accountOwners());
    expect(after.garbageBytes).toBeGreaterThan(3 * 4096);
    expect(after.owners).toEqual(during.owners);
    expect(await reclaimable(world.store, world.accountOwners(), new Set(['nobody']))).toBe(0);
    expect(await reclaimable(world.store, world.accountOwners(), new Set([key!]))).toBe(
      after.owners[0]!.exclusiveBytes,
    );
  });

  test('can be asked for while chunks are on their way into a segment that does not exist yet', async () => {
    const world = await slowWorld(14);
    await world.import();
    const { held, ...expected } = await bruteForce(world); // seals: there is no open segment now
    const session = world.store.openSession();
    session.setPinSource({ forEachPin: () => undefined });
    const ids = await world.write(
      session,
      Array.from({ length: FANOUT }, (_, i) => 5000 + i),
    );
    await session.writeNodes(ids, 1, 1);
    const found = await account(world.store, world.accountOwners());
    expect(found.inFlightBytes).toBeGreaterThan(FANOUT * 4096);
    expect(numbersOf(found)).toEqual({ ...expected, inFlightBytes: found.inFlightBytes });
    expect(heldOf(found)).toEqual(held);
    await session.flush();
    session.release();
  });

  test('read each leaf once, however many owners share it', async () => {
    const world = await newWorld(17);
    await world.import();
    for (let i = 0; i < 30; i++) {
      world.fork();
      if (i % 3 === 0) await world.update();
    }
    const { held } = await bruteForce(world); // seals: with a footer the shares are a little larger
    const leaves = new Map<string, number>();
    const count = (ids: Uint8Array, offset: number): void => {
      const id = idToHex(ids, offset);
      leaves.set(id, (leaves.get(id) ?? 0) + 1);
    };
    const store = new Proxy(world.store, {
      get: (target, name: keyof ChunkStore) => {
        if (name === 'peekNode') return () => undefined;
        if (name === 'readNode') {
          return (ids: Uint8Array, offset: number) => {
            count(ids, offset);
            return target.readNode(ids, offset);
          };
        }
        return typeof target[name] === 'function' ? target[name].bind(target) : target[name];
      },
    });
    // Each a lineage of its own: what lineages have in common is walked beside this.
    const owners = world.accountOwners().map((owner) => ({ ...owner, lineage: owner.key }));
    const found = await account(store, owners);
    const all = new Set<string>();
    for (const owner of world.owners.values())
      for (const { root } of owner.disks)
        await walkTree(world.store, root, {
          visit: (ids, offset, level) => {
            if (level === 1) all.add(idToHex(ids, offset));
            return true;
          },
        });
    expect(all.size).toBeGreaterThan(4);
    // A disk that ends inside a chunk has its last leaf looked at once more.
    const again = new Set(owners.flatMap(({ roots }) => roots.filter(({ size }) => size % 4096 !== 0)));
    const reads = [...all].reduce((sum, id) => sum + leaves.get(id)!, 0);
    expect(reads).toBeLessThanOrEqual(all.size + again.size);
    expect(heldOf(found)).toEqual(held);
  });

  test('of a part of the owners are as if there were no others, also where sets are not told apart', async () => {
    const world = await newWorld(16);
    for (let step = 0; step < 6; step++) {
      await world.import(world.any()?.lineage);
      world.fork();
      await world.update();
    }
    const owners = world.accountOwners().map((owner, i) => ({ ...owner, isInSubset: i % 3 !== 0 }));
    const alone = await account(
      world.store,
      owners.filter(({ isInSubset }) => isInSubset),
    );
    for (const setBytesMax of [undefined, 100]) {
      const found = await account(world.store, owners, setBytesMax === undefined ? {} : { setBytesMax });
      for (const [name, value] of Object.entries(found.subset)) {
        expect(value, name).toBe(alone[name as keyof typeof found.subset]);
      }
      expect(found.held.untoldBytes > 0).toBe(setBytesMax !== undefined);
    }
  });

  test('with no memory for sets say what each holds alone, and of the rest that several hold it', async () => {
    const world = await newWorld(18);
    for (let step = 0; step < 5; step++) {
      await world.import();
      world.fork();
      await world.update();
    }
    const owners = world.accountOwners();
    const { held: all, ...numbers } = await account(world.store, owners);
    const { held: few, ...same } = await account(world.store, owners, { setBytesMax: 0 });
    expect(same).toEqual(numbers);
    expect(few.exclusive()).toEqual(all.exclusive());
    expect(few.totalBytes).toBe(all.totalBytes);
    const exclusive = all.exclusive().reduce((sum, bytes) => sum + bytes, 0);
    expect(few.untoldBytes).toBe(all.totalBytes - exclusive);
    expect(few.untoldBytes).toBeGreaterThan(0);
  });

  test('pass by what is lost for good', async () => {
    const world = await newWorld(19);
    const session = world.store.openSession();
    const leaf = new Uint8Array(NODE_BYTES);
    leaf.set(await world.write(session, [1, 2]));
    leaf.set(LOST_ID, 2 * ID_BYTES);
    const id = await session.writeNodes(leaf, 1, 1);
    await session.flush();
    session.release();
    const roots = [{ id, height: 1, size: 3 * 4096 }];
    const found = await account(world.store, [{ key: 'a', lineage: 'a', roots }]);
    expect(found).toMatchObject({ liveChunks: 3, garbageBytes: 0, allocatedBytes: 3 * 4096 });
  });

  test('collections and accounts wait for each other', async () => {
    const world = await newWorld(11);
    await world.import();
    world.fork();
    const [, accounts] = await Promise.all([
      collect(world.store, () => world.rootsAt()),
      account(world.store, world.accountOwners()),
      collect(world.store, () => world.rootsAt()),
      reclaimable(world.store, world.accountOwners(), new Set()),
    ]);
    expect(accounts.owners.length).toBe(2);
    expect(accounts.owners[0]!.exclusiveBytes).toBe(0);
  });
});

describe('a full disk', () => {
  test('is emptied although sessions hold ids of chunks that found no room', async () => {
    for (const level of [0, 1]) {
      const storage = new FullStorage();
      const store = await openChunkStore({
        storage,
        index: new MemoryChunkIndex(),
        storeId: new Uint8Array(16),
        chunkBytes: 4 * KiB,
        limits: { workers: 0, segmentBytesMax: 256 * KiB },
      });
      stores.push(store);
      const world = new World(store, 11, 100_000);
      for (let i = 0; i < 4; i++) await world.import();
      await store.seal();
      const [gone] = world.owners.keys();
      world.owners.delete(gone!);
      // The open segment cannot be sealed, and what is handed in now is lost after its id was handed out.
      const held = store.openSession();
      await held.writeChunks(world.bytesOf(10_001), 1);
      await held.flush();
      storage.full = true;
      const parent = new Uint8Array(NODE_BYTES);
      const lost = await held.writeChunks(world.bytesOf(10_002), 1);
      parent.set(lost);
      if (level === 1) await held.writeNodes(parent, 1, 1).catch(() => undefined);
      await expect(held.flush()).rejects.toMatchObject({ code: 'store-full' });
      const before = (await store.stats()).segmentBytes;
      const report = await collect(store, () => world.rootsAt());
      expect(report.droppedSegments).toBeGreaterThan(0);
      expect((await store.stats()).segmentBytes).toBeLessThan(before);
      const accounts = await account(store, world.accountOwners());
      expect(accounts.owners).toHaveLength(world.owners.size);
      await world.check();
      held.release();
      storage.full = false;
    }
  });

  test('lets no collection pass over a chunk that a root needs', async () => {
    const world = await newWorld(12);
    await world.import();
    const missing = new Uint8Array(ID_BYTES).fill(7);
    const root = { id: missing, height: 1, size: 4 * KiB };
    const roots = (): AsyncIterable<Root> =>
      (async function* () {
        await nextTurn();
        yield root;
      })();
    await expect(collect(world.store, roots)).rejects.toMatchObject({ code: 'chunk-missing' });
    await world.check();
  });
});
