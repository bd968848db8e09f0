import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { expect, test } from 'vitest';
import { compressRun, expandRun } from './codec.ts';
import { CODEC_ZSTD } from './segment-format.ts';
import { compressFrame } from './zstd.ts';

const seed = runSeed();
const random = seededRandom(seed);
const RUN_BYTES = 16_384;

function randomRun(): Uint8Array {
  const raw = new Uint8Array(RUN_BYTES);
  fillRandom(random, raw);
  return raw;
}

/** What the run is stored as, whether or not it looks random, against what zstd makes of it. */
function lost(raw: Uint8Array): number {
  const packed = compressRun(raw)?.slice();
  if (packed !== undefined)
    expect(Buffer.compare(expandRun(packed, CODEC_ZSTD, raw.byteLength), raw)).toBe(0);
  return (packed?.byteLength ?? raw.byteLength) - (compressFrame(raw)?.byteLength ?? raw.byteLength);
}

test(`random bytes are stored as they are (seed ${seed})`, () => {
  for (let time = 0; time < 200; time++) expect(compressRun(randomRun())).toBeUndefined();
});

test(`what is random in part only is compressed (seed ${seed})`, () => {
  for (let time = 0; time < 200; time++) {
    const raw = randomRun();
    const from = between(random, 0, RUN_BYTES / 2);
    raw.fill(between(random, 0, 255), from, from + RUN_BYTES / 4);
    expect(lost(raw)).toBe(0);
  }
});

test(`so are bytes of which some values are more frequent than others (seed ${seed})`, () => {
  for (let time = 0; time < 200; time++) {
    const raw = randomRun();
    // A part of them become one of 64: seven bits and a half of entropy, or less.
    const part = between(random, 64, 255);
    for (let at = 0; at < RUN_BYTES; at++) if (between(random, 0, 255) < part) raw[at] = raw[at]! & 63;
    expect(lost(raw)).toBe(0);
  }
});

test('what repeats at a distance but looks random is not found: the price of not asking zstd', () => {
  const raw = randomRun();
  raw.copyWithin(RUN_BYTES / 2 + 500, 0, 7000); // by halves, the samples would show it
  expect(compressRun(raw)).toBeUndefined();
  expect(compressFrame(raw)!.byteLength).toBeLessThan(RUN_BYTES);
});
