/**
 * Runs that several reads wait for, on their way through the thread that checks and decompresses them: their bytes are read in the turn of the
 * call, where that is quick, and what comes back goes into the cache and to who waits. No promise for a run.
 *
 * Whatever goes wrong on this way is left to `RunReader.load`, as is a run whose bytes cannot be read quickly.
 */
import { ID_BYTES } from '@pando/common';
import { DecodeThread } from './decode-thread.ts';
import { RING_RUN_BYTES_MAX, RING_SLOTS, type DecodedRun } from './decode-ring.ts';
import { DECODE_AFTER_RUNS } from './limits.ts';
import { offsetOfKey, runKey, segmentOfKey, type CachedRun } from './run-cache.ts';
import type { RunReader } from './run-reader.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StoreCounters } from './store-counters.ts';
import type { SegmentStorage } from './types.ts';

/** Loads in the queue that have been begun and are not dropped from it yet. */
const QUEUE_BEGUN_MAX = 256;

/** Loads kept to be used again. */
const IDLE_MAX = 512;

/** A read that waits for runs. */
export interface RunTaker {
  /** Ids of the children of the leaf that is read. */
  readonly ids: Uint8Array;
  /** Runs that it waits for. */
  waitsFor: number;
  /**
   * The run, for this turn, in which the children `first … end − 1` are or seem to be; undefined and an error when it cannot be read.
   * Never throws.
   */
  took(run: CachedRun | undefined, key: number, first: number, end: number, error: unknown): void;
}

/** Used again and again: a map leaves tables behind that hold what was in them until the next full collection, 1 KB a read when it was made anew. */
class RunLoad {
  key = 0;
  runBytes = 0;
  began = 0;
  /** Each with the first of its children, and the end. */
  readonly takers: RunTaker[] = [];
  readonly children: number[] = [];

  add(taker: RunTaker, child: number): void {
    const last = this.takers.length - 1;
    if (last >= 0 && this.takers[last] === taker && this.children[2 * last + 1] === child) {
      this.children[2 * last + 1] = child + 1;
      return;
    }
    this.takers.push(taker);
    this.children.push(child, child + 1);
    taker.waitsFor++;
  }

  /** Whether nobody wants more of it than one chunk. */
  get isForOne(): boolean {
    return this.takers.length === 1 && this.children[1] === this.children[0]! + 1;
  }

  end(run: CachedRun | undefined, error: unknown): void {
    for (let i = 0; i < this.takers.length; i++) {
      this.takers[i]!.took(run, this.key, this.children[2 * i]!, this.children[2 * i + 1]!, error);
    }
    this.takers.length = 0;
    this.children.length = 0;
  }
}

export class RunLoads {
  readonly #storage: SegmentStorage;
  readonly #table: SegmentTable;
  readonly #runs: RunReader;
  readonly #counters: StoreCounters;
  readonly #thread: DecodeThread | undefined;
  readonly #byKey = new Map<number, RunLoad>();
  readonly #idle: RunLoad[] = [];
  /** Those not begun yet are the ones from `#queueAt` on. */
  #queue: RunLoad[] = [];
  #queueAt = 0;
  /** In the thread, in their order: as many as are under way there, from `#submittedAt` on, around the end. */
  readonly #submitted: RunLoad[] = [];
  #submittedAt = 0;

  /** @param threads 0: it takes nothing */
  constructor(
    storage: SegmentStorage,
    table: SegmentTable,
    runs: RunReader,
    chunkBytes: number,
    threads: number,
    counters: StoreCounters,
    hashKey?: Uint8Array,
  ) {
    this.#storage = storage;
    this.#table = table;
    this.#runs = runs;
    this.#counters = counters;
    const usable = threads > 0 && storage.readNow !== undefined;
    this.#thread = usable ? new DecodeThread(chunkBytes, this.#decoded, hashKey) : undefined;
  }

