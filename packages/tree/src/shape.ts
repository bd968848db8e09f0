/** The shape of a tree: how high it is, what a node covers, and roots without content. */
import { ID_BYTES, HOLE_ID, idsEqual } from '@pando/common';
import { FANOUT, type Root } from './types.ts';

/** Chunks under a node of each level; level 0 is a chunk itself. Level 7 is past any disk that numbers can count. */
const SPANS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7].map((level) => FANOUT ** level);

/** How many chunks a node of `level` covers. */
export function spanOf(level: number): number {
  return SPANS[level]!;
}

/** How many chunks a disk of `size` bytes has; the last one may be partial. */
export function chunkCount(size: number, chunkBytes: number): number {
  return Math.ceil(size / chunkBytes);
}

/** Levels of nodes above the data of a disk of `size` bytes: as few as cover it, at least 1. */
export function heightFor(size: number, chunkBytes: number): number {
  const chunks = chunkCount(size, chunkBytes);
  let height = 1;
  while (spanOf(height) < chunks) height++;
  return height;
}

/** The root of a disk of `size` bytes that is all hole. */
export function emptyRoot(size: number, chunkBytes: number): Root {
  return { id: HOLE_ID, height: heightFor(size, chunkBytes), size };
}

/** Whether two roots are the same state of a disk: equal content and equal size. */
export function rootsEqual(a: Root, b: Root): boolean {
  return a.size === b.size && a.height === b.height && idsEqual(a.id, 0, b.id, 0);
}

/** Which child of a node of `level` holds the chunk. */
export function childIndex(chunk: number, level: number): number {
  return Math.floor(chunk / spanOf(level - 1)) % FANOUT;
}

/** Whether the `length` bytes at `offset` are zeros. Ends at the first byte that is not. */
export function isZero(bytes: Uint8Array, offset: number, length: number): boolean {
  const end = offset + length;
  for (let i = offset; i < end; i++) {
    if (bytes[i] !== 0) return false;
  }
  return true;
}

/** A copy of one id out of many. */
export function copyId(ids: Uint8Array, offset: number): Uint8Array {
  return ids.slice(offset, offset + ID_BYTES);
}
