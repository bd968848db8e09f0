import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { describe, expect, it } from 'vitest';
import { isStatusPayload, parseStatusPayload, tidyExtents } from './status.ts';
import type { StatusSource } from './types.ts';

describe('extents of a reply', () => {
  it('merge equal neighbours and drop empty ones', () => {
    expect(tidyExtents({ lengths: [512, 0, 512, 0, 1_024], flags: [1, 2, 1, 3, 0] }, 4_096, 10)).toEqual({
      lengths: [1_024, 1_024],
      flags: [1, 0],
    });
  });

  it('end with the request, whatever the source says', () => {
    expect(tidyExtents({ lengths: [2 ** 40], flags: [3] }, 0xffff_ffff, 10)).toEqual({
      lengths: [0xffff_ffff],
      flags: [3],
    });
    expect(tidyExtents({ lengths: [100, 100, 100], flags: [0, 1, 2] }, 200, 10).lengths).toEqual([100, 100]);
  });

  it('are no more than allowed, and a last one that merges still counts', () => {
    expect(tidyExtents({ lengths: [1, 2, 3, 4], flags: [7, 7, 8, 8] }, 99, 1)).toEqual({
      lengths: [3],
      flags: [7],
    });
  });

  it('say of every byte what the source said, for random sources', () => {
    const seed = testSeed();
    const random = new SeededRandom(seed);
    for (let run = 0; run < 500; run++) {
      const what = `PANDO_TEST_SEED=${seed}, run ${run}`;
      const count = 1 + random.below(30);
      const lengths = Array.from({ length: count }, () => random.below(20));
      const flags = Array.from({ length: count }, () => random.below(3));
      const length = 1 + random.below(300);
      const extentsMax = 1 + random.below(12);
      const tidy = tidyExtents({ lengths, flags }, length, extentsMax);
      const bytes = (e: { lengths: number[]; flags: number[] }): number[] =>
        e.lengths.flatMap((bytesOf, i) => Array.from({ length: bytesOf }, () => e.flags[i]!));
      const said = bytes({ lengths, flags }).slice(0, length);
      const told = bytes(tidy);
      expect(told, what).toEqual(said.slice(0, told.length));
      expect(tidy.lengths.length, what).toBeLessThanOrEqual(extentsMax);
      if (tidy.lengths.length < extentsMax) expect(told.length, what).toBe(said.length);
      expect(
        tidy.lengths.every((bytesOf) => bytesOf > 0),
        what,
      ).toBe(true);
      for (let i = 1; i < tidy.flags.length; i++) expect(tidy.flags[i], what).not.toBe(tidy.flags[i - 1]);
      const beforeLast = tidy.lengths.slice(0, -1).reduce((sum, bytesOf) => sum + bytesOf, 0);
      expect(beforeLast, what).toBeLessThan(length);
    }
  });
});

describe('a payload that chooses contexts', () => {
  const selected = [5, 9].map((id) => ({ id, source: { name: `x-test:${id}` } as StatusSource }));
  const payload = (length: bigint, ...ids: number[]): Buffer => {
    const bytes = Buffer.alloc(8 + 4 * ids.length);
    bytes.writeBigUInt64BE(length, 0);
    ids.forEach((id, i) => bytes.writeUInt32BE(id, 8 + 4 * i));
    return bytes;
  };

  it('has a length and one id to all of them', () => {
    const sizes = [0, 7, 8, 10, 11, 12, 13, 16, 17, 20];
    expect(sizes.filter((bytes) => isStatusPayload(bytes, 2))).toEqual([12, 16]);
  });

  it('names contexts in its own order', () => {
    expect(parseStatusPayload(payload(2n ** 40n + 1n, 9, 5), selected)).toEqual({
      length: 2 ** 40 + 1,
      contexts: [selected[1], selected[0]],
    });
  });

  it('is refused when an id is unknown or twice there', () => {
    expect(parseStatusPayload(payload(1n, 6), selected)).toBeUndefined();
    expect(parseStatusPayload(payload(1n, 5, 5), selected)).toBeUndefined();
    expect(parseStatusPayload(payload(1n, 0), selected)).toBeUndefined();
  });
});
