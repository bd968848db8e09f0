/** Stores whose ids are keyed: what the key does to ids, where it is kept, and that none is taken for another. */
import { crc32 } from 'node:zlib';
import { blake3 } from '@noble/hashes/blake3.js';
import { KiB } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { openChunkStore, rebuildIndex } from './chunk-store.ts';
import { hashChunk } from './hashing.ts';
import { createMemoryChunkStore } from './memory-chunk-store.ts';
import { encodeFileHeader, fileHeaderBytes, segmentSeed } from './segment-format.ts';
import { readStoreOf } from './store-of-segments.ts';
import {
  CHUNK,
  chunkOf,
  CrashIndex,
  expectChunks,
  HASH_KEY,
  idAt,
  isCode,
  put,
  putLeaf,
  range,
  STORE_ID,
  World,
} from './test-world.ts';

const OTHER_KEY = HASH_KEY.map((byte) => byte ^ 1);
const PLAIN = { storeId: STORE_ID, chunkBytes: CHUNK };
const KEYED = { ...PLAIN, hashKey: HASH_KEY };
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** A keyed store of several segments, closed. */
async function filled(): Promise<{ world: World; ids: Uint8Array }> {
  const world = new World({ segmentBytesMax: 64 * KiB }, CHUNK, HASH_KEY);
  const store = await world.open();
  const ids = await put(store, range(1, 60));
  await store.close();
  return { world, ids };
}

describe('ids that are keyed', () => {
  it('are BLAKE3 with that key, of data and of nodes, by threads and without them', async () => {
    for (const workers of [0, 2]) {
      const store = await createMemoryChunkStore(CHUNK, { workers }, HASH_KEY);
      expect(store.isKeyed).toBe(true);
      const numbers = range(0, 200);
      const ids = await put(store, numbers);
      for (const number of numbers)
        expect(hex(idAt(ids, number))).toBe(hex(blake3(chunkOf(number), { key: HASH_KEY })));
      const session = store.openSession();
      const leaf = await putLeaf(session, ids);
      const node = await store.readChunk(leaf, 0);
      expect(hex(leaf)).toBe(hex(blake3(node, { key: HASH_KEY })));
      expect(hex(store.hash(node))).toBe(hex(leaf));
      session.release();
      await expectChunks(store, ids, numbers);
      await store.close();
    }
  });

  it('cannot be told from the bytes, nor from ids of a store with another key; zeros are a hole everywhere', async () => {
    const stores = await Promise.all(
      [undefined, HASH_KEY, OTHER_KEY].map((key) => createMemoryChunkStore(CHUNK, {}, key)),
    );
    const ids = await Promise.all(stores.map(async (store) => hex(await put(store, [1]))));
    expect(ids[0]).toBe(hex(hashChunk(chunkOf(1))));
    expect(new Set(ids).size).toBe(3);
    const plain = hashChunk(chunkOf(1));
    expect([...(await stores[1]!.knownChunks(plain, 1))]).toEqual([0]);
    await expect(stores[1]!.readChunk(plain, 0)).rejects.toSatisfy(isCode('chunk-missing'));
    for (const store of stores) {
      const session = store.openSession();
      expect(hex(await session.writeChunks(new Uint8Array(CHUNK), 1))).toBe('00'.repeat(32));
      session.release();
      await store.close();
    }
  });
});

