/** A verification that goes on where another one was cut off finds what one in a single piece finds, and reads no more than it has to. */
import { ID_BYTES, KiB, PandoError } from '@pando/common';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { isCode, put, range, World } from './test-world.ts';
import type { ChunkStore, VerifyOptions, VerifyPosition, VerifyReport } from './types.ts';

const seed = runSeed();

/** A store of several sealed segments. */
async function segmentsWorld(): Promise<World> {
  const world = new World({ segmentBytesMax: 60 * KiB });
  const store = await world.open();
  await put(store, range(1, 240));
  await store.close();
  expect((await world.files()).length).toBeGreaterThan(4);
  return world;
}

/** Verifies until so many segments are done, and is cut off there. Resolves to how far it was. */
async function cutOff(
  store: ChunkStore,
  segments: number,
  options: VerifyOptions = {},
): Promise<VerifyPosition> {
  const stop = new AbortController();
  const positions: VerifyPosition[] = [];
  const verifying = store.verify({
    ...options,
    signal: stop.signal,
    onPosition: (position) => {
      positions.push(position);
      if (positions.length === segments) stop.abort(new Error('cut'));
    },
  });
  await expect(verifying).rejects.toThrow('cut');
  // As a catalog keeps it.
  return JSON.parse(JSON.stringify(positions.at(-1)!)) as VerifyPosition;
}

const found = ({ chunks, bytes, damaged, moreDamaged }: VerifyReport): object => ({
  chunks,
  bytes,
  damaged,
  moreDamaged,
});

async function flip(world: World, file: string, at: number): Promise<void> {
  await Promise.resolve();
  world.fs.damage(file, (bytes) => {
    bytes[at]! ^= 4;
    return bytes;
  });
}

describe(`a verification that goes on (seed ${seed})`, () => {
  it('finds what one in a single piece finds, wherever it was cut off, also in another process', async () => {
    const random = seededRandom(seed);
    for (let round = 0; round < 12; round++) {
      const world = await segmentsWorld();
      for (const file of await world.files()) {
        if (random() < 0.4)
          await flip(world, file, between(random, 60, world.fs.bytesOf(file).byteLength - 60));
      }
      const whole = await world.open();
      const expected = found(await whole.verify());
      await whole.close();

      let store = await world.open();
      let position = await cutOff(store, between(random, 1, 3));
      await store.close();
      store = await world.open();
      position = await cutOff(store, 1 + position.damagedSegments.length, { from: position });
      await store.close();
      store = await world.open();
      const progress: number[] = [];
      const report = await store.verify({
        from: position,
        onProgress: (done, all) => progress.push(done / all),
      });
      // Of damaged segments, the runs that are whole are hashed each time, and counted once.
      expect(found(report), `round ${round}`).toEqual(expected);
      expect(progress[0]).toBeGreaterThan(0);
      expect(progress.at(-1)).toBe(1);
      await store.close();
    }
  });

  it('reads neither what was found good, nor misses damage there that has become known since', async () => {
    const world = await segmentsWorld();
    const files = await world.files();
    await flip(world, files[1]!, 200);
    const store = await world.open();
    const position = await cutOff(store, 3);
    expect(position).toMatchObject({ next: 4, damagedSegments: [2] });
    // Goes bad afterwards, and nobody knows.
    await flip(world, files[0]!, 200);
    const segmentsOf = (report: VerifyReport): number[] => [
      ...new Set(report.damaged.map(({ segment }) => segment)),
    ];
    expect(segmentsOf(await store.verify({ from: position }))).toEqual([2]);
    // Somebody reads it.
    const collection = store.beginCollection(() => undefined);
    const { ids } = await collection.contents(1);
    collection.end();
    let failed = 0;
    for (let at = 0; at < ids.byteLength; at += ID_BYTES) {
      await store.readChunk(ids, at).catch((error: unknown) => {
        expect(error).toSatisfy(isCode('chunk-corrupt'));
        failed++;
      });
    }
    expect(failed).toBeGreaterThan(0);
    const report = await store.verify({ from: position });
    expect(segmentsOf(report)).toEqual([1, 2]);
    expect(report.position.damagedSegments).toEqual([1, 2]);
    await store.close();
  });

  it('goes on when segments were compacted away meanwhile, and looks at what came since', async () => {
    const world = await segmentsWorld();
    let store = await world.open();
    const before = (await store.verify()).chunks;
    const position = await cutOff(store, 2);
    const collection = store.beginCollection(() => undefined);
    await collection.compact(1, (slot) => slot % 2 === 0);
    await collection.compact(4, (slot) => slot % 2 === 0);
    collection.end();
    await put(store, range(1000, 20));
    await store.close();
    const [last] = (await world.files()).reverse();
    await flip(world, last!, 200);
    store = await world.open();
    const report = await store.verify({ from: position });
    expect(report.damaged).toHaveLength(1);
    expect(`segments/${String(report.damaged[0]!.segment).padStart(12, '0')}.seg`).toBe(last);
    expect(report.chunks).toBeLessThan(before + 20);
    await store.close();
  });

  it('does not count on a segment that was still being written when it was looked at', async () => {
    const world = new World();
    const store = await world.open();
    await put(store, range(1, 4));
    const { position } = await store.verify();
    expect(position).toMatchObject({ next: 0, bytes: 0 });
    await put(store, range(5, 4));
    expect((await store.verify({ from: position })).chunks).toBe(8);
    await store.seal();
    const sealed = (await store.verify({ from: position })).position;
    expect(sealed).toMatchObject({ next: 2, chunks: 8 });
    expect((await store.verify({ from: sealed })).chunks).toBe(8);
    await store.close();
  });

  it('a segment that cannot be read at all is damaged, and what was in it heals', async () => {
    const world = await segmentsWorld();
    const storage = world.storage();
    world.storage = () => storage;
    const store = await world.open();
    const read = storage.read.bind(storage);
    storage.read = (segment, ...rest) =>
      segment === 1 ? Promise.reject(new PandoError('store-failed', 'EIO')) : read(segment, ...rest);
    const report = await store.verify();
    expect(report.damaged.map(({ segment }) => segment)).toContain(1);
    const ids = await put(store, range(1, 240));
    for (let at = 0; at < ids.byteLength; at += ID_BYTES) await store.readChunk(ids, at);
    await store.close();
  });
});
