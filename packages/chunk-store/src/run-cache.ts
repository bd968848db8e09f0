/**
 * Decompressed runs in memory, keyed by one number (segment and offset), bounded by bytes, replaced in
 * CLOCK order: a hit costs one map look-up and one store.
 */
import { PagePool } from '@pando/common';
import { CachedRun } from './cached-run.ts';
import { RunMemory } from './run-memory.ts';

export { CachedRun } from './cached-run.ts';

/** Offsets take the low 27 bits; see SEGMENT_BYTES_MAX. */
export function runKey(segment: number, runOffset: number): number {
  return segment * 2 ** 27 + runOffset;
}

/** The segment in such a key. */
export function segmentOfKey(key: number): number {
  return Math.floor(key / 2 ** 27);
}

/** The offset in such a key. */
export function offsetOfKey(key: number): number {
  return key % 2 ** 27;
}

/** Pages that others get from it only when it has more. */
const PAGES_KEPT = 16;

/**
 * Runs that are evicted give their memory to the next ones, because fresh buffers are what garbage collection costs on reads
 * that miss: so what `get` and `take` return is only for the same turn, unless it is marked as kept. Nor may anything in between take
 * memory for overlays, which comes from here when there is no other.
 */
export class RunCache {
  readonly #memory: RunMemory;
  readonly #byKey = new Map<number, CachedRun>();
  readonly #clock: CachedRun[] = [];
  #hand = 0;

  constructor(bytesMax: number, chunkBytes: number, pages = new PagePool()) {
    this.#memory = new RunMemory(bytesMax, chunkBytes, pages);
    this.#memory.onGone = (run) => this.#remove(run);
    pages.onShortage = () => {
      if (this.#memory.pages <= PAGES_KEPT) return false;
      this.#memory.shrink();
      return true;
    };
  }

  get bytes(): number {
    return this.#memory.bytes;
  }

  get(key: number): CachedRun | undefined {
    const run = this.#byKey.get(key);
    if (run !== undefined) run.used = true;
    return run;
  }

  /** Memory for a run of that size: it must come to `add` or `give`, with or without a run in it. */
  take(rawBytes: number, idsBytes: number): CachedRun {
    if (!this.#memory.fits(rawBytes, idsBytes)) return new CachedRun(rawBytes, idsBytes);
    for (;;) {
      const run = this.#memory.take(rawBytes, idsBytes);
      if (run !== undefined) return run;
      if (this.#clock.length === 0) return new CachedRun(rawBytes, idsBytes); // the few there are are out
      this.#evict();
    }
  }

  /** Takes memory back that nobody uses any more, unless it is marked as kept. */
  give(run: CachedRun): void {
    this.#memory.give(run, false);
  }

  /** Keeps a run, unless another one of its key is there. */
  add(run: CachedRun): void {
    if (this.#byKey.has(run.key)) {
      this.give(run);
      return;
    }
    if (!this.#memory.use(run)) return;
    this.#byKey.set(run.key, run);
    run.at = this.#clock.length;
    this.#clock.push(run);
  }

  #evict(): void {
    for (;;) {
      if (this.#hand >= this.#clock.length) this.#hand = 0;
      const run = this.#clock[this.#hand]!;
      if (!run.used) break;
      run.used = false;
      this.#hand++;
    }
    const run = this.#clock[this.#hand]!;
    this.#remove(run);
    this.#hand++;
    this.#memory.give(run, true);
  }

  /** The last of the order takes its place there. */
  #remove(run: CachedRun): void {
    const last = this.#clock.pop()!;
    if (last !== run) {
      this.#clock[run.at] = last;
      last.at = run.at;
    }
    run.at = -1;
    this.#byKey.delete(run.key);
  }
}
