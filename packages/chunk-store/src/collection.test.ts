import { ID_BYTES, KiB } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { readPlace } from './place.ts';
import { RUN_HEADER_BYTES } from './segment-format.ts';
import { writeNumbers } from './store-marks.ts';
import {
  CHUNK,
  chunkOf,
  chunksOf,
  expectChunks,
  idAt,
  isCode,
  put,
  putLeaf,
  range,
  World,
} from './test-world.ts';
import type { ChunkStore, Collection } from './types.ts';

const NONE = (): boolean => false;
const ALL = (): boolean => true;
const NO_HITS = (): void => undefined;

/** A world whose only candidate holds the given chunks. */
async function sealedWorld(
  numbers: readonly number[],
): Promise<{ world: World; store: ChunkStore; ids: Uint8Array }> {
  const world = new World({ segmentBytesMax: 4096 * KiB });
  const store = await world.open();
  const ids = await put(store, numbers);
  await store.seal();
  return { world, store, ids };
}

function pinsOf(collection: Collection): Map<string, number> {
  const { ids, levels, count } = collection.pins;
  return new Map(range(0, count).map((i) => [Buffer.from(idAt(ids, i)).toString('hex'), levels[i]!]));
}

const hex = (ids: Uint8Array, i = 0): string => Buffer.from(idAt(ids, i)).toString('hex');

describe('the barrier', () => {
  it('reports hits from the index, recent places and in any order, before the writer goes on', async () => {
    const { store, ids } = await sealedWorld(range(0, 40));
    const hits: [number, boolean, number, string][] = [];
    const collection = store.beginCollection((_segment, slot, hitIds, offset, isNode, level) => {
      hits.push([
        slot,
        isNode,
        level,
        Buffer.from(hitIds.subarray(offset, offset + ID_BYTES)).toString('hex'),
      ]);
    });
    const session = store.openSession();
    for (let round = 0; round < 3; round++) {
      hits.length = 0;
      await session.writeChunks(chunksOf([5, 900, 7, ...range(20, 15)]), 18);
      expect(hits).toEqual([5, 7, ...range(20, 15)].map((slot) => [slot, false, 0, hex(ids, slot)]));
    }
    hits.length = 0;
    await session.writeNodes(chunkOf(3), 1, 2); // the bytes of a data chunk as a node
    expect(hits).toEqual([[3, true, 2, hex(ids, 3)]]);
    collection.end();
    hits.length = 0;
    await session.writeChunks(chunkOf(5), 1);
    expect(hits).toEqual([]);
    await store.close();
  });

  it('has only segments that were sealed at its beginning as candidates', async () => {
    const { store } = await sealedWorld(range(0, 10));
    await put(store, range(50, 10));
    const hits: number[] = [];
    const collection = store.beginCollection((segment) => hits.push(segment));
    expect(collection.candidates.map(({ segment, slots }) => [segment, slots])).toEqual([[1, 10]]);
    await put(store, range(50, 10));
    await store.seal();
    await put(store, range(50, 10));
    expect(hits).toEqual([]);
    await expect(collection.drop(2, NONE)).rejects.toSatisfy(isCode('internal'));
    expect(() => store.beginCollection(NO_HITS)).toThrow(/under way/);
    collection.end();
    collection.end();
    await expect(collection.drop(1, NONE)).rejects.toThrow(/ended/);
    store.beginCollection(NO_HITS).end();
    await store.close();
  });
});

