/**
 * How many requests there were of each kind of asker, in windows of time that follow each other. It is what @fastify/rate-limit counts
 * with: its own store goes by the wall clock, and one that is set back would hold up whoever asks until it has caught up.
 *
 * The askers that came last are remembered, ASKERS_MAX of them; one that is forgotten begins anew.
 */
import type { FastifyRateLimitStore, FastifyRateLimitStoreCtor } from '@fastify/rate-limit';
import type { Clock } from '@pando/common';

/** About 150 bytes each. */
export const ASKERS_MAX = 10_000;

interface Window {
  readonly startedAt: number;
  count: number;
}

export function requestWindows(clock: Clock, askersMax = ASKERS_MAX): FastifyRateLimitStoreCtor {
  return class RequestWindows implements FastifyRateLimitStore {
    /** In the order in which they came last. */
    readonly #windows = new Map<string, Window>();

    incr(
      asker: string,
      told: (error: Error | null, result: { current: number; ttl: number }) => void,
      windowMs: number,
    ): void {
      const now = clock.monotonic();
      const found = this.#windows.get(asker);
      const isOver = found === undefined || found.startedAt + windowMs <= now;
      const window = isOver ? { startedAt: now, count: 0 } : found;
      window.count++;
      this.#windows.delete(asker);
      this.#windows.set(asker, window);
      if (this.#windows.size > askersMax) this.#windows.delete(this.#windows.keys().next().value!);
      told(null, { current: window.count, ttl: window.startedAt + windowMs - now });
    }

    /** For another limit: it counts for itself. */
    child(): FastifyRateLimitStore {
      return new RequestWindows();
    }
  };
}
