/**
 * Reading runs from storage: each read is checked (header, CRC), decompressed and cached; readers of
 * the same run at the same time share one read; reads at the same time are bounded.
 *
 * `loadNow` does all of it in the turn of the call, where storage can read quickly (ADR 0006). Whatever goes wrong there is left to `load`, which reads
 * again and says what it is.
 */
import { PandoError, unreadableCode, type PagePool } from '@pando/common';
import { expandRunInto } from './codec.ts';
import { isDamage, type DamagedRuns } from './damaged-runs.ts';
import { READ_NOW_BYTES_MAX, READS_A_TURN_MAX } from './limits.ts';
import { CachedRun, RunCache, runKey } from './run-cache.ts';
import { idsOfRun } from './segment-directory.ts';
import { chunkBytesOf, decodeRunHeader, isRunBodyIntact } from './segment-format.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StoreCounters } from './store-counters.ts';
import type { SegmentStorage } from './types.ts';

export class RunReader {
  readonly cache: RunCache;
  readonly #storage: SegmentStorage;
  readonly #table: SegmentTable;
  readonly #chunkBytes: number;
  readonly #readsMax: number;
  readonly #damaged: DamagedRuns;
  readonly #counters: StoreCounters;
  readonly #loading = new Map<number, Promise<CachedRun>>();
  readonly #waiting: (() => void)[] = [];
  #reads = 0;
  /** Where `loadNow` reads to. */
  #scratch: Uint8Array | undefined;
  #readsThisTurn = 0;
  #hasLoadedNow = false;

  constructor(
    storage: SegmentStorage,
    table: SegmentTable,
    chunkBytes: number,
    cacheBytes: number,
    readsMax: number,
    damaged: DamagedRuns,
    counters: StoreCounters,
    pages?: PagePool,
  ) {
    this.#storage = storage;
    this.#table = table;
    this.#chunkBytes = chunkBytes;
    this.#readsMax = Math.max(1, readsMax);
    this.#damaged = damaged;
    this.#counters = counters;
    this.cache = new RunCache(cacheBytes, chunkBytes, pages);
  }

  /**
   * The run at a place, from memory or storage.
   * @throws `chunk-missing` when the segment is gone, `chunk-corrupt` when the run is damaged or the device cannot read it, `store-failed`
   */
  load(segment: number, runOffset: number, runBytes: number): Promise<CachedRun> {
    const key = runKey(segment, runOffset);
    const shared = this.#loading.get(key);
    if (shared !== undefined) {
      this.#counters.runHits++;
      return shared;
    }
    const cached = this.cached(key);
    if (cached !== undefined) {
      cached.kept = true;
      return Promise.resolve(cached);
    }
    this.#counters.runMisses++;
    const loading = this.#load(key, segment, runOffset, runBytes).finally(() => this.#loading.delete(key));
    this.#loading.set(key, loading);
    return loading;
  }

  /** The run from the cache, for this turn; what is not there is counted by what is done about it. */
  cached(key: number): CachedRun | undefined {
    const run = this.cache.get(key);
    if (run !== undefined) this.#counters.runHits++;
    return run;
  }

  /** As `readNow`, into the cache. */
  loadNow(segment: number, runOffset: number, runBytes: number): CachedRun | undefined {
    const run = this.readNow(segment, runOffset, runBytes);
    if (run === undefined) return undefined;
    this.#hasLoadedNow = true;
    this.cache.add(run);
    return run;
  }

