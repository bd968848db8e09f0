/**
 * Walking subtrees in batches, as the mark does; and how what sessions in flight hold is read, which may not be there.
 *
 * A worklist a level; the lowest level that has work goes first (depth first by batches), so that a level's list
 * is refilled only when it is empty: memory is at most one list of LIST_IDS ids a level, whatever
 * the size of the store. Ids reach the visitor in batches, so that it can look them up in bulk, and
 * nodes are read side by side. Between batches the event loop gets its turn.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ID_BYTES, PandoError, isHole, isPandoError } from '@pando/common';
import type { Collection } from '@pando/chunk-store';
import { FANOUT, readNodes, type ChunkReader, type TreeNode } from '@pando/tree';
import { LEVELS_MAX } from './marks.ts';

/** Nodes that are looked up and read together. */
export const BATCH_NODES = 64;

/** Ids in one level's list: the children of one batch. */
export const LIST_IDS = BATCH_NODES * FANOUT;

export interface SubtreeVisitor {
  /**
   * Meets `count` nodes of `level` (ids; never holes; possibly repeated). Puts the numbers of those whose
   * subtrees are to be walked into `walk`, and resolves to how many they are.
   */
  enter(ids: Uint8Array, count: number, level: number, walk: Uint32Array): Promise<number>;
  /** Meets `count` data chunks (ids; never holes; possibly repeated), at most LIST_IDS at a time. */
  data(ids: Uint8Array, count: number): Promise<void>;
}

/** What work throws whose signal was aborted. */
export function cancelled(what: string, signal: AbortSignal): PandoError {
  return new PandoError('cancelled', `the ${what} was cancelled`, { cause: signal.reason });
}

/**
 * As `collection.resolve`, for what sessions in flight hold: an id that is nowhere gets segment 0. A session whose writes
 * fail (a full disk) goes on holding, until it is released, ids of chunks that never came to be.
 */
export async function resolveHeld(
  collection: Collection,
  ids: Uint8Array,
  count: number,
  segments: Float64Array,
  slots: Uint32Array,
): Promise<void> {
  const resolved = await unlessMissing(collection.resolve(ids, count, segments, slots).then(() => true));
  if (resolved === true) return;
  const segment = new Float64Array(1);
  const slot = new Uint32Array(1);
  for (let i = 0; i < count; i++) {
    const one = collection.resolve(ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES), 1, segment, slot);
    const found = await unlessMissing(one.then(() => true));
    segments[i] = found === true ? segment[0]! : 0;
    slots[i] = found === true ? slot[0]! : 0;
  }
}

/** As `readNodes`, for what sessions in flight hold: undefined for a node that is nowhere. */
export async function readHeld(
  reader: ChunkReader,
  ids: Uint8Array,
  count: number,
): Promise<readonly (TreeNode | undefined)[]> {
  const read = await unlessMissing(readNodes(reader, ids, 0, count));
  if (read !== undefined) return read;
  const nodes: (TreeNode | undefined)[] = [];
  for (let i = 0; i < count; i++) {
    nodes.push((await unlessMissing(readNodes(reader, ids, i * ID_BYTES, 1)))?.[0]);
  }
  return nodes;
}

async function unlessMissing<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    if (isPandoError(error, 'chunk-missing')) return undefined;
    throw error;
  }
}

interface List {
  readonly ids: Uint8Array;
  next: number;
  count: number;
}

export class SubtreeWalk {
  readonly #reader: ChunkReader;
  readonly #visitor: SubtreeVisitor;
  readonly #signal: AbortSignal | undefined;
  readonly #held: boolean;
  /** #lists[0] gathers data chunks, #lists[n] nodes of level n. */
  readonly #lists: (List | undefined)[] = new Array<undefined>(LEVELS_MAX);
  readonly #batch = new Uint8Array(BATCH_NODES * ID_BYTES);
  readonly #walk = new Uint32Array(BATCH_NODES);

  /** `held`: what is walked is what sessions in flight hold; nodes that are not there (see `resolveHeld`) are passed by. */
  constructor(reader: ChunkReader, visitor: SubtreeVisitor, signal?: AbortSignal, held = false) {
    this.#held = held;
    this.#reader = reader;
    this.#visitor = visitor;
    this.#signal = signal;
  }

  /** Adds a subtree (level 0: a data chunk) to the work; holes are none. False when its list is full: drain first. */
  add(ids: Uint8Array, offset: number, level: number): boolean {
    if (isHole(ids, offset)) return true;
    if (!(level >= 0 && level < LEVELS_MAX)) throw new PandoError('internal', `a tree has no level ${level}`);
    const list = this.#list(level);
    if (list.count === LIST_IDS) return false;
    list.ids.set(ids.subarray(offset, offset + ID_BYTES), list.count++ * ID_BYTES);
    return true;
  }

  /** Walks until there is no work left. @throws `cancelled`, and the errors of reader and visitor */
  async drain(): Promise<void> {
    for (;;) {
      if (this.#signal?.aborted) throw cancelled('walk', this.#signal);
      let level = 0;
      while (level < LEVELS_MAX && (this.#lists[level] === undefined || this.#lists[level]!.count === 0))
        level++;
      if (level === LEVELS_MAX) return;
      if (level === 0) await this.#visitData();
      else await this.#visitNodes(level);
      await nextTurn();
    }
  }

  #list(level: number): List {
    return (this.#lists[level] ??= { ids: new Uint8Array(LIST_IDS * ID_BYTES), next: 0, count: 0 });
  }

  async #visitData(): Promise<void> {
    const list = this.#list(0);
    await this.#visitor.data(list.ids, list.count);
    list.count = 0;
  }

  async #visitNodes(level: number): Promise<void> {
    const list = this.#list(level);
    const count = Math.min(BATCH_NODES, list.count - list.next);
    const batch = this.#batch;
    batch.set(list.ids.subarray(list.next * ID_BYTES, (list.next + count) * ID_BYTES));
    list.next += count;
    if (list.next === list.count) list.next = list.count = 0;

    const chosen = await this.#visitor.enter(batch, count, level, this.#walk);
    if (chosen === 0) return;
    for (let i = 0; i < chosen; i++)
      batch.copyWithin(i * ID_BYTES, this.#walk[i]! * ID_BYTES, (this.#walk[i]! + 1) * ID_BYTES);
    const nodes: readonly (TreeNode | undefined)[] = this.#held
      ? await readHeld(this.#reader, batch, chosen)
      : await readNodes(this.#reader, batch, 0, chosen);
    for (let i = 0; i < chosen; i++) {
      const node = nodes[i];
      if (node === undefined) continue;
      this.#addChildren(node.bytes, level - 1);
    }
  }

  /** As `add` for each child, but children that lie side by side, which are nearly all, are copied together. */
  #addChildren(ids: Uint8Array, level: number): void {
    const list = this.#list(level);
    for (let child = 0; child < FANOUT;) {
      const from = child;
      while (child < FANOUT && !isHole(ids, child * ID_BYTES)) child++;
      const count = child - from;
      if (list.count + count > LIST_IDS)
        throw new PandoError('internal', 'a batch has more children than its list has room for');
      if (count > 0) list.ids.set(ids.subarray(from * ID_BYTES, child * ID_BYTES), list.count * ID_BYTES);
      list.count += count;
      child++; // a hole, or the end
    }
  }
}
