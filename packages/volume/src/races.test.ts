/** What two operations, or one and a fault, must not do to each other: one small, fixed order of events a test. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryCatalog } from '@pando/catalog';
import { PandoError, systemClock, type Clock } from '@pando/common';
import { CrashFileSystem, fillRandom, seededRandom } from '@pando/common/testing';
import { openVolumes, type DiskNumber, type Volumes } from './index.ts';
import { scarce } from './testing/test-machine.ts';
import { TestStore } from './testing/test-store.ts';

const CHUNK = 4096;
const storeId = new Uint8Array(16).fill(4);
const none = (): [] => [];

/** A hundred times faster than the real one. */
const quick: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * 100,
  sleep: (ms, signal) => systemClock.sleep(ms / 100, signal),
};

let catalog: MemoryCatalog;
let fs: CrashFileSystem;
let store: TestStore;
let volumes: Volumes;
/** Whether chunks and nodes are served without waiting. */
let warm = true;

interface Options {
  destageAfterMs?: number;
  overlayBytesMax?: number;
  logBytesMax?: number;
  clock?: Clock;
}

function open(options: Options = {}): Promise<Volumes> {
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

/** Power fails, with nothing of what was not synced kept, and comes back. */
async function crash(): Promise<void> {
  fs = fs.crash(() => 0.99);
  store = store.crash();
  volumes = await open();
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
  try {
    await volume.write(offset, data);
  } finally {
    await volume.close();
  }
}

async function fork(source: DiskNumber, readOnly = true): Promise<DiskNumber> {
  const request = { sources: [source], copies: 1, readOnly, records: none };
  const [[copy]] = (await volumes.fork(request)) as [[number]];
  return copy;
}

const turns = async (count: number): Promise<void> => {
  for (; count > 0; count--) await new Promise((resolve) => setImmediate(resolve));
};

/** A promise that the test lets go on. */
function gate(): { passed: Promise<void>; pass: () => void } {
  let pass!: () => void;
  const passed = new Promise<void>((resolve) => (pass = resolve));
  return { passed, pass };
}

beforeEach(async () => {
  warm = true;
  catalog = new MemoryCatalog();
  fs = new CrashFileSystem();
  store = new TestStore(CHUNK, () => warm);
  volumes = await open();
});

afterEach(async () => {
  await volumes.close().catch(() => undefined);
});

describe('records and a log that was full', () => {
  it('forks only what the log really holds, when the log was full for a moment', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    fs.faults.freeBytes = 0;
    await expect(write(disk, 0, Buffer.alloc(CHUNK, 1))).rejects.toMatchObject({ code: 'store-full' });
    fs.faults.freeBytes = Infinity;
    const copy = await fork(disk);
    await crash();
    expect((await contentOf(copy)).byteLength).toBe(8 * CHUNK);
  });

  it('refuses forks and growth while the log is full, and opens again all the same', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    await write(disk, 0, Buffer.alloc(CHUNK, 7));
    await fork(disk);
    fs.faults.freeBytes = 0;
    await expect(write(disk, 0, Buffer.alloc(CHUNK, 1))).rejects.toMatchObject({ code: 'store-full' });
    await expect(fork(disk)).rejects.toMatchObject({ code: 'store-full' });
    await expect(volumes.resize(disk, 9 * CHUNK, none)).rejects.toMatchObject({ code: 'store-full' });
    const volume = await volumes.open(disk);
    await volume.flush();
    await volume.close();
    await crash();
    expect((await contentOf(disk))[0]).toBe(7);
  });
});

