/** The crash model over the real engine. */
import { runSeed } from '@pando/common/testing';
import { runCrashModel } from '@pando/volume/testing';
import { describe, it } from 'vitest';
import { mirroredWorld, realWorld } from './real-world.ts';

const HASH_KEY = new Uint8Array(32).map((_, i) => 0x60 + i);

/** Every other seed plays a store whose ids are keyed. */
function keyOf(seed: number): Uint8Array | undefined {
  return seed % 2 === 0 ? undefined : HASH_KEY;
}

describe('the engine over power cuts', () => {
  it('loses nothing that was flushed, forked, replaced or resized', async () => {
    const seed = runSeed();
    await runCrashModel(seed, 15, realWorld(keyOf(seed)));
  }, 120_000);

  // 20: a checkpoint written while a segment was being created passed that segment.
  for (const seed of [11, 12, 20]) {
    it(`nor for the fixed seed ${seed}`, () => runCrashModel(seed, 10, realWorld()), 120_000);
  }

  it('nor with ids that are keyed', () => runCrashModel(13, 10, realWorld(HASH_KEY)), 120_000);

  it('nor with a mirror of the catalog, which is lost now and then and made anew', async () => {
    const seed = runSeed();
    await runCrashModel(seed, 15, mirroredWorld(keyOf(seed)));
  }, 120_000);

  for (const seed of [100, 102, 108]) {
    it(
      `nor, with a lost catalog, for the fixed seed ${seed}`,
      () => runCrashModel(seed, 10, mirroredWorld()),
      120_000,
    );
  }

  it(
    'nor, with a lost catalog, with ids that are keyed',
    () => runCrashModel(103, 10, mirroredWorld(HASH_KEY)),
    120_000,
  );
});
