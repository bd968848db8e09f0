/**
 * Places of whole segments around earlier hits: duplicates come in sequences, so after a few hits in
 * a segment the rest of it is worth having in memory. A look-up here costs a tenth of one in the index.
 *
 * Bounded by two generations: when the younger one is full, the older one is forgotten.
 */
import { ID_BYTES, idsEqual, IdSet } from '@pando/common';
import { runEntryAt, type SegmentDirectory } from './segment-directory.ts';
import { RUN_ENTRY_BYTES } from './segment-format.ts';

/** Ids that are added in one turn of the event loop: about a millisecond. */
const IDS_A_TURN = 4096;

class Generation {
  readonly ids: IdSet;
  readonly loaded = new Set<number>();
  readonly segments: Uint32Array;
  readonly runOffsets: Uint32Array;
  readonly runBytes: Uint32Array;
  readonly slots: Uint32Array;

  constructor(entriesMax: number) {
    this.ids = new IdSet();
    this.segments = new Uint32Array(entriesMax);
    this.runOffsets = new Uint32Array(entriesMax);
    this.runBytes = new Uint32Array(entriesMax);
    this.slots = new Uint32Array(entriesMax);
  }

  clear(): void {
    this.ids.clear();
    this.loaded.clear();
  }
}

export class RecentPlaces {
  readonly #entriesMax: number;
  #young: Generation | undefined;
  #old: Generation | undefined;
  /** Where `find` found its last id. */
  #foundIn: Generation | undefined;
  #foundAt = 0;

  /** Where the last `find` that returned true found its id. */
  segment = 0;
  runOffset = 0;
  runBytes = 0;
  slot = 0;

  constructor(entriesMax: number) {
    this.#entriesMax = Math.max(1, Math.floor(entriesMax / 2));
  }

  /** Looks an id up; the fields then say where it is. The segment may be gone meanwhile. */
  find(ids: Uint8Array, offset: number): boolean {
    const next = this.#foundAt + 1;
    const last = this.#foundIn;
    // Sequences stand in the order of slots: no hashing, and no memory that is far apart.
    if (last !== undefined && next < last.ids.size && idsEqual(last.ids.ids, next * ID_BYTES, ids, offset)) {
      this.#tell(last, next);
      return true;
    }
    return this.#findIn(this.#young, ids, offset) || this.#findIn(this.#old, ids, offset);
  }

  has(segment: number): boolean {
    return this.#young?.loaded.has(segment) === true || this.#old?.loaded.has(segment) === true;
  }

  /** Whether a segment of so many slots fits at all. */
  fits(slots: number): boolean {
    return slots <= this.#entriesMax;
  }

  /** Adds all ids of a segment, in pieces: the caller gives others their turn between any two. None when it does not fit. */
  *add(segment: number, directory: SegmentDirectory): Generator<void, void> {
    const slots = directory.ids.byteLength / ID_BYTES;
    if (!this.fits(slots)) return;
    this.#young ??= new Generation(this.#entriesMax);
    if (this.#young.ids.size + slots > this.#entriesMax) {
      const reused = this.#old ?? new Generation(this.#entriesMax);
      reused.clear();
      this.#old = this.#young;
      this.#young = reused;
    }
    const young = this.#young;
    young.loaded.add(segment);
    const runs = directory.runTable.byteLength / RUN_ENTRY_BYTES;
    let added = 0;
    for (let run = 0; run < runs; run++) {
      if (added >= IDS_A_TURN) {
        added = 0;
        yield;
      }
      const entry = runEntryAt(directory.runTable, run);
      for (let slot = entry.firstSlot; slot < entry.firstSlot + entry.count; slot++) {
        const at = young.ids.add(directory.ids, slot * ID_BYTES);
        young.segments[at] = segment;
        young.runOffsets[at] = entry.offset;
        young.runBytes[at] = entry.bytes;
        young.slots[at] = slot;
      }
      added += entry.count;
    }
  }

  #findIn(generation: Generation | undefined, ids: Uint8Array, offset: number): boolean {
    const at = generation === undefined ? -1 : generation.ids.indexOf(ids, offset);
    if (at < 0) return false;
    this.#tell(generation!, at);
    return true;
  }

  #tell(generation: Generation, at: number): void {
    this.#foundIn = generation;
    this.#foundAt = at;
    this.segment = generation.segments[at]!;
    this.runOffset = generation.runOffsets[at]!;
    this.runBytes = generation.runBytes[at]!;
    this.slot = generation.slots[at]!;
  }
}
