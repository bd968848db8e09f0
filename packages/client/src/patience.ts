/**
 * Waits while the server says that there are too many requests. It says so before it looks at one, so asking again does nothing twice, whatever was
 * asked for.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ServerRefusal } from './problem.ts';

const TRIES_MAX = 4;
/** A limit by the second is over sooner; who is to wait longer is told. */
const WAIT_SECONDS_MAX = 15;

/** @throws what the last attempt throws, and the signal's reason */
export async function patiently<T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      const seconds = secondsToWait(error);
      if (tries === TRIES_MAX || seconds === undefined) throw error;
      await sleep(seconds * 1000, undefined, signal === undefined ? {} : { signal }).catch(() => {
        throw signal!.reason as Error;
      });
    }
  }
}

/** Undefined where waiting does not help, or would take too long. */
function secondsToWait(error: unknown): number | undefined {
  if (!(error instanceof ServerRefusal) || error.problem.code !== 'rate-limited') return undefined;
  const { retryAfter = 1 } = error.problem;
  return retryAfter <= WAIT_SECONDS_MAX ? retryAfter : undefined;
}
