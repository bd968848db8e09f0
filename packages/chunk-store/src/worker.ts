/** The worker thread: hashes and packs slabs, one message a batch. */
import { parentPort, workerData } from 'node:worker_threads';
import { hashOf } from './hashing.ts';
import { slabOver, workOn } from './slab.ts';

/** What it is started with. */
export interface WorkerStart {
  /** Of the store's ids. */
  readonly hashKey: Uint8Array | undefined;
}

/** What the main thread asks for; `kind` is set when it is to pack, not to hash. */
export interface WorkerJob {
  readonly job: number;
  readonly buffer: SharedArrayBuffer;
  readonly count: number;
  readonly chunkBytes: number;
  readonly kind?: number;
}

export interface WorkerAnswer {
  readonly job: number;
  /** Runs packed; 0 after hashing. */
  readonly runs: number;
  /** How long it took; 0 when it failed. */
  readonly ms: number;
  readonly error?: string;
}

const hash = hashOf((workerData as WorkerStart | null)?.hashKey);

parentPort?.on('message', (job: WorkerJob) => {
  parentPort!.postMessage(work(job));
});

function work(job: WorkerJob): WorkerAnswer {
  const began = performance.now();
  try {
    const runs = workOn(slabOver(job.buffer), job.count, job.chunkBytes, job.kind, hash);
    return { job: job.job, runs, ms: performance.now() - began };
  } catch (error) {
    return { job: job.job, runs: 0, ms: 0, error: error instanceof Error ? error.message : String(error) };
  }
}
