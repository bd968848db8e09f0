/**
 * The places of chunks that one verification found damaged, and looking chunks up with that in mind. By place and not by
 * id: ids that a damaged footer or run header took with it are still in the index, and a chunk that has been stored
 * again has another place.
 */
import { ID_BYTES, isHole } from '@pando/common';
import type { Directories } from './directories.ts';
import { IN_FLIGHT, MISSING, type ChunkLocator } from './chunk-locator.ts';
import { runKey } from './run-cache.ts';
import { CHUNK_DAMAGED, CHUNK_MISSING, type ChunkFinder } from './types.ts';

/** Runs and chunks that are remembered one by one; past it all of their segment counts as lost. */
const PLACES_MAX = 1_000_000;

interface Gap {
  readonly start: number;
  readonly end: number;
}

export class LostPlaces {
  readonly #segments = new Set<number>();
  readonly #runs = new Set<number>();
  /** Keyed as runs are, with the slot in place of the offset. */
  readonly #slots = new Set<number>();
  readonly #gaps = new Map<number, readonly Gap[]>();

  addSegment(segment: number): void {
    this.#segments.add(segment);
  }

  addRun(segment: number, runOffset: number): void {
    if (this.#runs.size < PLACES_MAX) this.#runs.add(runKey(segment, runOffset));
    else this.#segments.add(segment);
  }

  /** One chunk of a run that is whole otherwise. */
  addSlot(segment: number, slot: number): void {
    if (this.#slots.size < PLACES_MAX) this.#slots.add(runKey(segment, slot));
    else this.#segments.add(segment);
  }

  /** Of a segment that had to be scanned: what lies between its whole runs. */
  setGaps(segment: number, gaps: readonly Gap[]): void {
    this.#gaps.set(segment, gaps);
  }

  has(segment: number, runOffset: number, slot: number): boolean {
    if (this.#runs.has(runKey(segment, runOffset))) return true;
    if (this.#slots.has(runKey(segment, slot)) || this.#segments.has(segment)) return true;
    const gaps = this.#gaps.get(segment);
    return gaps !== undefined && gaps.some(({ start, end }) => runOffset >= start && runOffset < end);
  }
}

export class VerifiedFinder implements ChunkFinder {
  readonly #locator: ChunkLocator;
  readonly #lost: LostPlaces;
  readonly #directories: Directories;

  constructor(locator: ChunkLocator, lost: LostPlaces, directories: Directories) {
    this.#locator = locator;
    this.#lost = lost;
    this.#directories = directories;
  }

  async find(ids: Uint8Array, count: number, segments: Float64Array, slots: Uint32Array): Promise<void> {
    const locator = this.#locator;
    for (let i = 0; i < count; i++) {
      const at = i * ID_BYTES;
      segments[i] = 0;
      slots[i] = 0;
      if (isHole(ids, at)) continue;
      if (locator.ready() !== undefined) await this.#ready();
      let found = locator.find(ids, at);
      while (found === IN_FLIGHT) {
        await locator.settled;
        await this.#ready();
        found = locator.find(ids, at);
      }
      if (found === MISSING) segments[i] = CHUNK_MISSING;
      else if (this.#lost.has(locator.segment!.number, locator.runOffset, locator.slot)) {
        segments[i] = CHUNK_DAMAGED;
      } else if (locator.isFromIndex && (await this.#isElsewhere(ids, at))) {
        segments[i] = CHUNK_MISSING;
      } else {
        segments[i] = locator.segment!.number;
        slots[i] = locator.slot;
      }
      // A segment that hits accumulate in is loaded now, so that the next ids find it in memory.
      if (locator.loading !== undefined) await locator.loading;
    }
  }

  /**
   * Whether the segment that the index names does not have the chunk there: recovery left out the run, which was damaged,
   * or the entry is. The locator says afterwards what it said before.
   */
  async #isElsewhere(ids: Uint8Array, at: number): Promise<boolean> {
    const { segment, runOffset, runBytes, slot } = this.#locator;
    const place = { segment: segment!.number, runOffset, runBytes, slot };
    return (await this.#directories.holds(place, ids, at)) === false;
  }

  async #ready(): Promise<void> {
    for (let wait = this.#locator.ready(); wait !== undefined; wait = this.#locator.ready()) {
      await wait.catch(() => undefined);
    }
  }
}
