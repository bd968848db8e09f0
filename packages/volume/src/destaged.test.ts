/** What is told of destages. */
import { MemoryCatalog } from '@pando/catalog';
import { createMemoryChunkStore, type ChunkStore, type DataCounts } from '@pando/chunk-store';
import { MemoryFileSystem } from '@pando/common';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openVolumes, type DiskNumber, type Volumes } from './index.ts';

const CHUNK = 4096;
const none = (): [] => [];

let store: ChunkStore;
let volumes: Volumes;
let told: [DiskNumber, DataCounts][];
let fails: boolean;

beforeEach(async () => {
  told = [];
  fails = false;
  store = await createMemoryChunkStore(CHUNK);
  volumes = await openVolumes({
    ...{ store, catalog: new MemoryCatalog(), fs: new MemoryFileSystem(), logDirectory: 'log' },
    ...{ storeId: new Uint8Array(16).fill(3), destageAfterMs: 1e9 },
    onDestaged: (...destaged) => {
      told.push(destaged);
      if (fails) throw new Error('as the test wanted');
    },
  });
});

afterEach(async () => {
  await volumes.close();
  await store.close();
});

async function write(disk: DiskNumber, offset: number, data: Uint8Array): Promise<void> {
  const volume = await volumes.open(disk);
  await volume.write(offset, data);
  await volume.close();
}

const noise = (seed: number, chunks: number): Uint8Array =>
  fillRandom(seededRandom(seed), new Uint8Array(chunks * CHUNK));

it('counts data by what became of it, and nodes not at all', async () => {
  const disk = await volumes.create({ size: 1000 * CHUNK }, none);
  await write(disk, 0, noise(1, 5));
  await volumes.settleAll();
  const text = Buffer.alloc(3 * CHUNK, 'one two three ');
  for (let chunk = 0; chunk < 3; chunk++) text.writeUInt32LE(chunk + 1, chunk * CHUNK);
  // Far apart, so that each has nodes of its own.
  for (let chunk = 0; chunk < 3; chunk++) {
    await write(disk, (200 + 300 * chunk) * CHUNK, text.subarray(chunk * CHUNK, (chunk + 1) * CHUNK));
  }
  await write(disk, 10 * CHUNK, noise(1, 2));
  await volumes.settleAll();
  expect(told).toHaveLength(2);
  const [[first, some], [second, more]] = told as [[number, DataCounts], [number, DataCounts]];
  expect([first, second]).toEqual([disk, disk]);
  expect(some).toMatchObject({ chunks: 5, knownChunks: 0, newBytes: 5 * CHUNK, rawBytes: 5 * CHUNK });
  expect(more).toMatchObject({ chunks: 5, zeroChunks: 0, knownChunks: 2, newBytes: 3 * CHUNK, rawBytes: 0 });
  expect(more.storedBytes).toBeLessThan(CHUNK);
});

it('names the disk that was written to, also when forks share it by then; none when only backups have it', async () => {
  const disk = await volumes.create({ size: 16 * CHUNK }, none);
  await write(disk, 0, noise(2, 1));
  await volumes.fork({ sources: [disk], copies: 2, readOnly: false, records: none });
  await volumes.fork({ sources: [disk], copies: 1, readOnly: true, records: none });
  await volumes.settleAll();
  expect(told.map(([number]) => number)).toEqual([disk]);
  await write(disk, 0, noise(3, 1));
  await volumes.fork({ sources: [disk], copies: 1, readOnly: true, records: none });
  await volumes.remove([disk], none);
  await volumes.settleAll();
  expect(told).toHaveLength(1);
});

it('a listener that fails keeps nothing in the log', async () => {
  fails = true;
  const disk = await volumes.create({ size: 16 * CHUNK }, none);
  await write(disk, 0, noise(4, 2));
  await volumes.settleAll();
  expect(told).toHaveLength(1);
  expect(volumes.stats).toMatchObject({ overlays: 0, logBytes: 0, damaged: [] });
});
