/**
 * What a disk says about ranges of itself: what is stored, what differs from another state, how old it is, what is not in
 * its tree yet. Each is a row of steps along the disk, made from comparisons (comparison.ts) and, where those leave it
 * to the trees, from walks that go as far as somebody listens.
 */
import type { StatusExtents } from '@pando/block-device';
import type { Hash } from '@pando/chunk-store';
import { ID_BYTES, idsEqual, isPandoError } from '@pando/common';
import { FANOUT, differences, findLeaf, type ChunkReader, type Root, type TreeNode } from '@pando/tree';
import {
  Boundaries,
  DIFFERENT,
  ID_IN_A,
  ID_IN_B,
  IN_TREES,
  compareLayers,
  type Stretch,
} from './comparison.ts';
import { findChunk, type Layer } from './layer.ts';
import { rootsUnder, sameRoots } from './layer-read.ts';
import { ABSENT } from './overlay.ts';
import type { SlotPool } from './slot-pool.ts';

/**
 * Pairs of nodes that one walk reads before its answer ends: a little more than 4 GiB of 4 KiB chunks have, the most that
 * a request of NBD without extended headers asks for. Served from memory, that takes 30 to 60 ms.
 */
const WALK_PAIRS_MAX = 9_000;
/** Most leaves that are looked up at the same time. */
const LEAVES_AHEAD_MAX = 32;

/** A flag for the chunks from where the step before ended up to `to`. */
interface Step {
  readonly to: number;
  readonly flag: number;
}

/** A range in bytes, of which at most so many extents are wanted. */
export interface Range {
  readonly offset: number;
  readonly length: number;
  readonly extentsMax: number;
}

/** Where chunks lie and are read from. */
export interface Source {
  readonly pool: SlotPool;
  readonly reader: ChunkReader;
  /** What names chunks. */
  readonly hash: Hash;
}

/** Flag 1 where `a` and `b` hold different bytes; all of a chunk counts, also past the end of a disk, where zeros are. */
export function differencesOfLayers(
  a: Layer,
  b: Layer,
  range: Range,
  { pool, reader, hash }: Source,
): Promise<StatusExtents> {
  const stretches = compareLayers(boundariesIn(range, [a, b], pool), a, b, pool, hash);
  return collect(stepsOf(stretches, reader), range, pool.chunkBytes);
}

/** Flag 1 where something is stored, 0 in holes. */
export function storedInLayers(
  top: Layer,
  range: Range,
  { pool, reader, hash }: Source,
): Promise<StatusExtents> {
  const stretches = compareLayers(boundariesIn(range, [top], pool), top, undefined, pool, hash);
  return collect(stepsOf(stretches, reader), range, pool.chunkBytes);
}

/**
 * As OpenVolume.depths: `forked` is what the disk was at its newest fork. Its nodes are nobody's to keep, so they may be
 * gone: because it was destaged just now, then this is done again on its new root, or because they were collected.
 */
export async function depthsOfLayers(
  top: Layer,
  forked: Layer | undefined,
  range: Range,
  source: Source,
): Promise<StatusExtents> {
  if (forked === undefined) return storedInLayers(top, range, source);
  const { pool, reader, hash } = source;
  for (;;) {
    const roots = rootsUnder([top, forked]);
    const seen = { gone: false };
    const points = boundariesIn(range, [top, forked], pool);
    const stored = compareLayers(points, top, undefined, pool, hash);
    const changed = compareLayers(points, top, forked, pool, hash);
    const steps = together(
      stepsOf(stored, reader),
      stepsOf(changed, reader, () => (seen.gone = true)),
      (isStored, isChanged) => (isStored === 0 ? 0 : isChanged === 1 ? 1 : 2),
    );
    const extents = await collect(steps, range, pool.chunkBytes);
    if (!seen.gone || sameRoots(roots, rootsUnder([top, forked]))) return extents;
  }
}

/** Flag 1 where overlays answer, 0 where the root at the bottom does. Of this instant: nothing is awaited before. */
export function pendingInLayers(top: Layer, range: Range, pool: SlotPool): Promise<StatusExtents> {
  const points = boundariesIn(range, [top], pool);
  const steps = function* (): Generator<Step> {
    for (let i = 0; i + 1 < points.length; i++) {
      yield { to: points[i + 1]!, flag: findChunk(top, points[i]!) === ABSENT ? 0 : 1 };
    }
  };
  return collect([...steps()], range, pool.chunkBytes);
}

function boundariesIn({ offset, length }: Range, tops: readonly Layer[], pool: SlotPool): Float64Array {
  const first = Math.floor(offset / pool.chunkBytes);
  return new Boundaries(tops, first, Math.ceil((offset + length) / pool.chunkBytes)).sorted();
}

