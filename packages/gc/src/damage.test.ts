/** Damage named by disk and range, held against reading every chunk of every disk by itself. */
import { MemoryChunkIndex, MemorySegmentStorage, openChunkStore, type ChunkStore } from '@pando/chunk-store';
import { ID_BYTES, isHole, KiB, PandoError } from '@pando/common';
import { runSeed } from '@pando/common/testing';
import { chunkCount, FANOUT, TreeBuilder, type Root } from '@pando/tree';
import { seededRandom } from '@pando/tree/testing';
import { afterEach, describe, expect, test } from 'vitest';
import { DAMAGED_DISKS_MAX, DAMAGED_RANGES_MAX, findDamage } from './damage.ts';
import { World } from './world.ts';

const CHUNK = 4 * KiB;
const stores: ChunkStore[] = [];

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});

/** Segments of which bytes can go bad. */
class RottenStorage extends MemorySegmentStorage {
  readonly rotten: { readonly segment: number; readonly position: number }[] = [];
  /** A bad sector: reads that touch it fail. */
  bad: { readonly segment: number; readonly position: number } | undefined;
  reads = 0;

  override async read(segment: number, target: Uint8Array, position: number): Promise<number> {
    this.reads++;
    const { bad } = this;
    if (bad?.segment === segment && bad.position >= position && bad.position < position + target.byteLength) {
      throw new PandoError('store-failed', 'a sector cannot be read');
    }
    const read = await super.read(segment, target, position);
    for (const each of this.rotten) {
      const at = each.position - position;
      if (segment === each.segment && at >= 0 && at < read) target[at]! ^= 1;
    }
    return read;
  }
}

async function rottenWorld(
  seed: number,
): Promise<{ world: World; storage: RottenStorage; index: MemoryChunkIndex }> {
  const storage = new RottenStorage();
  const index = new MemoryChunkIndex();
  const store = await openChunkStore({
    storage,
    index,
    storeId: new Uint8Array(16).fill(3),
    chunkBytes: CHUNK,
    // Nothing is remembered: what is read is what is stored.
    limits: {
      workers: 0,
      segmentBytesMax: 256 * KiB,
      runCacheBytes: 1,
      nodeCacheBytes: 1,
      recentPlacesMax: 0,
      placeHintsMax: 0,
    },
  });
  stores.push(store);
  return { world: new World(store, seed, 300), storage, index };
}

interface NamedDisk {
  readonly key: string;
  readonly root: Root;
}

async function* listed(disks: readonly NamedDisk[]): AsyncGenerator<NamedDisk> {
  for (const disk of disks) {
    await Promise.resolve();
    yield disk;
  }
}

const disksOf = (world: World): NamedDisk[] =>
  [...world.owners.values()].flatMap((owner) =>
    owner.disks.map((disk, i) => ({ key: `${owner.key}/${i}`, root: disk.root })),
  );

/** Ranges that cannot be read, found by going from the top to each chunk by itself. */
async function unreadable(store: ChunkStore, root: Root): Promise<{ offset: number; bytes: number }[]> {
  const ranges: { offset: number; bytes: number }[] = [];
  const chunks = chunkCount(root.size, CHUNK);
  const lose = (from: number, to: number): void => {
    const offset = from * CHUNK;
    const bytes = Math.min(to * CHUNK, root.size) - offset;
    const last = ranges.at(-1);
    if (last !== undefined && last.offset + last.bytes === offset) last.bytes += bytes;
    else ranges.push({ offset, bytes });
  };
  const visit = async (ids: Uint8Array, at: number, level: number, first: number): Promise<void> => {
    if (isHole(ids, at) || first >= chunks) return;
    const span = FANOUT ** level;
    let bytes: Uint8Array;
    try {
      bytes = await store.readChunk(ids, at);
    } catch (error) {
      if (!(error instanceof PandoError)) throw error;
      lose(first, first + span);
      return;
    }
    if (level === 0) return;
    for (let child = 0; child < FANOUT; child++) {
      await visit(bytes, child * ID_BYTES, level - 1, first + (child * span) / FANOUT);
    }
  };
  await visit(root.id, 0, root.height, 0);
  return ranges;
}

const seed = runSeed();

