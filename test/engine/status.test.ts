/** What disks say about themselves over the real engine, where a collection moves and removes chunks in segments. */
import { runSeed } from '@pando/common/testing';
import { StatusModel } from '@pando/volume/testing';
import { describe, it } from 'vitest';
import { realWorld } from './real-world.ts';

describe('what disks of the real engine say about themselves', () => {
  it('is exact at every moment', () => new StatusModel(runSeed(), realWorld()).run(120), 120_000);

  for (const seed of [31, 32, 33]) {
    it(`and for the fixed seed ${seed}`, () => new StatusModel(seed, realWorld()).run(80), 120_000);
  }
});
