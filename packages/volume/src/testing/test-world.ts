/** A machine whose chunk store is only a Map: fast, and exact about pins and collections. */
import { MemoryCatalog } from '@pando/catalog';
import { CrashFileSystem } from '@pando/common/testing';
import type { World } from './crash-model.ts';
import { mortalCatalog } from './mortal-catalog.ts';
import { TestStore } from './test-store.ts';

export function testWorld(random: () => number): World {
  const records = new MemoryCatalog();
  const boot = (fs: CrashFileSystem, store: TestStore): World => {
    const { catalog, kill } = mortalCatalog(records);
    return {
      fs,
      catalog,
      openStore: () => Promise.resolve(store.asChunkStore()),
      collect: () => store.collect(catalog),
      damage: (share) => {
        // That of a node is not noticed: this is about what writes are put on top of.
        for (const id of store.memory.chunks.keys()) if (random() < share) store.damaged.add(id);
      },
      repair: () => store.damaged.clear(),
      crash: () => {
        kill();
        return boot(fs.crash(random), store.crash());
      },
    };
  };
  return boot(new CrashFileSystem(), new TestStore(4096, () => random() < 0.5));
}