/** Joins steps of one flag; ends with them, with the range, or when one more extent would be too many. */
async function collect(
  steps: AsyncIterable<Step> | Iterable<Step>,
  { offset, length, extentsMax }: Range,
  chunkBytes: number,
): Promise<StatusExtents> {
  const lengths: number[] = [];
  const flags: number[] = [];
  let at = offset;
  for await (const { to, flag } of steps) {
    const bytes = Math.min(offset + length, to * chunkBytes) - at;
    if (bytes <= 0) continue;
    if (flags.length > 0 && flags.at(-1) === flag) lengths[lengths.length - 1]! += bytes;
    else if (flags.length >= extentsMax) break;
    else {
      lengths.push(bytes);
      flags.push(flag);
    }
    at += bytes;
  }
  return { lengths, flags };
}

/** Flag 1 where the sides differ. With `onGone`, nodes of b may be gone: what they cover differs. Ends early when it has read much. */
async function* stepsOf(
  stretches: readonly Stretch[],
  reader: ChunkReader,
  onGone?: () => void,
): AsyncGenerator<Step> {
  const budget = { pairs: WALK_PAIRS_MAX };
  const find = (root: Root, chunk: number): Promise<TreeNode | undefined> => findLeaf(reader, root, chunk);
  const findIfThere = async (root: Root, chunk: number): Promise<TreeNode | undefined> => {
    try {
      return await find(root, chunk);
    } catch (error) {
      if (onGone === undefined || !isPandoError(error, 'chunk-missing')) throw error;
      onGone();
      return undefined;
    }
  };
  const leavesOfA = new Leaves(stretches, ID_IN_A, find);
  const leavesOfB = new Leaves(stretches, ID_IN_B, findIfThere);
  for (const { from, to, verdict, a, b, id } of stretches) {
    if (verdict === ID_IN_A || verdict === ID_IN_B) {
      const leaf = await (verdict === ID_IN_A ? leavesOfA : leavesOfB).over(from);
      const at = (from % FANOUT) * ID_BYTES;
      yield { to, flag: leaf !== undefined && idsEqual(leaf.bytes, at, id!, 0) ? 0 : 1 };
    } else if (verdict === IN_TREES) {
      const walk = differences(reader, a, b, from, to, {
        budget,
        ...(onGone === undefined ? {} : { onGone }),
      });
      let at = from;
      let next = await walk.next();
      for (; next.done !== true; next = await walk.next()) {
        const { start, count } = next.value;
        if (start > at) yield { to: start, flag: 0 };
        at = start + count;
        yield { to: at, flag: 1 };
      }
      if (next.value > at) yield { to: next.value, flag: 0 };
      if (next.value < to) return;
    } else yield { to, flag: verdict === DIFFERENT ? 1 : 0 };
  }
}

/** Two rows of steps as one, which ends with the shorter one. */
async function* together(
  one: AsyncGenerator<Step>,
  other: AsyncGenerator<Step>,
  flagOf: (flag: number, otherFlag: number) => number,
): AsyncGenerator<Step> {
  let a = await one.next();
  let b = await other.next();
  while (a.done !== true && b.done !== true) {
    const to = Math.min(a.value.to, b.value.to);
    yield { to, flag: flagOf(a.value.flag, b.value.flag) };
    const [aEnds, bEnds] = [a.value.to === to, b.value.to === to];
    if (aEnds) a = await one.next();
    if (bEnds) b = await other.next();
  }
}

/** The leaves that stretches with one verdict ask for, some looked up ahead: none at first, twice as many at every leaf. */
class Leaves {
  readonly #root: Root | undefined;
  /** Their numbers, ascending, and the look-ups of those from `#at` to `#begun`. */
  readonly #numbers: readonly number[];
  readonly #reads: (Promise<TreeNode | undefined> | undefined)[] = [];
  readonly #find: (root: Root, chunk: number) => Promise<TreeNode | undefined>;
  #at = -1;
  #begun = 0;
  #ahead = 1;

  constructor(
    stretches: readonly Stretch[],
    verdict: typeof ID_IN_A | typeof ID_IN_B,
    find: (root: Root, chunk: number) => Promise<TreeNode | undefined>,
  ) {
    const asking = stretches.filter((stretch) => stretch.verdict === verdict);
    this.#root = verdict === ID_IN_A ? asking[0]?.a : asking[0]?.b;
    this.#numbers = [...new Set(asking.map(({ from }) => Math.floor(from / FANOUT)))];
    this.#find = find;
  }

  /** The leaf over a chunk. Asked in the order of the stretches. */
  over(chunk: number): Promise<TreeNode | undefined> {
    const number = Math.floor(chunk / FANOUT);
    while (this.#numbers[this.#at] !== number) {
      this.#reads[this.#at++] = undefined;
      while (this.#begun < Math.min(this.#numbers.length, this.#at + this.#ahead)) {
        const read = this.#find(this.#root!, this.#numbers[this.#begun]! * FANOUT);
        read.catch(() => undefined); // it rejects again where it is awaited, if anybody gets that far
        this.#reads[this.#begun++] = read;
      }
      this.#ahead = Math.min(LEAVES_AHEAD_MAX, this.#ahead * 2);
    }
    return this.#reads[this.#at]!;
  }
}
