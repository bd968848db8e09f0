/**
 * The walk of the accounts: labels every slot with the set of those who hold it, and counts what is allocated.
 *
 * From the top down, a level at a time, over the distinct nodes of the level. When a level's turn comes, all that lies above
 * has been walked, so the set of owners of each of its nodes is final; it goes on to the node's children, whose sets
 * are united with it. So a node is read once, however many owners share it, and owners are told apart at no more than the cost of a
 * number: nodes of one set pass it on without looking at it.
 *
 * Levels are kept apart, for the reason given in marks.ts. What sessions in flight have pinned is held by an owner of its own; nodes
 * that only they hold may be missing.
 *
 * Memory: two to four bytes a slot (see slot-labels.ts), about 60 bytes a reachable node, of which there is one
 * for each 128 chunks, and the sets (see owner-sets.ts).
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Collection } from '@pando/chunk-store';
import { ID_BYTES, isHole } from '@pando/common';
import { FANOUT, readNodes, type ChunkReader, type Root, type TreeNode } from '@pando/tree';
import { LEVELS_MAX } from './marks.ts';
import { NodeTable } from './node-table.ts';
import { IN_FLIGHT, NOBODY, OwnerSets } from './owner-sets.ts';
import { SlotLabels } from './slot-labels.ts';
import { BATCH_NODES, LIST_IDS, cancelled, readHeld, resolveHeld } from './subtree-walk.ts';

/** Meetings that wait to be put into sets: so many that most are of nodes that were met several times, and that it takes no more than some turns' time. */
const MEETINGS_MAX = 1 << 15;
/** Segments whose labels are gone through before others get their turn. */
const SEGMENTS_A_TURN = 16;

export interface WalkOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after each batch with the nodes walked so far. */
  readonly onBatch?: (nodes: number) => void;
  /** Most bytes of sets of several owners. */
  readonly setBytesMax?: number | undefined;
}

export class Ownership {
  readonly sets: OwnerSets;
  readonly labels: SlotLabels;
  readonly #reader: ChunkReader;
  readonly #collection: Collection;
  readonly #candidates: ReadonlyMap<number, number>;
  readonly #options: WalkOptions;
  readonly #tables = Array.from({ length: LEVELS_MAX }, () => new NodeTable());
  /** Data chunks that wait to be labelled, and the set of each. */
  readonly #ids = new Uint8Array(LIST_IDS * ID_BYTES);
  readonly #idSets = new Uint32Array(LIST_IDS);
  readonly #segments = new Float64Array(LIST_IDS);
  readonly #slots = new Uint32Array(LIST_IDS);
  /** Nodes of the next level that have been met again: entry and set of each meeting. Their sets are united by the many. */
  readonly #metEntries = new Uint32Array(MEETINGS_MAX);
  readonly #metSets = new Uint32Array(MEETINGS_MAX);
  readonly #metOrder = new Float64Array(MEETINGS_MAX);
  readonly #uniting = new Uint32Array(MEETINGS_MAX + 1);
  #met = 0;
  #nodes = 0;

  constructor(reader: ChunkReader, collection: Collection, options: WalkOptions) {
    const slots = new Map(collection.candidates.map((info) => [info.segment, info.slots]));
    this.#candidates = slots;
    this.sets = new OwnerSets(options.setBytesMax);
    this.labels = new SlotLabels(this.sets, (segment) => slots.get(segment) ?? 0);
    this.#reader = reader;
    this.#collection = collection;
    this.#options = options;
  }

  /** Notes that the owners of a set have a root, before the walk. */
  addRoot(root: Root, set: number): void {
    if (!isHole(root.id)) this.#begin(root.id, 0, root.height, set);
  }

  /** Labels all that the roots reach, and what sessions in flight hold. @throws `chunk-missing`, `cancelled`, … */
  async walk(): Promise<void> {
    const { pins } = this.#collection;
    let data = 0;
    for (let i = 0; i < pins.count; i++) {
      if (isHole(pins.ids, i * ID_BYTES)) continue;
      const level = pins.levels[i]!;
      if (level > 0) {
        this.#begin(pins.ids, i * ID_BYTES, level, IN_FLIGHT);
        continue;
      }
      this.#ids.set(pins.ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES), data * ID_BYTES);
      this.#idSets[data++] = IN_FLIGHT;
      if (data < LIST_IDS) continue;
      await this.#label(data, true);
      data = 0;
    }
    await this.#label(data, true);
    for (let level = LEVELS_MAX - 1; level > 0; level--) {
      for (const isHeld of [false, true]) await this.#walkLevel(level, isHeld);
    }
    await this.#countInner();
  }

