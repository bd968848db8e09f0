/**
 * The sweep: each candidate, once everything alive is marked, is dropped, compacted or left. One that is damaged is left
 * and counted: what can be freed elsewhere is freed all the same.
 */
import { isPandoError, MiB } from '@pando/common';
import type { Collection, SegmentInfo } from '@pando/chunk-store';
import type { Marks } from './marks.ts';
import { cancelled } from './subtree-walk.ts';
import type { GcOptions, GcReport } from './types.ts';
import { unlessFull } from './unless-full.ts';

/** Share of live bytes up to which a segment is compacted. */
export const COMPACT_BELOW_DEFAULT = 0.75;

/** Smaller segments are moved together when there are at least two, so that their number does not grow for ever. */
export const TINY_SEGMENT_BYTES = 4 * MiB;

/** Removes and compacts. What was done stays done when it throws. @throws `cancelled`, and the errors of the store */
export async function sweep(
  collection: Collection,
  marks: Marks,
  options: GcOptions,
): Promise<Omit<GcReport, 'roots'>> {
  const compactBelow = options.compactBelow ?? COMPACT_BELOW_DEFAULT;
  const tiny = countTiny(collection, marks);
  const all = collection.candidates.length;
  let liveChunks = 0;
  let liveBytes = 0;
  let deadChunks = 0;
  let droppedSegments = 0;
  let compactedSegments = 0;
  let freedBytes = 0;
  const damaged = new Set<number>();
  /** Moving chunks needs room first; without it only whole segments go. */
  let isFull = false;
  let done = 0;
  const next = (): void => {
    if (options.signal?.aborted) throw cancelled('sweep', options.signal);
    options.onProgress?.({ phase: 'sweep', done: done++, all });
  };
  // What is all dead goes first and needs no room; then what needs the least of it: a full disk empties itself.
  const rest: { readonly info: SegmentInfo; readonly share: number }[] = [];
  for (const info of collection.candidates) {
    const { segment, slots } = info;
    const live = marks.liveSlots(segment, slots);
    const drop = (): Promise<boolean> => collection.drop(segment, (slot) => marks.isLive(segment, slot));
    if (live > 0 || (await unlessDamaged(drop, segment, damaged)) !== true) {
      rest.push({ info, share: live / slots });
      continue;
    }
    next();
    droppedSegments++;
    deadChunks += slots;
    freedBytes += info.bytes;
  }
  rest.sort((a, b) => a.share - b.share);
  for (const { info } of rest) {
    next();
    const { segment } = info;
    const isLive = (slot: number): boolean => marks.isLive(segment, slot);
    // Hits may come at any time: what is counted here is of this instant, and a compaction asks for itself.
    const live = marks.liveSlots(segment, info.slots);
    const share = await unlessDamaged(() => liveBytesOf(collection, info, marks, live), segment, damaged);
    const liveShare = share ?? info.bytes;
    liveChunks += live;
    liveBytes += liveShare;
    deadChunks += info.slots - live;
    const isWorthIt =
      (live < info.slots && liveShare <= info.bytes * compactBelow) ||
      (tiny >= 2 && info.bytes < TINY_SEGMENT_BYTES);
    if (isWorthIt && !isFull && !damaged.has(segment)) {
      const compact = (): Promise<number | undefined> => unlessFull(collection.compact(segment, isLive));
      const freed = await unlessDamaged(compact, segment, damaged);
      if (freed !== undefined) {
        freedBytes += freed;
        compactedSegments++;
      } else if (!damaged.has(segment)) isFull = true;
    }
    marks.delete(segment);
  }
  options.onProgress?.({ phase: 'sweep', done: all, all });
  const damagedSegments = damaged.size;
  return {
    liveChunks,
    liveBytes,
    deadChunks,
    droppedSegments,
    compactedSegments,
    damagedSegments,
    freedBytes,
  };
}

/** The result, or undefined when the segment is damaged; then it is one of `damaged`. */
async function unlessDamaged<T>(
  run: () => Promise<T>,
  segment: number,
  damaged: Set<number>,
): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    if (!isPandoError(error) || error.kind !== 'data') throw error;
    damaged.add(segment);
    return undefined;
  }
}

function countTiny(collection: Collection, marks: Marks): number {
  let tiny = 0;
  for (const { segment, bytes, slots } of collection.candidates) {
    if (bytes < TINY_SEGMENT_BYTES && marks.liveSlots(segment, slots) > 0) tiny++;
  }
  return tiny;
}

/** Bytes of the live shares of a segment; its list of shares is read only when it has both kinds. */
async function liveBytesOf(
  collection: Collection,
  info: SegmentInfo,
  marks: Marks,
  live: number,
): Promise<number> {
  if (live === info.slots) return info.bytes;
  if (live === 0) return 0;
  const { storedBytes } = await collection.contents(info.segment);
  let bytes = 0;
  for (let slot = 0; slot < storedBytes.length; slot++) {
    if (marks.isLive(info.segment, slot)) bytes += storedBytes[slot]!;
  }
  return bytes;
}
