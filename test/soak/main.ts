/**
 * `npm run soak -- [--minutes N] [--seed N] [--memory]`
 *
 * A real server under a mixed load for so long (default 60 minutes), a sample of what it takes every 15 seconds, and a table in the end;
 * status 1 when something was wrong with the data, or grew all the time (samples.ts says what that means). `--memory` prints with each
 * sample where the memory is: a probe in each thread of the server, and the mappings of the process.
 */
import { parseArgs } from 'node:util';
import { testSeed } from '@pando/block-device/testing';
import { coursesOf, measures, tableOf, type Sample } from './samples.ts';
import { soak } from './soak.ts';

const SAMPLE_SECONDS = 15;
/** Caches fill, and collections and verifications have been there once: a fifth of the time, at most ten minutes. */
const WARM_UP_SHARE = 0.2;
const WARM_UP_SECONDS_MAX = 600;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string' },
    memory: { type: 'boolean' },
  },
});
const seconds = Number(values.minutes) * 60;
const seed = values.seed === undefined ? testSeed() : Number(values.seed);
if (!(seconds > 0) || !Number.isInteger(seed)) {
  console.error('--minutes and --seed take numbers');
  process.exit(2);
}

function print(sample: Sample): void {
  const cells = measures.map((measure) =>
    measure.endsWith('Bytes')
      ? `${measure.slice(0, -'Bytes'.length)} ${(sample[measure] / 2 ** 20).toFixed(1)}`
      : `${measure} ${sample[measure]}`,
  );
  console.log(`${sample.seconds.toFixed(0)} s: ${cells.join(', ')}`);
}

function printMemory(lines: readonly string[]): void {
  for (const line of lines) console.log(`  ${line}`);
}

console.log(`${values.minutes} minutes, seed ${seed}; bytes in MiB`);
try {
  const { samples, idle, idleDescriptors, counts } = await soak({
    seed,
    seconds,
    sampleSeconds: SAMPLE_SECONDS,
    onSample: print,
    ...(values.memory === true ? { onMemory: printMemory } : {}),
  });
  const courses = coursesOf(samples, Math.min(WARM_UP_SECONDS_MAX, seconds * WARM_UP_SHARE));
  console.log('\nidle, before and after:');
  for (const [i, one] of idle.entries()) {
    print(one);
    console.log(
      `  descriptors: ${[...idleDescriptors[i]!].map(([kind, count]) => `${kind} ${count}`).join(', ')}`,
    );
  }
  console.log(`\n${[...counts].map(([what, count]) => `${count} × ${what}`).join(', ')}`);
  console.log(`\n${tableOf(courses)}`);
  const growing = courses.filter(({ grows }) => grows === true).map(({ measure }) => measure);
  if (growing.length > 0) {
    console.error(`\ngrowing all the time: ${growing.join(', ')} (seed ${seed})`);
    process.exitCode = 1;
  } else if (courses.every(({ grows }) => grows === false)) console.log('\nnothing grows');
  else console.log('\ntoo short to say whether anything grows');
} catch (error) {
  console.error(error);
  console.error(`failed with seed ${seed}`);
  process.exitCode = 1;
}
