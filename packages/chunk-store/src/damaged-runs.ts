/**
 * Runs that were found damaged since the store was opened: dedupe does not count on them any more, so that a chunk of
 * theirs heals as soon as the same bytes are written again. Nothing of it is on disk: damage is found again by
 * reading or by verification.
 *
 * A segment with such a run becomes suspect before any chunk of it is stored again: the index then names the new copy,
 * and loading the segment's ids must not bring the old one back.
 */
import { isPandoError } from '@pando/common';
import { runKey } from './run-cache.ts';
import type { Segment, SegmentTable } from './segment-table.ts';

/** Past it all of a segment counts as damaged: memory stays bounded when a whole disk goes bad. */
const RUNS_MAX = 100_000;

export class DamagedRuns {
  readonly #table: SegmentTable;
  readonly #saveSuspects: () => void;
  readonly #runs = new Set<number>();
  readonly #segments = new Set<number>();

  /** `saveSuspects` begins to write down which segments are suspect, before any later change of the index. */
  constructor(table: SegmentTable, saveSuspects: () => void) {
    this.#table = table;
    this.#saveSuspects = saveSuspects;
  }

  /** Runs known to be damaged; of segments that count as a whole, one each. */
  get count(): number {
    return this.#runs.size + this.#segments.size;
  }

  has(segment: number, runOffset: number): boolean {
    if (this.#runs.size === 0 && this.#segments.size === 0) return false;
    return this.#runs.has(runKey(segment, runOffset)) || this.#segments.has(segment);
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
    this.#saveSuspects();
  }
}

/** Whether an error says that stored bytes are wrong, as against gone or out of reach. */
export function isDamage(error: unknown): boolean {
  return isPandoError(error, 'chunk-corrupt');
}
