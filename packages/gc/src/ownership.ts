/**
 * The walk of the accounts: labels every slot with whose it is, and counts what is allocated.
 *
 * Owners come one after another, each walked to its end. A node met for the first time gets its owner's
 * label and is walked; met by a second owner it becomes shared and is walked once more, so that all
 * below it becomes shared; after that it is never walked again. Levels are kept apart, for
 * the reason given in marks.ts.
 *
 * Memory: two bytes a slot (see slot-labels.ts), and about 60 bytes a reachable node, of which there is one
 * for each 128 chunks.
 */
import type { Collection } from '@pando/chunk-store';
import { ID_BYTES, isHole } from '@pando/common';
import { FANOUT, readNodes, type ChunkReader, type Root, type TreeNode } from '@pando/tree';
import { LEVELS_MAX } from './marks.ts';
import { NodeTable } from './node-table.ts';
import { NOBODY, SHARED, SlotLabels } from './slot-labels.ts';
import { BATCH_NODES, LIST_IDS, resolveHeld, SubtreeWalk, type SubtreeVisitor } from './subtree-walk.ts';

/** Who holds what sessions in flight have pinned: an owner that appears in no account. */
export const IN_FLIGHT = 1;
/** Numbers of real owners go up from here. */
export const FIRST_OWNER = 2;

export class Ownership implements SubtreeVisitor {
  readonly labels: SlotLabels;
  readonly #reader: ChunkReader;
  readonly #collection: Collection;
  readonly #walk: SubtreeWalk;
  /** For what sessions in flight hold. */
  readonly #held: SubtreeWalk;
  readonly #candidates: ReadonlyMap<number, number>;
  readonly #tables = Array.from({ length: LEVELS_MAX }, () => new NodeTable());
  /** Nodes above leaves that were met for the first time by the owner that is being walked, by level. */
  readonly #uncounted: number[][] = Array.from({ length: LEVELS_MAX }, () => []);
  readonly #segments = new Float64Array(LIST_IDS);
  readonly #slots = new Uint32Array(LIST_IDS);
  readonly #onBatch: (() => void) | undefined;
  #owner = NOBODY;
  /** Nodes met for the first time, so far. */
  nodes = 0;

  constructor(
    reader: ChunkReader,
    collection: Collection,
    signal: AbortSignal | undefined,
    onBatch: (() => void) | undefined,
  ) {
    const slots = new Map(collection.candidates.map((info) => [info.segment, info.slots]));
    this.#candidates = slots;
    this.labels = new SlotLabels((segment) => slots.get(segment) ?? 0);
    this.#reader = reader;
    this.#collection = collection;
    this.#onBatch = onBatch;
    this.#walk = new SubtreeWalk(reader, this, signal);
    this.#held = new SubtreeWalk(reader, this, signal, true);
  }

  /** Labels everything below a root as `owner`'s. All roots of one owner come one after another. */
  async addRoot(root: Root, owner: number): Promise<void> {
    if (isHole(root.id)) return;
    const table = this.#tables[root.height]!;
    const known = table.ids.indexOf(root.id, 0);
    if (known >= 0 && (table.ownerOf(known) === SHARED || table.ownerOf(known) === owner)) return;
    await this.addSubtrees(root.id, Uint8Array.of(root.height), 1, owner);
  }

  /** The same for subtrees of any level: `count × 32` bytes of ids, and the level of each. */
  async addSubtrees(ids: Uint8Array, levels: Uint8Array, count: number, owner: number): Promise<void> {
    this.#owner = owner;
    const walk = owner === IN_FLIGHT ? this.#held : this.#walk;
    for (let i = 0; i < count; i++) {
      if (walk.add(ids, i * ID_BYTES, levels[i]!)) continue;
      await walk.drain();
      walk.add(ids, i * ID_BYTES, levels[i]!);
    }
    await walk.drain();
    if (owner !== IN_FLIGHT) await this.#countInner();
    // Nobody asks what is allocated in flight, and what is not there cannot be counted.
    else for (const entries of this.#uncounted) entries.length = 0;
  }

  /** Chunks below a node that are not holes; 0 for a hole. The node must have been labelled. */
  allocatedChunks(ids: Uint8Array, offset: number, level: number): number {
    const table = this.#tables[level]!;
    const entry = table.ids.indexOf(ids, offset);
    return entry < 0 ? 0 : table.countOf(entry);
  }

  async enter(ids: Uint8Array, count: number, level: number, walk: Uint32Array): Promise<number> {
    const table = this.#tables[level]!;
    const changed = new Uint8Array(count * ID_BYTES);
    let chosen = 0;
    for (let i = 0; i < count; i++) {
      const entry = table.add(ids, i * ID_BYTES);
      const owner = table.ownerOf(entry);
      if (owner === SHARED || owner === this.#owner) continue;
      if (owner === NOBODY) {
        this.nodes++;
        if (level > 1) this.#uncounted[level]!.push(entry);
      }
      table.setOwner(entry, owner === NOBODY ? this.#owner : SHARED);
      changed.set(ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES), chosen * ID_BYTES);
      walk[chosen++] = i;
    }
    await this.#label(changed, chosen);
    return chosen;
  }

  node(ids: Uint8Array, offset: number, level: number, node: TreeNode): void {
    if (level > 1) return;
    let allocated = 0;
    for (let child = 0; child < FANOUT; child++) if (!isHole(node.bytes, child * ID_BYTES)) allocated++;
    const table = this.#tables[1]!;
    table.setCount(table.ids.indexOf(ids, offset), allocated);
  }

  data(ids: Uint8Array, count: number): Promise<void> {
    return this.#label(ids, count);
  }

  async #label(ids: Uint8Array, count: number): Promise<void> {
    if (count === 0) return;
    if (this.#owner === IN_FLIGHT) {
      await resolveHeld(this.#collection, ids, count, this.#segments, this.#slots);
    } else await this.#collection.resolve(ids, count, this.#segments, this.#slots);
    for (let i = 0; i < count; i++) {
      const segment = this.#segments[i]!;
      const slot = this.#slots[i]!;
      // A chunk that is on its way has no slot yet: it is said to be in slot 0 of a segment to come. Roots of
      // owners have none of them, only what sessions in flight have pinned.
      if (slot === 0 && this.#owner === IN_FLIGHT && !this.#candidates.has(segment)) continue;
      this.labels.add(segment, slot, this.#owner);
    }
    this.#onBatch?.();
  }

  /** Adds up the counts of new nodes above leaves, from the lowest level up, once everything below them is known. */
  async #countInner(): Promise<void> {
    const ids = new Uint8Array(BATCH_NODES * ID_BYTES);
    for (let level = 2; level < LEVELS_MAX; level++) {
      const entries = this.#uncounted[level]!;
      const table = this.#tables[level]!;
      for (let first = 0; first < entries.length; first += BATCH_NODES) {
        const batch = entries.slice(first, first + BATCH_NODES);
        batch.forEach((entry, i) => {
          ids.set(table.ids.ids.subarray(entry * ID_BYTES, (entry + 1) * ID_BYTES), i * ID_BYTES);
        });
        const nodes = await readNodes(this.#reader, ids, 0, batch.length);
        for (const [i, node] of nodes.entries()) {
          let count = 0;
          for (let child = 0; child < FANOUT; child++) {
            if (!isHole(node.bytes, child * ID_BYTES))
              count += this.allocatedChunks(node.bytes, child * ID_BYTES, level - 1);
          }
          table.setCount(batch[i]!, count);
        }
      }
      entries.length = 0;
    }
  }
}
