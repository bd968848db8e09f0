/**
 * Directories of segments as they are asked for one by one, the latest kept: for holding the index against what the
 * segments say of themselves.
 */
import { idsEqual, ID_BYTES, isPandoError } from '@pando/common';
import type { Place } from './types.ts';
import { readDirectory, runEntryAt, type SegmentDirectory } from './segment-directory.ts';
import { RUN_ENTRY_BYTES } from './segment-format.ts';
import type { SegmentTable } from './segment-table.ts';
import type { SegmentStorage } from './types.ts';

/** Directories in memory: that of a full segment has about half a MiB. */
const KEPT_MAX = 32;

export class Directories {
  readonly #storage: SegmentStorage;
  readonly #table: SegmentTable;
  /** The one that was used longest ago first; undefined for a segment that has no whole footer. */
  readonly #kept = new Map<number, SegmentDirectory | undefined>();

  constructor(storage: SegmentStorage, table: SegmentTable) {
    this.#storage = storage;
    this.#table = table;
  }

  /**
   * Whether a chunk is at a place, as the segment's footer says it: false also when there is no such segment.
   * Undefined when that cannot be told because the footer is damaged or cannot be read.
   */
  async holds(place: Place, id: Uint8Array, at: number): Promise<boolean | undefined> {
    const segment = this.#table.get(place.segment);
    if (segment === undefined) return false;
    const { contents } = segment;
    const directory =
      contents === undefined
        ? await this.#directory(place.segment)
        : { runTable: contents.runTable.bytes, ids: contents.ids.bytes };
    return directory === undefined ? undefined : lists(directory, place, id, at);
  }

  async #directory(number: number): Promise<SegmentDirectory | undefined> {
    if (this.#kept.has(number)) {
      const kept = this.#kept.get(number);
      this.#kept.delete(number);
      this.#kept.set(number, kept);
      return kept;
    }
    const segment = this.#table.get(number);
    if (segment === undefined) return undefined;
    const directory = await readDirectory(this.#storage, number, segment.seed, segment.bytes).catch(
      (error: unknown) => {
        if (!isPandoError(error)) throw error;
        return undefined;
      },
    );
    this.#kept.set(number, directory);
    if (this.#kept.size > KEPT_MAX) this.#kept.delete(this.#kept.keys().next().value!);
    return directory;
  }
}

/** Whether a directory has the id in the slot of the place, in a run that begins there and is that long. */
function lists({ runTable, ids }: SegmentDirectory, place: Place, id: Uint8Array, at: number): boolean {
  const { runOffset, runBytes, slot } = place;
  let low = 0;
  let high = runTable.byteLength / RUN_ENTRY_BYTES;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (runEntryAt(runTable, middle).offset < runOffset) low = middle + 1;
    else high = middle;
  }
  if (low * RUN_ENTRY_BYTES >= runTable.byteLength) return false;
  const run = runEntryAt(runTable, low);
  return (
    run.offset === runOffset &&
    run.bytes === runBytes &&
    slot >= run.firstSlot &&
    slot < run.firstSlot + run.count &&
    idsEqual(id, at, ids, slot * ID_BYTES)
  );
}
