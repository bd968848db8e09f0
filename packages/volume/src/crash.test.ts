/** The crash model over a chunk store that is only a Map: fast, and exact about pins and collections. */
import { it } from 'vitest';
import { MemoryCatalog } from '@pando/catalog';
import { CrashFileSystem, runSeed } from '@pando/common/testing';
import { runCrashModel, type World } from './testing/crash-model.ts';
import { mortalCatalog } from './testing/mortal-catalog.ts';
import { TestStore } from './testing/test-store.ts';

function testWorld(random: () => number): World {
  const records = new MemoryCatalog();
  const boot = (fs: CrashFileSystem, store: TestStore): World => {
    const { catalog, kill } = mortalCatalog(records);
    return {
      fs,
      catalog,
      openStore: () => Promise.resolve(store.asChunkStore()),
      collect: () => store.collect(catalog),
      crash: () => {
        kill();
        return boot(fs.crash(random), store.crash());
      },
    };
  };
  return boot(new CrashFileSystem(), new TestStore(4096, () => random() < 0.5));
}

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
