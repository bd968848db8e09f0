/**
 * Nodes in memory by id, bounded, replaced in CLOCK order. No string and no promise for a look-up.
 *
 * The node object that the store hands out also keeps where its children are, so that reading a leaf's
 * chunks again asks no index.
 */
import { ID_BYTES } from '@pando/common';
import { FANOUT, NODE_BYTES, type TreeNode } from '@pando/tree';
import { IdTable } from './id-table.ts';

export class StoreNode implements TreeNode {
  readonly bytes: Uint8Array;
  /** Key of the run (see runKey) of each child; 0 while it is not known. */
  runKeys: Float64Array | undefined;
  runBytes: Uint32Array | undefined;
  slots: Uint32Array | undefined;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** Makes room for places: only leaves that are read need it. */
  placeRoom(): Float64Array {
    this.runBytes ??= new Uint32Array(FANOUT);
    this.slots ??= new Uint32Array(FANOUT);
    return (this.runKeys ??= new Float64Array(FANOUT));
  }
}

/** A node with places and all, roughly. */
const NODE_MEMORY_BYTES = NODE_BYTES + FANOUT * (8 + 4 + 4) + 500;

export class NodeCache {
  readonly #entriesMax: number;
  readonly #table = new IdTable();
  readonly #nodes: (StoreNode | undefined)[] = [];
  #used = new Uint8Array(this.#table.capacity);
  #hand = 0;

  constructor(bytesMax: number) {
    this.#entriesMax = Math.max(1, Math.floor(bytesMax / NODE_MEMORY_BYTES));
  }

  get bytes(): number {
    return this.#table.size * NODE_MEMORY_BYTES;
  }

  get(ids: Uint8Array, offset: number): StoreNode | undefined {
    const entry = this.#table.indexOf(ids, offset);
    if (entry < 0) return undefined;
    this.#used[entry] = 1;
    return this.#nodes[entry];
  }

  /** Keeps a copy of the node at `at` of `bytes`, unless the id is there already; returns the node that is kept. */
  add(ids: Uint8Array, offset: number, bytes: Uint8Array, at: number): StoreNode {
    const known = this.get(ids, offset);
    if (known !== undefined) return known;
    if (this.#table.size >= this.#entriesMax) this.#evict();
    const entry = this.#table.add(ids, offset);
    if (this.#used.length < this.#table.capacity) {
      const used = new Uint8Array(this.#table.capacity);
      used.set(this.#used);
      this.#used = used;
    }
    const node = new StoreNode(bytes.slice(at, at + NODE_BYTES));
    this.#nodes[entry] = node;
    this.#used[entry] = 1;
    return node;
  }

  #evict(): void {
    for (;;) {
      if (this.#hand >= this.#nodes.length) this.#hand = 0;
      const entry = this.#hand++;
      if (this.#nodes[entry] === undefined) continue;
      if (this.#used[entry] === 1) {
        this.#used[entry] = 0;
        continue;
      }
      this.#table.remove(this.#table.ids, entry * ID_BYTES);
      this.#nodes[entry] = undefined;
      return;
    }
  }
}
