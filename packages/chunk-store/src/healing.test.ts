/** A chunk that is known to be damaged heals when its bytes come again, and nothing counts on the damaged copy meanwhile. */
import { ID_BYTES, KiB, PandoError } from '@pando/common';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { rebuildIndex } from './chunk-store.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { CHUNK, chunkOf, expectChunks, isCode, put, putLeaf, range, World } from './test-world.ts';
import type { ChunkStore } from './types.ts';

/** A sealed store of some chunks in runs of four, damaged in the body of the run that holds `index`. */
async function damagedWorld(numbers: readonly number[], index: number): Promise<[World, Uint8Array]> {
  const world = new World();
  const store = await world.open();
  const ids = await put(store, numbers);
  await store.close();
  const [file] = await world.files();
  world.fs.damage(file!, (bytes) => {
    // The id stands in the header of its run, and the body of the run follows the ids.
    const at = Buffer.from(bytes).indexOf(ids.subarray(index * ID_BYTES, (index + 1) * ID_BYTES));
    bytes[at + 4 * ID_BYTES + 40]! ^= 0x10;
    return bytes;
  });
  return [world, ids];
}

async function readLeaf(store: ChunkStore, id: Uint8Array, child: number): Promise<Uint8Array> {
  const target = new Uint8Array(CHUNK);
  const leaf = store.peekNode(id, 0) ?? (await store.readNode(id, 0));
  await store.readChunks(leaf, child, 1, target, 0);
  return target;
}

