/** Time and randomness as arguments, so that a simulation can replay a run from its seed. */
import { randomFillSync } from 'node:crypto';

export interface Clock {
  /** Milliseconds since 1970-01-01T00:00Z, for what people read. May jump. */
  now(): number;
  /** Milliseconds from an arbitrary start, never going back, for measuring and deadlines. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts. Never keeps the process alive. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface Random {
  /** Fills `target` with random bytes. */
  fill(target: Uint8Array): void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(signal!.reason as Error);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      timer.unref();
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
};

export const systemRandom: Random = {
  fill: (target) => {
    randomFillSync(target);
  },
};
