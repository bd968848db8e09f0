/**
 * What a server does by itself: garbage collection when there may be garbage, verification when the last one is long ago,
 * what the fleet has to do now and then (expiry of backups), and a line in the log that says how it is.
 *
 * Garbage comes from deletions, from restores in place, and from guests that write: so it is collected when one
 * of these happened since the last time, once in `gcEveryMs`.
 */
import { STORE_LANE, type Jobs } from '@pando/api';
import type { Clock } from '@pando/common';
import type { OpenFleet } from '@pando/fleet';
import type { Logger } from 'pino';
import { collectGarbage, type OpenStore } from './store.ts';
import { isDue, paceOf, verifyAndKeep, type VerificationParts } from './verification.ts';

/** The line with numbers comes at most so often, and only when something was written. */
const STATS_MS = 60_000;

export const GC_EVERY_MS_DEFAULT = 60 * 60_000;
export const VERIFY_EVERY_MS_DEFAULT = 7 * 24 * 60 * 60_000;
export const VERIFY_BYTES_PER_SECOND_DEFAULT = 100 * 2 ** 20;

/** How often the fleet is given a moment, and how many at a time when it has much to do. */
const TEND_MS = 15_000;
const TEND_TIMES_MAX = 100;

/** How often it is looked whether verification is due, at most. */
const VERIFY_LOOK_MS = 60_000;
/** After one that failed or was cancelled. */
const VERIFY_AGAIN_MS = 60 * 60_000;

export interface HousekeepingOptions {
  readonly clock: Clock;
  readonly jobs: Jobs;
  readonly logger: Logger;
  readonly verification: VerificationParts;
  /** 0: never. */
  readonly gcEveryMs: number;
  /** 0: never. */
  readonly verifyEveryMs: number;
  readonly verifyBytesPerSecond: number;
  /** When the store was made, in milliseconds since 1970. */
  readonly createdAt: number;
}

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
      expireBackup: noting((...args) => fleet.expireBackup(...args)),
      restoreBackup: noting((...args) => fleet.restoreBackup(...args)),
      resizeDisk: noting((...args) => fleet.resizeDisk(...args)),
    };
  }

  start(open: OpenStore, options: HousekeepingOptions): void {
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
      const report = await this.#unlessStopped(ended);
      logger.info({ ...report }, 'collected garbage');
    };
    if (gcEveryMs > 0) {
      this.#every(clock, gcEveryMs, () =>
        collectNow().catch((error: unknown) => {
          if (this.#stop.signal.aborted) return;
          this.#garbage = true;
          logger.warn({ err: error }, 'collecting garbage failed; it is tried again');
        }),
      );
    }
    const tendNow = async (): Promise<void> => {
      for (let times = 0; times < TEND_TIMES_MAX && !this.#stop.signal.aborted; times++) {
        const { expired, isMore } = await open.fleet.tend();
        if (expired > 0) this.#garbage = true;
        if (!isMore) return;
      }
    };
    this.#every(clock, TEND_MS, () =>
      tendNow().catch((error: unknown) => {
        if (!this.#stop.signal.aborted)
          logger.warn({ err: error }, 'backups were not looked at; they are again');
      }),
    );
    if (options.verifyEveryMs > 0) this.#verifyNowAndThen(options);
    this.#every(clock, STATS_MS, () => {
      const stats = volumes.stats;
      if (stats.writtenBytes === written) return;
      written = stats.writtenBytes;
      const { overlayBytes, logBytes, writtenBytes, destagedBytes, full } = stats;
      logger.info({ overlayBytes, logBytes, writtenBytes, destagedBytes, full }, 'volumes');
    });
  }

  #verifyNowAndThen(options: HousekeepingOptions): void {
    const { clock, jobs, logger, verification, verifyEveryMs, verifyBytesPerSecond, createdAt } = options;
    let notBefore = -Infinity;
    const verifyNow = async (): Promise<void> => {
      if (clock.monotonic() < notBefore) return;
      if (!(await isDue(verification.catalog, clock, verifyEveryMs, createdAt))) return;
      const slowly = paceOf(clock, verifyBytesPerSecond);
      const { ended } = jobs.start({ kind: 'verify', lane: STORE_LANE }, (work) =>
        verifyAndKeep(
          verification,
          {
            ...work,
            // Who waits for it to end, such as a collection that is to make room, is not to wait all that long.
            pace: async (bytes, signal) => {
              if (!jobs.isWaitedFor(STORE_LANE)) await slowly(bytes, signal);
            },
          },
          { scheduled: true, resume: true },
        ),
      );
      const { damaged, disks, ...report } = await this.#unlessStopped(ended);
      const counts = { ...report, damaged: damaged.length, disks: disks.length };
      if (damaged.length + disks.length > 0)
        logger.error(counts, 'verification found damage: see GET /verify/last');
      else logger.info(counts, 'verified');
    };
    this.#every(clock, Math.min(VERIFY_LOOK_MS, verifyEveryMs), () =>
      verifyNow().catch((error: unknown) => {
        if (this.#stop.signal.aborted) return;
        notBefore = clock.monotonic() + VERIFY_AGAIN_MS;
        logger.warn({ err: error }, 'verification did not end; it is tried again');
      }),
    );
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#loops);
  }

  /** What a job ends with; when the server stops, whoever closes the jobs waits for it, however long its lane is. */
  async #unlessStopped<T>(ended: Promise<T>): Promise<T> {
    const { signal } = this.#stop;
    const stopped = Promise.withResolvers<never>();
    const stop = (): void => stopped.reject(signal.reason as Error);
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    try {
      return await Promise.race([ended, stopped.promise]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
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
