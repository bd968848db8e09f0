import { ID_BYTES, MiB } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { rebuildIndex } from './chunk-store.ts';
import { CHUNK, chunkOf, expectChunks, idAt, put, range, World } from './test-world.ts';
import type { ChunkStore } from './types.ts';

const CHUNK_BYTES = [4096, 65_536];

async function putAnchor(store: ChunkStore, number: number): Promise<Uint8Array> {
  const session = store.openSession();
  const id = await session.writeAnchor(chunkOf(number));
  await session.flush();
  session.release();
  return id;
}

async function anchorsOf(store: ChunkStore): Promise<string[]> {
  const ids = await store.anchors();
  return range(0, ids.byteLength / ID_BYTES).map((i) => hex(idAt(ids, i)));
}

const hex = (id: Uint8Array): string => Buffer.from(id).toString('hex');

describe.each(CHUNK_BYTES)('anchors in a store with chunks of %i bytes', (chunkBytes) => {
  it('are found among data and nodes, in the order of writing, sealed or not', async () => {
    const world = new World({ segmentBytesMax: 4 * MiB }, chunkBytes);
    const store = await world.open();
    await put(store, range(0, 5));
    const first = await putAnchor(store, 100);
    await put(store, range(5, 5));
    await store.seal();
    const second = await putAnchor(store, 102); // one that compresses, and one that does not
    expect(await anchorsOf(store)).toEqual([hex(first), hex(second)]);
    expect(Buffer.from(await store.readChunk(first, 0)).equals(chunkOf(100))).toBe(true);
    expect(Buffer.from(await store.readChunk(second, 0)).equals(chunkOf(102))).toBe(true);
    expect(await store.verify()).toMatchObject({ damaged: [], chunks: 12 });
    await store.close();
  });

  it('are there after a power cut, in a torn segment and with an index made anew', async () => {
    const world = new World({ segmentBytesMax: 4 * MiB }, chunkBytes);
    const store = await world.open();
    await put(store, range(0, 5));
    const id = await putAnchor(store, 100);
    await world.crash(() => 0.5);
    void store.close().catch(() => undefined);
    await rebuildIndex(world.storage(), world.index, world.identity);
    const again = await world.open();
    expect(await anchorsOf(again)).toEqual([hex(id)]);
    expect(Buffer.from(await again.readChunk(id, 0)).equals(chunkOf(100))).toBe(true);
    await again.close();
  });

  it('stay anchors when a compaction moves them, and go when they are dead', async () => {
    const world = new World({ segmentBytesMax: 4 * MiB }, chunkBytes);
    const store = await world.open();
    const kept = await putAnchor(store, 100); // slot 0
    await putAnchor(store, 102);
    const ids = await put(store, range(0, 5)); // slots 2 to 6
    await store.seal();
    const collection = store.beginCollection(() => undefined);
    const segment = collection.candidates[0]!.segment;
    await collection.compact(segment, (slot) => slot === 0 || slot === 4);
    collection.end();
    expect(await anchorsOf(store)).toEqual([hex(kept)]);
    expect(Buffer.from(await store.readChunk(kept, 0)).equals(chunkOf(100))).toBe(true);
    await expectChunks(store, idAt(ids, 2), [2]);
    expect(await store.verify()).toMatchObject({ damaged: [] });
    await store.close();
  });

  it('are found where the end of their segment is damaged', async () => {
    const world = new World({ segmentBytesMax: 4 * MiB }, chunkBytes);
    const store = await world.open();
    await put(store, range(0, 5));
    const id = await putAnchor(store, 100);
    await store.seal();
    const [path] = await world.files();
    const file = await world.fs.open(path!, 'write');
    await file.write([Uint8Array.of(1, 2, 3)], (await file.size()) - 60);
    await file.close();
    expect(await anchorsOf(store)).toEqual([hex(id)]);
    await store.close();
  });
});

it('an anchor has 4,096 bytes whatever the chunks have', async () => {
  const store = await new World({}, 65_536).open();
  const session = store.openSession();
  await expect(session.writeAnchor(new Uint8Array(CHUNK - 1))).rejects.toMatchObject({ code: 'internal' });
  await expect(session.writeAnchor(new Uint8Array(65_536))).rejects.toMatchObject({ code: 'internal' });
  await store.close();
});