  /**
   * The run at a place that is not in the cache, read in this turn; undefined when that would take long, or anything is wrong. Nothing of it may be used past
   * the turn.
   */
  readNow(segment: number, runOffset: number, runBytes: number): CachedRun | undefined {
    if (this.#storage.readNow === undefined || runBytes > READ_NOW_BYTES_MAX) return undefined;
    const seed = this.#table.get(segment)?.seed;
    if (seed === undefined || !this.#mayReadNow()) return undefined;
    const began = performance.now();
    const bytes = (this.#scratch ??= new Uint8Array(READ_NOW_BYTES_MAX)).subarray(0, runBytes);
    if (this.#storage.readNow(segment, bytes, runOffset) !== runBytes) return undefined;
    try {
      const run = this.#decode(bytes, segment, runOffset, seed);
      this.#counters.runMisses++;
      this.#loaded(runBytes, began);
      return run;
    } catch (error) {
      if (isDamage(error)) return undefined;
      throw error;
    }
  }

  /** Whether `loadNow` has loaded a run in this turn of the event loop. */
  get hasLoadedNow(): boolean {
    return this.#hasLoadedNow;
  }

  /** Whoever asks for much gives others their turn now and then. */
  #mayReadNow(): boolean {
    if (this.#readsThisTurn === READS_A_TURN_MAX) return false;
    if (this.#readsThisTurn++ === 0) setImmediate(this.#nextTurn);
    return true;
  }

  readonly #nextTurn = (): void => {
    this.#readsThisTurn = 0;
    this.#hasLoadedNow = false;
  };

  /** As `load`, neither from the cache nor into it: for passes over everything. */
  read(segment: number, runOffset: number, runBytes: number): Promise<CachedRun> {
    return this.#readNoting(segment, runOffset, runBytes, false);
  }

  async #readNoting(
    segment: number,
    runOffset: number,
    runBytes: number,
    toCache: boolean,
  ): Promise<CachedRun> {
    try {
      return await this.#read(segment, runOffset, runBytes, toCache);
    } catch (error) {
      if (isDamage(error)) this.#damaged.add(segment, runOffset);
      throw error;
    }
  }

  async #read(segment: number, runOffset: number, runBytes: number, toCache: boolean): Promise<CachedRun> {
    const seed = this.#table.get(segment)?.seed;
    if (seed === undefined) throw new PandoError('chunk-missing', `segment ${segment} does not exist`);
    const began = performance.now();
    const bytes = new Uint8Array(runBytes);
    const length = await this.#storage.read(segment, bytes, runOffset).catch((error: unknown) => {
      throw asDamage(error, `the run at offset ${runOffset} of segment ${segment} cannot be read`);
    });
    const run = this.#decode(bytes.subarray(0, length), segment, runOffset, seed, runBytes, toCache);
    run.kept = true;
    this.#loaded(runBytes, began);
    return run;
  }

  #loaded(runBytes: number, began: number): void {
    this.#counters.loadedBytes += runBytes;
    this.#counters.runLoadTimes.record(performance.now() - began);
  }

  /** @throws `chunk-corrupt` when the bytes are not exactly one whole run */
  #decode(
    bytes: Uint8Array,
    segment: number,
    runOffset: number,
    seed: number,
    runBytes = bytes.byteLength,
    toCache = true,
  ): CachedRun {
    const header = decodeRunHeader(bytes, 0, seed, this.#chunkBytes);
    if (header?.runBytes !== runBytes || bytes.byteLength < runBytes || !isRunBodyIntact(bytes, 0, header)) {
      throw new PandoError(
        'chunk-corrupt',
        `the run at offset ${runOffset} of segment ${segment} is damaged`,
      );
    }
    const ids = idsOfRun(bytes, 0, header);
    const { rawBytes } = header;
    const run = toCache ? this.cache.take(rawBytes, ids.byteLength) : new CachedRun(rawBytes, ids.byteLength);
    run.hold(runKey(segment, runOffset), header.firstSlot, chunkBytesOf(header.kind, this.#chunkBytes));
    run.ids.set(ids);
    try {
      expandRunInto(bytes.subarray(runBytes - header.storedBytes), header.codec, run.raw);
    } catch (error) {
      this.cache.give(run);
      throw error;
    }
    return run;
  }

  async #load(key: number, segment: number, runOffset: number, runBytes: number): Promise<CachedRun> {
    if (this.#reads >= this.#readsMax) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#reads++;
    try {
      const run = await this.#readNoting(segment, runOffset, runBytes, true);
      this.cache.add(run);
      const cached = this.cache.get(key) ?? run;
      cached.kept = true;
      return cached;
    } finally {
      // Whoever waits takes over this read's turn.
      const next = this.#waiting.shift();
      if (next === undefined) this.#reads--;
      else next();
    }
  }
}

/** Such a run is as good as damaged: the others are not concerned, and it heals in the same way. */
function asDamage(error: unknown, what: string): unknown {
  const code = unreadableCode(error);
  if (code === undefined) return error;
  return new PandoError('chunk-corrupt', `${what}: ${code}`, { cause: error });
}
