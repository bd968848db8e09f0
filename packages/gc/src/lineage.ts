/**
 * Bytes of a lineage: what its disks hold, with a chunk at the same place in several of them counted once.
 *
 * All roots of the lineage are walked side by side. A position of the tree has the set of distinct nodes that the
 * disks have there; where that is one node its memoized count is all there is to know, else the
 * walk goes on below each child. The cost is proportional to the distinct nodes at positions where
 * disks differ, however many disks share each. Memory: the distinct ids of the children of one position a level.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ID_BYTES, IdSet, isHole } from '@pando/common';
import { FANOUT, readNodes, type ChunkReader, type Root } from '@pando/tree';
import { LEVELS_MAX } from './marks.ts';
import { BATCH_NODES, cancelled } from './subtree-walk.ts';

/** Sets that have grown past this are not kept for the next position: clearing them would cost too much. */
const SET_KEPT_MAX = 1024;

/** Distinct ids at one position, and the size of the largest disk that has each: its last chunk may be partial. */
class Sides {
  readonly ids = new IdSet();
  readonly sizes: number[] = [];

  add(ids: Uint8Array, offset: number, size: number): void {
    const entry = this.ids.add(ids, offset);
    this.sizes[entry] = Math.max(this.sizes[entry] ?? 0, size);
  }
}

/** Roots of the disks of one lineage, each distinct one once. */
export class Lineage {
  readonly #roots: Sides[] = Array.from({ length: LEVELS_MAX }, () => new Sides());

  add(root: Root): void {
    if (!isHole(root.id)) this.#roots[root.height]!.add(root.id, 0, root.size);
  }

  /** Whether it is the same as another one, of whose roots its own are some. */
  isAs(other: Lineage): boolean {
    return this.#roots.every(({ ids, sizes }, level) => {
      const others = other.#roots[level]!;
      if (ids.size !== others.ids.size) return false;
      return sizes.every((size, i) => others.sizes[others.ids.indexOf(ids.ids, i * ID_BYTES)] === size);
    });
  }

  /**
   * @param countOf chunks below a node that are not holes
   * @throws `cancelled`, and the errors of the reader
   */
  async bytes(
    reader: ChunkReader,
    countOf: (ids: Uint8Array, offset: number, level: number) => number,
    signal?: AbortSignal,
  ): Promise<number> {
    const chunkBytes = reader.chunkBytes;
    const kept: (Sides | undefined)[][] = Array.from({ length: LEVELS_MAX }, () => []);
    const emptySides = (level: number, child: number): Sides => {
      const old = kept[level]![child];
      if (old === undefined || old.ids.size > SET_KEPT_MAX) return (kept[level]![child] = new Sides());
      if (old.ids.size > 0) {
        old.ids.clear();
        old.sizes.length = 0;
      }
      return old;
    };

    /** Bytes at one position of `level`, whose first chunk is `start` and whose distinct nodes are `sides`. */
    const walk = async (level: number, start: number, sides: Sides): Promise<number> => {
      const count = sides.ids.size;
      if (count === 1 && !(start === 0 && this.#isAnyBelow(level))) {
        const size = sides.sizes[0]!;
        const end = (start + FANOUT ** level) * chunkBytes;
        if (size % chunkBytes === 0 || size >= end) return countOf(sides.ids.ids, 0, level) * chunkBytes;
      }
      const span = FANOUT ** (level - 1);
      const children: (Sides | undefined)[] = new Array<undefined>(FANOUT);
      if (start === 0 && level > 1 && this.#roots[level - 1]!.ids.size > 0) {
        const lower = this.#roots[level - 1]!;
        children[0] = emptySides(level, 0);
        for (let i = 0; i < lower.ids.size; i++)
          children[0].add(lower.ids.ids, i * ID_BYTES, lower.sizes[i]!);
      }
      for (let first = 0; first < count; first += BATCH_NODES) {
        const batch = Math.min(BATCH_NODES, count - first);
        const nodes = await readNodes(reader, sides.ids.ids, first * ID_BYTES, batch);
        for (const [i, node] of nodes.entries()) {
          for (let child = 0; child < FANOUT; child++) {
            if (isHole(node.bytes, child * ID_BYTES)) continue;
            (children[child] ??= emptySides(level, child)).add(
              node.bytes,
              child * ID_BYTES,
              sides.sizes[first + i]!,
            );
          }
        }
        await nextTurn();
        if (signal?.aborted) throw cancelled('accounting', signal);
      }
      let bytes = 0;
      for (const [child, below] of children.entries()) {
        const childStart = start + child * span;
        if (level > 1) {
          if (below !== undefined || (childStart === 0 && this.#isAnyBelow(level - 1))) {
            bytes += await walk(level - 1, childStart, below ?? emptySides(level, child));
          }
          continue;
        }
        for (const size of below?.sizes ?? []) bytes += Math.min(chunkBytes, size - childStart * chunkBytes);
      }
      return bytes;
    };
    let top = LEVELS_MAX - 1;
    while (top > 0 && this.#roots[top]!.ids.size === 0) top--;
    return top === 0 ? 0 : walk(top, 0, this.#roots[top]!);
  }

  #isAnyBelow(level: number): boolean {
    for (let lower = 1; lower < level; lower++) if (this.#roots[lower]!.ids.size > 0) return true;
    return false;
  }
}
