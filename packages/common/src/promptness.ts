/**
 * Whether the main thread may do a small operation itself instead of handing it to a thread and waiting: as long as such
 * operations come back at once. The hand-over costs ten times what writing 4 KiB to the page cache does; but a kernel that
 * throttles writers, or a disk that has to be asked, can hold the thread for long, and everybody with it.
 */

/** One that takes longer was not at once. */
const SLOW_MS = 1;
/** For so many times as long as it took, none is tried again: what is lost to slow ones is a hundredth of the time at most. */
const PAUSE_FACTOR = 100;

export class Promptness {
  #pausedUntil = -Infinity;

  /** @param now milliseconds, monotonic */
  mayBlock(now: number): boolean {
    return now >= this.#pausedUntil;
  }

  /** One was done that began and ended then. */
  done(began: number, ended: number): void {
    if (ended - began > SLOW_MS) this.#pausedUntil = ended + (ended - began) * PAUSE_FACTOR;
  }
}
