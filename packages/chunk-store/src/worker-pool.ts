/**
 * Worker threads that hash and pack, and the slabs that travel to them.
 *
 * Threads start with the first batch that is worth a trip, and never keep the process alive while they are
 * idle. If a thread dies, its jobs and all later ones run on the calling thread: slower, never lost.
 */
import { Worker } from 'node:worker_threads';
import { PandoError } from '@pando/common';
import { hashOf, type Hash } from './hashing.ts';
import { INLINE_CHUNKS_MAX } from './limits.ts';
import { SLAB_BYTES, slabOver, workOn, type Slab } from './slab.ts';
import type { StoreCounters } from './store-counters.ts';
import type { WorkerAnswer, WorkerJob, WorkerStart } from './worker.ts';

/** A thread makes garbage only and keeps nothing: without a bound its young generation grows to tens of MiB. */
const YOUNG_MIB_MAX = 6;

interface Waiting {
  readonly message: WorkerJob;
  readonly slab: Slab;
  readonly resolve: (runs: number) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly jobs: Map<number, Waiting>;
}

export class WorkerPool {
  readonly #threadsMax: number;
  readonly #slabsMax: number;
  readonly #counters: StoreCounters;
  readonly #hashKey: Uint8Array | undefined;
  readonly #hash: Hash;
  readonly #threads: Thread[] = [];
  readonly #freeSlabs: Slab[] = [];
  readonly #waiters: ((slab: Slab) => void)[] = [];
  #slabs = 0;
  #jobs = 0;
  #broken = false;
  #closed = false;

  constructor(threadsMax: number, slabsMax: number, counters: StoreCounters, hashKey?: Uint8Array) {
    this.#hashKey = hashKey;
    this.#hash = hashOf(hashKey);
    this.#threadsMax = threadsMax;
    this.#counters = counters;
    this.#slabsMax = slabsMax;
  }

  /** A slab, as soon as one is free: this is what bounds batches in flight. */
  acquire(): Promise<Slab> | Slab {
    const free = this.#freeSlabs.pop();
    if (free !== undefined) return free;
    if (this.#slabs < this.#slabsMax) {
      this.#slabs++;
      return slabOver(new SharedArrayBuffer(SLAB_BYTES));
    }
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  release(slab: Slab): void {
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#freeSlabs.push(slab);
    else waiter(slab);
  }

  /** Fills in the ids of the slab's first `count` chunks. */
  async hash(slab: Slab, count: number, chunkBytes: number): Promise<void> {
    await this.#run(slab, { job: this.#jobs++, buffer: slab.buffer, count, chunkBytes });
  }

  /** Packs the first `count` chunks of the slab's order; resolves to the number of runs. */
  pack(slab: Slab, count: number, chunkBytes: number, kind: number): Promise<number> {
    return this.#run(slab, { job: this.#jobs++, buffer: slab.buffer, count, chunkBytes, kind });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#threads.splice(0).map((thread) => thread.worker.terminate()));
  }

  #run(slab: Slab, message: WorkerJob): Promise<number> {
    const inline =
      message.count <= INLINE_CHUNKS_MAX || this.#threadsMax === 0 || this.#broken || this.#closed;
    if (inline) return this.#runInline(slab, message);
    const thread = this.#thread();
    return new Promise((resolve, reject) => {
      thread.jobs.set(message.job, { message, slab, resolve, reject });
      if (thread.jobs.size === 1) thread.worker.ref();
      thread.worker.postMessage(message);
    });
  }

  /** The thread with the least to do; a new one while there may be more and all are busy. */
  #thread(): Thread {
    let least: Thread | undefined;
    for (const thread of this.#threads) {
      if (least === undefined || thread.jobs.size < least.jobs.size) least = thread;
    }
    if (least !== undefined && (least.jobs.size === 0 || this.#threads.length === this.#threadsMax))
      return least;
    const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
    const start: WorkerStart = { hashKey: this.#hashKey };
    const worker = new Worker(new URL(file, import.meta.url), {
      workerData: start,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB_MAX },
    });
    const thread: Thread = { worker, jobs: new Map() };
    worker.unref();
    worker.on('message', (answer: WorkerAnswer) => this.#answered(thread, answer));
    worker.on('error', (error) => this.#died(thread, error));
    worker.on('exit', () => this.#died(thread, undefined));
    this.#threads.push(thread);
    return thread;
  }

  #answered(thread: Thread, answer: WorkerAnswer): void {
    const waiting = thread.jobs.get(answer.job);
    if (waiting === undefined) return;
    thread.jobs.delete(answer.job);
    if (thread.jobs.size === 0) thread.worker.unref();
    if (answer.error === undefined) {
      this.#count(waiting.message, answer.ms);
      waiting.resolve(answer.runs);
    } else waiting.reject(new PandoError('internal', `a worker thread failed: ${answer.error}`));
  }

  #died(thread: Thread, error: unknown): void {
    const at = this.#threads.indexOf(thread);
    if (at >= 0) this.#threads.splice(at, 1);
    if (!this.#closed && !this.#broken) {
      this.#broken = true;
      const reason = error instanceof Error ? error.message : 'it exited';
      process.emitWarning(`a thread for hashing died, so the main thread takes over: ${reason}`, {
        code: 'PANDO_NO_WORKERS',
      });
    }
    for (const waiting of thread.jobs.values()) {
      this.#runInline(waiting.slab, waiting.message).then(waiting.resolve, waiting.reject);
    }
    thread.jobs.clear();
  }

  /** Same work, on this thread. A promise all the same, so that a failure always arrives in the same way. */
  async #runInline(slab: Slab, message: WorkerJob): Promise<number> {
    const began = performance.now();
    const runs = workOn(slab, message.count, message.chunkBytes, message.kind, this.#hash);
    this.#count(message, performance.now() - began);
    return runs;
  }

  #count({ kind }: WorkerJob, ms: number): void {
    const { hashTimes, packTimes } = this.#counters;
    (kind === undefined ? hashTimes : packTimes).record(ms);
  }
}
