import { KiB, PandoError } from '@pando/common';
import { between, fillRandom, runSeed, seededRandom, type CrashFileSystem } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { openChunkStore, rebuildIndex } from './chunk-store.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { decodeFileHeader, fileHeaderBytes } from './segment-format.ts';
import {
  CrashIndex,
  CHUNK,
  chunkOf,
  chunksOf,
  expectChunks,
  idAt,
  isCode,
  put,
  range,
  World,
} from './test-world.ts';
import { CHUNK_MISSING, type ChunkStore } from './types.ts';

/** A store whose last segment was never sealed, as a killed process leaves it. */
async function killedWorld(numbers: readonly number[]): Promise<{ world: World; ids: Uint8Array }> {
  const world = new World();
  const ids = await put(await world.open(), numbers);
  await world.kill();
  return { world, ids };
}

describe('an index without room', () => {
  it('while a segment is being sealed costs neither its footer nor a second one behind it', async () => {
    const world = new World();
    const store = await world.open();
    const session = store.openSession();
    const ids = await session.writeChunks(chunksOf(range(1, 10)), 10);
    let failures = 2;
    const write = world.index.write.bind(world.index);
    world.index.write = (batch, durable) =>
      failures-- > 0
        ? Promise.reject(new PandoError('store-full', 'no room for the index'))
        : write(batch, durable);
    for (let time = 0; time < 2; time++) await expect(store.seal()).rejects.toSatisfy(isCode('store-full'));
    await store.seal();
    await session.flush();
    session.release();
    const [file] = await world.files();
    const sealed = world.fs.bytesOf(file!).slice();
    await store.close();
    const again = await world.open();
    expect((await again.verify()).damaged).toEqual([]);
    await expectChunks(again, ids, range(1, 10));
    await again.close();

    // As one that was sealed at once.
    const other = new World();
    const calm = await other.open();
    await put(calm, range(1, 10));
    await calm.seal();
    const [calmFile] = await other.files();
    expect(sealed.byteLength).toBe(other.fs.bytesOf(calmFile!).byteLength);
    await calm.close();
  });
});

describe('a torn tail', () => {
  it('is cut at the last whole run, wherever the last run breaks off', async () => {
    const numbers = range(1, 5); // a run of four and a run of one
    const { world, ids } = await killedWorld(numbers);
    const [file] = await world.files();
    const whole = world.fs.bytesOf(file!).slice();
    const lastRun = Buffer.from(whole).lastIndexOf('PRUN');
    for (let length = lastRun; length < whole.byteLength; length++) {
      world.fs.damage(file!, () => whole.slice(0, length));
      world.index = new CrashIndex();
      const store = await world.open();
      await expectChunks(store, ids, numbers.slice(0, 4));
      await expect(store.readChunk(ids, 4 * 32)).rejects.toSatisfy(isCode('chunk-missing'));
      expect((await store.verify()).damaged).toEqual([]);
      await store.close();
    }
  });

  it('may be a footer that a killed process left unsynced: the next start makes it durable', async () => {
    const world = new World();
    const store = await world.open();
    const ids = await put(store, range(1, 10));
    let killed: CrashFileSystem | undefined;
    world.fs.faults.before = (operation) => {
      if (operation === 'sync') killed ??= world.fs.copy();
    };
    await store.seal();
    world.fs = killed!;
    world.index = new CrashIndex();
    await world.open();
    await world.crash(() => 0.99); // a luck that loses all that was not synced
    const last = await world.open();
    await expectChunks(last, ids, range(1, 10));
    expect((await last.verify()).damaged).toEqual([]);
    await last.close();
  });

  it('never lies behind a blank header: that is on the disk before the first run is written', async () => {
    const world = new World();
    const store = await world.open();
    let writes = 0;
    let before: CrashFileSystem | undefined;
    world.fs.faults.before = (operation) => {
      if (operation === 'write' && ++writes === 2) before = world.fs.copy();
    };
    await put(store, range(1, 10));
    world.fs = before!.crash(() => 0.99); // a luck that loses all that was not synced
    const [file] = await world.files();
    expect(decodeFileHeader(world.fs.bytesOf(file!))?.segment).toBe(1);
  });

  it('of garbage, or of zeros, is cut, and what was whole can be written again', async () => {
    const seed = runSeed();
    const random = seededRandom(seed);
    for (const tail of [
      new Uint8Array(70_000),
      fillRandom(random, new Uint8Array(5001)),
      Buffer.from('PRUNPRUN'),
    ]) {
      const { world, ids } = await killedWorld(range(1, 10));
      const [file] = await world.files();
      world.fs.damage(file!, (bytes) => new Uint8Array(Buffer.concat([bytes, tail])));
      const store = await world.open();
      await expectChunks(store, ids, range(1, 10));
      await expectChunks(store, await put(store, range(100, 7)), range(100, 7));
      expect((await store.verify()).damaged, `seed ${seed}`).toEqual([]);
      await store.close();
    }
  });

  it('does not take whole runs behind a damaged one with it', async () => {
    const numbers = range(1, 20);
    const { world, ids } = await killedWorld(numbers);
    const [file] = await world.files();
    const second = Buffer.from(world.fs.bytesOf(file!)).indexOf('PRUN', 100);
    world.fs.damage(file!, (bytes) => bytes.fill(0, second, second + 50));
    world.index = new CrashIndex();
    const store = await world.open();
    await expectChunks(store, ids, numbers.slice(0, 4));
    await expectChunks(store, ids.slice(8 * 32), numbers.slice(8));
    await expect(store.readChunk(ids, 4 * 32)).rejects.toSatisfy(isCode('chunk-missing'));
    await put(store, numbers);
    await expectChunks(store, ids, numbers);
    expect((await store.verify()).damaged).toEqual([]);
    await store.close();
    await rebuildIndex(world.storage(), new MemoryChunkIndex(), world.identity);
  });

  it('that is nothing but a header leaves no segment', async () => {
    for (const length of [0, 1, 47, 48]) {
      const { world } = await killedWorld([1]);
      const [file] = await world.files();
      world.fs.damage(file!, (bytes) => bytes.slice(0, length));
      world.index = new CrashIndex();
      const store = await world.open();
      expect(await world.files()).toEqual([]);
      await store.close();
    }
  });
});