  /** Chunks below a node that are not holes; 0 for a hole. After the walk, and not for what only sessions in flight hold. */
  allocatedChunks(ids: Uint8Array, offset: number, level: number): number {
    const table = this.#tables[level]!;
    const entry = table.ids.indexOf(ids, offset);
    return entry < 0 ? 0 : table.countOf(entry);
  }

  #begin(ids: Uint8Array, offset: number, level: number, set: number): void {
    const table = this.#tables[level]!;
    const entry = table.add(ids, offset);
    table.putSet(entry, this.sets.union(table.setOf(entry), set));
  }

  /** Notes that a node of `level` is a child of one whose owners are this set. */
  #meet(ids: Uint8Array, offset: number, level: number, set: number): void {
    const table = this.#tables[level]!;
    const entry = table.add(ids, offset);
    const before = table.setOf(entry);
    if (before === NOBODY) table.putSet(entry, set);
    else if (before !== set) {
      this.#metEntries[this.#met] = entry;
      this.#metSets[this.#met++] = set;
      if (this.#met === MEETINGS_MAX) this.#unite(table);
    }
  }

  /** Puts what was met again into the sets of its nodes: for each node at once. */
  #unite(table: NodeTable): void {
    const order = this.#metOrder.subarray(0, this.#met);
    for (let i = 0; i < order.length; i++) order[i] = this.#metEntries[i]! * MEETINGS_MAX + i;
    order.sort();
    for (let i = 0; i < order.length;) {
      const entry = Math.floor(order[i]! / MEETINGS_MAX);
      this.#uniting[0] = table.setOf(entry);
      let count = 1;
      for (; i < order.length && Math.floor(order[i]! / MEETINGS_MAX) === entry; i++)
        this.#uniting[count++] = this.#metSets[order[i]! % MEETINGS_MAX]!;
      table.putSet(entry, this.sets.unionOf(this.#uniting, count));
    }
    this.#met = 0;
  }

  /** Walks those nodes of a level that only sessions in flight hold, or the others. Nothing is added to the level meanwhile. */
  async #walkLevel(level: number, isHeld: boolean): Promise<void> {
    const table = this.#tables[level]!;
    const batch = new Uint32Array(BATCH_NODES);
    for (let entry = 0; entry < table.ids.size;) {
      let count = 0;
      for (; entry < table.ids.size && count < BATCH_NODES; entry++) {
        if ((table.setOf(entry) === IN_FLIGHT) === isHeld) batch[count++] = entry;
      }
      if (count === 0) continue;
      if (this.#options.signal?.aborted) throw cancelled('accounting', this.#options.signal);
      await this.#walkBatch(level, batch, count, isHeld);
      if (this.sets.isCrowded) {
        this.#unite(this.#tables[level - 1]!);
        await this.#compactSets();
      }
      this.#options.onBatch?.((this.#nodes += count));
      await nextTurn();
    }
    this.#unite(this.#tables[level - 1]!);
  }

  async #walkBatch(level: number, batch: Uint32Array, count: number, isHeld: boolean): Promise<void> {
    const table = this.#tables[level]!;
    const ids = new Uint8Array(count * ID_BYTES);
    for (let i = 0; i < count; i++) {
      const at = batch[i]! * ID_BYTES;
      ids.set(table.ids.ids.subarray(at, at + ID_BYTES), i * ID_BYTES);
      this.#idSets[i] = table.setOf(batch[i]!);
    }
    this.#ids.set(ids);
    await this.#label(count, isHeld);
    const nodes: readonly (TreeNode | undefined)[] = isHeld
      ? await readHeld(this.#reader, ids, count)
      : await readNodes(this.#reader, ids, 0, count);
    let data = 0;
    for (let i = 0; i < count; i++) {
      const node = nodes[i];
      if (node === undefined) continue;
      const set = table.setOf(batch[i]!);
      if (level === 1) {
        const allocated = this.#gather(node.bytes, data, set);
        table.putCount(batch[i]!, allocated);
        data += allocated;
        continue;
      }
      for (let child = 0; child < FANOUT; child++) {
        if (!isHole(node.bytes, child * ID_BYTES)) this.#meet(node.bytes, child * ID_BYTES, level - 1, set);
      }
    }
    await this.#label(data, isHeld);
  }

  /** Puts the children of a leaf to those that wait; those that lie side by side, which are nearly all, together. Returns how many. */
  #gather(children: Uint8Array, first: number, set: number): number {
    let count = 0;
    for (let child = 0; child < FANOUT;) {
      const from = child;
      while (child < FANOUT && !isHole(children, child * ID_BYTES)) child++;
      if (child > from) {
        this.#ids.set(children.subarray(from * ID_BYTES, child * ID_BYTES), (first + count) * ID_BYTES);
        count += child - from;
      }
      child++; // a hole, or the end
    }
    this.#idSets.fill(set, first, first + count);
    return count;
  }

  /** Labels the first `count` of the ids that wait. */
  async #label(count: number, isHeld: boolean): Promise<void> {
    if (count === 0) return;
    if (isHeld) await resolveHeld(this.#collection, this.#ids, count, this.#segments, this.#slots);
    else await this.#collection.resolve(this.#ids, count, this.#segments, this.#slots);
    for (let i = 0; i < count; i++) {
      const segment = this.#segments[i]!;
      const slot = this.#slots[i]!;
      // Segment 0: what is lost for good. A chunk that is on its way has no slot yet: it is said to be in slot 0 of a segment
      // to come. Roots of owners have none of them, only what sessions in flight have pinned.
      if (segment === 0 || (slot === 0 && isHeld && !this.#candidates.has(segment))) continue;
      this.labels.add(segment, slot, this.#idSets[i]!);
    }
  }

  async #compactSets(): Promise<void> {
    const used = new Uint8Array(this.sets.count);
    const everywhere = async (visit: (numbers: Uint16Array | Uint32Array) => void): Promise<void> => {
      let visited = 0;
      for (const numbers of [...this.#tables.map((table) => table.sets), ...this.labels.all()]) {
        visit(numbers);
        if (++visited % SEGMENTS_A_TURN === 0) await nextTurn();
      }
    };
    await everywhere((numbers) => {
      for (let i = 0; i < numbers.length; i++) used[numbers[i]!] = 1;
    });
    const renumbered = this.sets.compact(used);
    await everywhere((numbers) => {
      for (let i = 0; i < numbers.length; i++) numbers[i] = renumbered[numbers[i]!]!;
    });
  }

  /** Adds up the counts of nodes above leaves, from the lowest level up. They are read again: there are 128 times fewer than leaves. */
  async #countInner(): Promise<void> {
    for (let level = 2; level < LEVELS_MAX; level++) {
      const table = this.#tables[level]!;
      for (let first = 0; first < table.ids.size; first += BATCH_NODES) {
        const entries: number[] = [];
        for (let entry = first; entry < Math.min(table.ids.size, first + BATCH_NODES); entry++) {
          // Nobody asks what is allocated in flight, and what is not there cannot be counted.
          if (table.setOf(entry) !== IN_FLIGHT) entries.push(entry);
        }
        const ids = new Uint8Array(entries.length * ID_BYTES);
        entries.forEach((entry, i) => {
          ids.set(table.ids.ids.subarray(entry * ID_BYTES, (entry + 1) * ID_BYTES), i * ID_BYTES);
        });
        const nodes = await readNodes(this.#reader, ids, 0, entries.length);
        for (const [i, node] of nodes.entries()) {
          let count = 0;
          for (let child = 0; child < FANOUT; child++) {
            if (!isHole(node.bytes, child * ID_BYTES))
              count += this.allocatedChunks(node.bytes, child * ID_BYTES, level - 1);
          }
          table.putCount(entries[i]!, count);
        }
        if (this.#options.signal?.aborted) throw cancelled('accounting', this.#options.signal);
        await nextTurn();
      }
    }
  }
}