describe('the key', () => {
  it('leaves each segment a seed of its own, as do the store and the size of chunks', () => {
    const others = [
      segmentSeed(KEYED, 2),
      segmentSeed({ ...KEYED, storeId: new Uint8Array(16).fill(77) }, 1),
      segmentSeed({ ...KEYED, chunkBytes: 2 * CHUNK }, 1),
      segmentSeed({ ...KEYED, hashKey: new Uint8Array(32).fill(77) }, 1),
    ];
    expect(new Set([segmentSeed(KEYED, 1), ...others]).size).toBe(5);
  });

  it('stands in every segment, which say all of the store when nothing else is left', async () => {
    const { world, ids } = await filled();
    const files = await world.files();
    expect(files.length).toBeGreaterThan(1);
    for (const [i, file] of files.entries()) {
      const header = Buffer.from(world.fs.bytesOf(file).subarray(0, 84));
      expect(header.equals(encodeFileHeader(KEYED, i + 1))).toBe(true);
      expect(header.subarray(48, 80).equals(HASH_KEY)).toBe(true);
    }
    const said = await readStoreOf(world.storage());
    expect(said).toEqual(KEYED);
    const index = new CrashIndex();
    await rebuildIndex(world.storage(), index, said!);
    const store = await world.open(index);
    await expectChunks(store, ids, range(1, 60));
    expect(await store.verify()).toMatchObject({ chunks: 60, damaged: [] });
    await store.close();
  });

  it('of which a segment that was open is blank, or torn, is not needed to read it', async () => {
    for (const end of [84, 48, 10]) {
      const world = new World({}, CHUNK, HASH_KEY);
      await put(await world.open(), range(100, 5)).then(() => world.kill());
      const store = await world.open();
      const ids = await put(store, range(1, 10));
      await world.kill();
      world.fs.damage((await world.files()).at(-1)!, (bytes) => bytes.fill(0, 0, end));
      const again = await world.open();
      await expectChunks(again, ids, range(1, 10));
      expect((await again.verify()).damaged).toMatchObject([{ problem: 'the file header is damaged' }]);
      await again.close();
    }
  });

  it('that is another one is refused, as is none, and one where none belongs; nothing is changed', async () => {
    const { world } = await filled();
    const plain = new World();
    plain.hashKey = undefined;
    await put(await plain.open(), [1]).then(() => plain.kill());
    for (const [at, identity, says] of [
      [world, { ...KEYED, hashKey: OTHER_KEY }, /with another key of ids/],
      [world, PLAIN, /with another key of ids/],
      [plain, KEYED, /without a key of ids/],
    ] as const) {
      const before = (await at.files()).map((file) => hex(at.fs.bytesOf(file)));
      for (const index of [at.index, new CrashIndex()]) {
        const opening = openChunkStore({ storage: at.storage(), index, ...identity });
        await expect(opening).rejects.toSatisfy(isCode('store-foreign'));
        await expect(opening).rejects.toThrow(says);
      }
      expect((await at.files()).map((file) => hex(at.fs.bytesOf(file)))).toEqual(before);
    }
    await expect(
      openChunkStore({
        storage: world.storage(),
        index: new CrashIndex(),
        ...{ ...KEYED, hashKey: new Uint8Array(31) },
      }),
    ).rejects.toSatisfy(isCode('internal'));
  });

  it('of one segment that is another one is damage to that segment', async () => {
    for (const hashKey of [OTHER_KEY, undefined]) {
      const { world, ids } = await filled();
      const [, second] = await world.files();
      const header = encodeFileHeader({ ...PLAIN, hashKey }, 2);
      world.fs.damage(second!, (bytes) => {
        bytes.set(header);
        return bytes;
      });
      expect(await readStoreOf(world.storage())).toBeUndefined();
      // It is known what it should be, so nothing is lost.
      const store = await world.open();
      await expectChunks(store, ids, range(1, 60));
      const { damaged } = await store.verify();
      expect(damaged).toMatchObject([{ segment: 2, offset: 0, problem: 'the file header is damaged' }]);
      await store.close();
      // An index that is made anew is not made from what says that it is another store's.
      const before = Buffer.from(world.fs.bytesOf(second!));
      const again = await world.open(new CrashIndex());
      await expect(expectChunks(again, ids, range(1, 60))).rejects.toSatisfy(isCode('chunk-missing'));
      await expectChunks(again, await put(again, range(1, 60)), range(1, 60));
      await again.close();
      expect(before.equals(world.fs.bytesOf(second!))).toBe(true);
    }
  });

  it('makes a version that who knows only the first one refuses by what it knows of headers', () => {
    const [plain, keyed] = [encodeFileHeader(PLAIN, 7), encodeFileHeader(KEYED, 7)].map((bytes) =>
      Buffer.from(bytes),
    );
    expect([plain!.byteLength, keyed!.byteLength]).toEqual([48, 84]);
    expect([fileHeaderBytes(PLAIN), fileHeaderBytes(KEYED)]).toEqual([48, 84]);
    expect([plain!.readUInt32LE(8), keyed!.readUInt32LE(8)]).toEqual([1, 2]);
    expect(keyed!.subarray(12, 44).equals(plain!.subarray(12, 44))).toBe(true);
    for (const header of [plain!, keyed!])
      expect(header.readUInt32LE(44)).toBe(crc32(header.subarray(0, 44)));
  });
});