describe('a flipped bit', () => {
  it('anywhere in a segment never gives wrong data, and verification finds it', async () => {
    const seed = runSeed();
    const random = seededRandom(seed);
    const numbers = range(1, 12);
    const world = new World();
    const first = await world.open();
    const ids = await put(first, numbers);
    await first.close();
    const [file] = await world.files();
    const whole = world.fs.bytesOf(file!).slice();
    let corrupt = 0;
    for (let round = 0; round < 130; round++) {
      const at = round < 70 ? round * 4 : between(random, 0, whole.byteLength - 1);
      const context = `seed ${seed}, byte ${at}`;
      world.fs.damage(file!, () => whole.map((byte, i) => (i === at ? byte ^ (1 << (round % 8)) : byte)));
      const store = await world.open();
      for (let i = 0; i < numbers.length; i++) {
        const read = await store.readChunk(ids, i * 32).catch((error: unknown) => {
          if (!isCode('chunk-corrupt')(error)) throw error;
          corrupt++;
          return undefined;
        });
        if (read !== undefined && !Buffer.from(read).equals(chunkOf(numbers[i]!))) expect.fail(context);
      }
      if ((await store.verify()).damaged.length === 0) {
        if (!(at >= whole.byteLength - 8 && at < whole.byteLength - 4))
          expect.fail(`${context} was not found`);
      }
      await store.close();
    }
    expect(corrupt).toBeGreaterThan(0);
  });

  it('in the index gives an error, not another chunk', async () => {
    const world = new World();
    const store = await world.open();
    const ids = await put(store, [1, 2]);
    const other = world.index.get(ids, 32)!;
    await world.index.write({ ids: ids.slice(0, 32), places: other, count: 1 }, false);
    await expect(store.readChunk(ids, 0)).rejects.toSatisfy(isCode('chunk-corrupt'));
    expect((await store.verify()).damaged).toHaveLength(1);
    await store.close();
  });
});

