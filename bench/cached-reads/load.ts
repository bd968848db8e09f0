/** The load of this question; `clone-chain` asks the same of other disks. */
import type { Bench } from '../harness/bench.ts';
import { measure, requestsOf, warmUp } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import type { Side } from '../harness/rounds.ts';

const MiB = 1024 * 1024;

/** What all of it fits into: the cache of each side. */
export const WORKING_SET_BYTES = { full: 128 * MiB, smoke: MiB } as const;

/** Random reads of 4 KiB, 32 at a time, of what has just been read once. */
export function cachedReads(bench: Bench, served: Served, sizeBytes: number): Side {
  const reads = { rw: 'randread', depth: 32, sizeBytes } as const;
  return {
    name: served.name,
    run: async (round) => {
      // Each block once: whoever has a cache has it filled, and code that is compiled while it runs has run.
      await warmUp(bench, served, reads, round);
      return requestsOf(await measure(bench, served, { ...reads, seconds: bench.scale.fioSeconds }, round));
    },
  };
}
