/**
 * The past of the space report: samples of what the store takes, kept in table `space-sample` and thinned with age.
 *
 *     space-sample    grain `/` step, 12 digits    → SampleRecord
 *
 * Of each five minutes, hour and day the first sample is kept, or one with the accounts of the whole store (`exact`) if there is one: of so many
 * five minutes, hours and days, the latest. Samples are cheap numbers that the rooms count anyway. The accounts cost a walk of all
 * trees: they are taken when somebody asks for the space report anyway, and once a day by itself, unless that took long the last time.
 */
import { checkRecord, type Catalog, type CatalogOperation } from '@pando/catalog';
import type { Clock } from '@pando/common';
import type { OpenFleet, SpaceReport } from '@pando/fleet';
import type { OpenStore } from './store.ts';

const TABLE = 'space-sample';
const VERSION = 1;
const STEP_DIGITS = 12;

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

export const SAMPLE_EVERY_MS = 5 * MINUTE_MS;
/** Accounts that somebody asked for so lately are not taken again by itself. */
const EXACT_EVERY_MS = DAY_MS;
/** By itself not just after a start: whoever restarts a server has other things to wait for. */
const EXACT_AFTER_MS = HOUR_MS;
/** Accounts that took longer are taken only when somebody asks. */
const EXACT_MS_MAX = MINUTE_MS;
/** Old samples that one commit removes. */
const REMOVED_MAX = 10;

export type Grain = '5m' | '1h' | '1d';

/** How long each stretch is, and of how many the latest samples are kept: a day, a month, ten years. */
export const GRAINS: readonly { readonly name: Grain; readonly ms: number; readonly kept: number }[] = [
  { name: '5m', ms: SAMPLE_EVERY_MS, kept: 288 },
  { name: '1h', ms: HOUR_MS, kept: 744 },
  { name: '1d', ms: DAY_MS, kept: 3660 },
];

export interface SpaceCounts {
  readonly storedBytes: number;
  readonly segmentBytes: number;
  readonly indexBytes: number;
  readonly logBytes: number;
  readonly catalogBytes: number;
}

export type ExactCounts = Pick<
  SpaceReport,
  | 'logicalBytes'
  | 'allocatedBytes'
  | 'uniqueBytes'
  | 'dataStoredBytes'
  | 'metadataBytes'
  | 'garbageBytes'
  | 'vms'
  | 'backups'
>;

export interface SpaceSample extends SpaceCounts {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly exact?: ExactCounts;
}

interface SampleRecord extends SpaceSample {
  readonly version: 1;
}

export interface SpaceHistoryOptions {
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly count: () => Promise<SpaceCounts>;
  readonly report: (signal: AbortSignal) => Promise<SpaceReport>;
  readonly onTrouble: (error: unknown) => void;
}

export class SpaceHistory {
  readonly #options: SpaceHistoryOptions;
  readonly #stop = new AbortController();
  /** How many samples of each grain there are. */
  readonly #counts = new Map<Grain, number>();
  /** Since the start; when accounts were taken last. */
  #exactAtMs: number;
  #exactTookMs = 0;
  #loop = Promise.resolve();
  #taking = Promise.resolve();

  private constructor(options: SpaceHistoryOptions) {
    this.#options = options;
    this.#exactAtMs = options.clock.monotonic() + EXACT_AFTER_MS - EXACT_EVERY_MS;
  }

  static async open(options: SpaceHistoryOptions): Promise<SpaceHistory> {
    const history = new SpaceHistory(options);
    for (const { name } of GRAINS) {
      let count = 0;
      let after: string | undefined;
      for (;;) {
        const found = await options.catalog.list(TABLE, {
          ...{ prefix: `${name}/`, limit: 1000 },
          ...(after === undefined ? {} : { after }),
        });
        count += found.length;
        after = found.at(-1)?.key ?? after;
        if (found.length < 1000) break;
      }
      history.#counts.set(name, count);
    }
    return history;
  }

