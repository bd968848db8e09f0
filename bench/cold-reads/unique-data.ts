/** Much data that is like that of an image, and of which no two blocks are equal. */
import { open, rm } from 'node:fs/promises';
import { namedImage, packData, prng } from '../harness/images.ts';
import type { DiskImage } from '../harness/images.ts';

const BLOCK_BYTES = 4096;
const PIECE_BYTES = 1024 * 1024;
/**
 * Of each block, at a random place, another stretch of noise. With so much the blocks of a Debian system, 33 % when they are
 * compressed by 16 KiB, come to 45 %.
 */
const NOISE_BYTES = 640;
/** Where the stretches are cut out: so large that none is twice in what anybody compresses at once. */
const NOISE_POOL_BYTES = 4 * 1024 * 1024;

const ZEROS = Buffer.alloc(BLOCK_BYTES);

/**
 * The blocks of an image that are not all zeros, over and over in their order, each with noise of its own.
 * @throws Error when there are none
 */
export async function uniqueData(
  image: DiskImage,
  path: string,
  bytes: number,
  seed: number,
): Promise<DiskImage> {
  const source = await packData(image, `${path}.source`);
  const from = await open(source.path, 'r');
  const to = await open(path, 'wx');
  try {
    const next = prng(seed);
    const pool = Buffer.alloc(NOISE_POOL_BYTES);
    for (let at = 0; at < pool.length; at += 4) pool.writeUInt32LE(next(), at);
    const piece = Buffer.alloc(PIECE_BYTES);
    const sourceBytes = source.sizeBytes - (source.sizeBytes % BLOCK_BYTES);
    let written = 0;
    for (let at = 0, before = 0; written < bytes; at += PIECE_BYTES) {
      if (at >= sourceBytes) {
        if (written === before) throw new Error(`${image.path} holds nothing but zeros`);
        before = written;
        at = 0;
      }
      const length = Math.min(piece.length, sourceBytes - at);
      await from.read(piece, 0, length, at);
      let filled = 0;
      for (let offset = 0; offset < length && written + filled < bytes; offset += BLOCK_BYTES) {
        const block = piece.subarray(offset, offset + BLOCK_BYTES);
        if (block.equals(ZEROS)) continue;
        const cutAt = next() % (pool.length - NOISE_BYTES);
        pool.copy(block, next() % (BLOCK_BYTES - NOISE_BYTES), cutAt, cutAt + NOISE_BYTES);
        filled += block.copy(piece, filled);
      }
      await to.write(piece, 0, filled, written);
      written += filled;
    }
  } finally {
    await from.close();
    await to.close();
  }
  await rm(source.path);
  return namedImage(path, `${image.words}, its blocks made unique`);
}
