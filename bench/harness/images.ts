/**
 * What is imported, read and cloned: the Debian image that the guest tests boot (built once, cached outside the checkout),
 * any raw image that is named, or, for a smoke run, a small one drawn from a seed. Three that belong together: `debian-images.ts`.
 */
import { open, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { openSparseFile } from '@pando/common';
import { guestImage } from '../../test/guest/build-image.ts';

export interface DiskImage {
  readonly path: string;
  /** What the results call it. */
  readonly words: string;
  readonly sizeBytes: number;
  /** Bytes that are not holes. */
  readonly dataBytes: number;
}

const SECTOR_BYTES = 512;
const SMOKE_BLOCKS = 512;
const SMOKE_BLOCK_BYTES = 4096;

export async function namedImage(path: string, words = basename(path)): Promise<DiskImage> {
  const { size, blocks } = await stat(path);
  return { path, words, sizeBytes: size, dataBytes: Math.min(size, blocks * SECTOR_BYTES) };
}

export async function debianImage(): Promise<DiskImage> {
  return namedImage((await guestImage()).disk, 'Debian 12 guest of test/guest (ext4)');
}

/**
 * Half of its blocks are text-like, a quarter repeat, the rest is noise; then as much of a hole again. Half of the blocks
 * are the same in all images of one seed, whatever their numbers.
 */
export async function smokeImage(path: string, seed: number, number = 0): Promise<DiskImage> {
  const shared = prng(seed);
  const own = prng(seed + 1 + number);
  const file = await open(path, 'wx');
  try {
    const block = Buffer.alloc(SMOKE_BLOCK_BYTES);
    for (let index = 0; index < SMOKE_BLOCKS; index++) {
      const next = index % 8 < 4 ? shared : own;
      const kind = index % 4;
      for (let at = 0; at < block.length; at++) block[at] = kind < 2 ? 97 + (next() % 8) : next() & 0xff;
      if (kind === 3) block.fill('the same again ');
      await file.write(block, 0, block.length, index * block.length);
    }
    await file.truncate(2 * SMOKE_BLOCKS * SMOKE_BLOCK_BYTES);
  } finally {
    await file.close();
  }
  return namedImage(path, 'small synthetic image');
}

/**
 * The data of an image without its holes, in disk order, at most `bytesMax`: a disk of real content on which every
 * block is allocated.
 */
export async function packData(image: DiskImage, path: string, bytesMax = Infinity): Promise<DiskImage> {
  const source = await openSparseFile(image.path);
  const target = await open(path, 'wx');
  try {
    let bytes = 0;
    for await (const part of source.parts()) {
      if (!(part instanceof Uint8Array)) continue;
      const piece = part.subarray(0, bytesMax - bytes);
      await target.write(piece, 0, piece.byteLength, bytes);
      bytes += piece.byteLength;
      if (bytes >= bytesMax) break;
    }
    await target.truncate(Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES);
  } finally {
    await target.close();
    await source.close();
  }
  return namedImage(path, `${image.words}, data only`);
}

/** Reads a file once, so that every side finds it in the page cache. */
export async function warm(path: string): Promise<void> {
  const source = await openSparseFile(path);
  try {
    const parts = source.parts();
    while ((await parts.next()).done !== true);
  } finally {
    await source.close();
  }
}

/** mulberry32: 32 random bits a call. */
export function prng(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return (bits ^ (bits >>> 14)) >>> 0;
  };
}
