/** What a server does by itself goes by the time that passes, whatever the wall clock says meanwhile. */
import type { Jobs } from '@pando/api';
import { MemoryCatalog } from '@pando/catalog';
import { createMemoryChunkStore } from '@pando/chunk-store';
import type { Clock } from '@pando/common';
import type { OpenFleet } from '@pando/fleet';
import { pino } from 'pino';
import { afterEach, expect, test } from 'vitest';
import { Housekeeping } from './housekeeping.ts';
import type { OpenStore } from './store.ts';

const HOUR_MS = 60 * 60_000;
const WEEK_MS = 7 * 24 * HOUR_MS;
const YEAR_MS = 365 * 24 * HOUR_MS;

/** Time that goes by when a test says so, and wakes who sleeps; the wall clock can be set. */
class SteppedClock implements Clock {
  wall = Date.UTC(2026, 10, 20);
  ms = 0;
  #sleeping: { readonly until: number; readonly wake: () => void }[] = [];
  now = (): number => this.wall + this.ms;
  monotonic = (): number => this.ms;

  sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      const stop = (): void => reject(signal!.reason as Error);
      if (signal?.aborted === true) stop();
      signal?.addEventListener('abort', stop, { once: true });
      const wake = (): void => {
        signal?.removeEventListener('abort', stop);
        resolve();
      };
      this.#sleeping.push({ until: this.ms + ms, wake });
    });

  /** In small steps, so that whoever wakes can sleep again. */
  async pass(ms: number): Promise<void> {
    for (const end = this.ms + ms; this.ms < end;) {
      this.ms = Math.min(end, ...this.#sleeping.map(({ until }) => until));
      const awake = this.#sleeping.filter(({ until }) => until <= this.ms);
      this.#sleeping = this.#sleeping.filter(({ until }) => until > this.ms);
      for (const { wake } of awake) wake();
      for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Notes what is begun. Of a collection it only matters that it is. */
class NotedJobs {
  readonly kinds: string[] = [];

  start = (
    { kind }: { kind: string },
    work: (work: object) => Promise<unknown>,
  ): { ended: Promise<unknown> } => {
    this.kinds.push(kind);
    return { ended: kind === 'gc' ? Promise.resolve({}) : work({}) };
  };

  isWaitedFor = (): boolean => false;
}

let housekeeping: Housekeeping;
afterEach(() => housekeeping.close());

test('gc and verification come after their time, and not sooner or later when the clock is set', async () => {
  const clock = new SteppedClock();
  const jobs = new NotedJobs();
  housekeeping = new Housekeeping();
  const catalog = new MemoryCatalog();
  const store = await createMemoryChunkStore(4096);
  const stats = { destagedBytes: 0, writtenBytes: 0 };
  const fleet = housekeeping.watch({ deleteVm: () => Promise.resolve() } as unknown as OpenFleet);
  housekeeping.start({ catalog, store, volumes: { stats } } as unknown as OpenStore, {
    ...{ clock, jobs: jobs as unknown as Jobs, logger: pino({ level: 'silent' }) },
    verification: { catalog, store, clock },
    gcEveryMs: HOUR_MS,
    verifyEveryMs: WEEK_MS,
    verifyBytesPerSecond: 2 ** 30,
    createdAt: clock.now(),
  });
  const news = (): string[] => jobs.kinds.splice(0).sort();
  await fleet.deleteVm('web');
  await clock.pass(HOUR_MS / 2);
  expect(news()).toEqual([]);
  // No garbage is collected early or late; what is due by the wall clock is verified, once.
  clock.wall += 10 * YEAR_MS;
  await clock.pass(HOUR_MS / 4);
  expect(news()).toEqual(['verify']);
  await clock.pass(HOUR_MS / 4);
  expect(news()).toEqual(['gc']);
  await clock.pass(3 * 24 * HOUR_MS);
  expect(news()).toEqual([]);
  // Set back, it does not wait for ten years, and does not go on and on.
  clock.wall -= 10 * YEAR_MS;
  await clock.pass(HOUR_MS);
  expect(news()).toEqual(['verify']);
  await fleet.deleteVm('web');
  await clock.pass(HOUR_MS);
  expect(news()).toEqual(['gc']);
  await clock.pass(5 * 24 * HOUR_MS);
  expect(news()).toEqual([]);
  await clock.pass(3 * 24 * HOUR_MS);
  expect(news()).toEqual(['verify']);
  await store.close();
}, 60_000);
