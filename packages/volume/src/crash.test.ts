/** The crash model over a chunk store that is only a Map: fast, and exact about pins and collections. */
import { expect, it } from 'vitest';
import { runSeed } from '@pando/common/testing';
import { runCrashModel } from './testing/crash-model.ts';
import { testWorld } from './testing/test-world.ts';

it('keeps what was flushed, forked, replaced and resized over power cuts at any moment', async () => {
  const seed = runSeed();
  await runCrashModel(seed, 25, testWorld);
}, 60_000);

for (const seed of [1, 2, 3, 4, 5]) {
  it(`does so for the fixed seed ${seed}`, () => runCrashModel(seed, 12, testWorld), 60_000);
}

it('does so on a disk that is full now and then', async () => {
  const seed = runSeed();
  await runCrashModel(seed, 25, testWorld, { fillsUp: true });
}, 60_000);

// 1001: a destage named overlays of its disks in their records before the log had opened them for good.
for (const seed of [6, 7, 8, 1001]) {
  it(
    `does so on a disk that is full now and then, for the fixed seed ${seed}`,
    () => runCrashModel(seed, 12, testWorld, { fillsUp: true }),
    60_000,
  );
}

it('opens on damage below writes that are in the log, and holds every one of them once it has healed', async () => {
  const seed = runSeed();
  const { unreadable } = await runCrashModel(seed, 25, testWorld, { damages: true });
  expect(unreadable).toBeGreaterThan(0);
}, 60_000);

it('does so for fixed seeds, and while the log is relieved again and again', async () => {
  let rewrites = 0;
  for (const seed of [21, 22, 23, 24, 25]) {
    const { unreadable, logRewrites } = await runCrashModel(seed, 12, testWorld, { damages: true });
    expect(unreadable).toBeGreaterThan(0);
    rewrites += logRewrites;
  }
  // In 60 boots; a quiet machine does so some 40 times.
  expect(rewrites).toBeGreaterThan(5);
}, 60_000);
