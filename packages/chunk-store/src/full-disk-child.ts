/** For full-disk.test.ts: a store in a process whose file sizes can be limited, driven by lines of JSON. */
import { createInterface } from 'node:readline';
import { isPandoError, nodeFileSystem } from '@pando/common';
import { openChunkStore } from './chunk-store.ts';
import { DirectorySegmentStorage } from './directory-segment-storage.ts';
import { LevelChunkIndex } from './level-chunk-index.ts';
import { chunksOf, expectChunks, range, STORE_ID } from './test-world.ts';

const root = process.argv[2]!;
const store = await openChunkStore({
  storage: new DirectorySegmentStorage(nodeFileSystem, `${root}/segments`),
  index: await LevelChunkIndex.open(`${root}/index`),
  storeId: STORE_ID,
  chunkBytes: 4096,
  limits: { workers: 0 },
});

/** Writes and flushes chunks by number, or reads back chunks that were written. */
async function run(command: { put?: [number, number]; get?: [number, number] }): Promise<string> {
  const [first, count] = (command.put ?? command.get)!;
  const session = store.openSession();
  try {
    if (command.put !== undefined) {
      const ids = await session.writeChunks(chunksOf(range(first, count)), count);
      await session.flush();
      known.set(first, ids);
    } else await expectChunks(store, known.get(first)!, range(first, count));
    return 'done';
  } finally {
    session.release();
  }
}

const known = new Map<number, Uint8Array>();
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line) as Parameters<typeof run>[0]).catch((error: unknown) =>
    isPandoError(error) ? error.code : String(error),
  );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await store.close();
