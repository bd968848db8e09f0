/** The worker thread that checks and decompresses runs, see decode-ring.ts. It never looks at messages: it is ended from outside. */
import { workerData } from 'node:worker_threads';
import { DecodeRing } from './decode-ring.ts';
import { hashOf } from './hashing.ts';

/** What it is started with. */
export interface DecodeWork {
  readonly buffer: SharedArrayBuffer;
  readonly chunkBytes: number;
  /** Of the store's ids. */
  readonly hashKey: Uint8Array | undefined;
}

const { buffer, chunkBytes, hashKey } = workerData as DecodeWork;
new DecodeRing(buffer).work(chunkBytes, hashOf(hashKey));
