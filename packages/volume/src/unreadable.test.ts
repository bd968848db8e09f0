/** A device that cannot read some sectors of a segment, under the disks and a real chunk store. */
import { expect, it } from 'vitest';
import { MemoryCatalog } from '@pando/catalog';
import { MemoryChunkIndex, MemorySegmentStorage, openChunkStore, type ChunkStore } from '@pando/chunk-store';
import { PandoError } from '@pando/common';
import { CrashFileSystem, fillRandom, seededRandom } from '@pando/common/testing';
import { openVolumes, type Volumes } from './index.ts';
import { CHUNK, none, patched, quick, storeId } from './testing/test-machine.ts';

/** Reads fail while `isBad`, with `code`. */
class BadSectors extends MemorySegmentStorage {
  isBad = false;
  code = 'EIO';

  override async read(segment: number, target: Uint8Array, position: number): Promise<number> {
    if (this.isBad) {
      const cause = Object.assign(new Error(`${this.code}: read`), { code: this.code });
      throw new PandoError('store-failed', `reading segment ${segment}: ${this.code}`, { cause });
    }
    return super.read(segment, target, position);
  }

  override readSync(segment: number, target: Uint8Array, position: number): number {
    if (this.isBad) throw Object.assign(new Error(this.code), { code: this.code });
    return super.readSync(segment, target, position);
  }
}

async function start(
  storage: BadSectors,
  index: MemoryChunkIndex,
  fs: CrashFileSystem,
  catalog: MemoryCatalog,
): Promise<[ChunkStore, Volumes]> {
  const { isBad } = storage;
  // Recovery of the store itself is another matter.
  storage.isBad = false;
  const store = await openChunkStore({ storage, index, storeId, chunkBytes: CHUNK });
  storage.isBad = isBad;
  const options = { store, catalog, fs, logDirectory: 'log', storeId, clock: quick };
  return [store, await openVolumes({ ...options, destageAfterMs: 0, logBytesMax: 100 * CHUNK })];
}

async function read(volumes: Volumes, disk: number, length: number): Promise<Buffer> {
  const handle = await volumes.open(disk);
  const bytes = Buffer.alloc(length);
  await (async () => handle.read(0, length, bytes, 0))().finally(() => handle.close());
  return bytes;
}

it.each(['EIO', 'EBADMSG'])(
  'keeps no store from opening, nor from taking writes, and is forgotten when it ends (%s)',
  async (code) => {
    const storage = new BadSectors();
    const index = new MemoryChunkIndex();
    const catalog = new MemoryCatalog();
    let fs = new CrashFileSystem();
    let [, volumes] = await start(storage, index, fs, catalog);
    const bytes = fillRandom(seededRandom(3), new Uint8Array(4 * CHUNK));
    const disk = await volumes.create({ size: 4 * CHUNK }, none);
    const other = await volumes.create({ size: 4 * CHUNK }, none);
    const handle = await volumes.open(disk);
    await handle.write(0, bytes);
    await volumes.settle(disk);
    await handle.write(CHUNK + 10, Buffer.alloc(20, 9));
    await handle.flush();
    storage.isBad = true;
    storage.code = code;
    for (let boot = 0; boot < 2; boot++) {
      fs = fs.crash(() => 0.99);
      [, volumes] = await start(storage, index, fs, catalog);
      expect(volumes.stats.damaged).toEqual([disk]);
      await expect(read(volumes, disk, CHUNK)).rejects.toMatchObject({ code: 'chunk-corrupt' });
      await expect(volumes.settle(disk)).rejects.toMatchObject({ code: 'chunk-corrupt' });
      // It is no reason to stop.
      expect(volumes.stats.failure).toBe(undefined);
      const another = await volumes.open(other);
      await another.write(0, bytes);
      await another.flush();
      await another.close();
    }
    storage.isBad = false;
    expect(await read(volumes, disk, 4 * CHUNK)).toEqual(patched(bytes, [CHUNK + 10, 20, 9]));
    await volumes.settleAll();
    expect(volumes.stats).toMatchObject({ overlays: 0, damaged: [], failure: undefined });
    await volumes.close();
  },
);

it('stops the store from opening when what fails is not the device', async () => {
  const storage = new BadSectors();
  const index = new MemoryChunkIndex();
  const catalog = new MemoryCatalog();
  const fs = new CrashFileSystem();
  const [, volumes] = await start(storage, index, fs, catalog);
  const disk = await volumes.create({ size: CHUNK }, none);
  const handle = await volumes.open(disk);
  await handle.write(0, Buffer.alloc(CHUNK, 1));
  await volumes.settle(disk);
  await handle.write(10, Buffer.alloc(20, 9));
  await handle.flush();
  storage.isBad = true;
  storage.code = 'EMFILE';
  const next = fs.crash(() => 0.99);
  await expect(start(storage, index, next, catalog)).rejects.toMatchObject({ code: 'store-failed' });
  // Nor is a log that cannot be read one to go on without.
  storage.isBad = false;
  const open = next.open.bind(next);
  next.open = async (path, mode) => {
    const file = await open(path, mode);
    file.read = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
    return file;
  };
  await expect(start(storage, index, next, catalog)).rejects.toMatchObject({
    code: 'log-corrupt',
    message: expect.stringContaining('the device cannot read it') as string,
  });
});
