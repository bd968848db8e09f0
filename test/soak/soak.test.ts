import { testSeed } from '@pando/block-device/testing';
import { describe, expect, it } from 'vitest';
import { OWN_BYTES_MAX } from '../crash/accounts.ts';
import { coursesOf, measures, tableOf, type Measure, type Sample } from './samples.ts';
import { soak } from './soak.ts';

const MiB = 2 ** 20;
const STEP_SECONDS = 15;

/** An hour of samples in which one measure goes as told, and the others stay. */
function hour(measure: Measure, value: (share: number, i: number) => number): Sample[] {
  const count = 3600 / STEP_SECONDS;
  const flat = Object.fromEntries(measures.map((name) => [name, 100])) as Record<Measure, number>;
  return Array.from({ length: count }, (_, i) => ({
    ...flat,
    seconds: i * STEP_SECONDS,
    [measure]: value(i / count, i),
  }));
}

function growing(samples: readonly Sample[], warmUpSeconds = 600): readonly Measure[] {
  return coursesOf(samples, warmUpSeconds)
    .filter(({ grows }) => grows === true)
    .map(({ measure }) => measure);
}

describe('the judgement of a long run', () => {
  it('finds what leaks at a steady rate, also under what swings', () => {
    const swing = (i: number): number => 40 * MiB * ((i % 8) / 8);
    expect(growing(hour('residentBytes', (share) => (300 + 100 * share) * MiB))).toEqual(['residentBytes']);
    expect(growing(hour('logBytes', (share, i) => swing(i) + 100 * MiB * share))).toEqual(['logBytes']);
    expect(growing(hour('descriptors', (share) => Math.round(50 + 20 * share)))).toEqual(['descriptors']);
    expect(growing(hour('threads', (share) => 12 + Math.floor(5 * share)))).toEqual(['threads']);
  });

  it('lets caches fill, garbage come and go, and everything stay', () => {
    expect(growing(hour('residentBytes', (share) => (200 + 300 * Math.min(1, 4 * share)) * MiB))).toEqual([]);
    expect(growing(hour('anonymousBytes', (share) => 500 * MiB * (1 - Math.exp(-12 * share))))).toEqual([]);
    expect(growing(hour('segmentBytes', (_, i) => (100 + 10 * (i % 30)) * MiB))).toEqual([]);
    expect(growing(hour('descriptors', (_, i) => 50 + (i % 7)))).toEqual([]);
    // What fell in the last quarter does not grow, whatever it did before.
    expect(growing(hour('indexBytes', (share) => (share < 0.8 ? 100 * share : 5) * MiB))).toEqual([]);
  });

  it('says nothing of a run that is too short', () => {
    const short = hour('residentBytes', (share) => share * 1000 * MiB).slice(0, 20);
    expect(coursesOf(short, 0).map(({ grows }) => grows)).toEqual(measures.map(() => undefined));
    expect(coursesOf(short.slice(0, 3), 0)).toEqual([]);
    expect(tableOf(coursesOf(short, 0))).toContain('too short to say');
  });
});

describe('a long run', () => {
  it('does all that it says, in seconds too', async () => {
    const seed = testSeed();
    console.log(`PANDO_TEST_SEED=${seed}`);
    const { samples, idle, counts } = await soak({ seed, seconds: 3, sampleSeconds: 1 });
    expect(samples.length).toBeGreaterThan(1);
    for (const sample of [...samples, ...idle]) {
      expect(sample.residentBytes).toBeGreaterThan(sample.anonymousBytes);
      expect(sample.anonymousBytes).toBeGreaterThan(MiB);
      expect(sample.descriptors).toBeGreaterThan(10);
      expect(sample.catalogBytes).toBeGreaterThan(0);
    }
    expect(samples.at(-1)!.logBytes).toBeGreaterThan(0);
    expect(idle[1].segmentBytes).toBeLessThanOrEqual(OWN_BYTES_MAX);
    expect(counts.get('write')).toBeGreaterThan(0);
  });
});