describe('a full disk', () => {
  it('is no reason for a store not to close, and what was flushed is there when it opens again', async () => {
    const world = new World({ segmentBytesMax: 4096 * KiB });
    const store = await world.open();
    const ids = await put(store, range(0, 50));
    world.fs.faults.freeBytes = 0;
    await store.close();
    world.fs.faults.freeBytes = Infinity;
    const again = await world.open();
    await expectChunks(again, ids, range(0, 50));
    expect(await again.verify()).toMatchObject({ damaged: [], chunks: 50 });
    await again.close();
  });

  it('fails the sessions in flight, lets reads go on, and writing works again when there is room', async () => {
    for (const free of [0, 10, 48, 500, 5000, 40_000]) {
      const world = new World();
      const store = await world.open();
      const before = await put(store, range(0, 20));
      world.fs.faults.freeBytes = free;
      const session = store.openSession();
      const bystander = store.openSession();
      await bystander.writeChunks(chunksOf(range(500, 2)), 2).catch(() => undefined);
      const full = (async () => {
        await session.writeChunks(chunksOf(range(1000, 300)), 300);
        await session.flush();
      })();
      await expect(full).rejects.toSatisfy(isCode('store-full'));
      await expect(bystander.flush()).rejects.toSatisfy(isCode('store-full'));
      await expect(session.writeChunks(chunkOf(1), 1)).rejects.toSatisfy(isCode('store-full'));
      session.release();
      bystander.release();
      await expectChunks(store, before, range(0, 20));
      world.fs.faults.freeBytes = Infinity;
      const numbers = range(1000, 300);
      const ids = await put(store, numbers);
      await expectChunks(store, ids, numbers);
      expect((await store.verify()).damaged).toEqual([]);
      await store.close();
      const again = await world.open(new MemoryChunkIndex());
      await expectChunks(again, ids, numbers);
      await expectChunks(again, before, range(0, 20));
      await again.close();
    }
  });

  it('does not fail a session that has flushed everything', async () => {
    const world = new World();
    const store = await world.open();
    const quiet = store.openSession();
    await quiet.writeChunks(chunkOf(1), 1);
    await quiet.flush();
    world.fs.faults.freeBytes = 0;
    await expect(put(store, range(10, 20))).rejects.toSatisfy(isCode('store-full'));
    await quiet.flush();
    world.fs.faults.freeBytes = Infinity;
    await quiet.writeChunks(chunkOf(2), 1);
    await quiet.flush();
    await store.close();
  });

  it('where even cutting the torn bytes fails gives the segment up, and seals it later', async () => {
    const world = new World();
    const store = await world.open();
    const before = await put(store, range(0, 20));
    const session = store.openSession();
    await session.writeChunks(chunksOf(range(100, 20)), 20); // appended, never synced
    world.fs.faults.freeBytes = 3000;
    world.fs.faults.before = (operation) => {
      if (operation === 'truncate') throw Object.assign(new Error('no'), { code: 'EIO' });
    };
    await session.writeChunks(chunksOf(range(200, 20)), 20).catch(() => undefined); // may hear of it already
    await expect(session.flush()).rejects.toSatisfy(isCode('store-full'));
    world.fs.faults.freeBytes = Infinity;
    await new Promise((resolve) => setTimeout(resolve, 20)); // the repair goes on behind the rejection
    const numbers = [...range(0, 20), ...range(100, 20), ...range(200, 20)];
    const ids = await put(store, numbers);
    await expectChunks(store, ids, numbers);
    world.fs.faults.before = undefined;
    await store.seal();
    expect(store.beginCollection(() => undefined).candidates.map(({ segment }) => segment)).toEqual([1, 2]);
    expect((await store.verify()).damaged).toEqual([]);
    await store.close();
    const again = await world.open(new MemoryChunkIndex());
    await expectChunks(again, ids, numbers);
    await expectChunks(again, before, range(0, 20));
    await again.close();
  });

  it('keeps a segment from being sealed only as long as it is full', async () => {
    const world = new World({ segmentBytesMax: 60 * KiB });
    const store = await world.open();
    await put(store, range(0, 3));
    world.fs.faults.freeBytes = 0;
    await expect(store.seal()).rejects.toSatisfy(isCode('store-full'));
    world.fs.faults.freeBytes = Infinity;
    const ids = await put(store, range(50, 60));
    await store.seal();
    expect((await store.verify()).damaged).toEqual([]);
    const collection = store.beginCollection(() => undefined);
    expect(collection.candidates.length).toBe((await world.files()).length);
    await expectChunks(store, ids, range(50, 60));
    await store.close();
  });
});

describe('a failed sync', () => {
  it('is final: no write and no flush succeeds any more, reads go on', async () => {
    const world = new World();
    const store = await world.open();
    const before = await put(store, range(0, 5));
    world.fs.faults.failSyncOf = 'segments';
    const session = store.openSession();
    await session.writeChunks(chunksOf(range(10, 5)), 5);
    await expect(session.flush()).rejects.toSatisfy(isCode('store-failed'));
    world.fs.faults.failSyncOf = undefined;
    await expect(session.flush()).rejects.toSatisfy(isCode('store-failed'));
    await expect(put(store, [77])).rejects.toSatisfy(isCode('store-failed'));
    await expect(store.seal()).rejects.toSatisfy(isCode('store-failed'));
    await expectChunks(store, before, range(0, 5));
    await store.close();
    await world.kill();
    const again = await world.open();
    await expectChunks(again, before, range(0, 5));
    await again.close();
  });

  it('never leaves an index entry that points at bytes that were not synced', async () => {
    const world = new World();
    const store = await world.open();
    world.fs.faults.failSyncOf = 'segments';
    const session = store.openSession();
    const ids = await session.writeChunks(chunksOf(range(0, 9)), 9);
    await expect(session.flush()).rejects.toSatisfy(isCode('store-failed'));
    for (let i = 0; i < 9; i++) expect(world.index.get(idAt(ids, i), 0)).toBeUndefined();
    await store.close();
  });
});

