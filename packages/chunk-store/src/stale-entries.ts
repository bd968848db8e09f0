/**
 * Index entries that name segments that are gone. A look-up takes them for none, as numbers of segments are never used
 * twice, so removing a segment leaves its entries where they are: deleting them one by one, all over the index, took longer than
 * everything else in a collection (ADR 0009). Whoever stores such a chunk again puts its new place over the old one.
 *
 * They are counted, so that they do not gather without bound: when there are many, the whole index is gone through in its own order, a
 * bounded piece at a time, and all of them are deleted. The count is never too low; what was stored again is still in it, until then.
 */
import { INDEX_SWEEP_ENTRIES } from './limits.ts';
import type { SegmentTable } from './segment-table.ts';
import type { SerialQueue } from './serial-queue.ts';
import { readCheckpoint, readNumbers, writeCheckpoint, writeNumbers } from './store-marks.ts';
import type { ChunkIndex } from './types.ts';

const MARK = 'stale';
const NONE = new Uint8Array(0);

export class StaleEntries {
  readonly #index: ChunkIndex;
  /** All changes of the index go through it. */
  readonly #indexQueue: SerialQueue;
  readonly #table: SegmentTable;
  readonly #fewMax: number;
  #count: number;
  #sweeping: Promise<void> | undefined;
  #closing = false;

  /** @param fewMax as long as there are no more, they stay */
  constructor(
    index: ChunkIndex,
    indexQueue: SerialQueue,
    table: SegmentTable,
    fewMax: number,
    count: number,
  ) {
    this.#index = index;
    this.#indexQueue = indexQueue;
    this.#table = table;
    this.#fewMax = fewMax;
    this.#count = count;
  }

  /** At most so many entries of the index are stale. */
  get count(): number {
    return this.#count;
  }

  /**
   * Notes durably that `segment` goes and leaves up to `entries` entries, and that its number is used up. Must run inside the queue of index
   * changes, and before the segment goes.
   */
  async add(segment: number, entries: number): Promise<void> {
    const checkpoint = await readCheckpoint(this.#index);
    // Nothing else may remember that there was a segment of this number.
    if (checkpoint.next <= segment)
      await writeCheckpoint(this.#index, { ...checkpoint, next: this.#table.nextNumber });
    if (entries === 0) return;
    await writeNumbers(this.#index, MARK, [this.#count + entries]);
    this.#count += entries;
  }

  /** Deletes them behind everybody's back when there are many: more than half as many as there are chunks. */
  sweepIfMany(): void {
    if (this.#sweeping !== undefined || this.#closing || this.#count <= this.#fewMax) return;
    let chunks = 0;
    for (const { slots } of this.#table.all()) chunks += slots;
    if (this.#count <= chunks / 2) return;
    this.#sweeping = this.#sweep()
      .catch(() => undefined) // they do no harm, and an index that fails says so to those who need it
      .finally(() => {
        this.#sweeping = undefined;
      });
  }

  /** Resolves when no sweep is under way. */
  async idle(): Promise<void> {
    await this.#sweeping;
  }

  /** Ends a sweep under way: it begins anew another time. */
  close(): Promise<void> {
    this.#closing = true;
    return this.idle();
  }

  async #sweep(): Promise<void> {
    const before = this.#count;
    const isGone = (segment: number): boolean => this.#table.get(segment) === undefined;
    let after: Uint8Array | undefined = NONE;
    while (after !== undefined) {
      if (this.#closing) return;
      const from: Uint8Array = after;
      after = await this.#indexQueue.run(async () => {
        await this.#index.ready?.();
        return deleteStale(this.#index, isGone, from);
      });
      await new Promise((resolve) => setImmediate(resolve));
    }
    await this.#indexQueue.run(async () => {
      // Those that were added meanwhile may have been missed.
      const count = Math.max(0, this.#count - before);
      await writeNumbers(this.#index, MARK, [count]);
      this.#count = count;
    });
  }
}

/** As the index says it when the store is opened. */
export async function readStaleEntries(index: ChunkIndex): Promise<number> {
  const [count = 0] = await readNumbers(index, MARK);
  return count;
}

/**
 * Deletes what names a segment that `isGone`, of a bounded number of entries behind `after`; resolves to the id to go on behind, if there is more. Nobody
 * else may write to the index meanwhile.
 */
export async function deleteStale(
  index: ChunkIndex,
  isGone: (segment: number) => boolean,
  after: Uint8Array = NONE,
): Promise<Uint8Array | undefined> {
  const { ids, next } = await index.findStale(isGone, after, INDEX_SWEEP_ENTRIES);
  if (ids.byteLength > 0) await index.write({ ids: NONE, places: NONE, count: 0, deletes: ids }, false);
  return next;
}
