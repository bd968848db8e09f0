import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isPandoError, MemoryFileSystem, nodeFileSystem } from '@pando/common';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { chunkIndexSuite, segmentStorageSuite } from './conformance.ts';
import { DirectorySegmentStorage } from './directory-segment-storage.ts';
import { LevelChunkIndex } from './level-chunk-index.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { MemorySegmentStorage } from './memory-segment-storage.ts';

const root = mkdtempSync(join(tmpdir(), 'pando-chunk-store-'));
let folders = 0;
const folder = (): string => join(root, String(folders++));

afterAll(() => rmSync(root, { recursive: true, force: true }));

segmentStorageSuite('in memory', () => {
  const storage = new MemorySegmentStorage();
  return Promise.resolve({ storage, reopen: () => Promise.resolve(storage) });
});

segmentStorageSuite('a directory of the file system', () => {
  const directory = join(folder(), 'segments');
  const open = (): DirectorySegmentStorage => new DirectorySegmentStorage(nodeFileSystem, directory, 4);
  return Promise.resolve({ storage: open(), reopen: () => Promise.resolve(open()) });
});

segmentStorageSuite('a directory in memory', () => {
  const fs = new MemoryFileSystem();
  const open = (): DirectorySegmentStorage => new DirectorySegmentStorage(fs, 'segments', 1);
  return Promise.resolve({ storage: open(), reopen: () => Promise.resolve(open()) });
});

chunkIndexSuite('in memory', () => {
  const index = new MemoryChunkIndex();
  return Promise.resolve({ index, reopen: () => Promise.resolve(index) });
});

chunkIndexSuite('LevelDB', async () => {
  const directory = folder();
  const open = (): Promise<LevelChunkIndex> => LevelChunkIndex.open(directory);
  return { index: await open(), reopen: open };
});

describe('a directory of segments', () => {
  it('leaves files alone that are no segments', async () => {
    const fs = new MemoryFileSystem();
    for (const name of [
      'lost+found',
      '1.seg',
      '0000000000001.seg',
      '000000000001.seg.tmp',
      '000000000007.seg',
    ]) {
      await (await fs.open(`d/${name}`, 'create')).close();
    }
    const storage = new DirectorySegmentStorage(fs, 'd');
    expect(await storage.list()).toEqual([{ segment: 7, size: 0 }]);
    await storage.close();
  });

  it('keeps no more files open than it may', async () => {
    let open = 0;
    const fs = new MemoryFileSystem();
    const counting = Object.assign(Object.create(fs) as MemoryFileSystem, {
      open: async (...args: Parameters<MemoryFileSystem['open']>) => {
        const file = await fs.open(...args);
        open++;
        const close = file.close.bind(file);
        file.close = () => {
          open--;
          return close();
        };
        return file;
      },
    });
    for (const method of ['makeDirectory', 'list', 'remove', 'syncDirectory'] as const) {
      Object.assign(counting, { [method]: (fs[method] as (path: string) => unknown).bind(fs) });
    }
    const storage = new DirectorySegmentStorage(counting, 'd', 3);
    for (let segment = 1; segment <= 20; segment++) await (await storage.create(segment)).close();
    for (let i = 0; i < 60; i++) await storage.read((i % 20) + 1, new Uint8Array(1), 0);
    expect(open).toBeLessThanOrEqual(3);
    await storage.close();
    expect(open).toBe(0);
  });
});

describe('the index in LevelDB', () => {
  it('is durable as to which of its files count when it opens: what is built on it must not go back to those before', async () => {
    const directory = folder();
    await (await LevelChunkIndex.open(directory)).close();
    const current = (): string => readFileSync(join(directory, 'CURRENT'), 'utf8');
    const before = current();
    const synced: string[] = [];
    const { syncDirectory } = nodeFileSystem;
    const spy = vi.spyOn(nodeFileSystem, 'syncDirectory').mockImplementation((path) => {
      if (path === directory) synced.push(current());
      return syncDirectory(path);
    });
    const index = await LevelChunkIndex.open(directory).finally(() => spy.mockRestore());
    expect(current()).not.toBe(before);
    expect(synced.at(-1)).toBe(current());
    await index.close();
  });

  it('says that another process, or this one, has it open', async () => {
    const directory = folder();
    const index = await LevelChunkIndex.open(directory);
    await expect(LevelChunkIndex.open(directory)).rejects.toSatisfy((error) =>
      isPandoError(error, 'store-locked'),
    );
    await index.close();
    await (await LevelChunkIndex.open(directory)).close();
  });

  it('refuses marks whose names would be as long as ids', async () => {
    const index = await LevelChunkIndex.open(folder());
    await expect(index.setMark('x'.repeat(31), new Uint8Array(1))).rejects.toThrow(/name/);
    await index.close();
  });
});
