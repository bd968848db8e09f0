/**
 * Building a tree from front to back: imports.
 *
 * Each level has a buffer of up to 64 nodes that are still without a parent. A full buffer is written in one
 * call, and its ids go into the buffer one level up in the same turn of the event loop in which they
 * leave the one below: at every instant each id that was appended is either in a buffer (and so a pin)
 * or below a node whose id is. Memory: 256 KiB a level, whatever the size of the disk.
 */
import { ID_BYTES, PandoError, isHole } from '@pando/common';
import { chunkCount, copyId, emptyRoot, heightFor } from './shape.ts';
import { FANOUT, NODE_BYTES, type ChunkWriter, type Root } from './types.ts';

/** Most nodes of one level that wait to be written together. */
export const PENDING_NODES_MAX = 64;

const ENTRIES_MAX = PENDING_NODES_MAX * FANOUT;

/** Up to so many nodes that are all hole go through the buffer, to keep its batches long; more go one level up. */
const HOLE_NODES_BUFFERED_MAX = 8;

/** Nodes of one level under construction: the ids of their children; zeros after the last one. */
interface Level {
  readonly ids: Uint8Array;
  entries: number;
}

export class TreeBuilder {
  readonly #writer: ChunkWriter;
  /** #levels[l] holds children of nodes of level l; level 0 is never used. */
  readonly #levels: Level[] = [];
  /** Ids handed to `append` that have found no room yet. */
  #incoming: { readonly ids: Uint8Array; next: number; readonly count: number } | undefined;
  #chunks = 0;
  #busy = false;

  constructor(writer: ChunkWriter) {
    this.#writer = writer;
  }

  /** Chunks appended so far, holes included. */
  get chunks(): number {
    return this.#chunks;
  }

  /**
   * Appends `count` data chunks, `count × 32` bytes of ids, holes allowed. They are pinned from the call on;
   * `ids` must not change until it resolves. One call of append, appendHole or finish at a time.
   * @throws the errors of the writer; the builder is of no use then but to pin what it has
   */
  async append(ids: Uint8Array, count: number): Promise<void> {
    this.#begin();
    const incoming = { ids, next: 0, count };
    this.#incoming = incoming;
    this.#chunks += count;
    while (incoming.next < count) {
      const level = this.#level(1);
      const taken = Math.min(ENTRIES_MAX - level.entries, count - incoming.next);
      level.ids.set(
        ids.subarray(incoming.next * ID_BYTES, (incoming.next + taken) * ID_BYTES),
        level.entries * ID_BYTES,
      );
      level.entries += taken;
      incoming.next += taken;
      if (level.entries === ENTRIES_MAX) await this.#write(1);
    }
    this.#incoming = undefined;
    this.#busy = false;
  }

  /** Appends `count` chunks of hole; costs at most a path of nodes, however many. Errors as append. */
  async appendHole(count: number): Promise<void> {
    this.#begin();
    this.#chunks += count;
    await this.#skip(1, count);
    this.#busy = false;
  }

  /**
   * Writes what is left and resolves to the root of a disk of `size` bytes; what was not appended is hole. The
   * root stays pinned. Nothing can be appended afterwards.
   * @throws `range-invalid` when more was appended than the size has room for; the errors of the writer
   */
  async finish(size: number): Promise<Root> {
    this.#begin();
    const chunkBytes = this.#writer.chunkBytes;
    if (this.#chunks > chunkCount(size, chunkBytes)) {
      throw new PandoError('range-invalid', `${this.#chunks} chunks do not fit into a disk of ${size} bytes`);
    }
    const height = heightFor(size, chunkBytes);
    for (let level = 1; level <= height; level++) await this.#write(level, true);
    const top = this.#levels[height + 1];
    if (top === undefined || isHole(top.ids)) return emptyRoot(size, chunkBytes);
    return { id: copyId(top.ids, 0), height, size };
  }

  /** Visits every id that no written parent covers yet, with the level of its subtree (0: a data chunk). */
  forEachPin(visit: (ids: Uint8Array, offset: number, level: number) => void): void {
    for (let l = 1; l < this.#levels.length; l++) {
      const level = this.#levels[l];
      if (level === undefined) continue;
      for (let i = 0; i < level.entries; i++) {
        if (!isHole(level.ids, i * ID_BYTES)) visit(level.ids, i * ID_BYTES, l - 1);
      }
    }
    const incoming = this.#incoming;
    if (incoming === undefined) return;
    for (let i = incoming.next; i < incoming.count; i++) {
      if (!isHole(incoming.ids, i * ID_BYTES)) visit(incoming.ids, i * ID_BYTES, 0);
    }
  }

  /** Two calls at once would mix their chunks; after a failed or finished one the state is not to be built upon. */
  #begin(): void {
    if (this.#busy) throw new PandoError('internal', 'the tree builder is busy, failed or finished');
    this.#busy = true;
  }

  #level(level: number): Level {
    return (this.#levels[level] ??= { ids: new Uint8Array(ENTRIES_MAX * ID_BYTES), entries: 0 });
  }

  /** Appends `count` holes as children of nodes of level `l`. */
  async #skip(l: number, count: number): Promise<void> {
    const level = this.#level(l);
    const fill = Math.min(count, (FANOUT - (level.entries % FANOUT)) % FANOUT);
    await this.#advance(l, fill);
    let nodes = Math.floor((count - fill) / FANOUT);
    const rest = (count - fill) % FANOUT;
    if (nodes > HOLE_NODES_BUFFERED_MAX) {
      await this.#write(l); // all its nodes are full: the hole comes after them one level up
      await this.#skip(l + 1, nodes);
      nodes = 0;
    }
    for (; nodes > 0; nodes--) await this.#advance(l, FANOUT);
    await this.#advance(l, rest);
  }

  /** Counts up to a node's worth of entries that are zeros already. */
  async #advance(l: number, count: number): Promise<void> {
    const level = this.#level(l);
    level.entries += count;
    if (level.entries === ENTRIES_MAX) await this.#write(l);
  }

  /** Writes the full nodes of a level (and the partial one if asked) and moves their ids one level up. */
  async #write(l: number, partial = false): Promise<void> {
    const level = this.#level(l);
    const nodes = partial ? Math.ceil(level.entries / FANOUT) : Math.floor(level.entries / FANOUT);
    if (nodes === 0) return;
    const parent = this.#level(l + 1);
    if (parent.entries + nodes > ENTRIES_MAX) await this.#write(l + 1);
    // A copy, because the writer owns what it is given and the pins must stand while it writes.
    const ids = await this.#writer.writeNodes(level.ids.slice(0, nodes * NODE_BYTES), nodes, l);
    parent.ids.set(ids.subarray(0, nodes * ID_BYTES), parent.entries * ID_BYTES);
    parent.entries += nodes;
    const moved = Math.min(nodes * FANOUT, level.entries);
    level.ids.copyWithin(0, moved * ID_BYTES, level.entries * ID_BYTES);
    level.ids.fill(0, (level.entries - moved) * ID_BYTES, level.entries * ID_BYTES);
    level.entries -= moved;
    if (parent.entries === ENTRIES_MAX) await this.#write(l + 1);
  }
}
