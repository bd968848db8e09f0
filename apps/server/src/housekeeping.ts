/**
 * What a server does by itself: garbage collection when there may be garbage, and a line in the log that says how it is.
 *
 * Garbage comes from deletions, from restores in place, and from guests that write: so it is collected when one
 * of these happened since the last time, once in `gcEveryMs`.
 */
import { STORE_LANE, type Jobs } from '@pando/api';
import type { Clock } from '@pando/common';
import type { OpenFleet } from '@pando/fleet';
import type { Logger } from 'pino';
import { collectGarbage, type OpenStore } from './store.ts';

/** The line with numbers comes at most so often, and only when something was written. */
const STATS_MS = 60_000;

export const GC_EVERY_MS_DEFAULT = 60 * 60_000;

export class Housekeeping {
  readonly #stop = new AbortController();
  readonly #loops: Promise<void>[] = [];
  #garbage = false;

  /** The fleet, with an eye on what makes garbage. */
  watch(fleet: OpenFleet): OpenFleet {
    const noting =
      <A extends unknown[], R>(action: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        const result = await action(...args);
        this.#garbage = true;
        return result;
      };
    return {
      ...fleet,
      deleteVm: noting((...args) => fleet.deleteVm(...args)),
      deleteBackup: noting((...args) => fleet.deleteBackup(...args)),
      restoreBackup: noting((...args) => fleet.restoreBackup(...args)),
      resizeDisk: noting((...args) => fleet.resizeDisk(...args)),
    };
  }

  start(open: OpenStore, options: { clock: Clock; jobs: Jobs; logger: Logger; gcEveryMs: number }): void {
    const { clock, jobs, logger, gcEveryMs } = options;
    const { volumes } = open;
    let destaged = volumes.stats.destagedBytes;
    let written = volumes.stats.writtenBytes;

    const collectNow = async (): Promise<void> => {
      const now = volumes.stats.destagedBytes;
      if (!this.#garbage && now === destaged) return;
      this.#garbage = false;
      destaged = now;
      const { ended } = jobs.start({ kind: 'gc', lane: STORE_LANE }, (work) => collectGarbage(open, work));
      const report = await ended;
      logger.info({ ...report }, 'collected garbage');
    };
    if (gcEveryMs > 0) {
      this.#every(clock, gcEveryMs, () =>
        collectNow().catch((error: unknown) => {
          this.#garbage = true;
          logger.warn({ err: error }, 'collecting garbage failed; it is tried again');
        }),
      );
    }
    this.#every(clock, STATS_MS, () => {
      const stats = volumes.stats;
      if (stats.writtenBytes === written) return;
      written = stats.writtenBytes;
      const { overlayBytes, logBytes, writtenBytes, destagedBytes, full } = stats;
      logger.info({ overlayBytes, logBytes, writtenBytes, destagedBytes, full }, 'volumes');
    });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#loops);
  }

  #every(clock: Clock, ms: number, action: () => void | Promise<void>): void {
    const { signal } = this.#stop;
    const loop = async (): Promise<void> => {
      for (;;) {
        await clock.sleep(ms, signal);
        await action();
      }
    };
    // Only the signal ends a loop.
    this.#loops.push(loop().catch(() => undefined));
  }
}
