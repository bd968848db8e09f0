/** The worker thread: hashes and packs slabs, one message a batch. */
import { parentPort } from 'node:worker_threads';
import { hashSlab, packSlab, slabOver } from './slab.ts';

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
  readonly error?: string;
}

parentPort?.on('message', (job: WorkerJob) => {
  parentPort!.postMessage(work(job));
});

function work(job: WorkerJob): WorkerAnswer {
  try {
    const slab = slabOver(job.buffer);
    if (job.kind !== undefined)
      return { job: job.job, runs: packSlab(slab, job.count, job.chunkBytes, job.kind) };
    hashSlab(slab, job.count, job.chunkBytes);
    return { job: job.job, runs: 0 };
  } catch (error) {
    return { job: job.job, runs: 0, error: error instanceof Error ? error.message : String(error) };
  }
}
