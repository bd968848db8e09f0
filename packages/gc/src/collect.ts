/**
 * A collection: begin (one instant), mark, sweep. docs/adr/0002-gc.md has the argument why nothing that
 * anyone can still reach is ever swept.
 */
import { ID_BYTES } from '@pando/common';
import type { ChunkStore, Collection } from '@pando/chunk-store';
import type { Root } from '@pando/tree';
import { gateOf } from './gate.ts';
import { Marker } from './mark.ts';
import { Marks } from './marks.ts';
import { sweep } from './sweep.ts';
import { cancelled } from './subtree-walk.ts';
import { unlessFull } from './unless-full.ts';
import type { GcOptions, GcReport } from './types.ts';

/** Nodes hit by the barrier that wait to be walked; past it they are only marked, see Barrier. */
export const GRAY_NODES_MAX = 16_384;

/**
 * Frees what nothing reaches, while everything else goes on. `rootsAt` is called in the turn in which the collection
 * begins, and has to list the roots of that instant (a catalog snapshot taken when it is called).
 * Waits for other collections and accounts of the store.
 * @throws `chunk-missing` or another error of kind `data` when a root cannot be walked to the end: nothing was removed
 * then; `cancelled`
 */
export function collect(
  store: ChunkStore,
  rootsAt: () => AsyncIterable<Root>,
  options: GcOptions = {},
): Promise<GcReport> {
  return gateOf(store).run(async () => {
    const { signal } = options;
    if (signal?.aborted) throw cancelled('collection', signal);
    // What cannot be sealed on a full disk is no candidate; what is sealed may make the room that it needs.
    await unlessFull(store.seal());
    const barrier = new Barrier();
    const collection = store.beginCollection((segment, slot, ids, offset, _isNode, level) => {
      barrier.hit(segment, slot, ids, offset, level);
    });
    try {
      const roots = rootsAt(); // no await since beginCollection: one instant
      const marks = new Marks(collection.candidates);
      barrier.marks = marks;
      const count = await mark(store, collection, roots, marks, barrier, options);
      await options.beforeSweep?.();
      return { roots: count, ...(await sweep(collection, marks, options)) };
    } finally {
      collection.end();
    }
  });
}

/**
 * What the barrier does with a hit: the chunk is alive from now on. A node is also queued to be walked. That is
 * for safety only, as the children of a node were written (and so hit, pinned or new) before it, or are part of a
 * tree that is alive; so the queue may have a bound, and hits during the sweep need no walk.
 */
class Barrier {
  marks: Marks | undefined;
  #ids = new Uint8Array(64 * ID_BYTES);
  #levels = new Uint8Array(64);
  #count = 0;
  #open = true;

  hit(segment: number, slot: number, ids: Uint8Array, offset: number, level: number): void {
    const marks = this.marks!;
    marks.mark(segment, slot, 0);
    if (!this.#open || !(level > 0) || this.#count === GRAY_NODES_MAX) return;
    if (marks.isMarked(segment, slot, level)) return;
    if (this.#count === this.#levels.length) this.#grow();
    this.#ids.set(ids.subarray(offset, offset + ID_BYTES), this.#count * ID_BYTES);
    this.#levels[this.#count++] = level;
  }

  /** Takes the nodes that wait. */
  take(): { ids: Uint8Array; levels: Uint8Array; count: number } {
    const taken = { ids: this.#ids, levels: this.#levels, count: this.#count };
    this.#ids = new Uint8Array(64 * ID_BYTES);
    this.#levels = new Uint8Array(64);
    this.#count = 0;
    return taken;
  }

  /** From now on nodes are marked only. */
  stopQueueing(): void {
    this.#open = false;
  }

  #grow(): void {
    const ids = new Uint8Array(this.#ids.length * 2);
    ids.set(this.#ids);
    this.#ids = ids;
    const levels = new Uint8Array(this.#levels.length * 2);
    levels.set(this.#levels);
    this.#levels = levels;
  }
}

/** Marks everything that is reachable from the roots, the pins and the hits. Resolves to the number of roots. */
async function mark(
  store: ChunkStore,
  collection: Collection,
  roots: AsyncIterable<Root>,
  marks: Marks,
  barrier: Barrier,
  options: GcOptions,
): Promise<number> {
  let all = 0;
  for (const info of collection.candidates) all += info.slots;
  const marker: Marker = new Marker(store, collection, marks, {
    signal: options.signal,
    onBatch: () => options.onProgress?.({ phase: 'mark', done: Math.min(marker.marked, all), all }),
  });
  let count = 0;
  for await (const root of roots) {
    await marker.add(root.id, 0, root.height);
    count++;
  }
  await marker.drainWithPins(collection.pins);
  for (let gray = barrier.take(); gray.count > 0; gray = barrier.take()) {
    await marker.drainWithPins(gray);
  }
  barrier.stopQueueing();
  return count;
}
