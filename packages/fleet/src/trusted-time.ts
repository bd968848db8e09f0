/**
 * The time that locks and expiry count by: never ahead of what has really gone by while the process lives, and known to be
 * behind when the clock was set back since an earlier process (docs/adr/0015-policies.md).
 */
import type { Catalog, CatalogOperation } from '@pando/catalog';
import { PandoError, type Clock } from '@pando/common';
import type { OnEvent } from '@pando/events';
import { getRecord, put } from './records.ts';

/** How far a wall clock may be corrected in a step without anybody minding. */
const STEP_MS_MAX = 60_000;
/** And how far it may drift from the monotonic one: more than the 500 ppm that NTP corrects by. */
const DRIFT_MAX = 0.001;
/** The mark is written again when time is so far past it. */
const MARK_MS = 60 * 60_000;
const KEY = 'mark';

export class TrustedTime {
  readonly #clock: Clock;
  readonly #onEvent: OnEvent;
  readonly #startWall: number;
  readonly #startMonotonic: number;
  #highest: number;
  #marked: number;
  #isTold = false;

  private constructor(clock: Clock, onEvent: OnEvent, marked: number) {
    this.#clock = clock;
    this.#onEvent = onEvent;
    this.#marked = marked;
    this.#highest = marked;
    // It was at least that once: a clock that is put right after the start has caught up there.
    this.#startWall = Math.max(clock.now(), marked);
    this.#startMonotonic = clock.monotonic();
  }

  static async open(catalog: Catalog, clock: Clock, onEvent: OnEvent): Promise<TrustedTime> {
    const marked = (await getRecord(catalog, 'clock', KEY))?.at ?? 0;
    const time = new TrustedTime(clock, onEvent, marked);
    time.now();
    return time;
  }

  /** Milliseconds since 1970. */
  now(): number {
    const wall = this.#clock.now();
    const elapsed = this.#clock.monotonic() - this.#startMonotonic;
    const now = Math.min(wall, this.#startWall + elapsed * (1 + DRIFT_MAX) + STEP_MS_MAX);
    this.#highest = Math.max(this.#highest, now);
    const isBehind = wall < this.#highest - STEP_MS_MAX;
    if (isBehind && !this.#isTold) {
      const minutes = Math.round((this.#highest - wall) / 60_000);
      this.#onEvent({
        kind: 'clock-set-back',
        text: `The clock is ${minutes} minutes behind what it was: ${new Date(wall).toISOString()}.`,
        data: { behindMs: Math.round(this.#highest - wall) },
      });
    }
    this.#isTold = isBehind;
    return now;
  }

  /** Whether the clock is behind what it was. */
  get isBehind(): boolean {
    this.now();
    return this.#isTold;
  }

  /** @throws `clock-set-back` */
  check(): void {
    if (!this.isBehind) return;
    const [now, before] = [this.#clock.now(), this.#highest].map((ms) => new Date(ms).toISOString());
    throw new PandoError('clock-set-back', `the clock says ${now}, and it said ${before} before`);
  }

  /** For a commit that a lock or a date is in: the mark never lies before the time that they were given at. */
  mark(): CatalogOperation[] {
    const at = Math.max(this.now(), this.#highest);
    return [put('clock', KEY, { at })];
  }

  /** Keeps the mark from time to time. */
  async keep(catalog: Catalog): Promise<void> {
    this.now();
    if (this.#highest - this.#marked < MARK_MS) return;
    const at = this.#highest;
    await catalog.commit([put('clock', KEY, { at })]);
    this.#marked = at;
  }
}
