/** A damaged index: nothing wrong is read, nothing alive is collected, verification mends it, or the next start does. */
import { mkdtemp, open as openFile, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ID_BYTES, isPandoError } from '@pando/common';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { Level } from 'level';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LevelChunkIndex } from './level-chunk-index.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { readPlace, writePlace } from './place.ts';
import { writeNumbers } from './store-marks.ts';
import { CHUNK_MISSING, PLACE_BYTES, type ChunkIndex, type ChunkStore } from './types.ts';
import { expectChunks, isCode, put, range, World } from './test-world.ts';

const seed = runSeed();
const NUMBERS = range(1, 60);

/** Segments of a few runs, and nothing remembered: what is read is what is stored. */
const LIMITS = {
  segmentBytesMax: 64 * 1024,
  runCacheBytes: 1,
  nodeCacheBytes: 1,
  recentPlacesMax: 0,
  placeHintsMax: 0,
};

/** In place: LevelDB has its tables mapped, and would die of one that is cut for a moment. */
async function flip(path: string, at: number, bit: number): Promise<void> {
  const file = await openFile(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0]! ^= 1 << bit;
  await file.write(byte, 0, 1, at);
  await file.close();
}

const ENTRY_BITS = 8 * 22;

/**
 * Flips a bit of the value of an entry in a table. Of a database that is open, nothing else is to be hit: LevelDB ends the process
 * when it comes upon a block that makes no sense.
 */
async function flipEntry(directory: string, id: Uint8Array, bit: number): Promise<void> {
  // A key shares its first bytes with the one before; 8 bytes of LevelDB's stand between it and the value.
  const end = id.subarray(4);
  for (const name of (await readdir(directory)).filter((each) => each.endsWith('.ldb'))) {
    const at = (await readFile(join(directory, name))).indexOf(end);
    if (at >= 0) await flip(join(directory, name), at + end.byteLength + 8 + (bit >> 3), bit & 7);
  }
}

const one = (ids: Uint8Array, i: number): Uint8Array => ids.slice(i * ID_BYTES, (i + 1) * ID_BYTES);

describe('an entry of the index', () => {
  let world: World;
  let store: ChunkStore;
  let ids: Uint8Array;
  beforeEach(async () => {
    world = new World(LIMITS);
    store = await world.open();
    ids = await put(store, NUMBERS);
    await store.seal();
  });
  afterEach(() => store.close());

  it.each([true, false])('that is gone or wrong is found and mended (quick: %s)', async (quick) => {
    const none = new Uint8Array(0);
    const before = readPlace(world.index.get(ids, 5 * ID_BYTES)!);
    const wrong: [number, Partial<typeof before>][] = [
      [5, { slot: before.slot + 1 }],
      [6, { runOffset: before.runOffset + 4 }],
      [7, { runBytes: before.runBytes + 1 }],
      [8, { segment: 2 }],
      [9, { segment: 999 }],
    ];
    for (const [i, change] of wrong) {
      const place = { ...readPlace(world.index.get(ids, i * ID_BYTES)!), ...change };
      const places = new Uint8Array(PLACE_BYTES);
      writePlace(places, 0, place.segment, place.runOffset, place.runBytes, place.slot);
      await world.index.write({ ids: one(ids, i), places, count: 1 }, true);
    }
    await world.index.write({ ids: none, places: none, count: 0, deletes: one(ids, 20) }, true);
    const report = await store.verify({ quick });
    expect(report.damaged.map(({ problem }) => problem.replace(/ for chunk .*;/, ':')).sort()).toEqual([
      'the index has a place in a segment that is gone: mended',
      'the index has a wrong place: mended',
      'the index has a wrong place: mended',
      'the index has a wrong place: mended',
      'the index has a wrong place: mended',
      'the index has no place: mended',
    ]);
    await expectChunks(store, ids, NUMBERS);
    expect((await store.verify({ quick })).damaged).toEqual([]);
  });

  it('that names what no segment has is as good as none', async () => {
    const stranger = new Uint8Array(ID_BYTES).fill(9);
    await world.index.write({ ids: stranger, places: world.index.get(ids, 0)!, count: 1 }, true);
    const segments = new Float64Array(2);
    const { finder } = await store.verify({ quick: true });
    await finder.find(
      new Uint8Array(Buffer.concat([stranger, one(ids, 0)])),
      2,
      segments,
      new Uint32Array(2),
    );
    expect([...segments]).toEqual([CHUNK_MISSING, 1]);
  });

  it('is not mended to a run that is damaged', async () => {
    const none = new Uint8Array(0);
    const place = readPlace(world.index.get(ids, 0)!);
    const [file] = await world.files();
    world.fs.damage(file!, (bytes) =>
      bytes.map((byte, i) => (i === place.runOffset + 200 ? byte ^ 1 : byte)),
    );
    await world.index.write({ ids: none, places: none, count: 0, deletes: one(ids, 0) }, true);
    await store.verify({ quick: true });
    expect(world.index.get(ids, 0)).toBeUndefined();
  });
});