describe('a damaged chunk', () => {
  it('heals when the same bytes are written again, for everybody who holds it, and stays healed', async () => {
    const numbers = range(1, 12);
    const [world, ids] = await damagedWorld(numbers, 5);
    const store = await world.open();
    const session = store.openSession();
    const leaf = await putLeaf(session, ids);
    await session.flush();
    session.release();
    await expect(readLeaf(store, leaf, 5)).rejects.toSatisfy(isCode('chunk-corrupt'));
    expect((await store.stats()).damagedRuns).toBe(1);
    // Again and again: no copy of it is kept as if it were good.
    await expect(store.readChunk(ids, 5 * ID_BYTES)).rejects.toSatisfy(isCode('chunk-corrupt'));

    const again = store.openSession();
    expect(await again.writeChunks(chunkOf(numbers[5]!), 1)).toEqual(ids.slice(5 * 32, 6 * 32));
    expect(again.counts).toMatchObject({ knownChunks: 0, newChunks: 1 });
    await again.flush();
    again.release();
    expect(Buffer.from(await readLeaf(store, leaf, 5)).equals(chunkOf(numbers[5]!))).toBe(true);
    // Its neighbours in the run are still damaged.
    await expect(readLeaf(store, leaf, 4)).rejects.toSatisfy(isCode('chunk-corrupt'));
    expect((await store.verify()).damaged).toHaveLength(1);

    await put(store, numbers);
    for (const [child, number] of numbers.entries()) {
      expect(Buffer.from(await readLeaf(store, leaf, child)).equals(chunkOf(number))).toBe(true);
    }
    expect((await store.verify()).damaged).toEqual([]);
    await world.kill();
    const reopened = await world.open();
    await expectChunks(reopened, ids, numbers);
    // With the ids of whole segments loaded, it is still the new copy that counts.
    const known = reopened.openSession();
    for (let round = 0; round < 20; round++) await put(reopened, numbers);
    known.release();
    await expectChunks(reopened, ids, numbers);
    await reopened.close();
    const index = new MemoryChunkIndex();
    await rebuildIndex(world.storage(), index, world.identity);
    const rebuilt = await world.open(index);
    await expectChunks(rebuilt, ids, numbers);
    await rebuilt.close();
  });

  it('is one, too, that the device cannot read', async () => {
    const numbers = range(1, 12);
    const world = new World();
    const store = await world.open();
    const ids = await put(store, numbers);
    await store.close();
    const [file] = await world.files();
    const bad = Buffer.from(world.fs.bytesOf(file!)).indexOf(ids.subarray(5 * ID_BYTES, 6 * ID_BYTES));
    const open = world.fs.open.bind(world.fs);
    world.fs.open = async (path, mode) => {
      const opened = await open(path, mode);
      const read = opened.read.bind(opened);
      opened.read = async (target, position) => {
        const isBad = path === file && position <= bad && bad < position + target.byteLength;
        if (isBad) throw Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
        return read(target, position);
      };
      return opened;
    };
    const reopened = await world.open();
    await expect(reopened.readChunk(ids, 5 * ID_BYTES)).rejects.toSatisfy(isCode('chunk-corrupt'));
    await expect(reopened.readChunk(ids, 5 * ID_BYTES)).rejects.toThrow(/cannot be read: EIO/);
    // No neighbour is concerned.
    expect(Buffer.from(await reopened.readChunk(ids, 0)).equals(chunkOf(numbers[0]!))).toBe(true);
    await put(reopened, numbers);
    await expectChunks(reopened, ids, numbers);
    await reopened.close();
  });

  it.each([
    ['trailer', 10],
    ['footer', 100],
  ])(
    'of which the device cannot read the %s opens, and all that is in it is read',
    async (_what, fromEnd) => {
      const numbers = range(1, 12);
      const world = new World();
      const store = await world.open();
      const ids = await put(store, numbers);
      await store.close();
      const [file] = await world.files();
      const bad = world.fs.bytesOf(file!).byteLength - fromEnd;
      const open = world.fs.open.bind(world.fs);
      world.fs.open = async (path, mode) => {
        const opened = await open(path, mode);
        const read = opened.read.bind(opened);
        opened.read = async (target, position) => {
          const isBad = path === file && position <= bad && bad < position + target.byteLength;
          if (isBad) throw Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
          return read(target, position);
        };
        return opened;
      };
      const reopened = await world.open();
      await expectChunks(reopened, ids, numbers);
      const { damaged } = await reopened.verify();
      expect([...new Set(damaged.map(({ segment }) => segment))]).toEqual([1]);
      await reopened.close();
    },
  );

  it('is trusted by dedupe until somebody finds it: reading, verifying and compacting do', async () => {
    const numbers = range(1, 12);
    for (const find of ['read', 'verify', 'compact'] as const) {
      const [world, ids] = await damagedWorld(numbers, 5);
      const store = await world.open();
      const before = store.openSession();
      await before.writeChunks(chunkOf(numbers[5]!), 1);
      expect(before.counts.newChunks).toBe(0);
      before.release();
      if (find === 'read') {
        await expect(store.readChunk(ids, 5 * ID_BYTES)).rejects.toSatisfy(isCode('chunk-corrupt'));
      } else if (find === 'verify') {
        expect((await store.verify()).damaged).toHaveLength(1);
      } else {
        const collection = store.beginCollection(() => undefined);
        await expect(collection.compact(1, () => true)).rejects.toSatisfy(isCode('chunk-corrupt'));
        collection.end();
      }
      await put(store, numbers);
      await expectChunks(store, ids, numbers);
      const collection = store.beginCollection(() => undefined);
      await collection.compact(1, () => true);
      collection.end();
      expect((await store.stats()).damagedRuns).toBe(0);
      await expectChunks(store, ids, numbers);
      expect((await store.verify()).damaged).toEqual([]);
      await store.close();
    }
  });

  it('stays healed after a restart, also when the index did not take that its segment is suspect at first', async () => {
    const numbers = range(1, 12);
    const [world, ids] = await damagedWorld(numbers, 5);
    class FullIndex extends MemoryChunkIndex {
      /** Has no room for so many marks. */
      refusals = 0;
      override setMark(name: string, value: Uint8Array): Promise<void> {
        if (this.refusals === 0) return super.setMark(name, value);
        this.refusals--;
        return Promise.reject(new PandoError('store-full', 'no room'));
      }
    }
    const index = new FullIndex();
    await rebuildIndex(world.storage(), index, world.identity);
    const store = await world.open(index);
    index.refusals = 1;
    await expect(store.readChunk(ids, 5 * ID_BYTES)).rejects.toSatisfy(isCode('chunk-corrupt'));
    // Once it is full, and once there is room.
    await put(store, [numbers[5]!]).catch(() => undefined);
    await put(store, [numbers[5]!]);
    expect(index.refusals).toBe(0);
    await store.close();

    const reopened = await world.open(index);
    const collection = reopened.beginCollection(() => undefined);
    const places = (): [Float64Array, Uint32Array] => [new Float64Array(12), new Uint32Array(12)];
    // The first time, the ids of the old segment are loaded.
    await collection.resolve(ids, 12, ...places());
    const [segments, slots] = places();
    await collection.resolve(ids, 12, segments, slots);
    expect([...segments].map((segment, i) => (segment > 1 ? i : -1)).filter((i) => i >= 0)).toEqual([5]);
    collection.end();
    await reopened.close();
  });

  it('of any segment heals by writing everything again, whatever bits flipped', async () => {
    const seed = runSeed();
    const random = seededRandom(seed);
    const numbers = range(1, 60);
    for (let round = 0; round < 40; round++) {
      const world = new World({ segmentBytesMax: 60 * KiB });
      const first = await world.open();
      const ids = await put(first, numbers);
      await first.close();
      for (const file of await world.files()) {
        const flips = between(random, 0, 3);
        world.fs.damage(file, (bytes) => {
          for (let i = 0; i < flips; i++) {
            bytes[between(random, 0, bytes.byteLength - 1)]! ^= 1 << between(random, 0, 7);
          }
          return bytes;
        });
      }
      const store = await world.open();
      await store.verify();
      await put(store, numbers);
      await expectChunks(store, ids, numbers).catch((error: unknown) => {
        throw new Error(`seed ${seed}, round ${round}`, { cause: error });
      });
      await store.close();
      const reopened = await world.open();
      await expectChunks(reopened, ids, numbers);
      await reopened.close();
    }
  });
});
