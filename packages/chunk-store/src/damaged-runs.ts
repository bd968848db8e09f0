/**
 * Runs that were found damaged since the store was opened: dedupe does not count on them any more, so that a chunk of
 * theirs heals as soon as the same bytes are written again. Nothing of it is on disk: damage is found again by
 * reading or by verification.
 *
 * A segment with such a run is suspect, durably, before the index names a chunk of it that was stored again: from then
 * on the new copy counts, and loading the segment's ids must not bring the old one back, after a restart neither: a
 * collection would keep the damaged copy and free the good one.
 */
import { isPandoError } from '@pando/common';
import { saveSuspects } from './recovery.ts';
import { runKey, segmentOfKey } from './run-cache.ts';
import type { Segment, SegmentTable } from './segment-table.ts';
import type { ChunkIndex } from './types.ts';

/** Past it all of a segment counts as damaged: memory stays bounded when a whole disk goes bad. */
const RUNS_MAX = 100_000;

export class DamagedRuns {
  readonly #table: SegmentTable;
  readonly #runs = new Set<number>();
  readonly #segments = new Set<number>();

  /** Whether segments became suspect here and the index does not know it yet. */
  #unsaved = false;

  constructor(table: SegmentTable) {
    this.#table = table;
  }

  /** Runs known to be damaged; of segments that count as a whole, one each. */
  get count(): number {
    return this.#runs.size + this.#segments.size;
  }

  has(segment: number, runOffset: number): boolean {
    if (this.#runs.size === 0 && this.#segments.size === 0) return false;
    return this.#runs.has(runKey(segment, runOffset)) || this.#segments.has(segment);
  }

  /** Whether anything of a segment is known to be damaged. */
  hasAnyOf(segment: number): boolean {
    return (this.#runs.size > 0 || this.#segments.size > 0) && this.segments().has(segment);
  }

  /** Segments in which something is known to be damaged. */
  segments(): Set<number> {
    const all = new Set(this.#segments);
    for (const key of this.#runs) all.add(segmentOfKey(key));
    return all;
  }

  add(segment: number, runOffset: number): void {
    const known = this.#table.get(segment);
    if (known === undefined || this.has(segment, runOffset)) return;
    if (this.#runs.size < RUNS_MAX) this.#runs.add(runKey(segment, runOffset));
    else this.#segments.add(segment);
    this.#suspect(known);
  }

  /** None of its chunks is to be counted on: what is wrong with it cannot be told run by run. */
  addSegment(segment: number): void {
    const known = this.#table.get(segment);
    if (known === undefined || this.#segments.has(segment)) return;
    this.#segments.add(segment);
    this.#suspect(known);
  }

  /**
   * Writes down which segments are suspect, when that is due: before the index names any other copy of what is in them.
   * Must run inside the queue of index changes; what fails is due again. @throws as ChunkIndex.setMark
   */
  async saveSuspects(index: ChunkIndex): Promise<void> {
    if (!this.#unsaved) return;
    this.#unsaved = false;
    try {
      await saveSuspects(index, this.#table);
    } catch (error) {
      this.#unsaved = true;
      throw error;
    }
  }

  /** Forgets a segment that has been removed. */
  forget(segment: number): void {
    this.#segments.delete(segment);
    const first = runKey(segment, 0);
    const end = runKey(segment + 1, 0);
    for (const key of this.#runs) if (key >= first && key < end) this.#runs.delete(key);
  }

  #suspect(segment: Segment): void {
    if (segment.suspect) return;
    segment.suspect = true;
    this.#unsaved = true;
  }
}

/** Whether an error says that stored bytes are wrong, as against gone or out of reach. */
export function isDamage(error: unknown): boolean {
  return isPandoError(error, 'chunk-corrupt');
}