describe(`damage (seed ${seed})`, () => {
  test('is named for every disk that has it, exactly, and for no other', async () => {
    let damagedDisks = 0;
    let soundDisks = 0;
    for (let round = 0; round < 8; round++) {
      const random = seededRandom(seed + round);
      const { world, storage, index } = await rottenWorld(seed + round);
      for (let i = 0; i < 4; i++) await world.import(undefined, 1 + random.below(2));
      const before = disksOf(world);
      // As clones and backups do: the same roots under other names.
      const disks = [...before, ...before.map(({ key, root }) => ({ key: `${key}-copy`, root }))];
      await world.store.seal();
      const files = await storage.list();
      for (let flips = 1 + random.below(3); flips > 0; flips--) {
        const { segment, size } = files[random.below(files.length)]!;
        storage.rotten.push({ segment, position: random.below(size) });
      }
      if (round % 3 === 2) {
        // And a chunk or node that the index has lost.
        const { root } = before[random.below(before.length)]!;
        const id = (await unreadable(world.store, root)).length === 0 ? root.id : undefined;
        if (id !== undefined) {
          const none = new Uint8Array(0);
          await index.write({ ids: none, places: none, count: 0, deletes: id.slice() }, true);
        }
      }
      const report = await world.store.verify();
      const found = await findDamage(world.store, listed(disks), report.finder);
      expect(found).toMatchObject({ checkedDisks: disks.length, moreDisks: 0, isComplete: true });
      const named = new Map(found.disks.map((each) => [each.disk.key, each]));
      for (const { key, root } of disks) {
        const ranges = await unreadable(world.store, root);
        const damage = named.get(key);
        expect(damage?.ranges ?? [], `seed ${seed + round}, ${key}`).toEqual(
          ranges.slice(0, DAMAGED_RANGES_MAX),
        );
        if (damage === undefined) {
          soundDisks++;
          continue;
        }
        damagedDisks++;
        expect(damage.moreRanges).toBe(Math.max(0, ranges.length - DAMAGED_RANGES_MAX));
        expect(damage.bytes).toBe(ranges.reduce((sum, { bytes }) => sum + bytes, 0));
      }
    }
    expect(damagedDisks).toBeGreaterThan(0);
    expect(soundDisks).toBeGreaterThan(0);
  });

  test('is looked for in each node once, however many disks share it', async () => {
    const { world, storage } = await rottenWorld(seed);
    await world.import();
    const [{ root }] = disksOf(world) as [NamedDisk];
    const { finder } = await world.store.verify();
    const once = await findDamage(world.store, listed([{ key: 'one', root }]), finder);
    const reads = storage.reads;
    const many = Array.from({ length: 500 }, (_, i) => ({ key: String(i), root }));
    const all = await findDamage(world.store, listed(many), finder);
    expect(all).toMatchObject({ nodes: once.nodes, checkedDisks: 500, disks: [] });
    // One read may bring several nodes that lie in one run.
    expect(storage.reads - reads).toBeLessThanOrEqual(once.nodes);
  });

  test('of a sector that cannot be read is that of one run', async () => {
    let affected = 0;
    for (let round = 0; round < 4; round++) {
      const { world, storage } = await rottenWorld(seed + round);
      const random = seededRandom(seed + round);
      await world.import();
      await world.import();
      await world.store.seal();
      const files = await storage.list();
      // Before the footer, which one read brings as a whole.
      const { segment, size } = files[random.below(files.length)]!;
      const footerBytes = 16 * KiB;
      storage.bad = { segment, position: round === 0 ? 0 : random.below(Math.max(1, size - footerBytes)) };
      const disks = disksOf(world);
      for (const quick of [false, true]) {
        const report = await world.store.verify({ quick });
        const found = await findDamage(world.store, listed(disks), report.finder);
        if (!quick) expect(report.damaged).toHaveLength(1);
        const named = new Map(found.disks.map((each) => [each.disk.key, each.ranges]));
        for (const { key, root } of disks) {
          const ranges = await unreadable(world.store, root);
          affected += ranges.length;
          const nodesOnly = named.get(key) ?? [];
          // Quick reads nodes alone.
          if (quick) expect(ranges).toEqual(expect.arrayContaining([...nodesOnly]));
          else expect(nodesOnly, `seed ${seed + round}, ${key}`).toEqual(ranges.slice(0, DAMAGED_RANGES_MAX));
        }
      }
    }
    expect(affected).toBeGreaterThan(0);
  });

  test('is named for so many disks and ranges, and the others are counted', async () => {
    const { world, index } = await rottenWorld(seed);
    const session = world.store.openSession();
    const builder = new TreeBuilder(session);
    const kinds = Array.from({ length: 300 }, (_, i) => i + 1);
    const ids = await world.write(session, kinds);
    await builder.append(ids, kinds.length);
    const root = await builder.finish(kinds.length * CHUNK - 512);
    await session.flush();
    session.release();
    await world.store.seal();
    // Before they are lost: it would find them in the segments again.
    const { finder } = await world.store.verify({ quick: true });
    // Every other chunk is lost, the last and cut one among them.
    const deletes = Buffer.concat(
      kinds.flatMap((_, i) => (i % 2 === 1 ? [ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES)] : [])),
    );
    const none = new Uint8Array(0);
    await index.write({ ids: none, places: none, count: 0, deletes }, true);
    const disks = Array.from({ length: DAMAGED_DISKS_MAX + 7 }, (_, i) => ({ key: String(i), root }));
    const found = await findDamage(world.store, listed(disks), finder);
    expect(found).toMatchObject({ moreDisks: 7, checkedDisks: disks.length, missingChunks: 150 });
    expect(found.disks).toHaveLength(DAMAGED_DISKS_MAX);
    const [first] = found.disks;
    expect(first).toMatchObject({ bytes: 150 * CHUNK - 512, moreRanges: 150 - DAMAGED_RANGES_MAX });
    expect(first!.ranges).toHaveLength(DAMAGED_RANGES_MAX);
    expect(first!.ranges[1]).toEqual({ offset: 3 * CHUNK, bytes: CHUNK });
  });

  test('is not looked for any further once the walk is cancelled', async () => {
    const { world } = await rottenWorld(seed);
    await world.import();
    const { finder } = await world.store.verify();
    const walk = findDamage(world.store, listed(disksOf(world)), finder, { signal: AbortSignal.abort() });
    await expect(walk).rejects.toMatchObject({ code: 'cancelled' });
  });
});
