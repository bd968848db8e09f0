/** Times in buckets that double, for counting where time goes while it goes: recording one costs two additions and allocates nothing. */

/** Bucket i holds times up to 2^i µs; the last one all that are longer. 2^26 µs are 67 s. */
const BUCKETS = 28;

export interface DurationCounts {
  /** Upper bounds of the buckets but the last, in seconds. */
  readonly bounds: readonly number[];
  /** Times in each bucket, the last being those past all bounds. */
  readonly counts: readonly number[];
  readonly sumSeconds: number;
}

const BOUNDS: readonly number[] = Array.from({ length: BUCKETS - 1 }, (_, i) => 2 ** i / 1e6);

/** Times that somebody else records. */
export interface Durations {
  readonly counts: DurationCounts;
}

export class DurationHistogram implements Durations {
  readonly #counts = new Float64Array(BUCKETS);
  #sumMs = 0;

  /** @param ms milliseconds, with their fraction; less than 0 counts as 0 */
  record(ms: number): void {
    const steps = Math.ceil(Math.min(Math.max(ms, 0) * 1000, 2 ** 31 - 1));
    const bucket = steps <= 1 ? 0 : 32 - Math.clz32(steps - 1);
    this.#counts[Math.min(bucket, BUCKETS - 1)]!++;
    this.#sumMs += Math.max(ms, 0);
  }

  /** What was recorded until now: a copy. */
  get counts(): DurationCounts {
    return { bounds: BOUNDS, counts: [...this.#counts], sumSeconds: this.#sumMs / 1000 };
  }
}