describe(`the files of the index (seed ${seed})`, () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'pando-index-'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  it('entries of which a bit flipped are none, those without a CRC are what they were', async () => {
    const memory = new MemoryChunkIndex();
    const world = new World(LIMITS);
    const store = await world.open(memory);
    const ids = await put(store, NUMBERS);
    await store.close();
    const index = await LevelChunkIndex.open(directory);
    for (let i = 0; i < 30; i++) {
      await index.write({ ids: one(ids, i), places: memory.get(ids, i * ID_BYTES)!, count: 1 }, false);
    }
    await index.close();
    const raw = new Level<Uint8Array, Uint8Array>(directory, { keyEncoding: 'view', valueEncoding: 'view' });
    const whole = await raw.get(one(ids, 3));
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const bad = whole.slice();
      bad[bit >> 3]! ^= 1 << (bit & 7);
      await raw.put(Buffer.concat([one(ids, 3).subarray(0, 31), Uint8Array.of(bit)]), bad);
    }
    await raw.put(one(ids, 4), memory.get(ids, 4 * ID_BYTES)!); // as it was once
    await raw.put(one(ids, 5), whole); // another's
    await raw.put(one(ids, 6), whole.subarray(0, 21));
    await raw.close();
    const again = await LevelChunkIndex.open(directory);
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const id = Buffer.concat([one(ids, 3).subarray(0, 31), Uint8Array.of(bit)]);
      if (!id.equals(one(ids, 3))) expect(again.get(id, 0)).toBeUndefined();
    }
    expect(readPlace(again.get(ids, 4 * ID_BYTES)!)).toEqual(readPlace(memory.get(ids, 4 * ID_BYTES)!));
    expect(again.get(ids, 5 * ID_BYTES)).toBeUndefined();
    expect(again.get(ids, 6 * ID_BYTES)).toBeUndefined();
    await again.close();
  });

  it('with any bit flipped never give wrong data: the chunk, or none, or an index that is refused and made anew', async () => {
    const world = new World(LIMITS);
    const open = async (): Promise<ChunkStore> => {
      let index: ChunkIndex;
      try {
        index = await LevelChunkIndex.open(directory, { writeBufferBytes: 64 * 1024 });
      } catch (error) {
        if (!isPandoError(error, 'index-corrupt')) throw error;
        counts.refused++;
        await rm(directory, { recursive: true });
        index = await LevelChunkIndex.open(directory, { writeBufferBytes: 64 * 1024 });
      }
      return world.open(index);
    };
    const counts = { refused: 0, missing: 0, harmless: 0 };
    const random = seededRandom(seed);
    let store = await open();
    const ids = await put(store, NUMBERS);
    await store.close();
    for (let round = 0; round < 90; round++) {
      const where = `seed ${seed}, round ${round}`;
      // Before it is opened, or while it is open; and every third time not at all.
      const how = round % 3;
      if (how === 1) {
        store = await open();
        const id = one(ids, between(random, 0, NUMBERS.length - 1));
        await flipEntry(directory, id, between(random, 0, ENTRY_BITS - 1));
      } else if (how === 0) {
        const names = (await readdir(directory))
          .filter((name) => /\.(ldb|log)$|^MANIFEST|^CURRENT/.test(name))
          .sort();
        const path = join(directory, names[between(random, 0, names.length - 1)]!);
        const { size } = await stat(path);
        if (size > 0) await flip(path, between(random, 0, size - 1), between(random, 0, 7));
      }
      const { refused } = counts;
      if (how !== 1) store = await open();
      if (how === 2) expect(counts.refused, where).toBe(refused);
      let missing = 0;
      for (let i = 0; i < NUMBERS.length; i++) {
        await expectChunks(store, one(ids, i), [NUMBERS[i]!]).catch((error: unknown) => {
          if (!isCode('chunk-missing')(error)) throw new Error(where, { cause: error });
          missing++;
        });
      }
      const { damaged, indexFiles } = await store.verify({ quick: true });
      await expectChunks(store, ids, NUMBERS);
      if (missing > 0) {
        counts.missing++;
        expect(damaged.length, where).toBeGreaterThanOrEqual(missing);
        expect(indexFiles.length, where).toBeGreaterThan(0);
      } else if (refused === counts.refused) counts.harmless++;
      await store.close();
      // What verification found is mended at the next start.
      if (how === 1) await (await open()).close();
    }
    console.info(`index flips: ${JSON.stringify(counts)}`);
    expect(counts.refused).toBeGreaterThan(20);
    expect(counts.missing).toBeGreaterThan(10);
  });

  it('that are found damaged while it is open are a reason to make it anew at the next start', async () => {
    const world = new World(LIMITS);
    let index = await LevelChunkIndex.open(directory);
    let store = await world.open(index);
    const ids = await put(store, NUMBERS);
    await store.close();
    index = await LevelChunkIndex.open(directory); // makes a table of the log
    store = await world.open(index);
    await flipEntry(directory, one(ids, 7), 3);
    const { indexFiles } = await store.verify();
    expect(indexFiles.map(({ problem }) => problem)).toEqual(['the checksum of a block does not match']);
    await store.close();
    await flipEntry(directory, one(ids, 7), 3); // as if nobody could tell
    await expect(LevelChunkIndex.open(directory)).rejects.toThrow(/verification has found damage/);
  });

  it('of which a power cut tore what no mark came after are no damage; what one came after is', async () => {
    const world = new World({ ...LIMITS, segmentBytesMax: 4 * 1024 * 1024 });
    const open = async (): Promise<ChunkStore> => world.open(await LevelChunkIndex.open(directory));
    const first = await open();
    const ids: Uint8Array[] = [];
    for (let i = 0; i < 20; i++) ids.push(await put(first, range(1 + i * 40, 40)));
    // As the machine leaves it that loses power now: a page of the log is not there.
    const path = join(
      directory,
      (await readdir(directory)).find((name) => name.endsWith('.log'))!,
    );
    expect((await stat(path)).size).toBeGreaterThan(20_000);
    const pages = await readFile(path);
    await first.close();
    await world.kill();
    const sealed = await readFile(path);
    for (const [bytes, isDamage] of [
      [pages, false],
      [sealed, true], // closing sealed the segment, and wrote the checkpoint
    ] as const) {
      await rm(directory, { recursive: true });
      await (await LevelChunkIndex.open(directory)).close();
      const log = join(
        directory,
        (await readdir(directory)).find((name) => name.endsWith('.log'))!,
      );
      await writeFile(log, Buffer.from(bytes).fill(0, 8192, 12_288));
      if (isDamage) await expect(LevelChunkIndex.open(directory)).rejects.toThrow(/in the middle of the log/);
      else {
        const store = await open();
        for (const [i, of] of ids.entries()) await expectChunks(store, of, range(1 + i * 40, 40));
        await store.close();
      }
    }
  });

  it('with a list of segments that is damaged are refused', async () => {
    const world = new World(LIMITS);
    await (await world.open()).close();
    await writeNumbers(world.index, 'suspects', [5, 6]);
    const bytes = (await world.index.getMark('suspects'))!;
    await world.index.setMark(
      'suspects',
      bytes.map((byte, i) => (i === 2 ? byte ^ 1 : byte)),
    );
    await expect(world.open()).rejects.toMatchObject({ code: 'index-corrupt' });
    await world.index.setMark('suspects', bytes.subarray(0, 12)); // of before there was a CRC
    await (await world.open()).close();
  });
});
