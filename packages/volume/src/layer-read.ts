/** Reading through a chain of layers: overlays first, the tree for the rest. */
import { isPandoError } from '@pando/common';
import { allocationOf, readTree, type ChunkReader } from '@pando/tree';
import type { Extents } from '@pando/block-device';
import { bottomOf, findChunk, type Layer } from './layer.ts';
import { ABSENT, ZERO } from './overlay.ts';
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

/**
 * Waits until the last has ended, also when one has failed: nothing may write to the target of a read that has
 * ended, because its caller uses that memory for something else by then.
 */
async function afterAll(pending: readonly Promise<void>[]): Promise<void> {
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
 * What lies where, as BlockDevice.allocation says. Between two boundaries of the overlays one look-up answers for
 * all; only stretches that no overlay covers ask the tree.
 */
export async function allocationOfLayers(
  top: Layer,
  offset: number,
  length: number,
  extentsMax: number,
  reader: ChunkReader,
): Promise<Extents> {
  const chunkBytes = reader.chunkBytes;
  const end = offset + length;
  const first = Math.floor(offset / chunkBytes);
  const last = Math.ceil(end / chunkBytes);
  const points = boundariesOf(top, first, last);
  // All answers of the overlays are of this instant: while the tree is asked, overlays change, or are destaged.
  const slots = points.slice(0, -1).map((point) => findChunk(top, point));
  const lengths: number[] = [];
  const holes: boolean[] = [];
  /** Adds chunks from … to − 1; false when that would be one extent too many. */
  const add = (from: number, to: number, hole: boolean): boolean => {
    const bytes = Math.min(end, to * chunkBytes) - Math.max(offset, from * chunkBytes);
    if (bytes <= 0) return true;
    if (holes.length > 0 && holes.at(-1) === hole) lengths[lengths.length - 1]! += bytes;
    else if (holes.length >= extentsMax) return false;
    else {
      lengths.push(bytes);
      holes.push(hole);
    }
    return true;
  };
  const root = bottomOf(top).root!;
  const rootChunks = Math.ceil(root.size / chunkBytes);
  for (let i = 0; i + 1 < points.length; i++) {
    const from = points[i]!;
    const to = points[i + 1]!;
    const slot = slots[i]!;
    if (slot !== ABSENT) {
      if (!add(from, to, slot === ZERO)) return { lengths, holes };
      continue;
    }
    let at = from;
    const inside = Math.min(to, rootChunks);
    while (at < inside) {
      // One more than fits may still join the last extent.
      const part = await allocationOf(reader, root, at, inside - at, extentsMax - holes.length + 1);
      for (const [index, count] of part.counts.entries()) {
        if (!add(at, at + count, part.holes[index]!)) return { lengths, holes };
        at += count;
      }
    }
    if (at < to && !add(at, to, true)) return { lengths, holes };
  }
  return { lengths, holes };
}

/** Chunk numbers from `first` to `last` between which `findChunk` cannot change its answer. */
function boundariesOf(top: Layer, first: number, last: number): number[] {
  const points = [first, last];
  for (let layer: Layer | undefined = top; layer !== undefined; layer = layer.parent) {
    if (layer.chunks > first && layer.chunks < last) points.push(layer.chunks);
    if (layer.root !== undefined) break;
    layer.overlay!.addBoundaries(first, last, points);
  }
  points.sort((a, b) => a - b);
  return points.filter((point, index) => index === 0 || point !== points[index - 1]);
}

/**
 * Runs a read again when it failed for a chunk that is gone and the root has changed meanwhile: the old root's
 * own chunks may be collected once nothing points at it.
 */
export async function retryOnNewRoot<T>(topNow: () => Layer, run: (top: Layer) => Promise<T>): Promise<T> {
  for (;;) {
    const top = topNow();
    const root = bottomOf(top).root;
    try {
      return await run(top);
    } catch (error) {
      if (!isPandoError(error, 'chunk-missing') || bottomOf(topNow()).root === root) throw error;
    }
  }
}
