/** The worker thread that checks and decompresses runs, see decode-ring.ts. It never looks at messages: it is ended from outside. */
import { workerData } from 'node:worker_threads';
import { DecodeRing } from './decode-ring.ts';

/** What it is started with. */
export interface DecodeWork {
  readonly buffer: SharedArrayBuffer;
  readonly chunkBytes: number;
}

const { buffer, chunkBytes } = workerData as DecodeWork;
new DecodeRing(buffer).work(chunkBytes);
