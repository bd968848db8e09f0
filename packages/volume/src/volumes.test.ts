import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { testBlockDevice } from '@pando/block-device/conformance';
import { MemoryCatalog } from '@pando/catalog';
import { CrashFileSystem, fillRandom, seededRandom } from '@pando/common/testing';
import { emptyRoot } from '@pando/tree';
import { openVolumes, type DiskNumber, type OpenVolume, type Volumes } from './index.ts';
import { scarce } from './testing/test-machine.ts';
import { TestStore } from './testing/test-store.ts';

const CHUNK = 4096;
const storeId = new Uint8Array(16).fill(3);
const none = (): [] => [];

let catalog: MemoryCatalog;
let fs: CrashFileSystem;
let store: TestStore;
let volumes: Volumes;

async function open(options: { destageAfterMs?: number; overlayBytesMax?: number } = {}): Promise<Volumes> {
  return openVolumes({
    store: store.asChunkStore(),
    catalog,
    fs,
    logDirectory: 'log',
    storeId,
    destageAfterMs: 1e9,
    space: scarce,
    ...options,
  });
}

async function contentOf(disk: DiskNumber): Promise<Buffer> {
  const volume = await volumes.open(disk);
  const bytes = Buffer.alloc(volume.size, 0xee);
  await volume.read(0, volume.size, bytes, 0);
  await volume.close();
  return bytes;
}

async function write(disk: DiskNumber, offset: number, data: Uint8Array): Promise<void> {
  const volume = await volumes.open(disk);
  await volume.write(offset, data);
  await volume.close();
}

beforeEach(async () => {
  catalog = new MemoryCatalog();
  fs = new CrashFileSystem();
  store = new TestStore(CHUNK);
  volumes = await open();
});

afterEach(async () => {
  await volumes.close().catch(() => undefined);
});

const handles: OpenVolume[] = [];
testBlockDevice(
  'volume',
  {
    create: async (size) => {
      const disk = await volumes.create({ size }, none);
      const handle = await volumes.open(disk);
      handles.push(handle);
      return handle;
    },
    openAnother: async (device) => {
      const handle = await volumes.open((device as OpenVolume).disk);
      handles.push(handle);
      return handle;
    },
    createReadOnly: async (size) => {
      const source = await volumes.create({ size }, none);
      const [[copy]] = (await volumes.fork({
        sources: [source],
        copies: 1,
        readOnly: true,
        records: none,
      })) as [[number]];
      const handle = await volumes.open(copy);
      handles.push(handle);
      return handle;
    },
    cleanUp: async () => {
      for (const handle of handles.splice(0)) await handle.close();
    },
  },
  { reportsHoles: true, sizeMultiple: 512 },
);

describe('a volume whose overlays are destaged while it is used', () => {
  beforeEach(async () => {
    await volumes.close();
    volumes = await open({ destageAfterMs: 0, overlayBytesMax: 40 * CHUNK });
  });
  testBlockDevice(
    'volume with destage under way and little memory',
    {
      create: async (size) => {
        const handle = await volumes.open(await volumes.create({ size }, none));
        handles.push(handle);
        return handle;
      },
      cleanUp: async () => {
        for (const handle of handles.splice(0)) await handle.close();
      },
    },
    { reportsHoles: true, sizeMultiple: 512 },
  );
});