describe('races', () => {
  it('records a root for all disks at once, whatever else is recorded of one of them meanwhile', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    await write(disk, 0, Buffer.alloc(CHUNK, 1));
    const copy = await fork(disk, false);
    await write(copy, CHUNK, Buffer.alloc(CHUNK, 2));
    await fork(copy); // the overlay above is named in the records as well
    const { passed, pass } = gate();
    // Growing waits for its `open` record, and destage of what both share is ready before it goes on.
    let commits = 0;
    const commit = catalog.commit.bind(catalog);
    catalog.commit = async (operations) => {
      if (++commits > 1) throw new PandoError('store-failed', 'the machine has lost power');
      return commit(operations);
    };
    fs.schedule = async (operation, run) => {
      if (operation.kind === 'sync' && operation.path.endsWith('.log')) await passed;
      return run();
    };
    await write(copy, 2 * CHUNK, Buffer.alloc(CHUNK, 3));
    const grown = volumes.resize(copy, 9 * CHUNK, none);
    const settled = volumes.settle(disk).catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 50));
    pass();
    await grown;
    await settled;
    catalog.commit = commit;
    await crash();
    const bytes = await contentOf(copy);
    expect([bytes.length / CHUNK, bytes[0], bytes[CHUNK], bytes[2 * CHUNK]]).toEqual([9, 1, 2, 3]);
    expect((await contentOf(disk))[0]).toBe(1);
  });

  it('says what was written when an overlay is destaged while block status is asked for', async () => {
    const disk = await volumes.create({ size: 2 ** 20 * CHUNK }, none);
    const data = fillRandom(seededRandom(1), new Uint8Array(CHUNK));
    // Two leaves of the tree hold something, so that there is something to wait for.
    await write(disk, 0, data);
    await volumes.settle(disk);
    await write(disk, 1000 * CHUNK, data);
    const volume = await volumes.open(disk);
    warm = false;
    const settled = volumes.settle(disk);
    const asked: Promise<unknown>[] = [];
    for (let i = 0; i < 12; i++) {
      asked.push(volume.allocation(0, 2000 * CHUNK, 10));
      await turns(1);
    }
    await settled;
    for (const answer of await Promise.all(asked)) {
      expect(answer).toEqual({
        lengths: [CHUNK, 999 * CHUNK, CHUNK, 999 * CHUNK],
        holes: [false, true, false, true],
      });
    }
    await volume.close();
  });

  it('forks a disk that is replaced at the same time as it was or as it is, and never as neither', async () => {
    for (let delay = 0; delay < 12; delay++) {
      const disk = await volumes.create({ size: 8 * CHUNK }, none);
      const other = await volumes.create({ size: 8 * CHUNK }, none);
      await write(disk, 0, Buffer.alloc(CHUNK, 1));
      await write(other, 0, Buffer.alloc(CHUNK, 2));
      const forked = fork(disk);
      await Promise.resolve();
      for (let i = 0; i < delay; i++) await Promise.resolve();
      const replaced = volumes.replace([{ target: disk, source: other }], none);
      const [copy] = await Promise.all([forked, replaced]);
      await turns(5);
      expect([1, 2]).toContain((await contentOf(copy))[0]);
      await volumes.settleAll();
      await store.collect(catalog);
      expect([1, 2]).toContain((await contentOf(copy))[0]);
    }
    await crash();
  });

  it('takes a waiting write to the end of a disk that grows meanwhile', async () => {
    for (let delay = 0; delay < 12; delay++) {
      warm = true;
      const disk = await volumes.create({ size: 2 * CHUNK + 512 }, none);
      await write(disk, 0, Buffer.alloc(2 * CHUNK + 512, 1));
      await volumes.settle(disk);
      const volume = await volumes.open(disk);
      // It waits for what chunk 0 holds; of the last chunk it needs nothing until the disk grows.
      warm = false;
      const written = volume.write(100, Buffer.alloc(2 * CHUNK + 412, 2));
      for (let i = 0; i < delay; i++) await Promise.resolve();
      const resized = volumes.resize(disk, 5 * CHUNK, none);
      await written;
      await resized;
      await volume.close();
      const bytes = await contentOf(disk);
      expect(bytes.subarray(0, 2 * CHUNK + 512)).toEqual(
        Buffer.concat([Buffer.alloc(100, 1), Buffer.alloc(2 * CHUNK + 412, 2)]),
      );
      expect(bytes.subarray(2 * CHUNK + 512)).toEqual(Buffer.alloc(3 * CHUNK - 512));
    }
  });

  it('tells who waits for room that the volumes are being closed', async () => {
    await volumes.close();
    volumes = await open({ overlayBytesMax: 4 * CHUNK, clock: quick });
    const disks = [
      await volumes.create({ size: 100 * CHUNK }, none),
      await volumes.create({ size: 100 * CHUNK }, none),
    ];
    const [first, second] = [await volumes.open(disks[0]!), await volumes.open(disks[1]!)];
    const { passed, pass } = gate();
    store.hold = passed;
    await first.write(0, Buffer.alloc(3 * CHUNK, 1));
    await second.write(0, Buffer.alloc(10 * CHUNK, 2));
    const waiting = Promise.resolve(first.write(0, Buffer.alloc(CHUNK, 3))).catch((error: unknown) => error);
    const closed = volumes.close();
    await new Promise((resolve) => setTimeout(resolve, 300));
    pass();
    await closed;
    expect(await waiting).toMatchObject({ code: 'shutting-down' });
    await Promise.all([first.close(), second.close()]);
  });

  it('refuses writes when nothing but damaged overlays is left that could make room', async () => {
    await volumes.close();
    volumes = await open({ overlayBytesMax: 4 * CHUNK, clock: quick });
    const disk = await volumes.create({ size: 100 * CHUNK }, none);
    store.fault = 'chunk-corrupt';
    await write(disk, 0, Buffer.alloc(10 * CHUNK, 3));
    const other = await volumes.create({ size: 100 * CHUNK }, none);
    await expect(write(other, 0, Buffer.alloc(CHUNK))).rejects.toMatchObject({ code: 'chunk-corrupt' });
    expect(volumes.stats.damaged).toEqual([disk]);
    // Once it is repaired, everything goes on by itself.
    store.fault = undefined;
    await volumes.settleAll();
    await write(other, 0, Buffer.alloc(CHUNK));
  });

  it('counts what many small zeroed ranges take', async () => {
    const disk = await volumes.create({ size: 2 ** 20 * CHUNK }, none);
    const volume = await volumes.open(disk);
    for (let i = 0; i < 1000; i++) await volume.zero(i * 100 * CHUNK, 63 * CHUNK);
    expect(volumes.stats.overlayBytes).toBeGreaterThan(63_000 * 16);
    await volume.zero(0, 2 ** 20 * CHUNK);
    expect(volumes.stats.overlayBytes).toBeLessThan(CHUNK);
    await volume.close();
    await volumes.settleAll();
    expect(volumes.stats.overlayBytes).toBe(0);
  });

  it('writes nothing to the target of a read that has failed', async () => {
    const disk = await volumes.create({ size: 1024 * CHUNK }, none);
    const random = seededRandom(3);
    await write(disk, 0, fillRandom(random, new Uint8Array(CHUNK)));
    await write(disk, 200 * CHUNK, fillRandom(random, new Uint8Array(CHUNK)));
    await volumes.settle(disk);
    // An overlay in the middle parts the read into two of the tree; the first of them fails at once.
    await write(disk, 100 * CHUNK, Buffer.alloc(CHUNK, 1));
    const volume = await volumes.open(disk);
    const chunks = [...store.memory.chunks];
    warm = false;
    let asked = 0;
    store.readFault = () => asked++ === 0;
    const target = Buffer.alloc(400 * CHUNK);
    await expect(volume.read(0, 400 * CHUNK, target, 0)).rejects.toMatchObject({ code: 'chunk-corrupt' });
    expect(chunks.length).toBeGreaterThan(2);
    target.fill(0xaa);
    await turns(20);
    expect(target.equals(Buffer.alloc(400 * CHUNK, 0xaa))).toBe(true);
    await volume.close();
  });

  it('removes a disk although the log cannot be shortened, and shortens it later', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    await write(disk, 0, Buffer.alloc(CHUNK, 1));
    let refusals = 1;
    fs.faults.before = (operation) => {
      if (operation === 'remove' && refusals-- > 0) throw Object.assign(new Error('no'), { code: 'EIO' });
    };
    await volumes.remove([disk], none);
    await expect(volumes.open(disk)).rejects.toMatchObject({ code: 'disk-missing' });
    while ((await fs.list('log')).length > 0) await new Promise((resolve) => setTimeout(resolve, 50));
  });

  it('says that it has failed when the log has', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    const volume = await volumes.open(disk);
    await volume.write(0, Buffer.alloc(CHUNK, 1));
    fs.faults.failSyncOf = '.log';
    await expect(volume.flush()).rejects.toMatchObject({ code: 'store-failed' });
    expect(volumes.stats.failure).toMatchObject({ code: 'store-failed' });
    await volume.close();
  });

  it('settles a disk that is replaced meanwhile, and shrinks one that grows meanwhile', async () => {
    const disk = await volumes.create({ size: 8 * CHUNK }, none);
    const other = await volumes.create({ size: 4 * CHUNK }, none);
    await write(disk, 0, Buffer.alloc(CHUNK, 1));
    await write(other, 0, Buffer.alloc(CHUNK, 2));
    const settled = volumes.settle(disk);
    await Promise.resolve();
    await Promise.all([settled, volumes.replace([{ target: disk, source: other }], none)]);
    expect((await settled).size).toBeGreaterThan(0);
    await write(other, 0, Buffer.alloc(CHUNK, 3));
    const shrunk = volumes.resize(other, CHUNK, none);
    await Promise.resolve();
    await Promise.all([shrunk, volumes.resize(other, 20 * CHUNK, none)]);
    expect((await contentOf(other)).subarray(0, CHUNK)).toEqual(Buffer.alloc(CHUNK, 3));
    expect((await contentOf(disk))[0]).toBe(2);
  });
});
