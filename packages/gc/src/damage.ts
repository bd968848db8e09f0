/**
 * Which disks, and which byte ranges of them, a verification's damage is in.
 *
 * One walk over the trees of all disks visits each node once, however many disks share it. What lies below a node that
 * has damage is kept as a small object that all its parents share; a disk's ranges are read off these objects. So the
 * cost is that of a mark, memory is bits for what was visited and objects for what is damaged.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { CHUNK_MISSING, type ChunkFinder, type ChunkStore } from '@pando/chunk-store';
import { ID_BYTES, idToHex, isHole, PandoError } from '@pando/common';
import { FANOUT, NODE_READS_MAX, type Root, type TreeNode } from '@pando/tree';
import { gateOf } from './gate.ts';
import { Marks } from './marks.ts';
import { cancelled } from './subtree-walk.ts';
import type { DamageReport, DamageWork, DiskDamage } from './types.ts';

/** Damaged disks that are named, and ranges that are named of each. */
export const DAMAGED_DISKS_MAX = 100;
export const DAMAGED_RANGES_MAX = 50;
/** Nodes with damage that are remembered; past it the walk ends. */
const HARMED_MAX = 200_000;
/** The event loop gets its turn after so many nodes. */
const NODES_A_TURN = 64;

/** Damage at or below a node, in chunks counted from the first one below it. */
interface Harm {
  readonly chunks: number;
  readonly ranges: number;
  readonly start: number;
  readonly end: number;
  /** Children with damage in order; without `below`, all of it is lost. */
  readonly children: readonly { readonly start: number; readonly below: Harm }[] | undefined;
}

/**
 * Walks the trees of all disks and names those that hold something that `finder` says is lost, or that cannot be read.
 * `disks` is first asked for when no collection can free any more what they list. Reads nodes, no data.
 * @throws `cancelled`, and what reading a node throws besides errors of kind `data`
 */
export function findDamage<D extends { readonly root: Root }>(
  store: ChunkStore,
  disks: AsyncIterable<D>,
  finder: ChunkFinder,
  work: DamageWork = {},
): Promise<DamageReport<D>> {
  return gateOf(store).run(async () => {
    if (work.signal?.aborted) throw cancelled('walk', work.signal);
    const collection = store.beginCollection(() => undefined);
    try {
      const walk = new DamageWalk(store, finder, new Marks(collection.candidates), work);
      const damaged: DiskDamage<D>[] = [];
      let checkedDisks = 0;
      let moreDisks = 0;
      for await (const disk of disks) {
        const harm = await walk.harmOf(disk.root);
        checkedDisks++;
        if (harm === undefined) continue;
        if (damaged.length < DAMAGED_DISKS_MAX) damaged.push(damageOf(disk, harm, store.chunkBytes));
        else moreDisks++;
      }
      const { missingChunks, nodes, isComplete } = walk;
      return { disks: damaged, moreDisks, checkedDisks, nodes, missingChunks, isComplete };
    } finally {
      collection.end();
    }
  });
}

function damageOf<D extends { readonly root: Root }>(disk: D, harm: Harm, chunkBytes: number): DiskDamage<D> {
  const { size } = disk.root;
  const ranges: { offset: number; bytes: number }[] = [];
  const emit = (harmed: Harm, first: number): boolean => {
    if (harmed.children !== undefined) {
      return harmed.children.every(({ start, below }) => emit(below, first + start));
    }
    const offset = first * chunkBytes;
    const end = Math.min((first + harmed.chunks) * chunkBytes, size);
    const last = ranges.at(-1);
    if (last !== undefined && last.offset + last.bytes === offset) last.bytes = end - last.offset;
    else if (ranges.length === DAMAGED_RANGES_MAX) return false;
    else ranges.push({ offset, bytes: end - offset });
    return true;
  };
  emit(harm, 0);
  // Only the last range can reach past the end of the disk: a node below which there is nothing does not exist.
  const past = Math.max(0, harm.end * chunkBytes - size);
  return { disk, bytes: harm.chunks * chunkBytes - past, ranges, moreRanges: harm.ranges - ranges.length };
}

/** All `chunks` chunks below something are lost. */
function lost(chunks: number): Harm {
  return { chunks, ranges: 1, start: 0, end: chunks, children: undefined };
}

const LOST_CHUNK = lost(1);

