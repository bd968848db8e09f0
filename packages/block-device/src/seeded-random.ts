/**
 * A small seeded generator (mulberry32) for model tests: the same seed replays the same run. Not for
 * anything that has to be unpredictable.
 */
import { randomInt } from 'node:crypto';

export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** The next 32 bits. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** An integer from 0 to `bound` − 1. */
  below(bound: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * bound);
  }

  /** `length` pseudo-random bytes. */
  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.next() & 0xff;
    return bytes;
  }
}

/** The seed of a run: `PANDO_TEST_SEED` to replay one, else a fresh one. */
export function testSeed(): number {
  const given = process.env['PANDO_TEST_SEED'];
  return given === undefined ? randomInt(0x1_0000_0000) : Number(given) >>> 0;
}
