/** What the accounts know of each node of one level: the set of its owners, and how many chunks are allocated below it. */
import { IdSet } from '@pando/common';

export class NodeTable {
  readonly ids = new IdSet();
  #sets = new Uint32Array(64);
  #counts = new Float64Array(64);

  /** The entry of a node, added with no owner when it is new. */
  add(ids: Uint8Array, offset: number): number {
    const entry = this.ids.add(ids, offset);
    if (entry === this.#sets.length) this.#grow();
    return entry;
  }

  /** Number of the set of its owners. */
  setOf(entry: number): number {
    return this.#sets[entry]!;
  }

  putSet(entry: number, set: number): void {
    this.#sets[entry] = set;
  }

  /** Chunks below the node that are not holes, counted at each place where they occur. */
  countOf(entry: number): number {
    return this.#counts[entry]!;
  }

  putCount(entry: number, count: number): void {
    this.#counts[entry] = count;
  }

  /** The sets of all nodes, to be renumbered where they are. */
  get sets(): Uint32Array {
    return this.#sets.subarray(0, this.ids.size);
  }

  #grow(): void {
    const sets = new Uint32Array(this.#sets.length * 2);
    sets.set(this.#sets);
    this.#sets = sets;
    const counts = new Float64Array(this.#counts.length * 2);
    counts.set(this.#counts);
    this.#counts = counts;
  }
}
