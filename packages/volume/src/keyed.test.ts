/** Disks over a store whose ids are keyed: what is compared by ids is compared by its ids. */
import { MemoryCatalog } from '@pando/catalog';
import { createMemoryChunkStore } from '@pando/chunk-store';
import { MemoryFileSystem } from '@pando/common';
import { expect, it } from 'vitest';
import { openVolumes } from './index.ts';

const CHUNK = 4096;
const none = (): [] => [];

it('what was written as it stood in the tree has not changed, what was written otherwise has', async () => {
  const store = await createMemoryChunkStore(CHUNK, {}, new Uint8Array(32).fill(5));
  const volumes = await openVolumes({
    ...{ store, catalog: new MemoryCatalog(), fs: new MemoryFileSystem(), logDirectory: 'log' },
    ...{ storeId: new Uint8Array(16).fill(3), destageAfterMs: 1e9 },
  });
  const disk = await volumes.create({ size: 8 * CHUNK }, none);
  const handle = await volumes.open(disk);
  for (const chunk of [1, 2, 3]) await handle.write(chunk * CHUNK, Buffer.alloc(CHUNK, chunk));
  await volumes.settleAll();
  const request = { sources: [disk], copies: 1, readOnly: true, records: none };
  const [[copy]] = (await volumes.fork(request)) as [[number]];
  await handle.write(1 * CHUNK, Buffer.alloc(CHUNK, 1));
  await handle.write(2 * CHUNK, Buffer.alloc(CHUNK, 9));
  const other = await volumes.open(copy);
  for (const [a, b] of [
    [handle, other],
    [other, handle],
  ] as const) {
    const { lengths, flags } = await a.differences(b, 0, 8 * CHUNK, 100);
    expect([lengths, flags]).toEqual([
      [2 * CHUNK, CHUNK, 5 * CHUNK],
      [0, 1, 0],
    ]);
  }
  const bytes = Buffer.alloc(CHUNK);
  await other.read(2 * CHUNK, CHUNK, bytes, 0);
  expect(bytes.equals(Buffer.alloc(CHUNK, 2))).toBe(true);
  await handle.close();
  await other.close();
  await volumes.close();
  await store.close();
});