describe('pins', () => {
  it('without a source are every id, each by itself', async () => {
    const { store } = await sealedWorld([1]);
    const session = store.openSession();
    const ids = await session.writeChunks(chunksOf([1, 2]), 2);
    const node = await putLeaf(session, ids);
    const collection = store.beginCollection(NO_HITS);
    expect(pinsOf(collection)).toEqual(
      new Map([
        [hex(ids, 0), 0],
        [hex(ids, 1), 0],
        [hex(node), 0],
      ]),
    );
    collection.end();
    session.release();
    session.release();
    const after = store.beginCollection(NO_HITS);
    expect(after.pins.count).toBe(0);
    after.end();
    await store.close();
  });

  it('with a source are what it says, and what no node covers yet', async () => {
    const { store } = await sealedWorld([1]);
    const session = store.openSession();
    const said = new Uint8Array(32).fill(7);
    session.setPinSource({ forEachPin: (visit) => visit(said, 0, 3) });
    const early = await session.writeChunks(chunksOf([1, 2]), 2);
    const leaf = await putLeaf(session, early);
    const late = await session.writeChunks(chunkOf(3), 1);
    const collection = store.beginCollection(NO_HITS);
    expect(pinsOf(collection)).toEqual(
      new Map([
        [hex(said), 3],
        [hex(leaf), 1],
        [hex(late), 0],
      ]),
    );
    collection.end();
    const top = new Uint8Array(4096);
    top.set(leaf);
    const topId = await session.writeNodes(top, 1, 2);
    const again = store.beginCollection(NO_HITS);
    expect(pinsOf(again)).toEqual(
      new Map([
        [hex(said), 3],
        [hex(topId), 2],
        [hex(late), 0],
      ]),
    );
    again.end();
    await store.close();
  });

  it('never miss an id between its look-up and the node that holds it, in whatever turn the collection begins', async () => {
    for (let turns = 0; turns < 60; turns++) {
      const { store, ids } = await sealedWorld([...range(1, 12)]);
      const session = store.openSession();
      session.setPinSource({ forEachPin: () => undefined });
      const covered = new Set<string>();
      const writing = (async () => {
        const both = await Promise.all([
          session.writeChunks(chunksOf(range(1, 6)), 6),
          session.writeChunks(chunksOf(range(7, 6)), 6),
        ]);
        await Promise.resolve();
        return putLeaf(session, Buffer.concat(both));
      })();
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      const collection = store.beginCollection((_segment, _slot, hit, offset) => {
        covered.add(Buffer.from(hit.subarray(offset, offset + ID_BYTES)).toString('hex'));
      });
      const pins = pinsOf(collection);
      const leaf = await writing;
      for (let i = 0; i < 12; i++) {
        const alive = pins.has(hex(ids, i)) || pins.get(hex(leaf)) === 1 || covered.has(hex(ids, i));
        if (!alive) expect.fail(`chunk ${i} was lost, ${turns} turns in`);
      }
      await store.close();
    }
  });

  it('of a data chunk with the bytes of a node keep what is below the node', async () => {
    const { store } = await sealedWorld([1]);
    const session = store.openSession();
    session.setPinSource({ forEachPin: () => undefined });
    const leaf = await putLeaf(session, await session.writeChunks(chunkOf(1), 1));
    await putLeaf(session, leaf); // lists the leaf's id as that of data
    const collection = store.beginCollection(NO_HITS);
    expect(pinsOf(collection).get(hex(leaf))).toBe(1);
    await store.close();
  });
});

describe('resolving', () => {
  it('finds places in bulk, holes as 0, chunks on their way in no candidate, and names what is missing', async () => {
    const { store, ids } = await sealedWorld(range(0, 300));
    const collection = store.beginCollection(NO_HITS);
    const session = store.openSession();
    const fresh = await session.writeChunks(chunksOf(range(1000, 3)), 3);
    const all = new Uint8Array(Buffer.concat([ids, new Uint8Array(32), fresh]));
    const segments = new Float64Array(304);
    const slots = new Uint32Array(304);
    await collection.resolve(all, 304, segments, slots);
    expect([...segments]).toEqual([...range(0, 300).map(() => 1), 0, 2, 2, 2]);
    expect([...slots.slice(0, 300)]).toEqual(range(0, 300));
    const missing = new Uint8Array(32).fill(0xab);
    await expect(collection.resolve(missing, 1, segments, slots)).rejects.toThrow('ab'.repeat(32));
    await store.close();
  });
});

describe('dropping a segment', () => {
  it('does nothing while a slot is live, and removes the file when none is; what the index still says counts as nothing', async () => {
    const { world, store, ids } = await sealedWorld(range(0, 30));
    const collection = store.beginCollection(NO_HITS);
    expect(await collection.drop(1, (slot) => slot === 29)).toBe(false);
    await expectChunks(store, ids, range(0, 30));
    expect(await collection.drop(1, NONE)).toBe(true);
    expect(await world.files()).toEqual([]);
    expect((await store.stats()).staleIndexEntries).toBe(30);
    const [segments, slots] = [new Float64Array(1), new Uint32Array(1)];
    await expect(collection.resolve(ids, 1, segments, slots)).rejects.toSatisfy(isCode('chunk-missing'));
    collection.end();
    // Written again, the chunks are new: nothing remembers them as known.
    const again = await put(store, range(0, 30));
    await expectChunks(store, again, range(0, 30));
    expect((await store.verify()).damaged).toEqual([]);
    await store.close();
  });

  it('counts no hit on a segment that is condemned, and keeps the entry of the copy written meanwhile', async () => {
    const { world, store, ids } = await sealedWorld(range(0, 30));
    const collection = store.beginCollection(NO_HITS);
    let condemned: Promise<Uint8Array> | undefined;
    const dropping = collection.drop(1, (slot) => {
      // The last question: what is written from the next turn on must not count on the segment.
      if (slot === 29) condemned ??= Promise.resolve().then(() => put(store, range(0, 30)));
      return false;
    });
    expect(await dropping).toBe(true);
    await expectChunks(store, await condemned!, range(0, 30));
    expect(readPlace(world.index.get(ids, 0)!).segment).toBe(2);
    expect(await world.index.count()).toBe(30);
    await store.close();
    const again = await world.open();
    await expectChunks(again, ids, range(0, 30));
    await again.close();
  });

  it('that breaks off is finished when the store is opened again', async () => {
    const { world, store, ids } = await sealedWorld(range(0, 30));
    const kept = await put(store, range(100, 5));
    const collection = store.beginCollection(NO_HITS);
    world.fs.faults.before = (operation) => {
      if (operation === 'remove') throw Object.assign(new Error('no'), { code: 'EIO' });
    };
    await expect(collection.drop(1, NONE)).rejects.toThrow();
    await world.kill();
    const again = await world.open();
    expect((await world.files()).length).toBe(1);
    await expect(again.readChunk(ids, 0)).rejects.toSatisfy(isCode('chunk-missing'));
    await expectChunks(again, kept, range(100, 5));
    expect((await again.verify()).damaged).toEqual([]);
    await again.close();
  });
});

