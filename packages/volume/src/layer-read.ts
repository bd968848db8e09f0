/** Reading through a chain of layers: overlays first, the tree for the rest. */
import { PandoError, isPandoError } from '@pando/common';
import { readTree, type ChunkReader, type Root } from '@pando/tree';
import { bottomOf, findChunk, type Layer } from './layer.ts';
import { ABSENT, LOST, ZERO, isBaseless } from './overlay.ts';
import type { SlotPool } from './slot-pool.ts';

/**
 * Fills `target[at … at + length − 1]` with what the disk holds from `offset` on; undefined when all of it was
 * in memory. `holes` as in BlockDevice.read.
 */
export function readLayers(
  top: Layer,
  offset: number,
  length: number,
  target: Buffer,
  at: number,
  pool: SlotPool,
  reader: ChunkReader,
  holes: number[] | undefined,
): Promise<void> | undefined {
  if (top.root !== undefined) return readRoot(top, offset, length, target, at, reader, holes);
  const chunkBytes = pool.chunkBytes;
  const end = offset + length;
  const bottom = bottomOf(top);
  let pending: Promise<void>[] | undefined;
  /** Hole lists of the stretches read from the tree, in order; some are filled in later. */
  let lists: number[][] | undefined;
  const own: number[] = [];
  let from = offset;
  while (from < end) {
    const chunk = Math.floor(from / chunkBytes);
    const slot = findChunk(top, chunk);
    let to = Math.min(end, (chunk + 1) * chunkBytes);
    if (slot === ABSENT) {
      // As far as nothing is in an overlay, the tree is asked once.
      let next = chunk + 1;
      while (to < end && findChunk(top, next) === ABSENT) to = Math.min(end, ++next * chunkBytes);
      const list: number[] | undefined = holes === undefined ? undefined : [];
      if (list !== undefined) (lists ??= []).push(list);
      try {
        const waiting = readRoot(bottom, from, to - from, target, at + from - offset, reader, list);
        if (waiting !== undefined) (pending ??= []).push(waiting);
      } catch (error) {
        if (pending === undefined) throw error;
        return afterAll(pending).then(() => Promise.reject(error as Error));
      }
    } else if (isBaseless(slot)) {
      const list: number[] | undefined = holes === undefined ? undefined : [];
      if (list !== undefined) (lists ??= []).push(list);
      const place = at + from - offset;
      (pending ??= []).push(readBaseless(top, from, to - from, target, place, pool, reader, list));
    } else if (slot === LOST) {
      (pending ??= []).push(Promise.reject(lostError(chunk)));
    } else if (slot === ZERO) {
      target.fill(0, at + from - offset, at + to - offset);
      if (holes !== undefined) own.push(from, to - from);
    } else {
      const start = pool.offsetOf(slot) + from - chunk * chunkBytes;
      pool.slabOf(slot).copy(target, at + from - offset, start, start + to - from);
    }
    from = to;
  }
  if (pending === undefined) {
    if (holes !== undefined) mergeHoles(holes, own, lists);
    return undefined;
  }
  return afterAll(pending).then(() => {
    if (holes !== undefined) mergeHoles(holes, own, lists);
  });
}

export function lostError(chunk: number): PandoError {
  return new PandoError('chunk-missing', `what was written to chunk ${chunk} is lost`);
}

/** Reads from one chunk, which is baseless. */
async function readBaseless(
  top: Layer,
  offset: number,
  length: number,
  target: Buffer,
  at: number,
  pool: SlotPool,
  reader: ChunkReader,
  holes: number[] | undefined,
): Promise<void> {
  await makeWhole(top, Math.floor(offset / pool.chunkBytes), pool, reader);
  await readLayers(top, offset, length, target, at, pool, reader, holes);
}

/**
 * Tries to read the base of a chunk that is baseless on the way down from `top`, and fills it in. Resolves when it is
 * whole, or there is nothing to fill in any more. @throws what the base cannot be read for
 */
export async function makeWhole(
  top: Layer,
  chunk: number,
  pool: SlotPool,
  reader: ChunkReader,
): Promise<void> {
  if (!isBaseless(findChunk(top, chunk))) return;
  let layer = top;
  while (layer.overlay!.find(chunk) === ABSENT) layer = layer.parent!;
  const overlay = layer.overlay!;
  const parent = layer.parent!;
  const base = Buffer.alloc(pool.chunkBytes);
  const offset = chunk * pool.chunkBytes;
  const length = Math.min(pool.chunkBytes, parent.size - offset);
  // What lies below may be baseless itself: then its base is read first.
  await retryOnNewRoot(
    () => [parent],
    async () => readLayers(parent, offset, length, base, 0, pool, reader, undefined),
  );
  // Once it is in the tree, or let go, its slots belong to others.
  if (layer.overlay === overlay) overlay.fillIn(chunk, base);
}

/**
 * Waits until the last has ended, also when one has failed: nothing may write to the target of a read that has
 * ended, because its caller uses that memory for something else by then.
 */
export async function afterAll(pending: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(pending)) {
    if (result.status === 'rejected') throw result.reason;
  }
}

/** Reads a root that may be smaller than the disk on top of it. */
function readRoot(
  layer: Layer,
  offset: number,
  length: number,
  target: Buffer,
  at: number,
  reader: ChunkReader,
  holes: number[] | undefined,
): Promise<void> | undefined {
  const root = layer.root!;
  const inside = Math.max(0, Math.min(length, root.size - offset));
  if (inside < length) target.fill(0, at + inside, at + length);
  if (inside === 0) {
    holes?.push(offset, length);
    return undefined;
  }
  const waiting = readTree(reader, root, offset, inside, target, at, holes);
  if (inside === length || holes === undefined) return waiting;
  if (waiting === undefined) holes.push(offset + inside, length - inside);
  else return waiting.then(() => void holes.push(offset + inside, length - inside));
  return undefined;
}

/** Sorts and joins hole pairs from several lists into one. */
function mergeHoles(holes: number[], own: readonly number[], lists: readonly number[][] | undefined): void {
  const pairs: [number, number][] = [];
  for (const list of [own, ...(lists ?? [])]) {
    for (let i = 0; i < list.length; i += 2) pairs.push([list[i]!, list[i + 1]!]);
  }
  pairs.sort((a, b) => a[0] - b[0]);
  const first = holes.length;
  for (const [start, length] of pairs) {
    const last = holes.length - 2;
    if (last >= first && holes[last]! + holes[last + 1]! === start) holes[last + 1]! += length;
    else holes.push(start, length);
  }
}

/**
 * Runs a read again when it failed for a chunk that is gone and a root has changed meanwhile: an old root's own
 * chunks may be collected once nothing points at it.
 */
export async function retryOnNewRoot<T>(
  topsNow: () => readonly Layer[],
  run: (tops: readonly Layer[]) => Promise<T>,
): Promise<T> {
  for (;;) {
    const tops = topsNow();
    const roots = rootsUnder(tops);
    try {
      return await run(tops);
    } catch (error) {
      if (!isPandoError(error, 'chunk-missing') || sameRoots(roots, rootsUnder(topsNow()))) throw error;
    }
  }
}

/** The roots that are read through, to be compared with `sameRoots` later. */
export function rootsUnder(tops: readonly Layer[]): readonly Root[] {
  return tops.map((top) => bottomOf(top).root!);
}

export function sameRoots(before: readonly Root[], now: readonly Root[]): boolean {
  return before.length === now.length && before.every((root, index) => root === now[index]);
}
