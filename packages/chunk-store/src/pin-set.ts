/**
 * What a session keeps alive of what it wrote.
 *
 * Without a source: every id that it handed out, each by itself (*flat*).
 *
 * With a source, the *frontier*: ids that were handed out and are not yet a child of a node that was
 * handed in, each with its level. What the source says comes on top. The frontier closes the gap that
 * a source alone leaves: an id belongs to the session from the moment it was looked up, and to the source
 * only when the code that waits for it has run, which may be many turns of the event loop later
 * (two writes awaited together). A node enters at the same instant as its children leave.
 */
import { ID_BYTES, isHole } from '@pando/common';
import { FANOUT, NODE_BYTES } from '@pando/tree';
import { IdTable } from './id-table.ts';
import type { PinSource } from './types.ts';

export class PinSet {
  readonly #table = new IdTable();
  #levels = new Uint8Array(this.#table.capacity);
  #source: PinSource | undefined;

  /** What is pinned so far becomes the frontier: it is let go of where a node that lists it is handed in. */
  setSource(source: PinSource): void {
    this.#source = source;
  }

  /** Ids remembered, those of the source not counted. */
  get size(): number {
    return this.#table.size;
  }

  /** Pins `count` ids of data chunks. */
  addChunks(ids: Uint8Array, count: number): void {
    for (let i = 0; i < count; i++) this.#add(ids, i * ID_BYTES, 0);
  }

  /** Pins `count` nodes; with a source their children are then covered by them. */
  addNodes(ids: Uint8Array, count: number, level: number, nodes: Uint8Array): void {
    for (let i = 0; i < count; i++) this.#add(ids, i * ID_BYTES, this.#source === undefined ? 0 : level);
    if (this.#source === undefined) return;
    for (let i = 0; i < count; i++) this.#uncover(nodes, i * NODE_BYTES, level);
  }

  forEach(visit: (ids: Uint8Array, offset: number, level: number) => void): void {
    this.#table.forEach((entry) => visit(this.#table.ids, entry * ID_BYTES, this.#levels[entry]!));
    this.#source?.forEachPin(visit);
  }

  clear(): void {
    this.#table.clear();
    this.#source = undefined;
  }

  /** Lets go of the children of a node of `level`, as far as the node keeps alive what they pin. */
  #uncover(nodes: Uint8Array, nodeAt: number, level: number): void {
    for (let child = 0; child < FANOUT; child++) {
      const at = nodeAt + child * ID_BYTES;
      const entry = this.#table.indexOf(nodes, at);
      // The bytes of a data chunk can be those of a node: then a parent that lists it as data covers less.
      if (entry >= 0 && this.#levels[entry]! < level) this.#table.remove(nodes, at);
    }
  }

  #add(ids: Uint8Array, offset: number, level: number): void {
    if (isHole(ids, offset)) return;
    const known = this.#table.indexOf(ids, offset);
    if (known >= 0) {
      this.#levels[known] = Math.max(this.#levels[known]!, level);
      return;
    }
    const entry = this.#table.add(ids, offset);
    if (this.#levels.length < this.#table.capacity) {
      const levels = new Uint8Array(this.#table.capacity);
      levels.set(this.#levels);
      this.#levels = levels;
    }
    this.#levels[entry] = level;
  }
}