  /**
   * Whether a run that is not in the cache goes this way: when others do, or one was read in this turn already. A single one is there sooner when the
   * caller does it all.
   */
  takes(segment: number, runBytes: number): boolean {
    const thread = this.#thread;
    if (thread === undefined || runBytes > RING_RUN_BYTES_MAX) return false;
    if (this.#byKey.size > 0) return !thread.hasEnded;
    if (!this.#runs.hasLoadedNow || this.#counters.runMisses < DECODE_AFTER_RUNS) return false;
    thread.start();
    return thread.isReady && this.#table.get(segment) !== undefined;
  }

  /** Has a read wait for a run that holds one of its children. `flush` must follow in this turn. */
  add(segment: number, runOffset: number, runBytes: number, taker: RunTaker, child: number): void {
    const key = runKey(segment, runOffset);
    let load = this.#byKey.get(key);
    if (load === undefined) {
      load = this.#idle.pop() ?? new RunLoad();
      load.key = key;
      load.runBytes = runBytes;
      load.began = performance.now();
      this.#byKey.set(key, load);
      this.#queue.push(load);
    } else this.#counters.runHits++;
    load.add(taker, child);
  }

  /** Begins what was added, as far as the thread has room for it. */
  flush(): void {
    if (this.#queueAt === this.#queue.length) return;
    const thread = this.#thread?.isReady === true ? this.#thread : undefined;
    let added = false;
    while (this.#queueAt < this.#queue.length) {
      if (thread?.hasRoom === false) break;
      const load = this.#queue[this.#queueAt++]!;
      if (thread !== undefined && this.#read(load, thread)) added = true;
      else this.#load(load);
    }
    if (this.#queueAt >= QUEUE_BEGUN_MAX || this.#queueAt === this.#queue.length) {
      this.#queue = this.#queue.slice(this.#queueAt);
      this.#queueAt = 0;
    }
    if (added) thread!.submit();
  }

  async close(): Promise<void> {
    await this.#thread?.close();
  }

  /** Reads the bytes of a run to where the thread finds them. */
  #read(load: RunLoad, thread: DecodeThread): boolean {
    const { key, runBytes } = load;
    const segment = segmentOfKey(key);
    const seed = this.#table.get(segment)?.seed;
    if (seed === undefined || runBytes > RING_RUN_BYTES_MAX) return false;
    const bytes = thread.next().subarray(0, runBytes);
    if (this.#storage.readNow!(segment, bytes, offsetOfKey(key)) !== runBytes) return false;
    this.#submitted[(this.#submittedAt + thread.underWay) % RING_SLOTS] = load;
    if (load.isForOne) thread.add(runBytes, seed, load.takers[0]!.ids, load.children[0]! * ID_BYTES);
    else thread.add(runBytes, seed, undefined, 0);
    return true;
  }

  readonly #decoded = (): void => {
    const thread = this.#thread!;
    while (thread.hasNext) {
      const load = this.#nextSubmitted();
      const decoded = thread.take();
      if (decoded === undefined) this.#load(load);
      else this.#end(load, this.#keep(load, decoded), undefined);
    }
    if (thread.hasEnded) for (let left = thread.drop(); left > 0; left--) this.#load(this.#nextSubmitted());
    this.flush();
  };

  #nextSubmitted(): RunLoad {
    const load = this.#submitted[this.#submittedAt]!;
    this.#submittedAt = (this.#submittedAt + 1) % RING_SLOTS;
    return load;
  }

  #keep(load: RunLoad, { raw, ids, chunkBytes, firstSlot, verified }: DecodedRun): CachedRun {
    const { cache } = this.#runs;
    const run = cache.take(raw.byteLength, ids.byteLength);
    run.hold(load.key, firstSlot, chunkBytes, verified);
    run.raw.set(raw);
    run.ids.set(ids);
    cache.add(run);
    this.#counters.runMisses++;
    this.#counters.loadedBytes += load.runBytes;
    this.#counters.runLoadTimes.record(performance.now() - load.began);
    return run;
  }

  /** The way with a promise, which says what is wrong, if anything is. */
  #load(load: RunLoad): void {
    this.#runs.load(segmentOfKey(load.key), offsetOfKey(load.key), load.runBytes).then(
      (run) => this.#end(load, run, undefined),
      (error: unknown) => this.#end(load, undefined, error),
    );
  }

  #end(load: RunLoad, run: CachedRun | undefined, error: unknown): void {
    this.#byKey.delete(load.key);
    load.end(run, error);
    if (this.#idle.length < IDLE_MAX) this.#idle.push(load);
  }
}
