/** Clones that are made one by one, each timed. */
import type { Pando } from '../harness/pando.ts';
import type { Sample, Side } from '../harness/rounds.ts';
import { percentile } from '../harness/statistics.ts';
import type { TimedRequests } from '../harness/timed-requests.ts';

export interface Cloner {
  /** Of the side. */
  readonly name: string;
  /** Makes a clone of this name; resolves to the milliseconds that it took. */
  readonly clone: (name: string) => Promise<number>;
}

/** In each round so many clones of either side, by turns, and by turns first: whatever else the disk does hits both. */
export function byTurns(first: Cloner, second: Cloner, clones: number): readonly [Side, Side] {
  let secondSample: Sample = {};
  return [
    {
      name: first.name,
      run: async (round) => {
        const ofFirst: number[] = [];
        const ofSecond: number[] = [];
        for (let index = 0; index < clones; index++) {
          const name = `clone-${round}-${index}`;
          if (index % 2 === 0) ofFirst.push(await first.clone(`${name}-a`));
          ofSecond.push(await second.clone(`${name}-b`));
          if (index % 2 === 1) ofFirst.push(await first.clone(`${name}-a`));
        }
        secondSample = latencies(ofSecond);
        return latencies(ofFirst);
      },
    },
    // Measured with the other one.
    { name: second.name, run: async () => secondSample },
  ];
}

export function latencies(milliseconds: readonly number[]): Sample {
  return { p50: percentile(milliseconds, 0.5), p99: percentile(milliseconds, 0.99) };
}

/** Clones that nobody counts, because the first ones find code that is not compiled yet; they are deleted again. */
export async function warmUp(
  pando: Pando,
  client: TimedRequests,
  source: string,
  count: number,
): Promise<void> {
  for (let index = 0; index < count; index++) await client.clone(source, `warm-up-${index}`);
  for (let index = 0; index < count; index++) await pando.rest.must('DELETE', `/vms/warm-up-${index}`);
}
