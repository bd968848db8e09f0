/** What the accounts know of each node of one level: whose it is, and how many chunks are allocated below it. */
import { IdSet } from '@pando/common';

export class NodeTable {
  readonly ids = new IdSet();
  #owners = new Uint32Array(64);
  #counts = new Float64Array(64);

  /** The entry of a node, added with no owner when it is new. */
  add(ids: Uint8Array, offset: number): number {
    const entry = this.ids.add(ids, offset);
    if (entry === this.#owners.length) this.#grow();
    return entry;
  }

  ownerOf(entry: number): number {
    return this.#owners[entry]!;
  }

  setOwner(entry: number, owner: number): void {
    this.#owners[entry] = owner;
  }

  /** Chunks below the node that are not holes, counted at each place where they occur. */
  countOf(entry: number): number {
    return this.#counts[entry]!;
  }

  setCount(entry: number, count: number): void {
    this.#counts[entry] = count;
  }

  #grow(): void {
    const owners = new Uint32Array(this.#owners.length * 2);
    owners.set(this.#owners);
    this.#owners = owners;
    const counts = new Float64Array(this.#counts.length * 2);
    counts.set(this.#counts);
    this.#counts = counts;
  }
}
