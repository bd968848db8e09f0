/**
 * Buckets as bytes: a year of them in tens of kilobytes, read in a fraction of a millisecond, because that happens for each VM that writes.
 *
 *     bytes    = bucket*
 *     bucket   = step zero known new stored raw [peak]     varints (LEB128), `peak` in buckets of days only
 *     step     = buckets since the start of the one before; of the first since 1970
 *     others   = KiB
 *
 * What was written is the sum of zero, known and new; the most raw bytes of an hour are its own, but for days.
 */
import { PandoError } from '@pando/common';
import { GRAINS, type Bucket, type Grain } from './buckets.ts';

const KiB = 1024;
/** A step and six amounts, each below 2^49. */
const BUCKET_BYTES_MAX = 7 * 7;

export function packBuckets(grain: Grain, buckets: readonly Bucket[]): Buffer {
  const bytes = Buffer.allocUnsafe(buckets.length * BUCKET_BYTES_MAX);
  let at = 0;
  const put = (number: number): void => {
    let rest = number;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes[at++] = (rest % 0x80) | 0x80;
    bytes[at++] = rest;
  };
  let before = 0;
  for (const bucket of buckets) {
    const index = bucket.start / GRAINS[grain].ms;
    put(index - before);
    before = index;
    put(Math.round(bucket.zeroBytes / KiB));
    put(Math.round(bucket.knownBytes / KiB));
    put(Math.round(bucket.newBytes / KiB));
    put(Math.round(bucket.storedBytes / KiB));
    put(Math.round(bucket.rawBytes / KiB));
    if (grain === '1d') put(Math.round(bucket.peakRawBytes / KiB));
  }
  return bytes.subarray(0, at);
}

/** @throws `catalog-corrupt` */
export function unpackBuckets(grain: Grain, bytes: Uint8Array): Bucket[] {
  const buckets: Bucket[] = [];
  let at = 0;
  const next = (): number => {
    let number = 0;
    for (let scale = 1; at < bytes.byteLength; scale *= 0x80) {
      const byte = bytes[at++]!;
      number += (byte & 0x7f) * scale;
      if (!(number <= Number.MAX_SAFE_INTEGER)) break;
      if (byte < 0x80) return number;
    }
    throw new PandoError('catalog-corrupt', 'a record of what a VM wrote is not what was written');
  };
  let index = 0;
  while (at < bytes.byteLength) {
    index += next();
    const zeroBytes = next() * KiB;
    const knownBytes = next() * KiB;
    const newBytes = next() * KiB;
    const storedBytes = next() * KiB;
    const rawBytes = next() * KiB;
    buckets.push({
      start: index * GRAINS[grain].ms,
      writtenBytes: zeroBytes + knownBytes + newBytes,
      zeroBytes,
      knownBytes,
      newBytes,
      storedBytes,
      rawBytes,
      peakRawBytes: grain === '1d' ? next() * KiB : rawBytes,
    });
  }
  return buckets;
}
