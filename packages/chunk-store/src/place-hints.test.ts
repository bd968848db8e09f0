/** Hints about places: what they know, what they forget, and that a wrong one does no harm. */
import { ID_BYTES } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { hashChunk } from './hashing.ts';
import { HINT_MISSES_MAX } from './limits.ts';
import { PlaceHints } from './place-hints.ts';
import { runKey } from './run-cache.ts';
import type { SegmentDirectory } from './segment-directory.ts';
import { RUN_ENTRY_BYTES } from './segment-format.ts';
import { CHUNK, chunkOf, chunksOf, CrashIndex, isCode, putLeaf, range, World } from './test-world.ts';

const PER_RUN = 4;

/** Ids of numbers, one after another. */
function idsOf(numbers: readonly number[]): Uint8Array {
  const ids = new Uint8Array(numbers.length * ID_BYTES);
  for (const [i, number] of numbers.entries()) ids.set(hashChunk(chunkOf(number)), i * ID_BYTES);
  return ids;
}

/** What a segment of runs of four chunks says that it holds. */
function directoryOf(ids: Uint8Array): SegmentDirectory {
  const slots = ids.byteLength / ID_BYTES;
  const runs = Math.ceil(slots / PER_RUN);
  const runTable = new Uint8Array(runs * RUN_ENTRY_BYTES);
  const view = new DataView(runTable.buffer);
  for (let run = 0; run < runs; run++) {
    view.setUint32(run * RUN_ENTRY_BYTES, 48 + run * 1000, true);
    view.setUint32(run * RUN_ENTRY_BYTES + 4, 900 + run, true);
    view.setUint32(run * RUN_ENTRY_BYTES + 8, run * PER_RUN, true);
    view.setUint16(run * RUN_ENTRY_BYTES + 12, Math.min(PER_RUN, slots - run * PER_RUN), true);
  }
  return { runTable, ids };
}

function add(hints: PlaceHints, segment: number, ids: Uint8Array): void {
  const adding = hints.add(segment, directoryOf(ids));
  while (adding.next().done !== true);
}

function wordOf(id: Uint8Array, at: number): number {
  return new DataView(id.buffer, id.byteOffset).getUint32(at, true);
}

describe('place hints', () => {
  it('know the run of each chunk of the segments that were added, and hardly anything else', () => {
    const hints = new PlaceHints(1024);
    const ids = idsOf(range(0, 301));
    expect(hints.find(ids, 0)).toBe(false);
    add(hints, 7, ids);
    expect(hints.has(7)).toBe(true);
    let wrong = 0;
    for (let i = 0; i < 301; i++) {
      expect(hints.find(ids, i * ID_BYTES)).toBe(true);
      const run = Math.floor(i / PER_RUN);
      if (hints.runKey !== runKey(7, 48 + run * 1000) || hints.runBytes !== 900 + run) wrong++;
    }
    expect(wrong).toBeLessThan(5);
    const others = idsOf(range(1000, 1000));
    let found = 0;
    for (let i = 0; i < 1000; i++) if (hints.find(others, i * ID_BYTES)) found++;
    expect(found).toBeLessThan(20);
  });

  it('have no room past three quarters, and forget all for a segment that is asked for again and again', () => {
    const hints = new PlaceHints(256);
    const first = idsOf(range(0, 150));
    const second = idsOf(range(150, 50));
    expect(hints.mayAdd(193)).toBe(false);
    expect(hints.mayAdd(192)).toBe(true);
    add(hints, 1, first);
    expect(hints.mayAdd(42)).toBe(true);
    for (let i = 1; i < HINT_MISSES_MAX; i++) if (hints.mayAdd(50)) throw new Error(`after ${i}`);
    expect(hints.mayAdd(50)).toBe(true);
    add(hints, 2, second);
    expect([hints.has(1), hints.has(2)]).toEqual([false, true]);
    expect(hints.find(second, 49 * ID_BYTES)).toBe(true);
    expect(hints.mayAdd(150)).toBe(false);
  });

  it('that are about another chunk lead to no other bytes, to no damage, and to the index', async () => {
    const world = new World({ placeHintsMax: 256 });
    world.isSlow = () => false;
    let lookUps = 0;
    world.index = new (class extends CrashIndex {
      override get(ids: Uint8Array, offset: number): Uint8Array | undefined {
        lookUps++;
        return super.get(ids, offset);
      }
    })();
    const known = idsOf(range(0, 128));
    // The table is entered by the first word of an id; ten bits of the second are in the entry.
    const entriesOf = (ids: Uint8Array, i: number): number => {
      const id = ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES);
      return (wordOf(id, 0) % 256) * 1024 + (wordOf(id, 4) >>> 22);
    };
    const taken = new Set(range(0, 128).map((i) => entriesOf(known, i)));
    let alike = 128;
    while (!taken.has(entriesOf(hashChunk(chunkOf(alike)), 0))) alike++;

    const first = await world.open();
    const session = first.openSession();
    const leafId = await putLeaf(session, await session.writeChunks(chunksOf(range(0, 128)), 128));
    await session.flush();
    await first.seal();
    const others = await putLeaf(session, await session.writeChunks(chunkOf(alike), 1));
    await session.flush();
    session.release();
    await first.close();

    const store = await world.open();
    const leaf = await store.readNode(leafId, 0);
    const other = await store.readNode(others, 0);
    const target = new Uint8Array(CHUNK);
    for (let round = 0; round < 4; round++) {
      for (let child = 0; child < 128; child += 4) {
        await store.readChunks({ bytes: leaf.bytes }, child, 1, target, 0);
        expect(Buffer.from(target).equals(chunkOf(child))).toBe(true);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    lookUps = 0;
    await store.readChunks({ bytes: leaf.bytes }, 5, 1, target, 0);
    expect(lookUps).toBe(0);
    await store.readChunks({ bytes: other.bytes }, 0, 1, target, 0);
    expect(Buffer.from(target).equals(chunkOf(alike))).toBe(true);
    expect(lookUps).toBe(1);
    expect((await store.stats()).damagedRuns).toBe(0);
    // The same where nothing is read in the turn of the call.
    world.isSlow = () => true;
    const slow = await store.readChunks({ bytes: other.bytes }, 0, 1, target.fill(0), 0);
    expect(slow).toBeUndefined();
    expect(Buffer.from(target).equals(chunkOf(alike))).toBe(true);
    await expect(
      store.readChunks({ bytes: idsOf([alike + 1, ...range(0, 127)]) }, 0, 1, target, 0),
    ).rejects.toSatisfy(isCode('chunk-missing'));
    await store.close();
  });
});
