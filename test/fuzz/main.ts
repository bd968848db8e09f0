/**
 * `npm run fuzz -- [--messages N] [--seed N] [--server] [--connection N]`
 *
 * Sends so many messages (default 1,000,000) to a server in this process, or with `--server` to a real one; ends with
 * status 1 when something went wrong, after printing the seed and the smallest connection that still shows it.
 * `--connection` plays one connection of a seed alone.
 */
import { testSeed } from '@pando/block-device/testing';
import { parseArgs } from 'node:util';
import { FuzzFailure, describePlan, fuzz, planOf, playPlan, shrink } from './fuzzer.ts';
import type { FuzzSummary } from './fuzzer.ts';
import { memoryTarget, processTarget } from './targets.ts';
import type { Target } from './targets.ts';

const { values } = parseArgs({
  options: {
    messages: { type: 'string', default: '1000000' },
    seed: { type: 'string' },
    server: { type: 'boolean', default: false },
    connection: { type: 'string' },
  },
});
const seed = values.seed === undefined ? testSeed() : Number(values.seed) >>> 0;
const messages = Number(values.messages);
if (!Number.isInteger(messages) || messages < 1) {
  console.error('--messages takes a number');
  process.exit(2);
}
const start = (runSeed: number): Promise<Target> => (values.server ? processTarget() : memoryTarget(runSeed));
const MiB = 2 ** 20;

function print(summary: FuzzSummary): void {
  const { first, last } = summary;
  console.log(`${summary.messages} messages on ${summary.connections} connections in ${summary.seconds.toFixed(0)} s
  (${(summary.messages / summary.seconds).toFixed(0)} messages/s)
options answered       ${summary.optionsAnswered}
requests understood    ${summary.requestsSeen}, answered ${summary.requestsAnswered}, with success ${summary.requestsSucceeded}
connections cut off    ${summary.cutOff}, as the protocol asks
bytes compared         ${(summary.comparedBytes / MiB).toFixed(0)} MiB
calm client            ${summary.calmOperations} rounds, all well
kinds                  ${Object.entries(summary.kinds)
    .map(([kind, count]) => `${kind} ${count}`)
    .join(', ')}
heap at 20 % and end   ${((first?.heapBytes ?? 0) / MiB).toFixed(1)} and ${((last?.heapBytes ?? 0) / MiB).toFixed(1)} MiB
memory, the same       ${((first?.rssBytes ?? 0) / MiB).toFixed(0)} and ${((last?.rssBytes ?? 0) / MiB).toFixed(0)} MiB
descriptors, the same  ${first?.descriptors} and ${last?.descriptors}`);
}

async function explain(failure: FuzzFailure): Promise<void> {
  console.error(failure.cause instanceof Error ? failure.cause.stack : failure.cause);
  console.error('leaving out what does not matter …');
  const smaller = await shrink(() => start(seed), failure);
  if (smaller === undefined) {
    console.error('alone on a fresh server it goes well: it takes the others, or luck. All of it was:');
    console.error(describePlan(failure.plan));
  } else {
    console.error(`${smaller.message}\n${describePlan(smaller.plan)}`);
  }
  console.error(
    `replay: npm run fuzz -- --seed ${seed} --connection ${failure.index}${values.server ? ' --server' : ''}`,
  );
}

console.log(`seed ${seed}`);
if (globalThis.gc === undefined) console.log('without --expose-gc the heap is not a measure of much');
try {
  if (values.connection === undefined) {
    // A real server fills its caches and overlays first: what it may take is bounded by its configuration.
    const slack = values.server ? { rssSlackBytes: 400 * MiB } : {};
    print(await fuzz({ seed, messages, start, report: (line) => console.log(line), ...slack }));
  } else {
    const target = await start(seed);
    const index = Number(values.connection);
    const plan = planOf(target, seed, index);
    console.log(describePlan(plan));
    try {
      await playPlan(target, plan, index);
      console.log('it goes well');
    } finally {
      await target.close();
    }
  }
} catch (error) {
  console.error(`failed with seed ${seed}: ${error instanceof Error ? error.message : String(error)}`);
  if (error instanceof FuzzFailure) await explain(error);
  else console.error(error);
  process.exitCode = 1;
}