describe('compacting a segment', () => {
  it('keeps what is live, frees the rest, and finds stale places again', async () => {
    const { world, store, ids } = await sealedWorld(range(0, 256));
    const leaf = { bytes: ids.slice(0, 4096) };
    const node = await store.readNode(await put2(store, leaf.bytes), 0);
    const target = new Uint8Array(128 * CHUNK);
    await store.readChunks(node, 0, 128, target, 0);
    const before = await world.diskBytes();
    const collection = store.beginCollection(NO_HITS);
    const freed = await collection.compact(1, (slot) => slot % 3 === 0 || slot === 101);
    collection.end();
    expect(before - (await world.diskBytes())).toBe(freed);
    expect(freed).toBeGreaterThan(0);
    const live = range(0, 256).filter((slot) => slot % 3 === 0 || slot === 101);
    for (const slot of live) expect(await store.readChunk(ids, slot * 32)).toEqual(chunkOf(slot));
    await expect(store.readChunk(ids, 32)).rejects.toSatisfy(isCode('chunk-missing'));
    const one = new Uint8Array(CHUNK);
    await store.readChunks(node, 99, 1, one, 0);
    expect(one).toEqual(chunkOf(99));
    await store.close();
    const again = await world.open();
    const place = readPlace(world.index.get(ids, 0)!);
    expect(place.segment).toBeGreaterThan(1);
    const cold = { bytes: leaf.bytes };
    await again.readChunks(cold, 99, 1, one.fill(0), 0);
    expect(one).toEqual(chunkOf(99));
    expect((await again.verify()).damaged).toEqual([]);
    await again.close();
  });

  it('copies whole runs as they are, and packs what is left of others', async () => {
    const { world, store, ids } = await sealedWorld(range(0, 64));
    const [old] = await world.files();
    const before = Buffer.from(world.fs.bytesOf(old!));
    const live = range(0, 64).filter((slot) => slot !== 1 && slot !== 33);
    const runOf = (slot: number): Buffer => {
      const { runOffset, runBytes } = readPlace(world.index.get(ids, slot * ID_BYTES)!);
      return before.subarray(runOffset + RUN_HEADER_BYTES, runOffset + runBytes);
    };
    const bodies = range(0, 64).map(runOf);
    const collection = store.beginCollection(NO_HITS);
    await collection.compact(1, (slot) => live.includes(slot));
    collection.end();
    await store.seal();
    const [now] = await world.files();
    const after = Buffer.from(world.fs.bytesOf(now!));
    for (const slot of [4, 31, 36, 63]) expect(after.includes(bodies[slot]!)).toBe(true);
    for (const slot of [0, 32]) expect(after.includes(bodies[slot]!)).toBe(false);
    for (const slot of live) expect(await store.readChunk(ids, slot * ID_BYTES)).toEqual(chunkOf(slot));
    expect((await store.verify()).damaged).toEqual([]);
    await store.close();
    const again = await world.open();
    for (const slot of live) expect(await again.readChunk(ids, slot * ID_BYTES)).toEqual(chunkOf(slot));
    await again.close();
  });

  it('does not copy a whole run that is damaged, wherever it stands', async () => {
    for (const slot of [0, 20, 63]) {
      const { world, store, ids } = await sealedWorld(range(0, 64));
      const [file] = await world.files();
      const { runOffset, runBytes } = readPlace(world.index.get(ids, slot * ID_BYTES)!);
      world.fs.flip(file!, runOffset + runBytes - 1, 1);
      const collection = store.beginCollection(NO_HITS);
      await expect(collection.compact(1, ALL)).rejects.toSatisfy(isCode('chunk-corrupt'));
      collection.end();
      expect(await world.files()).toContain(file);
      const whole = range(0, 64).filter((other) => other >> 2 !== slot >> 2);
      for (const other of whole) expect(await store.readChunk(ids, other * ID_BYTES)).toEqual(chunkOf(other));
      await store.close();
    }
  });

  it('moves chunks too that become live while it copies', async () => {
    const { store, ids } = await sealedWorld(range(0, 60));
    const live = new Set(range(0, 5));
    const collection = store.beginCollection((_segment, slot) => live.add(slot));
    const session = store.openSession();
    let writing: Promise<unknown> | undefined;
    await collection.compact(1, (slot) => {
      // During the first round of questions a writer reuses chunks that were not live when asked for.
      if (slot === 59) writing ??= session.writeChunks(chunksOf(range(20, 10)), 10);
      return live.has(slot);
    });
    collection.end();
    await writing;
    await session.flush();
    await expectChunks(store, ids.slice(20 * 32), range(20, 10));
    await expectChunks(store, ids, range(0, 5));
    expect((await store.verify()).damaged).toEqual([]);
    await store.close();
  });

  it('goes on under concurrent reads and writes', async () => {
    const { world, store, ids } = await sealedWorld(range(0, 120));
    const cold = await (async () => {
      await store.close();
      return world.open();
    })();
    const collection = cold.beginCollection(NO_HITS);
    const stop = new AbortController();
    const reading = (async () => {
      const leaf = { bytes: ids };
      while (!stop.signal.aborted) {
        const target = new Uint8Array(120 * CHUNK);
        await cold.readChunks(leaf, 0, 120, target, 0);
        if (!Buffer.from(target).equals(chunksOf(range(0, 120)))) throw new Error('wrong data');
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const writing = put(cold, range(500, 60));
    await collection.compact(1, ALL);
    collection.end();
    stop.abort();
    await reading;
    await expectChunks(cold, await writing, range(500, 60));
    await cold.close();
  });

  it('that breaks off leaves copies that do not fool later collections', async () => {
    const { world, store, ids } = await sealedWorld(range(0, 40));
    let collection = store.beginCollection(NO_HITS);
    world.fs.faults.before = (operation) => {
      if (operation === 'remove') throw Object.assign(new Error('no'), { code: 'EIO' });
    };
    // Copies exist and are in the index; the old segment stays, since the index cannot be changed.
    const write = world.index.write.bind(world.index);
    world.index.write = (batch, durable) =>
      batch.deletes === undefined ? write(batch, durable) : Promise.reject(new Error('no'));
    await expect(collection.compact(1, (slot) => slot < 20)).rejects.toThrow();
    await store.seal();
    await world.kill();
    await world.index.setMark('removing', new Uint8Array(0)); // as if it had broken off just before
    const again = await world.open();
    collection = again.beginCollection(NO_HITS);
    const segments = new Float64Array(40);
    // The first half of these loads the ids of whole segments where that is allowed; the second half must not
    // be found in the old copies, or the segment that the index names would be dropped as dead.
    const order = new Uint8Array(Buffer.concat([ids.slice(20 * 32), ids.slice(0, 20 * 32)]));
    await collection.resolve(order, 40, segments, new Uint32Array(40));
    expect([...segments]).toEqual([...range(0, 20).map(() => 1), ...range(0, 20).map(() => 2)]);
    collection.end();
    await expectChunks(again, ids, range(0, 40));
    await again.close();
  });

  it('that was killed before its removal was durable leaves nothing that a power cut could bring back', async () => {
    const { world, store } = await sealedWorld(range(0, 10));
    const file = (await world.files())[0]!;
    await writeNumbers(world.index, 'removing', [1]);
    await world.fs.remove(file);
    world.fs = world.fs.kill();
    await (await world.open()).close();
    await world.crash(() => 0); // none of the names that were not synced
    expect(await world.files()).not.toContain(file);
    await store.close().catch(() => undefined);
  });

  it.each([
    ['footer', 100],
    ['trailer', 10],
  ])('that broke off is finished although the %s of the segment is damaged', async (_what, fromEnd) => {
    const { world, store } = await sealedWorld(range(0, 10));
    const file = (await world.files())[0]!;
    await writeNumbers(world.index, 'removing', [1]);
    await store.close();
    world.fs.flip(file, world.fs.bytesOf(file).byteLength - fromEnd, 1);
    const again = await world.open();
    expect(await world.files()).not.toContain(file);
    expect((await again.verify()).damaged).toEqual([]);
    await again.close();
  });
});

async function put2(store: ChunkStore, node: Uint8Array): Promise<Uint8Array> {
  const session = store.openSession();
  const id = await session.writeNodes(node.slice(), 1, 1);
  await session.flush();
  session.release();
  return id;
}
