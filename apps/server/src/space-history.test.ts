import { MemoryCatalog } from '@pando/catalog';
import type { SpaceReport } from '@pando/fleet';
import { beforeEach, expect, test } from 'vitest';
import { GRAINS, SAMPLE_EVERY_MS, SpaceHistory, type Grain, type SpaceSample } from './space-history.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** 2026-11-20T00:00:00Z */
const START_MS = 1_795_132_800_000;

/** Each sleep ends when the test lets time go on. */
class Clock {
  nowMs = START_MS;
  #wake: () => void = () => undefined;
  asleep = false;
  now = (): number => this.nowMs;
  monotonic = (): number => this.nowMs - START_MS;
  sleep = (_ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      this.asleep = true;
      this.#wake = resolve;
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  async pass(ms: number): Promise<void> {
    await this.#untilAsleep();
    this.nowMs += ms;
    this.asleep = false;
    this.#wake();
    await this.#untilAsleep();
  }
  async #untilAsleep(): Promise<void> {
    while (!this.asleep) await new Promise((resolve) => setImmediate(resolve));
  }
}

let catalog: MemoryCatalog;
let clock: Clock;
let storedBytes: number;
let walks: number;
let walkMs: number;
beforeEach(() => {
  catalog = new MemoryCatalog();
  clock = new Clock();
  storedBytes = 0;
  walks = 0;
  walkMs = 0;
});

const REPORT = { logicalBytes: 8, allocatedBytes: 7, uniqueBytes: 6, vms: 2, backups: 3 } as SpaceReport;

const open = (): Promise<SpaceHistory> =>
  SpaceHistory.open({
    ...{ catalog, clock },
    count: () =>
      Promise.resolve({
        storedBytes: storedBytes++,
        segmentBytes: 1,
        indexBytes: 2,
        logBytes: 3,
        catalogBytes: 4,
      }),
    report: () => {
      walks++;
      clock.nowMs += walkMs;
      return Promise.resolve(REPORT);
    },
    onTrouble: (error) => {
      throw error;
    },
  });

async function all(history: SpaceHistory, grain: Grain, since = 0, limit = 1000): Promise<SpaceSample[]> {
  const found: SpaceSample[] = [];
  for (let after: number | undefined; ;) {
    const page = await history.list({ grain, since, limit, ...(after === undefined ? {} : { after }) });
    found.push(...page.items);
    if (page.next === undefined) return found;
    after = page.next;
  }
}

test('samples are kept of five minutes for a day, of hours for a month, of days for long, and no more of them', async () => {
  const history = await open();
  history.start();
  const days = 3;
  for (let i = 0; i < (days * DAY_MS) / SAMPLE_EVERY_MS; i++) await clock.pass(SAMPLE_EVERY_MS);
  const fine = await all(history, '5m');
  expect(fine).toHaveLength(GRAINS[0]!.kept);
  expect(fine.at(-1)!.at).toBe(START_MS + days * DAY_MS);
  expect(fine[0]!.at).toBe(fine.at(-1)!.at - (GRAINS[0]!.kept - 1) * SAMPLE_EVERY_MS);
  const hours = await all(history, '1h');
  expect(hours).toHaveLength(days * 24 + 1);
  expect(hours.map(({ at }) => at % HOUR_MS)).toEqual(hours.map(() => 0));
  const whole = await all(history, '1d');
  // The first one of a day, or the one with the accounts, which came an hour later.
  expect(whole.map(({ at, exact }) => [(at - START_MS) / HOUR_MS, exact !== undefined])).toEqual([
    ...[0, 1, 2].map((day) => [day * 24 + 1, true]),
    [72, false],
  ]);
  for (const limit of [1, 7, 287, 288, 289]) expect(await all(history, '5m', 0, limit)).toEqual(fine);
  expect(await all(history, '1h', START_MS + 70 * HOUR_MS)).toHaveLength(3);
  await history.close();
  // The next server goes on with them.
  const again = await open();
  expect(await all(again, '5m')).toEqual(fine);
  again.start();
  await clock.pass(SAMPLE_EVERY_MS);
  expect(await all(again, '5m')).toHaveLength(GRAINS[0]!.kept);
  await again.close();
});

test('accounts are taken once a day by themselves, not just after the start, and no more when that took long', async () => {
  const history = await open();
  history.start();
  await clock.pass(HOUR_MS - 1);
  expect(walks).toBe(0);
  await clock.pass(1);
  expect(walks).toBe(1);
  for (let i = 0; i < 23; i++) await clock.pass(HOUR_MS);
  expect(walks).toBe(1);
  walkMs = 61_000;
  await clock.pass(HOUR_MS);
  expect(walks).toBe(2);
  await clock.pass(2 * DAY_MS);
  expect(walks).toBe(2);
  await history.close();
  const days = await all(history, '1d');
  expect(days[0]).toMatchObject({ storedBytes: expect.any(Number) as number, exact: { vms: 2, backups: 3 } });
  expect(days[0]!.exact).not.toHaveProperty('ratios');
});

test('accounts that somebody asks for become part of the samples of that time, once in each', async () => {
  const history = await open();
  history.note(REPORT);
  history.note({ ...REPORT, vms: 99 });
  await history.close();
  for (const { name } of GRAINS)
    expect(await all(history, name), name).toMatchObject([{ exact: { vms: 2 } }]);
});

test('a clock that was wrong for a while leaves a bounded number of samples where they do not belong', async () => {
  const history = await open();
  history.start();
  await clock.pass(SAMPLE_EVERY_MS);
  await clock.pass(10 * 365 * DAY_MS);
  await clock.pass(-10 * 365 * DAY_MS);
  for (let i = 0; i < 2 * GRAINS[0]!.kept; i++) await clock.pass(SAMPLE_EVERY_MS);
  const fine = await all(history, '5m');
  expect(fine).toHaveLength(GRAINS[0]!.kept);
  expect(fine.filter(({ at }) => at > clock.now())).toHaveLength(1);
  await history.close();
});
