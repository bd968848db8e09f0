/** Reading the segments of a store that is not open: everything that can be read comes, aligned, and nothing is written. */
import { idToHex, KiB, PandoError } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { hashOf } from './hashing.ts';
import { MemorySegmentStorage } from './memory-segment-storage.ts';
import { openStoredChunks, type StoredChunks } from './stored-chunks.ts';
import { put, putLeaf, range, World } from './test-world.ts';

/** Ids of everything that stands at a multiple of `step`, holes left out. */
async function idsAt(stored: StoredChunks, step: number, { hashKey }: World): Promise<Set<string>> {
  const hash = hashOf(hashKey);
  const ids = new Set<string>();
  let position = 0;
  for await (const part of stored.parts(new AbortController().signal)) {
    if (!(part instanceof Uint8Array)) {
      position += part.holeBytes;
      continue;
    }
    for (let at = (step - (position % step)) % step; at < part.byteLength; at += step) {
      ids.add(idToHex(hash(part.subarray(at, at + step)), 0));
    }
    position += part.byteLength;
  }
  expect(position).toBe(stored.sizeBytes);
  return ids;
}

async function filled(chunkBytes: number): Promise<{ world: World; data: string[]; leaf: string }> {
  const world = new World({ segmentBytesMax: 100 * KiB }, chunkBytes);
  const store = await world.open();
  const ids = await put(store, range(1, 90));
  const session = store.openSession();
  const leaf = await putLeaf(session, ids);
  await session.flush();
  session.release();
  await store.close();
  const data = range(0, 90).map((i) => idToHex(ids, i * 32));
  return { world, data, leaf: idToHex(leaf, 0) };
}

describe.each([4 * KiB, 16 * KiB])('the stored chunks of a store with chunks of %d bytes', (chunkBytes) => {
  it('are all there, each where it is looked for, and reading them writes nothing', async () => {
    const { world, data, leaf } = await filled(chunkBytes);
    const before = (await world.files()).map((file) => [file, Buffer.from(world.fs.bytesOf(file))]);
    const storage = world.storage();
    const stored = (await openStoredChunks(storage))!;
    expect(stored.chunkBytes).toBe(chunkBytes);
    expect([...(await idsAt(stored, chunkBytes, world))]).toEqual(expect.arrayContaining(data));
    expect(await idsAt(stored, 4 * KiB, world)).toContain(leaf);
    expect(stored.lostRuns).toBe(0);
    await storage.close();
    expect((await world.files()).map((file) => [file, Buffer.from(world.fs.bytesOf(file))])).toEqual(before);
  });

  it('come without what is damaged, and without footers too', async () => {
    const { world, data } = await filled(chunkBytes);
    const [first, second] = await world.files();
    world.fs.damage(first!, (bytes) => {
      bytes[bytes.byteLength - 10]! ^= 1; // the trailer
      bytes[2000]! ^= 1; // the first run
      return bytes;
    });
    world.fs.damage(second!, (bytes) => {
      bytes[2000]! ^= 1;
      return bytes;
    });
    const stored = (await openStoredChunks(world.storage()))!;
    const found = await idsAt(stored, chunkBytes, world);
    const lost = data.filter((id) => !found.has(id));
    expect(lost.length).toBeGreaterThan(0);
    expect(lost.length).toBeLessThanOrEqual(8);
    // The scan of the first segment has passed its damaged run by.
    expect(stored.lostRuns).toBe(1);
  });
});

it('a sector that cannot be read costs the runs on it', async () => {
  const { world, data } = await filled(4 * KiB);
  const storage = world.storage();
  const read = storage.read.bind(storage);
  const stored = (await openStoredChunks(storage))!;
  storage.read = (segment, target, position) =>
    segment === 1 && position <= 5000 && position + target.byteLength > 5000
      ? Promise.reject(new PandoError('store-failed', 'EIO'))
      : read(segment, target, position);
  const found = await idsAt(stored, 4 * KiB, world);
  expect(stored.lostRuns).toBe(1);
  expect(data.filter((id) => !found.has(id)).length).toBeLessThanOrEqual(4);
});

it('there are none where there is no store', async () => {
  expect(await openStoredChunks(new MemorySegmentStorage())).toBeUndefined();
});
