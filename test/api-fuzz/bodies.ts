/** Bodies that are no JSON: disks, whole and sparse, and ids of chunks; good ones and broken ones. */
import { frameHeader, idsFrameHeader, SPARSE_IDS_MEDIA_TYPE, SPARSE_MEDIA_TYPE } from '@pando/common';
import { between } from '@pando/common/testing';

const ID_BYTES = 32;
const SIZES = [0, 512, 1000, 4096, 4096 + 512, 65_536];

export function binaryBody(mediaType: string, random: () => number): Buffer {
  const pick = <T>(items: readonly T[]): T => items[between(random, 0, items.length - 1)]!;
  const bytes = (length: number): Buffer => Buffer.alloc(length, between(random, 0, 3));
  const isBroken = random() < 0.3;
  if (mediaType === SPARSE_MEDIA_TYPE || mediaType === SPARSE_IDS_MEDIA_TYPE) {
    const end = frameHeader(pick([4096, 65_536, 2 ** 30, 100]), 0);
    const data = [frameHeader(0, 4096), bytes(4096)];
    const ids = [idsFrameHeader(4096, 1), bytes(ID_BYTES)];
    const frames = [...(random() < 0.7 ? data : []), ...(mediaType === SPARSE_IDS_MEDIA_TYPE ? ids : [])];
    if (!isBroken) return Buffer.concat([...frames, end]);
    return Buffer.concat(
      pick([
        frames,
        [...frames, ...data, end],
        [...frames, end, bytes(1)],
        [bytes(30)],
        [end.subarray(0, 5)],
      ]),
    );
  }
  // Ids of chunks are bytes as well.
  return bytes(isBroken ? 33 : random() < 0.3 ? ID_BYTES * 3 : pick(SIZES));
}
