/** The crash model over the real engine. */
import { runSeed } from '@pando/common/testing';
import { runCrashModel } from '@pando/volume/testing';
import { describe, it } from 'vitest';
import { mirroredWorld, realWorld } from './real-world.ts';

describe('the engine over power cuts', () => {
  it('loses nothing that was flushed, forked, replaced or resized', async () => {
    await runCrashModel(runSeed(), 15, realWorld);
  }, 120_000);

  // 20: a checkpoint written while a segment was being created passed that segment.
  for (const seed of [11, 12, 20]) {
    it(`nor for the fixed seed ${seed}`, () => runCrashModel(seed, 10, realWorld), 120_000);
  }

  it('nor with a mirror of the catalog, which is lost now and then and made anew', async () => {
    await runCrashModel(runSeed(), 15, mirroredWorld);
  }, 120_000);

  for (const seed of [100, 102, 108]) {
    it(
      `nor, with a lost catalog, for the fixed seed ${seed}`,
      () => runCrashModel(seed, 10, mirroredWorld),
      120_000,
    );
  }
});
