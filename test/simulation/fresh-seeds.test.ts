/** The same as fixed-seeds.test.ts, with seeds that nobody has tried before; each is in the name of its test. */
import { runSeed } from '@pando/common/testing';
import { afterAll, describe, it } from 'vitest';
import { describeFigures, noFigures } from './figures.ts';
import { mix } from './mix.ts';
import { simulate } from './run.ts';

const SEEDS = 8;
const figures = noFigures();
afterAll(() => console.log(describeFigures(figures)));

describe('the engine on a machine that fails', () => {
  const first = mix(runSeed());
  for (let i = 0; i < SEEDS; i++) {
    const seed = (first + i) >>> 0;
    it(`loses nothing, fresh seed ${seed}`, async () => {
      await simulate(seed, { figures });
    });
  }
});
