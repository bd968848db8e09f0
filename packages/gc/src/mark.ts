/** Marking: a subtree walk that visits each node of each level once and remembers it in bitmaps. */
import type { Collection } from '@pando/chunk-store';
import { ID_BYTES } from '@pando/common';
import type { ChunkReader } from '@pando/tree';
import type { Marks } from './marks.ts';
import { LIST_IDS, resolveHeld, SubtreeWalk, type SubtreeVisitor } from './subtree-walk.ts';

export class Marker {
  readonly #walk: SubtreeWalk;
  readonly #held: SubtreeWalk;
  /** Chunks that were marked for the first time. */
  marked = 0;

  /**
   * @param marks where to mark
   * @param onBatch called after each batch
   */
  constructor(
    reader: ChunkReader,
    collection: Collection,
    marks: Marks,
    options: { signal?: AbortSignal | undefined; onBatch?: () => void } = {},
  ) {
    const segments = new Float64Array(LIST_IDS);
    const slots = new Uint32Array(LIST_IDS);
    const { onBatch } = options;
    const meet = (ids: Uint8Array, at: number, level: number): boolean => {
      const segment = segments[at]!;
      const slot = slots[at]!;
      if (segment === 0) return false; // held, and nowhere
      if (!marks.meet(segment, slot, level, ids, at * ID_BYTES)) return false;
      this.marked++;
      return true;
    };
    const visitor = (resolve: typeof resolveHeld): SubtreeVisitor => ({
      enter: async (ids, count, level, walk) => {
        await resolve(collection, ids, count, segments, slots);
        let chosen = 0;
        for (let i = 0; i < count; i++) if (meet(ids, i, level)) walk[chosen++] = i;
        onBatch?.();
        return chosen;
      },
      data: async (ids, count) => {
        await resolve(collection, ids, count, segments, slots);
        for (let i = 0; i < count; i++) meet(ids, i, 0);
        onBatch?.();
      },
    });
    const strict: typeof resolveHeld = (_, ...args) => collection.resolve(...args);
    this.#walk = new SubtreeWalk(reader, visitor(strict), options.signal);
    this.#held = new SubtreeWalk(reader, visitor(resolveHeld), options.signal, true);
  }

  /** Marks what was added before if there is no room, then adds a subtree. */
  async add(ids: Uint8Array, offset: number, level: number): Promise<void> {
    if (this.#walk.add(ids, offset, level)) return;
    await this.#walk.drain();
    this.#walk.add(ids, offset, level);
  }

  /** Marks everything that was added. @throws `chunk-missing` when anything of it is not in the store, `cancelled` */
  drain(): Promise<void> {
    return this.#walk.drain();
  }

  /**
   * Marks everything that was added, and then what sessions in flight hold. In this order: what a root reaches has to be
   * there, and must not be taken for met where a session holds only a part of it.
   */
  async drainWithPins(pins: Collection['pins']): Promise<void> {
    await this.#walk.drain();
    for (let i = 0; i < pins.count; i++) {
      if (this.#held.add(pins.ids, i * ID_BYTES, pins.levels[i]!)) continue;
      await this.#held.drain();
      this.#held.add(pins.ids, i * ID_BYTES, pins.levels[i]!);
    }
    await this.#held.drain();
  }
}
