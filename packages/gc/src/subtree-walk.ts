/**
 * Walking subtrees in batches: what mark, accounts and `reclaimable` have in common.
 *
 * A worklist a level; the lowest level that has work goes first (depth first by batches), so that a level's list
 * is refilled only when it is empty: memory is at most one list of LIST_IDS ids a level, whatever
 * the size of the store. Ids reach the visitor in batches, so that it can look them up in bulk, and
 * nodes are read side by side. Between batches the event loop gets its turn.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ID_BYTES, PandoError, isHole } from '@pando/common';
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
  /** Gets each node that enter chose, after it was read. */
  node?(ids: Uint8Array, offset: number, level: number, node: TreeNode): void;
  /** Meets `count` data chunks (ids; never holes; possibly repeated), at most LIST_IDS at a time. */
  data(ids: Uint8Array, count: number): Promise<void>;
}

/** What work throws whose signal was aborted. */
export function cancelled(what: string, signal: AbortSignal): PandoError {
  return new PandoError('cancelled', `the ${what} was cancelled`, { cause: signal.reason });
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
  /** #lists[0] gathers data chunks, #lists[n] nodes of level n. */
  readonly #lists: (List | undefined)[] = new Array<undefined>(LEVELS_MAX);
  readonly #batch = new Uint8Array(BATCH_NODES * ID_BYTES);
  readonly #walk = new Uint32Array(BATCH_NODES);

  constructor(reader: ChunkReader, visitor: SubtreeVisitor, signal?: AbortSignal) {
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
    const nodes = await readNodes(this.#reader, batch, 0, chosen);
    for (let i = 0; i < chosen; i++) {
      const node = nodes[i]!;
      this.#visitor.node?.(batch, i * ID_BYTES, level, node);
      for (let child = 0; child < FANOUT; child++) {
        if (this.add(node.bytes, child * ID_BYTES, level - 1)) continue;
        throw new PandoError('internal', 'a batch has more children than its list has room for');
      }
    }
  }
}
