import { testSeed } from '@pando/block-device/testing';
import { describe, expect, it } from 'vitest';
import { OWN_BYTES_MAX } from '../crash/accounts.ts';
import { mappings } from './memory.ts';
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
    expect(growing(hour('logBytes', (share, i) => swing(i) + 600 * MiB * share))).toEqual(['logBytes']);
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

describe('the memory of a server', () => {
  it('is told apart by what its mappings are for', () => {
    const mapping = (line: string, anonymous: number): string =>
      `${line}\nSize:               1024 kB\nRss:                 900 kB\nAnonymous:      ${anonymous} kB\nVmFlags: rd wr\n`;
    const smaps = [
      mapping('00400000-05c0f000 r-xp 00000000 fe:00 1234                       /usr/bin/node', 4),
      mapping('0b9e8000-1a2b3000 rw-p 00000000 00:00 0                          [heap]', 100),
      mapping('3a7f00100000-3a7f00140000 rw-p 00000000 00:00 0 ', 256),
      mapping('3a7f00140000-3a7f00180000 rw-p 00000000 00:00 0 ', 128),
      mapping('7f3c00000000-7f3c02c00000 rw-p 00000000 00:00 0 ', 40),
      mapping('7f3c10001000-7f3c18001000 rw-p 00000000 00:00 0 ', 30),
      mapping('7f3d00000000-7f3d00001000 r-xp 00000000 00:00 0 ', 4),
    ].join('');
    expect(Object.fromEntries(mappings(smaps))).toEqual({
      'files and stacks': 4 * 1024,
      'malloc, main arena': 100 * 1024,
      'V8 pages': 384 * 1024,
      'malloc, other arenas': 40 * 1024,
      'other mappings': 30 * 1024,
      'compiled code': 4 * 1024,
    });
  });
});

describe('a long run', () => {
  it('does all that it says, in seconds too', async () => {
    const seed = testSeed();
    console.log(`PANDO_TEST_SEED=${seed}`);
    const memory: string[] = [];
    const onMemory = (lines: readonly string[]): void => void memory.push(...lines);
    const { samples, idle, idleDescriptors, counts } = await soak({
      ...{ seed, seconds: 3, sampleSeconds: 1, onMemory },
    });
    expect(samples.length).toBeGreaterThan(1);
    for (const sample of [...samples, ...idle]) {
      expect(sample.residentBytes).toBeGreaterThan(sample.anonymousBytes);
      expect(sample.anonymousBytes).toBeGreaterThan(MiB);
      expect(sample.descriptors).toBeGreaterThan(10);
      expect(sample.catalogBytes).toBeGreaterThan(0);
    }
    for (const [i, kinds] of idleDescriptors.entries()) {
      expect([...kinds.values()].reduce((sum, count) => sum + count)).toBeGreaterThan(
        idle[i]!.descriptors - 5,
      );
      expect(kinds.get('segments')).toBeGreaterThan(0);
    }
    expect(memory.some((line) => line.startsWith('thread 0: heapUsed '))).toBe(true);
    expect(memory.some((line) => line.includes('malloc, main arena'))).toBe(true);
    expect(samples.at(-1)!.logBytes).toBeGreaterThan(0);
    expect(idle[1].segmentBytes).toBeLessThanOrEqual(OWN_BYTES_MAX);
    expect(counts.get('write')).toBeGreaterThan(0);
  });
});
