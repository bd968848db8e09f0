/** Time that goes by only when a test says so; sleeps end when it has come. */
import type { Clock } from '@pando/common';

/** 2026-11-20T10:00:00Z */
export const START_MS = 1_795_168_800_000;

export class ManualClock implements Clock {
  #now = START_MS;
  #sleeping: { until: number; wake: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  get sleepers(): number {
    return this.#sleeping.length;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const sleeper = { until: this.#now + ms, wake: resolve };
      this.#sleeping.push(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleeping = this.#sleeping.filter((one) => one !== sleeper);
        reject(signal.reason as Error);
      });
    });
  }

  /** Also back. */
  advance(ms: number): void {
    this.#now += ms;
    for (const { until, wake } of this.#sleeping) if (until <= this.#now) wake();
    this.#sleeping = this.#sleeping.filter(({ until }) => until > this.#now);
  }
}
