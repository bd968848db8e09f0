/**
 * Two chains of layers compared: what the overlays of both say about a range, taken at one instant, and what is left to be
 * asked of their trees afterwards.
 *
 * Slots are compared and hashed at that instant, in one turn, because they may be written to, or belong to another
 * chunk, as soon as anything is awaited. So that the turn stays short, a comparison has at most STRETCHES_MAX
 * stretches, and covers the beginning of the range when there are more.
 */
import type { Hash } from '@pando/chunk-store';
import { emptyRoot, type Root } from '@pando/tree';
import { bottomOf, findChunk, type Layer } from './layer.ts';
import { ABSENT, LOST, ZERO, isBaseless } from './overlay.ts';
import type { SlotPool } from './slot-pool.ts';

/** At most so many chunks are hashed in one turn: 2.5 ms for those of 4 KiB. Finding the stretches among 30,000 entries takes 3 to 6 ms. */
export const STRETCHES_MAX = 1024;

/** What is known of a stretch. */
export const SAME = 0;
export const DIFFERENT = 1;
/** Both sides are in a tree, or hole. */
export const IN_TREES = 2;
/** One chunk, written on the other side: to be compared with its id in this tree. */
export const ID_IN_A = 3;
export const ID_IN_B = 4;

export interface Stretch {
  readonly from: number;
  /** The chunk behind the last one. */
  readonly to: number;
  readonly verdict: number;
  /** IN_TREES: the trees to compare. ID_IN_A, ID_IN_B: the tree to look into is a or b. */
  readonly a: Root;
  readonly b: Root;
  /** ID_IN_A, ID_IN_B: of the chunk that was written. */
  readonly id?: Uint8Array;
}

/** Chunk numbers, ascending, between which no chain changes its answer; the smallest ones when there are too many. */
export class Boundaries {
  readonly #first: number;
  #last: number;
  #points: number[] = [];

  constructor(tops: readonly Layer[], first: number, last: number) {
    this.#first = first;
    this.#last = last;
    for (const top of tops) {
      for (let layer: Layer | undefined = top; layer !== undefined; layer = layer.parent) {
        this.add(layer.chunks);
        if (layer.root !== undefined) break;
        layer.overlay!.addBoundaries(first, this);
      }
    }
  }

  /** Where the range ends, or what of it is covered: it may shrink while points are added. */
  get last(): number {
    return this.#last;
  }

  add(point: number): void {
    if (point <= this.#first || point >= this.#last) return;
    this.#points.push(point);
    if (this.#points.length >= 4 * STRETCHES_MAX) this.#tidy();
  }

  sorted(): Float64Array {
    this.#tidy();
    return Float64Array.from([this.#first, ...this.#points, this.#last]);
  }

  #tidy(): void {
    const sorted = Float64Array.from(this.#points).sort();
    const kept = sorted.filter((point, index) => index === 0 || point !== sorted[index - 1]);
    if (kept.length >= STRETCHES_MAX) this.#last = kept[STRETCHES_MAX - 1]!;
    this.#points = [...kept.subarray(0, STRETCHES_MAX - 1)];
  }
}

/**
 * Compares what lies between the points, ascending, on a disk and on another one, or with a disk that is all hole; `hash` is what names chunks in their
 * trees. One turn.
 */
export function compareLayers(
  points: Float64Array,
  a: Layer,
  b: Layer | undefined,
  pool: SlotPool,
  hash: Hash,
): readonly Stretch[] {
  const rootA = bottomOf(a).root!;
  const hole = emptyRoot(rootA.size, pool.chunkBytes);
  const rootB = b === undefined ? hole : bottomOf(b).root!;
  const stretches: Stretch[] = [];
  for (let i = 0; i + 1 < points.length; i++) {
    const from = points[i]!;
    const inA = contentAt(a, from, pool);
    const inB = b === undefined ? ZERO : contentAt(b, from, pool);
    const treeA = inA === ABSENT ? rootA : hole;
    const treeB = inB === ABSENT ? rootB : hole;
    const stretch = { from, to: points[i + 1]!, a: treeA, b: treeB };
    // What a baseless or lost chunk holds is not known: it is the same as itself only.
    if (isUnknown(inA) || isUnknown(inB))
      stretches.push({ ...stretch, verdict: inA === inB ? SAME : DIFFERENT });
    else if (inA < 0 && inB < 0) stretches.push({ ...stretch, verdict: treeA === treeB ? SAME : IN_TREES });
    else if (inA === ABSENT) stretches.push({ ...stretch, verdict: ID_IN_A, id: hash(bytesOf(inB, pool)) });
    else if (inB === ABSENT) stretches.push({ ...stretch, verdict: ID_IN_B, id: hash(bytesOf(inA, pool)) });
    else {
      const same = inA === inB || (inA >= 0 && inB >= 0 && bytesOf(inA, pool).equals(bytesOf(inB, pool)));
      stretches.push({ ...stretch, verdict: same ? SAME : DIFFERENT });
    }
  }
  return stretches;
}

function isUnknown(found: number): boolean {
  return found === LOST || isBaseless(found);
}

/** As findChunk; a slot that holds zeros is as good as a hole. */
function contentAt(top: Layer, chunk: number, pool: SlotPool): number {
  const slot = findChunk(top, chunk);
  return slot >= 0 && pool.isZero(slot) ? ZERO : slot;
}

function bytesOf(slot: number, pool: SlotPool): Buffer {
  const at = pool.offsetOf(slot);
  return pool.slabOf(slot).subarray(at, at + pool.chunkBytes);
}
