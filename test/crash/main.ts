/**
 * `npm run kill -- [--rounds N] [--seed N]`
 *
 * Kills a real server under load in so many rounds (default 200), all on the same data, and checks everything after each; ends with
 * one line of numbers. When something is wrong it ends with status 1, and the data is left as it is.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { testSeed } from '@pando/block-device/testing';
import { Killing } from './killing.ts';

const PROGRESS_ROUNDS = 10;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '200' },
    seed: { type: 'string' },
  },
});
const rounds = Number(values.rounds);
const seed = values.seed === undefined ? testSeed() : Number(values.seed);
if (!Number.isInteger(rounds) || rounds < 1 || !Number.isInteger(seed)) {
  console.error('--rounds and --seed take numbers');
  process.exit(2);
}
const directory = await mkdtemp(join(tmpdir(), 'pando-kill-'));
console.log(`${rounds} rounds, seed ${seed}, in ${directory}`);

const started = performance.now();
const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(0)} s`;
const killing = await Killing.start({ seed, directory });
let round = 1;
try {
  for (; round <= rounds; round++) {
    await killing.round();
    if (round % PROGRESS_ROUNDS === 0)
      console.log(`${round} rounds in ${seconds()}, ${killing.writes} writes`);
  }
  await killing.end();
  console.log(`seed ${seed}, ${seconds()}: ${killing.summary()}`);
  await killing.close();
  await rm(directory, { recursive: true });
} catch (error) {
  await killing.close();
  await writeFile(join(directory, 'server.log'), killing.log);
  console.error(error);
  console.error(
    `failed in round ${round} of ${rounds}, seed ${seed}; the data and what the server printed are in ${directory}`,
  );
  process.exitCode = 1;
}
