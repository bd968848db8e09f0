/** The worker thread: hashes and packs slabs, one message a batch. */
import { parentPort } from 'node:worker_threads';
import { slabOver, workOn } from './slab.ts';

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

parentPort?.on('message', (job: WorkerJob) => {
  parentPort!.postMessage(work(job));
});

function work(job: WorkerJob): WorkerAnswer {
  const began = performance.now();
  try {
    const runs = workOn(slabOver(job.buffer), job.count, job.chunkBytes, job.kind);
    return { job: job.job, runs, ms: performance.now() - began };
  } catch (error) {
    return { job: job.job, runs: 0, ms: 0, error: error instanceof Error ? error.message : String(error) };
  }
}
