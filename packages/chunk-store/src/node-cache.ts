/**
 * Nodes in memory by id, bounded, replaced in CLOCK order. No string and no promise for a look-up.
 *
 * The node object that the store hands out also keeps where its children are when the index had to be asked, so that reading a
 * leaf's chunks again asks no index. Where hints tell it (place-hints.ts) a leaf takes two thirds of the memory.
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
  /** Whether it is in the cache, and its memory counts. */
  cached = false;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

/** A node without places, roughly, and its places. */
const NODE_MEMORY_BYTES = NODE_BYTES + 350;
const PLACES_MEMORY_BYTES = FANOUT * (8 + 4 + 4) + 150;

export class NodeCache {
  readonly #bytesMax: number;
  readonly #table = new IdTable();
  readonly #nodes: (StoreNode | undefined)[] = [];
  #used = new Uint8Array(this.#table.capacity);
  #hand = 0;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = Math.max(NODE_MEMORY_BYTES, bytesMax);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Keys of the runs of a leaf's children; makes room for places where there was none. */
  placesOf(node: StoreNode): Float64Array {
    if (node.runKeys !== undefined) return node.runKeys;
    const memory = new ArrayBuffer(FANOUT * 16);
    node.runBytes = new Uint32Array(memory, FANOUT * 8, FANOUT);
    node.slots = new Uint32Array(memory, FANOUT * 12, FANOUT);
    const runKeys = (node.runKeys = new Float64Array(memory, 0, FANOUT));
    if (node.cached) {
      this.#bytes += PLACES_MEMORY_BYTES;
      // The node itself may be among those that go: its places are the caller's all the same.
      while (this.#bytes > this.#bytesMax && this.#table.size > 1) this.#evict();
    }
    return runKeys;
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
    while (this.#bytes + NODE_MEMORY_BYTES > this.#bytesMax && this.#table.size > 0) this.#evict();
    const entry = this.#table.add(ids, offset);
    if (this.#used.length < this.#table.capacity) {
      const used = new Uint8Array(this.#table.capacity);
      used.set(this.#used);
      this.#used = used;
    }
    const node = new StoreNode(bytes.slice(at, at + NODE_BYTES));
    node.cached = true;
    this.#bytes += NODE_MEMORY_BYTES;
    this.#nodes[entry] = node;
    this.#used[entry] = 1;
    return node;
  }

  #evict(): void {
    for (;;) {
      if (this.#hand >= this.#nodes.length) this.#hand = 0;
      const entry = this.#hand++;
      const node = this.#nodes[entry];
      if (node === undefined) continue;
      if (this.#used[entry] === 1) {
        this.#used[entry] = 0;
        continue;
      }
      this.#table.remove(this.#table.ids, entry * ID_BYTES);
      this.#nodes[entry] = undefined;
      this.#bytes -= NODE_MEMORY_BYTES + (node.runKeys === undefined ? 0 : PLACES_MEMORY_BYTES);
      node.cached = false;
      return;
    }
  }
}
