/**
 * Whether a blocking read may be tried: the page cache answers in microseconds, a disk in up to tens of milliseconds, for which
 * nobody else is served, and nothing in Node tells beforehand which of the two it will be.
 *
 * So time is what is bounded: slow reads together may hold the thread for a share of the time that goes by, with a small
 * reserve. When it is used up, reads are asynchronous until it has come back. A thread that has to wait for a processor looks
 * like one that waits for a disk; so a slow read counts little when it stands alone and the process has read no block meanwhile. ADR 0006 has
 * the reckoning.
 */

/** A read that took no longer came from memory. */
const QUICK_MS = 0.05;
/** Of all time, so much may go into slow reads. */
const SLOW_SHARE = 0.05;
/** And so much at a stretch. */
const RESERVE_MS = 5;
/** A slow read stands alone after so many quick ones. */
const ALONE_READS = 16;
/** What a slow read counts that seems to have waited for a processor: a network file system reads no blocks either. */
const PROCESSOR_SHARE = 0.1;

export class QuickReads {
  readonly #now: () => number;
  readonly #blocksRead: () => number;
  #reserveMs = RESERVE_MS;
  /** When the reserve was reckoned last. */
  #reckonedAt: number;
  #blocks: number;
  #quickInARow = 0;
  #begunAt = 0;

  /**
   * @param now milliseconds, with fractions, that never go back
   * @param blocksRead how many blocks the process has read from devices so far
   */
  constructor(now: () => number, blocksRead: () => number) {
    this.#now = now;
    this.#blocksRead = blocksRead;
    this.#reckonedAt = now();
    this.#blocks = blocksRead();
  }

  /** Whether a read may block now; `end` must follow when it has ended. */
  begin(): boolean {
    const now = this.#now();
    if (this.#reserveMs <= 0) {
      this.#reckon(now);
      if (this.#reserveMs <= 0) return false;
    }
    this.#begunAt = now;
    return true;
  }

  end(): void {
    const now = this.#now();
    const took = now - this.#begunAt;
    if (took <= QUICK_MS) {
      this.#quickInARow++;
      return;
    }
    const blocks = this.#blocksRead();
    const isOfProcessor = blocks === this.#blocks && this.#quickInARow >= ALONE_READS;
    this.#blocks = blocks;
    this.#quickInARow = 0;
    this.#reckon(now);
    this.#reserveMs -= isOfProcessor ? took * PROCESSOR_SHARE : took;
  }

  #reckon(now: number): void {
    this.#reserveMs = Math.min(RESERVE_MS, this.#reserveMs + (now - this.#reckonedAt) * SLOW_SHARE);
    this.#reckonedAt = now;
  }
}