describe('volumes', () => {
  it('writes what overlays hold into the tree, once, and ends up with an empty log', async () => {
    const disk = await volumes.create({ size: 64 * CHUNK }, none);
    const data = fillRandom(seededRandom(5), new Uint8Array(3 * CHUNK));
    await write(disk, 5 * CHUNK + 100, data);
    const before = await contentOf(disk);
    const root = await volumes.settle(disk);
    expect(root.size).toBe(64 * CHUNK);
    expect(await contentOf(disk)).toEqual(before);
    expect(volumes.stats).toMatchObject({ overlays: 0, overlayBytes: 0 });
    await volumes.settleAll();
    expect(await fs.list('log')).toEqual([]);
    await write(disk, 5 * CHUNK + 100, data);
    expect((await volumes.settle(disk)).id).toEqual(root.id);
  });

  it('gives forks the instant they were made at, whatever is written afterwards and whatever is deleted', async () => {
    const disk = await volumes.create({ size: 16 * CHUNK }, none);
    await write(disk, 0, Buffer.alloc(CHUNK, 1));
    const [[a], [b]] = (await volumes.fork({
      sources: [disk],
      copies: 2,
      readOnly: false,
      records: none,
    })) as [[number], [number]];
    await write(disk, 0, Buffer.alloc(CHUNK, 2));
    await write(a, CHUNK, Buffer.alloc(CHUNK, 3));
    const [[c]] = (await volumes.fork({ sources: [a], copies: 1, readOnly: true, records: none })) as [
      [number],
    ];
    await write(a, CHUNK, Buffer.alloc(CHUNK, 4));
    await volumes.remove([disk], none);
    const look = async (number: DiskNumber): Promise<number[]> => {
      const bytes = await contentOf(number);
      return [bytes[0]!, bytes[CHUNK]!];
    };
    const check = async (): Promise<void> => {
      expect([await look(a), await look(b), await look(c)]).toEqual([
        [1, 4],
        [1, 0],
        [1, 3],
      ]);
    };
    await check();
    await volumes.settleAll();
    await store.collect(catalog);
    await check();
    await expect(volumes.open(disk)).rejects.toMatchObject({ code: 'disk-missing' });
    await volumes.remove([a], none);
    await volumes.remove([c], none);
    await store.collect(catalog);
    expect(await look(b)).toEqual([1, 0]);
  });

  it('destages an overlay that many forks share only once', async () => {
    const disk = await volumes.create({ size: 16 * CHUNK }, none);
    await write(disk, 0, fillRandom(seededRandom(1), new Uint8Array(4 * CHUNK)));
    const forks = await volumes.fork({ sources: [disk], copies: 100, readOnly: false, records: none });
    await volumes.settleAll();
    expect(store.memory.counts.chunksWritten).toBe(4);
    expect(await contentOf(forks[99]![0]!)).toEqual(await contentOf(disk));
  });

  it('forks several disks at one instant, also while they are written to', async () => {
    const disks = [
      await volumes.create({ size: 8 * CHUNK }, none),
      await volumes.create({ size: 8 * CHUNK }, none),
    ];
    const [first, second] = [await volumes.open(disks[0]!), await volumes.open(disks[1]!)];
    const stop = new AbortController();
    // The counter on the first disk is always written before that on the second.
    const writer = (async () => {
      for (let n = 1; !stop.signal.aborted; n++) {
        const value = Buffer.alloc(8);
        value.writeUInt32LE(n);
        await first.write(0, value);
        await second.write(4000, value);
      }
    })();
    for (let round = 0; round < 20; round++) {
      const [copy] = await volumes.fork({ sources: disks, copies: 1, readOnly: true, records: none });
      const a = (await contentOf(copy![0]!)).readUInt32LE(0);
      const b = (await contentOf(copy![1]!)).readUInt32LE(4000);
      expect(a === b || a === b + 1).toBe(true);
    }
    stop.abort();
    await writer;
    await first.close();
    await second.close();
  });

  it('writes the records of its caller in the same commit, or nothing', async () => {
    const disk = await volumes.create({ size: 512 }, (number) => [
      { type: 'put', table: 'vm', key: 'x', value: { version: 1, number } },
    ]);
    expect(await catalog.get('vm', 'x')).toMatchObject({ number: disk });
    await expect(
      volumes.fork({
        sources: [disk],
        copies: 1,
        readOnly: false,
        records: () => {
          throw new Error('no');
        },
      }),
    ).rejects.toThrow('no');
    await volumes.remove([disk], () => [{ type: 'delete', table: 'vm', key: 'x' }]);
    expect(await catalog.list('disk')).toEqual([]);
    expect(await catalog.get('vm', 'x')).toBeUndefined();
  });

  it('replaces a disk in place, and forgets what the log says of it before', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    await write(disk, 0, Buffer.alloc(CHUNK, 1));
    const [[backup]] = (await volumes.fork({
      sources: [disk],
      copies: 1,
      readOnly: true,
      records: none,
    })) as [[number]];
    await write(disk, 0, Buffer.alloc(2 * CHUNK, 2));
    const handle = await volumes.open(disk);
    await expect(volumes.replace([{ target: disk, source: backup }], none)).rejects.toMatchObject({
      code: 'disk-in-use',
    });
    await handle.flush();
    await handle.close();
    await volumes.replace([{ target: disk, source: backup }], none);
    expect(await contentOf(disk)).toEqual(await contentOf(backup));
    fs = fs.crash(() => 0.1);
    store = store.crash();
    volumes = await open();
    expect((await contentOf(disk))[0]).toBe(1);
    expect((await contentOf(disk))[CHUNK]).toBe(0);
    await write(disk, 0, Buffer.alloc(10, 7));
    expect((await contentOf(disk)).subarray(0, 11)).toEqual(Buffer.from([7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 1]));
  });

  it('grows a disk under a client and shrinks one that nobody has open', async () => {
    const disk = await volumes.create({ size: 2 * CHUNK + 512 }, none);
    await write(disk, 0, Buffer.alloc(2 * CHUNK + 512, 9));
    const handle = await volumes.open(disk);
    await volumes.resize(disk, 100 * CHUNK, none);
    await handle.write(0, Buffer.alloc(1, 8));
    expect(handle.size).toBe(2 * CHUNK + 512);
    await expect(volumes.resize(disk, CHUNK, none)).rejects.toMatchObject({ code: 'disk-in-use' });
    await handle.close();
    let bytes = await contentOf(disk);
    expect(bytes.byteLength).toBe(100 * CHUNK);
    expect([bytes[0], bytes[2 * CHUNK + 511], bytes[2 * CHUNK + 512]]).toEqual([8, 9, 0]);
    await volumes.resize(disk, CHUNK + 512, none);
    await volumes.resize(disk, 2 * 2 ** 40, none);
    const again = await volumes.open(disk);
    expect(again.size).toBe(2 * 2 ** 40);
    bytes = Buffer.alloc(3 * CHUNK, 0xee);
    await again.read(0, 3 * CHUNK, bytes, 0);
    expect(bytes.subarray(1, CHUNK + 512)).toEqual(Buffer.alloc(CHUNK + 511, 9));
    expect(bytes.subarray(CHUNK + 512)).toEqual(Buffer.alloc(2 * CHUNK - 512));
    await again.close();
  });

  it('creates disks from roots', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    await write(disk, 0, Buffer.alloc(5, 5));
    const root = await volumes.settle(disk);
    const [a, b] = await volumes.createMany([{ root }, { root: emptyRoot(1024, CHUNK) }], none);
    expect(await contentOf(a!)).toEqual(await contentOf(disk));
    expect(await contentOf(b!)).toEqual(Buffer.alloc(1024));
  });

  it('trims 64 TiB as one range, and says so to block status', async () => {
    const size = 64 * 2 ** 40;
    const volume = await volumes.open(await volumes.create({ size }, none));
    await volume.write(2 ** 45, Buffer.alloc(CHUNK, 1));
    await volume.zero(0, size);
    await volume.write(2 ** 44 + 7, Buffer.alloc(1, 1));
    const check = async (): Promise<void> => {
      expect(await volume.allocation(0, size, 10)).toEqual({
        lengths: [2 ** 44, CHUNK, size - 2 ** 44 - CHUNK],
        holes: [true, false, true],
      });
    };
    await check();
    const nodes = store.memory.counts.nodesWritten;
    await volumes.settle(volume.disk);
    await check();
    expect(store.memory.counts.nodesWritten - nodes).toBeLessThan(10);
    await volume.close();
  });

  it('makes writers wait while memory is full, and refuses them only when the disk is', async () => {
    await volumes.close();
    volumes = await open({ overlayBytesMax: 8 * CHUNK });
    const volume = await volumes.open(await volumes.create({ size: 100 * CHUNK }, none));
    for (let chunk = 0; chunk < 100; chunk++) await volume.write(chunk * CHUNK, Buffer.alloc(CHUNK, chunk));
    expect(volumes.stats.overlayBytes).toBeLessThanOrEqual(9 * CHUNK);
    store.fault = 'store-full';
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, async (_, chunk) => volume.write(chunk * CHUNK, Buffer.alloc(CHUNK, 200))),
    );
    expect(results.some((result) => result.status === 'rejected')).toBe(true);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'store-full' });
    }
    expect(volumes.stats.full).toBe(true);
    const bytes = Buffer.alloc(CHUNK);
    await volume.read(99 * CHUNK, CHUNK, bytes, 0);
    expect(bytes[0]).toBe(99);
    store.fault = undefined;
    await volumes.settleAll().catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 1600));
    await volume.write(0, Buffer.alloc(50 * CHUNK, 77));
    expect(volumes.stats.full).toBe(false);
    await volume.close();
  });

  it('takes no more writes after a failed sync, and goes on reading', async () => {
    const volume = await volumes.open(await volumes.create({ size: 10 * CHUNK }, none));
    await volume.write(0, Buffer.alloc(CHUNK, 1));
    fs.faults.failSyncOf = '.log';
    await expect(volume.flush()).rejects.toMatchObject({ code: 'store-failed' });
    fs.faults.failSyncOf = undefined;
    expect(() => volume.write(0, Buffer.alloc(CHUNK, 2))).toThrow(/no more/);
    const bytes = Buffer.alloc(1);
    await volume.read(0, 1, bytes, 0);
    expect(bytes[0]).toBe(1);
    await volume.close();
  });
});
