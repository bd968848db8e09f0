/** The engine over the simulated machine, crashed at every storage operation: see README.md. */
import { runSeed } from '@pando/common/testing';
import { afterAll, describe, it } from 'vitest';
import { describeFigures, noFigures } from './figures.ts';
import { mix } from './mix.ts';
import { simulate } from './run.ts';

const SEEDS = 20;
/** What was found, by the seed that found it; they stay for good. */
const NAMED: readonly (readonly [seed: number, found: string])[] = [];

const figures = noFigures();
afterAll(() => console.log(describeFigures(figures)));

describe('the engine on a machine that fails', () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    it(`loses nothing, fixed seed ${seed}`, async () => {
      await simulate(seed, { figures });
    });
  }

  const first = mix(runSeed());
  for (let i = 0; i < SEEDS; i++) {
    const seed = (first + i) >>> 0;
    it(`loses nothing, fresh seed ${seed}`, async () => {
      await simulate(seed, { figures });
    });
  }

  for (const [seed, found] of NAMED) {
    it(`seed ${seed}: ${found}`, async () => {
      await simulate(seed, { figures });
    });
  }
});