  /** Takes a sample now, and every five minutes until `close`. */
  start(): void {
    const { clock, onTrouble } = this.#options;
    const { signal } = this.#stop;
    const loop = async (): Promise<void> => {
      while (!signal.aborted) {
        await this.#look().catch((error: unknown) => {
          if (!signal.aborted) onTrouble(error);
        });
        await clock.sleep(SAMPLE_EVERY_MS, signal).catch(() => undefined);
      }
    };
    this.#loop = loop();
  }

  /** The fleet, with an eye on the accounts that somebody asks for. */
  watch(fleet: OpenFleet): OpenFleet {
    return {
      ...fleet,
      space: async (work) => {
        const report = await fleet.space(work);
        this.note(report);
        return report;
      },
    };
  }

  /** The accounts as somebody has just asked for them: they become part of a sample. */
  note(report: SpaceReport): void {
    this.#exactAtMs = this.#options.clock.monotonic();
    const {
      logicalBytes,
      allocatedBytes,
      uniqueBytes,
      dataStoredBytes,
      metadataBytes,
      garbageBytes,
      vms,
      backups,
    } = report;
    void this.#take({
      ...{
        logicalBytes,
        allocatedBytes,
        uniqueBytes,
        dataStoredBytes,
        metadataBytes,
        garbageBytes,
        vms,
        backups,
      },
    }).catch(this.#options.onTrouble);
  }

  /** Samples of one grain from a time on, oldest first. `after`: the place that the page before has ended at. */
  async list(request: {
    readonly grain: Grain;
    readonly since: number;
    readonly after?: number;
    readonly limit: number;
  }): Promise<{ readonly items: readonly SpaceSample[]; readonly next?: number }> {
    const { grain, since, after, limit } = request;
    const { ms } = GRAINS.find(({ name }) => name === grain)!;
    const first = Math.max(0, Math.floor(since / ms));
    const found = await this.#options.catalog.list(TABLE, {
      ...{ prefix: `${grain}/`, limit: limit + 1 },
      ...(after === undefined && first === 0 ? {} : { after: keyOf(grain, after ?? first - 1) }),
    });
    const shown = found.slice(0, limit);
    return {
      items: shown.map(({ key, value }) => sampleOf(key, value)).filter(({ at }) => at >= since),
      ...(found.length > limit ? { next: stepOf(shown.at(-1)!.key) } : {}),
    };
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await this.#taking.catch(() => undefined);
  }

  async #look(): Promise<void> {
    const { clock, report } = this.#options;
    const started = clock.monotonic();
    const isDue = started - this.#exactAtMs >= EXACT_EVERY_MS && this.#exactTookMs <= EXACT_MS_MAX;
    if (!isDue) return this.#take(undefined);
    // Also when it fails: tomorrow again.
    this.#exactAtMs = started;
    const found = await report(this.#stop.signal);
    this.#exactTookMs = clock.monotonic() - started;
    this.note(found);
  }

  /** One after another. */
  #take(exact: ExactCounts | undefined): Promise<void> {
    const taken = this.#taking.then(() => this.#store(exact));
    this.#taking = taken.catch(() => undefined);
    return taken;
  }

  async #store(exact: ExactCounts | undefined): Promise<void> {
    const { catalog, clock, count } = this.#options;
    const sample: SpaceSample = {
      at: clock.now(),
      ...(await count()),
      ...(exact === undefined ? {} : { exact }),
    };
    const operations: CatalogOperation[] = [];
    const counts = new Map<Grain, number>();
    for (const { name, ms, kept } of GRAINS) {
      const step = Math.floor(sample.at / ms);
      const key = keyOf(name, step);
      const before = await catalog.get(TABLE, key);
      const isThere = before !== undefined;
      if (isThere && (exact === undefined || sampleOf(key, before).exact !== undefined)) continue;
      const samples = this.#counts.get(name)! + (isThere ? 0 : 1);
      operations.push({ type: 'put', table: TABLE, key, value: { version: VERSION, ...sample } });
      const excess = Math.min(samples - kept, REMOVED_MAX);
      // The oldest by their place: a clock that was wrong for a while leaves a few samples where they do not belong.
      const old = excess <= 0 ? [] : await catalog.list(TABLE, { prefix: `${name}/`, limit: excess });
      const removed = old.filter((entry) => entry.key !== key);
      for (const entry of removed) operations.push({ type: 'delete', table: TABLE, key: entry.key });
      counts.set(name, samples - removed.length);
    }
    if (operations.length === 0) return;
    await catalog.commit(operations);
    for (const [name, samples] of counts) this.#counts.set(name, samples);
  }
}

export async function spaceCounts({ store, volumes, catalog }: OpenStore): Promise<SpaceCounts> {
  const [{ segmentBytes, indexBytes }, catalogBytes] = await Promise.all([store.stats(), catalog.bytes()]);
  const logBytes = volumes.stats.logDiskBytes;
  const storedBytes = segmentBytes + indexBytes + logBytes + catalogBytes;
  return { storedBytes, segmentBytes, indexBytes, logBytes, catalogBytes };
}

function keyOf(grain: Grain, step: number): string {
  return `${grain}/${String(step).padStart(STEP_DIGITS, '0')}`;
}

function stepOf(key: string): number {
  return Number(key.slice(key.indexOf('/') + 1));
}

function sampleOf(key: string, value: unknown): SpaceSample {
  checkRecord(TABLE, key, value, VERSION);
  const { version: _version, ...sample } = value as SampleRecord;
  return sample;
}
