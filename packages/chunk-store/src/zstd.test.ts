import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { constants, zstdCompressSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { compressFrame, decompressFrame, decompressOnce } from './zstd.ts';

const seed = runSeed();
const random = seededRandom(seed);

/** Bytes that compress more or less. */
function sample(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const kind = between(random, 0, 3);
  if (kind === 0) fillRandom(random, bytes);
  else if (kind === 1) bytes.fill(between(random, 0, 255));
  else for (let at = 0; at < length; at++) bytes[at] = 97 + between(random, 0, kind === 2 ? 3 : 40);
  return bytes;
}

const lengths = [1, 255, 256, 4096, 16384, 65536, 65536 + 255, 65536 + 256, 131072, 300_000];

test(`what was compressed comes back, with the kept context and with the documented calls (seed ${seed})`, () => {
  for (let time = 0; time < 40; time++) {
    const raw = sample(lengths[time % lengths.length]!);
    const frame = compressFrame(raw)?.slice();
    if (frame === undefined) continue;
    expect(frame.byteLength).toBeLessThan(raw.byteLength);
    for (const decompress of [decompressFrame, decompressOnce]) {
      const back = new Uint8Array(raw.byteLength);
      expect(decompress(frame, back)).toBe(true);
      expect(Buffer.compare(back, raw)).toBe(0);
    }
  }
});

test('bytes that do not compress are said to be so', () => {
  const raw = new Uint8Array(16384);
  fillRandom(random, raw);
  expect(compressFrame(raw)).toBeUndefined();
});

test('frames as other programs may write them come back too', () => {
  const raw = sample(20_000).fill(1, 100, 9000);
  for (const params of [
    { [constants.ZSTD_c_checksumFlag]: 1 },
    { [constants.ZSTD_c_contentSizeFlag]: 0 },
    { [constants.ZSTD_c_compressionLevel]: 19 },
  ]) {
    const frame = zstdCompressSync(raw, { params });
    const back = new Uint8Array(raw.byteLength);
    expect(decompressFrame(frame, back)).toBe(true);
    expect(Buffer.compare(back, raw)).toBe(0);
  }
});

test(`whatever a damaged frame gives, the next one comes out right (seed ${seed})`, () => {
  const raw = Uint8Array.from({ length: 16384 }, (_, at) => 97 + (((at * at) >> 9) % 11));
  const frame = compressFrame(raw)!.slice();
  const other = sample(16384).fill(7, 0, 9000);
  const otherFrame = compressFrame(other)!.slice();
  const back = new Uint8Array(16384);
  let refused = 0;
  for (let time = 0; time < 3000; time++) {
    let bad = Buffer.from(frame);
    switch (time % 4) {
      case 0:
        bad[between(random, 0, bad.length - 1)]! ^= 1 << between(random, 0, 7);
        break;
      case 1:
        bad = bad.subarray(0, between(random, 0, bad.length - 1));
        break;
      case 2:
        bad = Buffer.concat([bad, sample(between(random, 1, 40))]);
        break;
      default:
        for (let hit = 0; hit < 8; hit++) bad[between(random, 0, 20)] = between(random, 0, 255);
    }
    if (!decompressFrame(bad, back)) refused++;
    expect(decompressFrame(otherFrame, back)).toBe(true);
    expect(Buffer.compare(back, other)).toBe(0);
    expect(Buffer.compare(compressFrame(raw)!, frame)).toBe(0);
  }
  // A flipped bit may change a literal, and nothing else.
  expect(refused).toBeGreaterThan(1000);
});

test('a frame of another length is refused, shorter or longer', () => {
  const raw = new Uint8Array(16384).fill(5);
  const frame = compressFrame(raw)!.slice();
  for (const length of [0, 1, 16383, 16385, 70_000]) {
    expect(decompressFrame(frame, new Uint8Array(length))).toBe(false);
  }
  expect(decompressFrame(new Uint8Array(), new Uint8Array(10))).toBe(false);
  expect(decompressFrame(frame, new Uint8Array(16384))).toBe(true);
});