class DamageWalk {
  missingChunks = 0;
  nodes = 0;
  isComplete = true;
  readonly #store: ChunkStore;
  readonly #finder: ChunkFinder;
  readonly #marks: Marks;
  readonly #work: DamageWork;
  /** By level and id. */
  readonly #harmed = new Map<string, Harm>();

  constructor(store: ChunkStore, finder: ChunkFinder, marks: Marks, work: DamageWork) {
    this.#store = store;
    this.#finder = finder;
    this.#marks = marks;
    this.#work = work;
  }

  /** What is damaged of a disk, or undefined. */
  harmOf(root: Root): Promise<Harm | undefined> {
    return this.#below(root.id, 1, root.height);
  }

  /** What is damaged below `count` nodes (or holes) of one level that lie side by side: the children of one node. */
  async #below(ids: Uint8Array, count: number, level: number): Promise<Harm | undefined> {
    const segments = new Float64Array(count);
    const slots = new Uint32Array(count);
    await this.#finder.find(ids, count, segments, slots);
    if (level > 0) await this.#walkNew(ids, segments, slots, level);
    const span = FANOUT ** level;
    const whole = level === 0 ? LOST_CHUNK : lost(span);
    const children: { start: number; below: Harm }[] = [];
    for (let child = 0; child < count; child++) {
      const at = child * ID_BYTES;
      if (segments[child]! === CHUNK_MISSING) this.missingChunks++;
      if (segments[child]! < 0) {
        this.#work.onLost?.(ids, at, level);
        children.push({ start: child * span, below: whole });
      } else if (level > 0 && this.#harmed.size > 0 && !isHole(ids, at)) {
        const below = this.#harmed.get(keyOf(ids, at, level));
        if (below !== undefined) children.push({ start: child * span, below });
      }
    }
    return children.length === 0 ? undefined : join(children);
  }

  /** Walks the nodes among the children that nobody has come to before, and remembers what is damaged below them. */
  async #walkNew(ids: Uint8Array, segments: Float64Array, slots: Uint32Array, level: number): Promise<void> {
    const found: number[] = [];
    for (let child = 0; child < segments.length; child++) {
      if (segments[child]! <= 0) continue;
      if (this.#marks.meet(segments[child]!, slots[child]!, level, ids, child * ID_BYTES)) found.push(child);
    }
    for (let first = 0; first < found.length; first += NODE_READS_MAX) {
      if (this.#harmed.size >= HARMED_MAX) {
        this.isComplete = false;
        return;
      }
      const group = found.slice(first, first + NODE_READS_MAX);
      // All of them end before any failure is reported: nothing is left running.
      const ends = await Promise.allSettled(group.map((child) => this.#read(ids, child * ID_BYTES)));
      for (const [i, child] of group.entries()) {
        const end = ends[i]!;
        if (end.status === 'rejected') throw end.reason as Error;
        const node = end.value;
        if (node === undefined) this.#work.onLost?.(ids, child * ID_BYTES, level);
        const harm =
          node === undefined ? lost(FANOUT ** level) : await this.#below(node.bytes, FANOUT, level - 1);
        if (harm !== undefined) this.#harmed.set(keyOf(ids, child * ID_BYTES, level), harm);
        await this.#count();
      }
    }
  }

  async #count(): Promise<void> {
    const { signal, onProgress } = this.#work;
    if (++this.nodes % NODES_A_TURN !== 0) return;
    onProgress?.({ done: this.nodes });
    if (signal?.aborted) throw cancelled('walk', signal);
    await nextTurn();
  }

  /** The node, or undefined when its bytes are not there, wrong, or cannot be read: nobody gets at what is below it then. */
  async #read(ids: Uint8Array, offset: number): Promise<TreeNode | undefined> {
    try {
      return this.#store.peekNode(ids, offset) ?? (await this.#store.readNode(ids, offset));
    } catch (error) {
      if (error instanceof PandoError && (error.kind === 'data' || error.code === 'store-failed'))
        return undefined;
      throw error;
    }
  }
}

function keyOf(ids: Uint8Array, offset: number, level: number): string {
  return `${level}/${idToHex(ids, offset)}`;
}

function join(children: readonly { readonly start: number; readonly below: Harm }[]): Harm {
  let chunks = 0;
  let ranges = 0;
  let end = -1;
  for (const { start, below } of children) {
    chunks += below.chunks;
    ranges += below.ranges - (start + below.start === end ? 1 : 0);
    end = start + below.end;
  }
  const [first] = children;
  return { chunks, ranges, start: first!.start + first!.below.start, end, children };
}
