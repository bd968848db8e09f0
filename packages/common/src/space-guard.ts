/**
 * Whether the disk under a store still has the room that must stay free: collecting garbage has to copy
 * what is live out of a segment before it can remove it, and a deletion has to be recorded. So writers are
 * refused while some room is left, and only gc, the catalog and destage (of what was taken before) may use it up.
 */
import { statfs } from 'node:fs/promises';
import type { Clock } from './clock.ts';
import { PandoError } from './errors.ts';
import { MiB } from './limits.ts';

export interface SpaceGuard {
  /** Why writers are refused now; undefined while there is room. */
  readonly refusal: PandoError | undefined;
  /** Whether there is room only for what has to be kept, not for what is merely convenient. */
  readonly isScarce?: boolean;
  /** `listener` is called each time that becomes so. */
  onScarce?(listener: () => void): void;
}

/** Room that stays free: this much, or this share of a small file system. */
const RESERVE_BYTES_MAX = 256 * MiB;
const RESERVE_SHARE = 1 / 8;
/** Writers are let in again when this many times the reserve is free, so that it does not flicker. */
const REOPEN_FACTOR = 1.1;
/** Room is scarce while less than this many times the reserve is free. */
const SCARCE_FACTOR = 4;
const LOOK_EVERY_MS = 250;

/** Watches the file system that holds `path`. */
export class FileSystemSpaceGuard implements SpaceGuard {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #refusal: PandoError | undefined;
  #promisedBytes: () => number = () => 0;
  #watching: Promise<void> | undefined;
  #isScarce = false;
  #onScarce: () => void = () => undefined;

  constructor(path: string, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
  }

  get refusal(): PandoError | undefined {
    return this.#refusal;
  }

  get isScarce(): boolean {
    return this.#isScarce;
  }

  onScarce(listener: () => void): void {
    this.#onScarce = listener;
  }

  /** What was taken from writers and still needs room elsewhere: it counts as used. */
  setPromised(bytes: () => number): void {
    this.#promisedBytes = bytes;
  }

  /** Looks once, then again and again until `close`. */
  async start(): Promise<void> {
    await this.#look();
    this.#watching = this.#watch();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#watching;
  }

  async #watch(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#clock.sleep(LOOK_EVERY_MS, this.#stop.signal).catch(() => undefined);
      await this.#look();
    }
  }

  async #look(): Promise<void> {
    // Where the system cannot tell, a full disk is noticed when it is full.
    const found = await statfs(this.#path).catch(() => undefined);
    if (found === undefined) return;
    const free = found.bavail * found.bsize - this.#promisedBytes();
    const reserve = Math.min(RESERVE_BYTES_MAX, found.blocks * found.bsize * RESERVE_SHARE);
    const wasScarce = this.#isScarce;
    this.#isScarce = free < reserve * SCARCE_FACTOR;
    if (this.#isScarce && !wasScarce) this.#onScarce();
    if (free < reserve) {
      this.#refusal ??= new PandoError(
        'store-full',
        `less than ${Math.ceil(reserve / MiB)} MiB are free on the disk under the store; that much is kept for gc`,
      );
    } else if (free >= reserve * REOPEN_FACTOR) this.#refusal = undefined;
  }
}
