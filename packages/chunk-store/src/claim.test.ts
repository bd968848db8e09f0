import { ID_BYTES, KiB } from '@pando/common';
import { expect, test } from 'vitest';
import { CHUNK, chunksOf, expectChunks, idAt, isCode, put, putLeaf, range, World } from './test-world.ts';

test('a claimed chunk is pinned like one that was written, until a node that lists it is handed in', async () => {
  const store = await new World({ segmentBytesMax: 4096 * KiB }).open();
  const ids = await put(store, range(1, 600));
  await store.seal();
  const hits: number[] = [];
  const session = store.openSession();
  session.setPinSource({ forEachPin: () => undefined });
  const before = store.beginCollection((_segment, slot) => hits.push(slot));
  const holed = Buffer.concat([ids, new Uint8Array(ID_BYTES)]);
  await session.claimChunks(holed, 601);
  expect(hits).toEqual(range(0, 600)); // the barrier has been told of each
  before.end();
  expect(session.counts).toMatchObject({ chunks: 601, zeroChunks: 1, knownChunks: 600, newChunks: 0 });

  const collection = store.beginCollection(() => undefined);
  expect(collection.pins.count).toBe(600);
  const segment = collection.candidates[0]!.segment;
  const live = new Set<string>();
  for (let i = 0; i < 600; i++) live.add(Buffer.from(idAt(collection.pins.ids, i)).toString('hex'));
  const slots = (await collection.contents(segment)).ids;
  await collection.compact(segment, (slot) => live.has(Buffer.from(idAt(slots, slot)).toString('hex')));
  collection.end();
  await expectChunks(store, ids, range(1, 600));

  await putLeaf(session, ids.subarray(0, 128 * ID_BYTES));
  await session.flush();
  const last = store.beginCollection(() => undefined);
  expect(last.pins.count).toBe(600 - 128 + 1);
  last.end();
  session.release();
  await store.close();
});

test('what is nowhere cannot be claimed, and is not pinned', async () => {
  const store = await new World().open();
  const ids = await put(store, [1, 2]);
  const session = store.openSession();
  const stranger = new Uint8Array(ID_BYTES).fill(7);
  const mixed = Buffer.concat([idAt(ids, 0), stranger, idAt(ids, 1)]);
  expect([...(await store.knownChunks(mixed, 3))]).toEqual([1, 0, 1]);
  await expect(session.claimChunks(mixed, 3)).rejects.toSatisfy(isCode('chunk-unknown'));
  const collection = store.beginCollection(() => undefined);
  expect(collection.pins.count).toBe(0);
  collection.end();
  session.release();
  await expect(session.claimChunks(ids, 2)).rejects.toSatisfy(isCode('internal'));
  await store.close();
});

test('asking which chunks are known relies on none of them: a collection may drop them', async () => {
  const store = await new World({ segmentBytesMax: 4096 * KiB }).open();
  const ids = await put(store, range(1, 20));
  await store.seal();
  const hits: number[] = [];
  const collection = store.beginCollection((_segment, slot) => hits.push(slot));
  expect([...(await store.knownChunks(ids, 20))]).toEqual(range(1, 20).map(() => 1));
  expect(hits).toEqual([]);
  await collection.drop(1, () => false);
  expect([...(await store.knownChunks(ids, 20))]).toEqual(range(1, 20).map(() => 0));
  const session = store.openSession();
  await expect(session.claimChunks(ids, 20)).rejects.toSatisfy(isCode('chunk-unknown'));
  session.release();
  collection.end();
  await store.close();
});

test('a chunk that is on its way can be claimed, and is durable when the claim is flushed', async () => {
  const world = new World();
  const store = await world.open();
  const writer = store.openSession();
  const ids = await writer.writeChunks(chunksOf(range(1, 40)), 40);
  const session = store.openSession();
  await session.claimChunks(ids, 40);
  await session.flush();
  await expectChunks(store, ids, range(1, 40));
  writer.release();
  session.release();
  await store.close();
});

test('a store whose data chunks are longer than nodes takes none by their ids', async () => {
  const store = await new World({}, 4 * CHUNK).open();
  const ids = await put(store, [1]);
  expect([...(await store.knownChunks(ids, 1))]).toEqual([0]);
  const session = store.openSession();
  await expect(session.claimChunks(ids, 1)).rejects.toSatisfy(isCode('chunk-unknown'));
  session.release();
  await store.close();
});