describe('a segment', () => {
  it('of which the header is blank keeps its chunks, when it had been synced', async () => {
    for (const sealed of [false, true]) {
      const world = new World();
      const first = await world.open();
      await put(first, range(100, 5));
      await first.close();
      const store = await world.open();
      const ids = await put(store, range(1, 10));
      if (sealed) await store.close();
      else await world.kill();
      const file = (await world.files()).at(-1)!;
      world.fs.damage(file, (bytes) => bytes.fill(0, 0, 48));
      const again = await world.open();
      await expectChunks(again, ids, range(1, 10));
      expect((await again.verify()).damaged).toMatchObject([{ problem: 'the file header is damaged' }]);
      await again.close();
    }
  });

  it('that was open, and of which a run rotted before recovery cut or left it out: verification knows what is lost', async () => {
    for (const which of ['first', 'last']) {
      const { world, ids } = await killedWorld(range(1, 20));
      const [file] = await world.files();
      const bytes = Buffer.from(world.fs.bytesOf(file!));
      const run = which === 'first' ? bytes.indexOf('PRUN') : bytes.lastIndexOf('PRUN');
      world.fs.damage(file!, (whole) => whole.fill(0, run + 10, run + 60));
      const store = await world.open();
      for (const quick of [true, false]) {
        const segments = new Float64Array(20);
        const { finder } = await store.verify({ quick });
        await finder.find(ids, 20, segments, new Uint32Array(20));
        const lost = which === 'first' ? range(0, 4) : range(16, 4);
        expect(range(0, 20).filter((i) => segments[i] === CHUNK_MISSING)).toEqual(lost);
      }
      await expect(store.readChunk(ids, (which === 'first' ? 0 : 19) * 32)).rejects.toSatisfy(
        isCode('chunk-corrupt'),
      );
      // Written again, they are there again.
      await put(store, range(1, 20));
      await expectChunks(store, ids, range(1, 20));
      await store.close();
    }
  });

  it('with a damaged header is not taken for empty where store.json is of another store', async () => {
    for (const how of ['indexed', 'not indexed', 'sealed']) {
      const isIndexed = how !== 'not indexed';
      const world = new World({ segmentBytesMax: 64 * KiB });
      const first = await world.open();
      const ids = await put(first, range(1, 60));
      // The last one is open, or all are known to be sealed.
      await (how === 'sealed' ? first.close() : world.kill());
      const files = await world.files();
      expect(files.length).toBeGreaterThan(1);
      const file = isIndexed ? files.at(-1)! : files[0]!;
      world.fs.damage(file, (bytes) => bytes.fill(1, 8, 12));
      const index = isIndexed ? world.index : new CrashIndex();
      const other = { ...world.identity, storeId: new Uint8Array(16).fill(77) };
      await expect(openChunkStore({ storage: world.storage(), index, ...other })).rejects.toSatisfy(
        isCode('store-foreign'),
      );
      expect(await world.files()).toEqual(files);
      const store = await world.open(new CrashIndex());
      await expectChunks(store, ids, range(1, 60));
      await store.close();
    }
  });

  it.each(['open', 'sealed', 'without an index'])(
    'that is the only one and has a damaged header is not taken for empty where store.json is of another store: %s',
    async (how) => {
      const otherKey = new Uint8Array(32).fill(5);
      for (const blank of [false, true]) {
        for (const other of [
          { storeId: new Uint8Array(16).fill(77) },
          { chunkBytes: 2 * CHUNK },
          { hashKey: otherKey },
        ]) {
          const world = new World();
          const first = await world.open();
          const ids = await put(first, range(1, 20));
          await (how === 'sealed' ? first.close() : world.kill());
          const files = await world.files();
          expect(files).toHaveLength(1);
          world.fs.damage(files[0]!, (bytes) =>
            blank ? bytes.fill(0, 0, fileHeaderBytes(world.identity)) : bytes.fill(1, 8, 12),
          );
          const before = Buffer.from(world.fs.bytesOf(files[0]!));
          const index = how === 'without an index' ? new CrashIndex() : world.index;
          const opening = openChunkStore({ storage: world.storage(), index, ...world.identity, ...other });
          await expect(opening).rejects.toSatisfy(isCode('store-foreign'));
          await expect(opening).rejects.toThrow(/segment 1 has a damaged header and holds chunks/);
          expect(await world.files()).toEqual(files);
          expect(before.equals(world.fs.bytesOf(files[0]!))).toBe(true);
          // With its own store.json nothing is lost.
          const store = await world.open(new CrashIndex());
          await expectChunks(store, ids, range(1, 20));
          await store.close();
        }
      }
    },
  );

  it('with a damaged header and chunks of another store does not keep a store from opening that has segments of its own', async () => {
    const world = new World({ segmentBytesMax: 64 * KiB });
    const stranger = new World({}, CHUNK, new Uint8Array(32).fill(5));
    await put(await stranger.open(), range(1, 5));
    await stranger.kill();
    const first = await world.open();
    const ids = await put(first, range(1, 60));
    await first.close();
    const files = await world.files();
    const other = Buffer.from(stranger.fs.bytesOf((await stranger.files())[0]!)).fill(1, 8, 12);
    world.fs.damage(files.at(-1)!, () => Buffer.from(other));
    const store = await world.open(new CrashIndex());
    await expectChunks(store, ids, range(1, 10));
    await store.close();
    expect(other.equals(world.fs.bytesOf(files.at(-1)!))).toBe(true);
  });

  it('that is the only one and has a damaged header is not removed for another store, whichever read of it fails', async () => {
    const world = new World();
    const first = await world.open();
    const ids = await put(first, range(1, 20));
    await world.kill();
    const files = await world.files();
    world.fs.damage(files[0]!, (bytes) => bytes.fill(1, 8, 12));
    const before = Buffer.from(world.fs.bytesOf(files[0]!));
    let failing = 0;
    let reads: number;
    do {
      failing++;
      const storage = world.storage();
      const read = storage.read.bind(storage);
      reads = 0;
      storage.read = (segment, target, position) =>
        ++reads === failing
          ? Promise.reject(Object.assign(new Error('no'), { code: 'EIO' }))
          : read(segment, target, position);
      const other = { ...world.identity, storeId: new Uint8Array(16).fill(77) };
      const opened = await openChunkStore({ storage, index: new CrashIndex(), ...other }).catch(
        (error: unknown) => error,
      );
      if (!(opened instanceof Error)) await (opened as ChunkStore).close();
      expect(reads >= failing || isCode('store-foreign')(opened), `read ${failing}`).toBe(true);
      expect(await world.files()).toEqual(files);
      expect(before.equals(world.fs.bytesOf(files[0]!))).toBe(true);
    } while (reads >= failing);
    expect(failing).toBeGreaterThan(4);
    const store = await world.open(new CrashIndex());
    await expectChunks(store, ids, range(1, 20));
    await store.close();
  });

  it('that is the only one, with a damaged header and nothing behind it, is empty', async () => {
    const world = new World();
    const first = await world.open();
    await put(first, range(1, 5));
    await world.kill();
    const [file] = await world.files();
    world.fs.damage(file!, (bytes) => bytes.subarray(0, 60).fill(1, 8, 12));
    const store = await world.open(new CrashIndex());
    expect(await world.files()).toEqual([]);
    await store.close();
  });

  it('that is another one does not keep the store from opening, and is left as it is', async () => {
    for (const indexed of [true, false]) {
      const world = new World({ segmentBytesMax: 64 * KiB });
      const first = await world.open();
      const ids = await put(first, range(1, 60));
      await first.close();
      const files = await world.files();
      const other = world.fs.bytesOf(files[1]!).slice();
      world.fs.damage(files[0]!, () => other.slice());
      if (!indexed) world.index = new CrashIndex();
      const store = await world.open();
      let missing = 0;
      for (let i = 0; i < 60; i++) {
        await expectChunks(store, idAt(ids, i), [i + 1]).catch((error: unknown) => {
          expect(error).toSatisfy(isCode(indexed ? 'chunk-corrupt' : 'chunk-missing'));
          missing++;
        });
      }
      expect(missing).toBeGreaterThan(5);
      expect(missing).toBeLessThan(50);
      const problems = (await store.verify()).damaged.map(({ segment, problem }) => `${segment}: ${problem}`);
      expect(problems).toContain('1: the file header is damaged');
      await expectChunks(store, await put(store, range(1, 60)), range(1, 60));
      await store.close();
      expect(Buffer.from(world.fs.bytesOf(files[0]!)).equals(other)).toBe(true);
    }
  });
});
