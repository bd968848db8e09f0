/** What became of jobs since the start, and what collections have freed. */
import type { GcReport, Job, JobKind } from '@pando/api';

export interface JobCount {
  readonly kind: JobKind;
  readonly state: 'done' | 'failed' | 'cancelled';
  count: number;
  seconds: number;
}

export interface GcCounts {
  freedBytes: number;
  deadChunks: number;
  droppedSegments: number;
  compactedSegments: number;
  /** Of the newest one that has ended well; 0 before that. */
  liveBytes: number;
  endedAtMs: number;
}

export class JobCounts {
  readonly #counts = new Map<string, JobCount>();
  readonly gc: GcCounts = {
    freedBytes: 0,
    deadChunks: 0,
    droppedSegments: 0,
    compactedSegments: 0,
    liveBytes: 0,
    endedAtMs: 0,
  };

  /** A job that has ended. */
  count({ kind, state, startedAt, endedAt, result }: Job): void {
    if (state === 'queued' || state === 'running') return;
    const key = `${kind} ${state}`;
    const found = this.#counts.get(key) ?? { kind, state, count: 0, seconds: 0 };
    this.#counts.set(key, found);
    const end = endedAt === undefined ? NaN : Date.parse(endedAt);
    const start = startedAt === undefined ? NaN : Date.parse(startedAt);
    found.count++;
    if (end >= start) found.seconds += (end - start) / 1000;
    if (kind === 'gc' && state === 'done' && result !== undefined && 'freedBytes' in result)
      this.#countGc(result, end);
  }

  all(): readonly JobCount[] {
    return [...this.#counts.values()];
  }

  #countGc(report: GcReport, endedAtMs: number): void {
    this.gc.freedBytes += report.freedBytes;
    this.gc.deadChunks += report.deadChunks;
    this.gc.droppedSegments += report.droppedSegments;
    this.gc.compactedSegments += report.compactedSegments;
    this.gc.liveBytes = report.liveBytes;
    this.gc.endedAtMs = endedAtMs;
  }
}
