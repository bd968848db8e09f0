import { expect, it } from 'vitest';
import { Promptness } from './promptness.ts';

it('after an operation that was slow, none is done at once for a hundred times as long', () => {
  const promptness = new Promptness();
  expect(promptness.mayBlock(0)).toBe(true);
  promptness.done(10, 11);
  expect(promptness.mayBlock(11)).toBe(true);
  promptness.done(20, 25);
  expect(promptness.mayBlock(25)).toBe(false);
  expect(promptness.mayBlock(524.9)).toBe(false);
  expect(promptness.mayBlock(525)).toBe(true);
  promptness.done(525, 525.1);
  expect(promptness.mayBlock(526)).toBe(true);
});
