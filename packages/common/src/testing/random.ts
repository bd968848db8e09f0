/** A small seeded generator for tests and simulations: the same seed gives the same run. */
import { randomInt } from 'node:crypto';

/** sfc32, seeded from one number: a function that returns numbers in [0, 1). */
export function seededRandom(seed: number): () => number {
  let a = 0x9e3779b9;
  let b = 0x243f6a88;
  let c = seed | 0;
  let counter = 1;
  const next = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}

/** A whole number from `low` to `high`, both included. */
export function between(random: () => number, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

/** Fills `target` with bytes of the generator. */
export function fillRandom(random: () => number, target: Uint8Array): Uint8Array {
  for (let i = 0; i < target.byteLength; i++) target[i] = Math.floor(random() * 256);
  return target;
}

/** The seed of this run: from the environment (PANDO_SEED, to replay) or fresh; tests print it when they fail. */
export function runSeed(): number {
  const given = process.env['PANDO_SEED'];
  return given === undefined ? randomInt(2 ** 31) : Number(given);
}
