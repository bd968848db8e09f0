/**
 * How the payload of a run is stored: as it is, or compressed with zstd when that saves bytes.
 *
 * What looks random is not given to zstd, which takes 9 µs to find out that it cannot shorten 16 KiB. Looking takes 1 µs, and
 * a fraction of that for most of what can be compressed. Of a Debian system's 34,427 runs that were not zeros 2,345 looked
 * random; 12 of those zstd would have made shorter, by 10 KB in all.
 */
import { PandoError } from '@pando/common';
import { CODEC_RAW } from './segment-format.ts';
import { compressFrame, decompressFrame } from './zstd.ts';

/** The compressed bytes, valid until the next call, or undefined when they would not be fewer. */
export function compressRun(raw: Uint8Array): Uint8Array | undefined {
  return looksRandom(raw) ? undefined : compressFrame(raw);
}

const WINDOW_BYTES = 64;
const counts = new Uint16Array(256);

/**
 * Whether bytes of all values are about equally frequent, in samples from all over: first few, then more. Of n random bytes the
 * squared counts sum up to n + n (n - 1) / 256 in the mean, with a deviation of √(2 n (n - 1) / 256); the bounds are 6 of those away.
 */
function looksRandom(raw: Uint8Array): boolean {
  return raw.byteLength >= 4096 && sumOfSquares(raw, 2) < 270 && sumOfSquares(raw, 16) < 5660;
}

/** Of the counts of each value in so many windows of the bytes, equally far from each other. */
function sumOfSquares(raw: Uint8Array, windows: number): number {
  const step = Math.floor(raw.byteLength / windows);
  counts.fill(0);
  for (let from = 0; from + step <= raw.byteLength; from += step) {
    for (let at = from; at < from + WINDOW_BYTES; at++) counts[raw[at]!]!++;
  }
  let sum = 0;
  for (let value = 0; value < 256; value++) sum += counts[value]! * counts[value]!;
  return sum;
}

/**
 * The raw bytes of a payload, fresh and not shared with `stored`.
 * @throws `chunk-corrupt` when they do not come out as `rawBytes` bytes
 */
export function expandRun(stored: Uint8Array, codec: number, rawBytes: number): Uint8Array {
  const raw = new Uint8Array(rawBytes);
  expandRunInto(stored, codec, raw);
  return raw;
}

/**
 * Fills `raw` with the raw bytes of a payload; after an error it holds anything.
 * @throws `chunk-corrupt` when they are not exactly as many
 */
export function expandRunInto(stored: Uint8Array, codec: number, raw: Uint8Array): void {
  if (codec === CODEC_RAW ? copy(stored, raw) : decompressFrame(stored, raw)) return;
  throw new PandoError('chunk-corrupt', `a run does not decompress to ${raw.byteLength} bytes`);
}

function copy(stored: Uint8Array, raw: Uint8Array): boolean {
  if (stored.byteLength !== raw.byteLength) return false;
  raw.set(stored);
  return true;
}
