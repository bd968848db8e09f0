/**
 * Where chunks most likely are, for readers: a few bytes a chunk, which may be wrong. Who follows a hint compares the whole id with those in the run
 * before anything else is done, and asks the index when it is not there.
 *
 * The ids of whole segments come in at once, after some hits in them. An entry is the number of a run and ten bits of the id, at a place
 * that other bits of the id choose (open addressing, linear probing); of a thousand ids that are elsewhere one to five find an entry that is not theirs.
 * Four bytes for an entry and twelve for a run are a quarter of what ids take that are kept whole (recent-places.ts), which writers need: for them there is
 * no second look.
 */
import { ID_BYTES, isHole } from '@pando/common';
import { HINT_MISSES_MAX } from './limits.ts';
import { runKey } from './run-cache.ts';
import { runEntryAt, type SegmentDirectory } from './segment-directory.ts';
import { RUN_ENTRY_BYTES } from './segment-format.ts';

const RUN_BITS = 22;
const RUN_MASK = 2 ** RUN_BITS - 1;
const RUNS_SMALLEST = 4096;
/** Ids that are added in one turn of the event loop: less than a millisecond. */
const IDS_A_TURN = 8192;

export class PlaceHints {
  readonly #slotsMax: number;
  /** Ten bits of the id, then the number of the run and one; 0 is free. Made when it is first needed. */
  #table: Uint32Array | undefined;
  #mask = 0;
  #used = 0;
  #runKeys = new Float64Array();
  #runBytes = new Uint32Array();
  #runs = 0;
  readonly #loaded = new Set<number>();
  /** How often there was no room for a segment. */
  #misses = 0;

  /** After `find` returned true: the key of the run (see runKey), and its length. */
  runKey = 0;
  runBytes = 0;

  /** @param slotsMax entries of the table, a power of two; three quarters of them are used */
  constructor(slotsMax: number) {
    this.#slotsMax = slotsMax;
  }

  /** Looks for a hint about an id; the fields then say what it is. */
  find(ids: Uint8Array, offset: number): boolean {
    const table = this.#table;
    if (table === undefined) return false;
    const tag = tagOf(ids, offset);
    for (let at = word(ids, offset) & this.#mask; ; at = (at + 1) & this.#mask) {
      const entry = table[at]!;
      if (entry === 0) return false;
      if ((entry & ~RUN_MASK) !== tag) continue;
      const run = (entry & RUN_MASK) - 1;
      this.runKey = this.#runKeys[run]!;
      this.runBytes = this.#runBytes[run]!;
      return true;
    }
  }

  has(segment: number): boolean {
    return this.#loaded.has(segment);
  }

  /**
   * Whether a segment with so many slots may be added now: while there is room for it, and now and then when there is none, because what is
   * read changes. Then all others are forgotten for it.
   */
  mayAdd(slots: number): boolean {
    if (!this.#fits(slots)) return false;
    return this.#hasRoom(slots) || ++this.#misses >= HINT_MISSES_MAX;
  }

  /** Adds all ids of a segment, in pieces: the caller gives others their turn between any two. None when it does not fit. */
  *add(segment: number, directory: SegmentDirectory): Generator<void, void> {
    const slots = directory.ids.byteLength / ID_BYTES;
    if (!this.#fits(slots)) return;
    if (!this.#hasRoom(slots)) this.clear();
    this.#table ??= new Uint32Array(this.#slotsMax);
    this.#mask = this.#slotsMax - 1;
    this.#loaded.add(segment);
    const runs = directory.runTable.byteLength / RUN_ENTRY_BYTES;
    this.#reserve(runs);
    let added = 0;
    for (let index = 0; index < runs; index++) {
      if (added >= IDS_A_TURN) {
        added = 0;
        yield;
      }
      const entry = runEntryAt(directory.runTable, index);
      const run = this.#runs++;
      this.#runKeys[run] = runKey(segment, entry.offset);
      this.#runBytes[run] = entry.bytes;
      const end = (entry.firstSlot + entry.count) * ID_BYTES;
      for (let at = entry.firstSlot * ID_BYTES; at < end; at += ID_BYTES) {
        if (!isHole(directory.ids, at)) this.#put(directory.ids, at, run);
      }
      added += entry.count;
    }
  }

  clear(): void {
    this.#table?.fill(0);
    this.#used = 0;
    this.#runs = 0;
    this.#misses = 0;
    this.#loaded.clear();
  }

  #fits(slots: number): boolean {
    return slots * 4 <= this.#slotsMax * 3;
  }

  #hasRoom(slots: number): boolean {
    // A run has one slot or more, so there is a number for each.
    return (this.#used + slots) * 4 <= this.#slotsMax * 3 && this.#runs + slots < RUN_MASK;
  }

  #put(ids: Uint8Array, offset: number, run: number): void {
    const table = this.#table!;
    let at = word(ids, offset) & this.#mask;
    while (table[at] !== 0) at = (at + 1) & this.#mask;
    table[at] = tagOf(ids, offset) | (run + 1);
    this.#used++;
  }

  #reserve(runs: number): void {
    const needed = this.#runs + runs;
    if (needed <= this.#runKeys.length) return;
    let length = Math.max(RUNS_SMALLEST, this.#runKeys.length);
    while (length < needed) length *= 2;
    const keys = new Float64Array(length);
    keys.set(this.#runKeys);
    this.#runKeys = keys;
    const bytes = new Uint32Array(length);
    bytes.set(this.#runBytes);
    this.#runBytes = bytes;
  }
}

function tagOf(ids: Uint8Array, offset: number): number {
  return word(ids, offset + 4) & ~RUN_MASK;
}

function word(ids: Uint8Array, at: number): number {
  return ids[at]! | (ids[at + 1]! << 8) | (ids[at + 2]! << 16) | (ids[at + 3]! << 24);
}
