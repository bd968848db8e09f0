import { expect, it } from 'vitest';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { NodeCache } from './node-cache.ts';

const NODE_BYTES = 4096;
const seed = runSeed();

it(`stays within its bytes when nodes get places after they are kept (seed ${seed})`, () => {
  const bytesMax = 64 * NODE_BYTES;
  const cache = new NodeCache(bytesMax);
  const random = seededRandom(seed);
  for (let i = 0; i < 500; i++) {
    const id = fillRandom(random, new Uint8Array(32));
    const node = cache.add(id, 0, fillRandom(random, new Uint8Array(NODE_BYTES)), 0);
    if (random() < 0.7) expect(cache.placesOf(node)).toBe(cache.placesOf(node));
    expect(cache.bytes).toBeLessThanOrEqual(bytesMax);
  }
  expect(cache.bytes).toBeGreaterThan(bytesMax / 2);
});
