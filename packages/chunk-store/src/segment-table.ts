/**
 * What is known of each segment of the store, and which of them a dedupe hit may count on.
 *
 * One id may stand in several segments: a copy that a compaction made before it broke off, or one
 * that was written again after an append had failed. The index names the one that counts, and liveness
 * is judged by it. Loading all ids of a segment must therefore never bring back a copy that the index does not
 * name: segments that may hold such copies are *suspect*, and their ids are looked up in the index one
 * by one.
 */
import { PandoError } from '@pando/common';
import { GrowingBytes } from './growing-bytes.ts';
import { SEGMENT_NUMBER_MAX } from './limits.ts';
import { fileHeaderBytes, RUN_ENTRY_BYTES, segmentSeed, type StoreIdentity } from './segment-format.ts';
import type { SegmentWriter } from './types.ts';

/**
 * `open`: being appended to. `sealing`: closed to appends, not yet sealed, synced and in the index.
 * `stuck`: as sealing, but the last attempt failed; it is tried again. `sealed`: all of it is durable and in
 * the index. `damaged`: it should be sealed and its end cannot be read; its chunks are found by the index only.
 */
export type SegmentState = 'open' | 'sealing' | 'stuck' | 'sealed' | 'damaged';

export class Segment {
  readonly number: number;
  readonly seed: number;
  /** Where its first run begins: behind the file header. */
  readonly runsAt: number;
  state: SegmentState;
  /** Bytes that count: what a failed append left behind them does not. */
  bytes: number;
  slots = 0;
  /** Of the collection under way: a dedupe hit is reported to it. */
  candidate = false;
  /** Being removed: never a hit again. */
  condemned = false;
  suspect = false;
  /** While it is not sealed: what its footer will say. */
  contents: SegmentContents | undefined;

  constructor(number: number, seed: number, runsAt: number, state: SegmentState, bytes: number) {
    this.number = number;
    this.seed = seed;
    this.runsAt = runsAt;
    this.state = state;
    this.bytes = bytes;
  }
}

/** The unsealed part of a segment's life. */
export class SegmentContents {
  readonly runTable = new GrowingBytes();
  readonly ids = new GrowingBytes();
  writer: SegmentWriter | undefined;
  /** Whether the footer stands behind the runs, written to the end. */
  hasFooter = false;
  /** Runs of the table that are durable and in the index, or on their way into it. */
  indexedRuns = 0;
  /** A sync under way: the writer must not be closed meanwhile. */
  syncing: Promise<void> | undefined;
  /** A repair after a failed append under way: the writer must not be used meanwhile. */
  repairing: Promise<void> | undefined;

  get runs(): number {
    return this.runTable.length / RUN_ENTRY_BYTES;
  }
}

export class SegmentTable {
  /** Condemned segments whose files are not gone yet. */
  readonly removing = new Set<number>();
  readonly #segments = new Map<number, Segment>();
  readonly #store: StoreIdentity;
  #next = 1;
  /** The number of the segment that is being created, if one is. */
  #creating: number | undefined;
  #last: Segment | undefined;

  constructor(store: StoreIdentity) {
    this.#store = store;
  }

  /** The number that the next segment gets; higher than any that was ever given out. */
  get nextNumber(): number {
    return this.#next;
  }

  get size(): number {
    return this.#segments.size;
  }

  reserveBelow(next: number): void {
    this.#next = Math.max(this.#next, next);
  }

  seedOf(segment: number): number {
    return segmentSeed(this.#store, segment);
  }

  /**
   * Takes the next number for a segment that is being created. It counts as incomplete from here on: a
   * checkpoint that is written while it comes into being must not pass it.
   */
  reserve(): number {
    this.#creating = this.#next;
    this.#next++;
    return this.#creating;
  }

  /** Registers a segment under its number. */
  add(number: number, state: SegmentState, bytes: number): Segment {
    if (number > SEGMENT_NUMBER_MAX)
      throw new PandoError('internal', `no segment numbers are left: ${number}`);
    const segment = new Segment(number, this.seedOf(number), fileHeaderBytes(this.#store), state, bytes);
    this.#segments.set(number, segment);
    if (this.#creating === number) this.#creating = undefined;
    this.reserveBelow(number + 1);
    return segment;
  }

  get(number: number): Segment | undefined {
    // Hits come in sequences, so the segment is mostly that of the last call.
    if (this.#last?.number === number) return this.#last;
    const segment = this.#segments.get(number);
    if (segment !== undefined) this.#last = segment;
    return segment;
  }

  remove(number: number): void {
    this.#segments.delete(number);
    if (this.#last?.number === number) this.#last = undefined;
  }

  /** All segments, ascending. */
  all(): Segment[] {
    return [...this.#segments.values()].sort((a, b) => a.number - b.number);
  }

  /** Below this number every segment is sealed and in the index. */
  completeBelow(): number {
    let below = this.#creating ?? this.#next;
    for (const segment of this.#segments.values()) {
      if (segment.state !== 'sealed' && segment.state !== 'damaged') below = Math.min(below, segment.number);
    }
    return below;
  }
}
