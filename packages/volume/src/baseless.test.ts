/** Writes in the log onto chunks that are damaged when it is replayed: one small, fixed order of events a test. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { MemoryCatalog, type Catalog } from '@pando/catalog';
import { systemClock, type Clock } from '@pando/common';
import { CrashFileSystem, fillRandom, seededRandom } from '@pando/common/testing';
import { openVolumes, type DiskNumber, type Volumes } from './index.ts';
import { mortalCatalog } from './testing/mortal-catalog.ts';
import { TestStore } from './testing/test-store.ts';

const CHUNK = 4096;
const storeId = new Uint8Array(16).fill(5);
const none = (): [] => [];
const DAMAGED = { code: 'chunk-corrupt', kind: 'data' };

/** A thousand times faster than the real one. */
const quick: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * 1000,
  sleep: (ms, signal) => systemClock.sleep(ms / 1000, signal),
};

/** What the first 8 chunks of the disk held before the writes that are in the log. */
const bases = fillRandom(seededRandom(11), new Uint8Array(8 * CHUNK));
const base = (chunk: number): Uint8Array => bases.slice(chunk * CHUNK, (chunk + 1) * CHUNK);

let catalog: Catalog;
let fs: CrashFileSystem;
let store: TestStore;
let volumes: Volumes;
let warm = true;

function open(options: { destageAfterMs?: number; logBytesMax?: number } = {}): Promise<Volumes> {
  return openVolumes({
    store: store.asChunkStore(),
    catalog,
    fs,
    logDirectory: 'log',
    storeId,
    destageAfterMs: 1e9,
    logFileBytes: 8 * CHUNK,
    clock: quick,
    ...options,
  });
}

async function restart(options: { logBytesMax?: number } = {}): Promise<void> {
  fs = fs.crash(() => 0.99);
  store = store.crash();
  volumes = await open(options);
}

async function read(disk: DiskNumber, offset: number, length: number): Promise<Buffer> {
  const volume = await volumes.open(disk);
  const bytes = Buffer.alloc(length, 0xee);
  try {
    await volume.read(offset, length, bytes, 0);
  } finally {
    await volume.close();
  }
  return bytes;
}

async function write(disk: DiskNumber, offset: number, data: Uint8Array): Promise<void> {
  const volume = await volumes.open(disk);
  try {
    await volume.write(offset, data);
    await volume.flush();
  } finally {
    await volume.close();
  }
}

async function fork(source: DiskNumber, readOnly = true): Promise<DiskNumber> {
  const [[copy]] = (await volumes.fork({ sources: [source], copies: 1, readOnly, records: none })) as [
    [number],
  ];
  return copy;
}

/** A disk of 8 chunks in the tree, and 100 bytes of 7 written at 50 of chunk 2; chunk 2 is damaged, and the power fails. */
async function damagedDisk(options: { logBytesMax?: number } = {}): Promise<DiskNumber> {
  const disk = await volumes.create({ size: 8 * CHUNK }, none);
  await write(disk, 0, bases);
  await volumes.settle(disk);
  await write(disk, 2 * CHUNK + 50, Buffer.alloc(100, 7));
  store.damage(base(2));
  await restart(options);
  return disk;
}

function patched(
  bytes: Uint8Array,
  ...patches: readonly [at: number, count: number, value: number][]
): Buffer {
  const copy = Buffer.from(bytes);
  for (const [at, count, value] of patches) copy.fill(value, at, at + count);
  return copy;
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

it.each([true, false])(
  'opens, and fails nothing but that chunk, again and again (warm: %s)',
  async (isWarm) => {
    warm = isWarm;
    const other = await volumes.create({ size: 8 * CHUNK }, none);
    await write(other, 10, Buffer.alloc(20, 1));
    const disk = await damagedDisk();
    for (let boot = 0; boot < 3; boot++) {
      expect(volumes.stats.damaged).toEqual([disk]);
      await expect(read(disk, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
      // Also of the bytes that are known, and within a larger read.
      await expect(read(disk, 2 * CHUNK + 60, 10)).rejects.toMatchObject(DAMAGED);
      await expect(read(disk, 0, 8 * CHUNK)).rejects.toMatchObject(DAMAGED);
      expect(await read(disk, 0, 2 * CHUNK)).toEqual(Buffer.from(bases.subarray(0, 2 * CHUNK)));
      expect((await read(disk, 3 * CHUNK, 5 * CHUNK)).subarray(CHUNK)).toEqual(
        Buffer.from(bases.subarray(4 * CHUNK)),
      );
      // Part of it cannot be written; the rest of the disk can, and another disk even be destaged.
      await expect(write(disk, 2 * CHUNK, Buffer.alloc(10))).rejects.toMatchObject(DAMAGED);
      await write(disk, 3 * CHUNK + 5, Buffer.alloc(10, 2 + boot));
      await write(other, 30, Buffer.alloc(20, 1 + boot));
      await expect(volumes.settle(disk)).rejects.toMatchObject(DAMAGED);
      await volumes.settle(other);
      expect((await read(other, 0, 60)).subarray(30, 50)).toEqual(Buffer.alloc(20, 1 + boot));
      const volume = await volumes.open(disk);
      expect((await volume.allocation(0, 8 * CHUNK, 10)).holes).toEqual([false]);
      await volume.close();
      await restart();
    }
    store.damaged.clear();
    expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
    expect((await read(disk, 3 * CHUNK, CHUNK)).subarray(5, 15)).toEqual(Buffer.alloc(10, 4));
  },
);

it('heals when the same bytes are stored again, and lets the log go', async () => {
  const disk = await damagedDisk();
  const other = await volumes.create({ size: 8 * CHUNK }, none);
  await write(other, 5 * CHUNK, base(2));
  await volumes.settle(other);
  expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
  await volumes.settleAll();
  expect(volumes.stats).toMatchObject({ overlays: 0, overlayBytes: 0, damaged: [] });
  await restart();
  expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
});

it('is well again when a guest writes all of the chunk, and lets the log go, over a restart at any time', async () => {
  for (const settled of [false, true]) {
    const disk = await damagedDisk();
    await write(disk, 4 * CHUNK, Buffer.alloc(10, 9));
    // Two overlays above the one that is damaged.
    const copy = await fork(disk);
    await volumes.remove([copy], none);
    await write(disk, 2 * CHUNK, Buffer.alloc(CHUNK, 8));
    await write(disk, 2 * CHUNK + 5, Buffer.alloc(10, 3));
    const whole = patched(Buffer.alloc(CHUNK, 8), [5, 10, 3]);
    expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(whole);
    if (settled) {
      await volumes.settleAll();
      expect(volumes.stats).toMatchObject({ overlays: 0, overlayBytes: 0, damaged: [] });
      await store.collect(catalog);
    }
    await restart();
    expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(whole);
    expect(await read(disk, 4 * CHUNK, CHUNK)).toEqual(patched(base(4), [0, 10, 9]));
    expect(await read(disk, 5 * CHUNK, 3 * CHUNK)).toEqual(Buffer.from(bases.subarray(5 * CHUNK)));
    await volumes.settleAll();
    expect((await fs.list('log')).length).toBe(0);
  }
});

it('keeps what is known for a backup while another disk has written the chunk anew', async () => {
  const disk = await damagedDisk();
  const backup = await fork(disk);
  await write(disk, 2 * CHUNK, Buffer.alloc(CHUNK, 8));
  for (let boot = 0; boot < 2; boot++) {
    expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
    await expect(read(backup, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
    await expect(volumes.settle(disk)).rejects.toMatchObject(DAMAGED);
    await restart();
  }
  const [a, b] = [await volumes.open(disk), await volumes.open(backup)];
  expect(await b.differences(a, 0, 8 * CHUNK, 10)).toEqual({
    lengths: [2 * CHUNK, CHUNK, 5 * CHUNK],
    flags: [0, 1, 0],
  });
  await a.close();
  await b.close();
  store.damaged.clear();
  await volumes.settleAll();
  expect(await read(backup, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
  expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
});

it('stays so when overlays lie on each other, and heals from below', async () => {
  const disk = await volumes.create({ size: 8 * CHUNK }, none);
  await write(disk, 0, bases);
  await volumes.settle(disk);
  await write(disk, 2 * CHUNK + 50, Buffer.alloc(100, 7));
  const first = await fork(disk);
  await write(disk, 2 * CHUNK + 100, Buffer.alloc(100, 8));
  const second = await fork(disk);
  const volume = await volumes.open(disk);
  await volume.zero(2 * CHUNK + 40, 20);
  await volume.flush();
  await volume.close();
  store.damage(base(2));
  for (let boot = 0; boot < 2; boot++) {
    await restart();
    for (const one of [disk, first, second])
      await expect(read(one, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
  }
  store.damaged.clear();
  const check = async (): Promise<void> => {
    expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(
      patched(base(2), [50, 100, 7], [100, 100, 8], [40, 20, 0]),
    );
    expect(await read(second, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7], [100, 100, 8]));
    expect(await read(first, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
  };
  await check();
  await volumes.settleAll();
  await check();
});

it('needs no base for a chunk of which the log holds every byte, also at the end of a disk', async () => {
  const size = 2 * CHUNK + 512;
  const disk = await volumes.create({ size }, none);
  await write(disk, 0, bases.subarray(0, size));
  await volumes.settle(disk);
  const end = new Uint8Array(CHUNK);
  end.set(bases.subarray(2 * CHUNK, size));
  await write(disk, CHUNK, Buffer.alloc(4000, 1));
  await write(disk, CHUNK + 3000, Buffer.alloc(1096, 2));
  await write(disk, 2 * CHUNK + 100, Buffer.alloc(412, 4));
  await write(disk, 2 * CHUNK, Buffer.alloc(200, 3));
  store.damage(base(1));
  store.damage(end);
  await restart();
  const expected = Buffer.alloc(CHUNK + 512, 1);
  expected.fill(2, 3000, 4096).fill(3, 4096, 4296).fill(4, 4296);
  expect(await read(disk, CHUNK, CHUNK + 512)).toEqual(expected);
  await volumes.settleAll();
  await volumes.resize(disk, 3 * CHUNK, none);
  expect(await read(disk, CHUNK, 2 * CHUNK)).toEqual(Buffer.concat([expected, Buffer.alloc(CHUNK - 512)]));
});

/** Lets nothing of the log be synced before `pass` is called. */
function holdSyncs(): () => void {
  let pass!: () => void;
  const passed = new Promise<void>((resolve) => (pass = resolve));
  const openFile = fs.open.bind(fs);
  fs.open = async (path, mode) => {
    const file = await openFile(path, mode);
    const sync = file.sync.bind(file);
    file.sync = () => passed.then(sync);
    return file;
  };
  return pass;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

it('forks again when what it was going to fork has gone into the tree with what covers it', async () => {
  const other = await volumes.create({ size: 8 * CHUNK }, none);
  const disk = await damagedDisk();
  const pass = holdSyncs();
  const volume = await volumes.open(disk);
  const before = volume.root;
  const [a, b] = [volume, await volumes.open(other)];
  await b.write(0, Buffer.alloc(CHUNK, 1));
  const forked = volumes
    .fork({ sources: [disk, other], copies: 1, readOnly: true, records: none })
    .then(([copy]) => copy!);
  await b.write(0, Buffer.alloc(CHUNK, 2));
  await a.write(2 * CHUNK, Buffer.alloc(CHUNK, 8));
  const settled = volumes.settle(disk);
  await until(() => volume.root !== before);
  pass();
  await settled;
  const [copy, otherCopy] = await forked;
  await Promise.all([a.close(), b.close()]);
  // All of one instant, which is that of the second attempt.
  expect(await read(copy!, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
  expect(await read(otherCopy!, 0, CHUNK)).toEqual(Buffer.alloc(CHUNK, 2));
});

it('does not put what covers a chunk into the tree under a fork that does not hold it', async () => {
  const disk = await damagedDisk();
  const other = await volumes.create({ size: 8 * CHUNK }, none);
  const pass = holdSyncs();
  const volume = await volumes.open(disk);
  const otherVolume = await volumes.open(other);
  // So that the fork has something to wait for.
  await otherVolume.write(0, Buffer.alloc(CHUNK, 1));
  await otherVolume.close();
  const forked = fork(disk);
  await volume.write(2 * CHUNK, Buffer.alloc(CHUNK, 8));
  let go!: () => void;
  store.hold = new Promise<void>((resolve) => (go = resolve));
  const settled = volumes.settle(disk);
  settled.catch(() => undefined);
  await until(() => store.sessions.size > 0);
  pass();
  const copy = await forked;
  go();
  await expect(settled).rejects.toMatchObject(DAMAGED);
  await volume.close();
  expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
  await expect(read(copy, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
  expect(store.sessions.size).toBe(0);
  store.damaged.clear();
  await volumes.settleAll();
  expect(await read(copy, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
});

it('makes no fork of what it was before it was written anew, when that goes into the tree meanwhile', async () => {
  for (let delay = 0; delay < 40; delay++) {
    const disk = await damagedDisk();
    // The fork waits for the log; all of the chunk is written and destaged at about that time.
    const forked = fork(disk);
    for (let i = 0; i < delay; i++) await Promise.resolve();
    await write(disk, 2 * CHUNK, Buffer.alloc(CHUNK, 8));
    const settled = volumes.settle(disk).then(
      () => undefined,
      (error: unknown) => error,
    );
    const copy = await forked;
    await settled;
    store.damaged.clear();
    await volumes.settleAll();
    await store.collect(catalog);
    const is = await read(copy, 2 * CHUNK, CHUNK);
    const allowed = [patched(base(2), [50, 100, 7]), Buffer.alloc(CHUNK, 8)];
    expect(allowed.some((one) => one.equals(is))).toBe(true);
    expect(await read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
  }
});

it('keeps the log short for others while one disk cannot go into the tree, and loses nothing of it', async () => {
  const logBytesMax = 64 * CHUNK;
  const disk = await damagedDisk();
  // What lies above is kept as well: parts and all of chunks, zeroed ones, a fork, a larger size.
  await write(disk, 3 * CHUNK + 7, Buffer.alloc(9, 1));
  await write(disk, 4 * CHUNK, Buffer.alloc(CHUNK, 2));
  const backup = await fork(disk);
  const bytes = patched(bases, [2 * CHUNK + 50, 100, 7], [3 * CHUNK + 7, 9, 1], [4 * CHUNK, CHUNK, 2]);
  await volumes.resize(disk, 1000 * CHUNK + 512, none);
  const volume = await volumes.open(disk);
  await volume.zero(5 * CHUNK, CHUNK + 10);
  await volume.write(1000 * CHUNK, Buffer.alloc(512, 3));
  await volume.zero(100 * CHUNK, 700 * CHUNK);
  await volume.flush();
  await volume.close();
  await restart({ logBytesMax });
  const other = await volumes.create({ size: 40 * CHUNK }, none);
  const random = seededRandom(12);
  const data = new Uint8Array(CHUNK);
  let longest = 0;
  const expected: Uint8Array[] = [];
  for (let round = 0; round < 3; round++) {
    const before = volumes.stats.logRewrites;
    for (let i = 0; i < 400; i++) {
      expected[i % 40] = fillRandom(random, data).slice();
      await write(other, (i % 40) * CHUNK, data);
      if (i % 50 === 0) await write(disk, 4 * CHUNK + round, Buffer.alloc(1, i / 50));
      longest = Math.max(longest, volumes.stats.logBytes);
    }
    // 400 chunks are six times what the log may hold.
    expect(volumes.stats.logRewrites - before).toBeGreaterThan(2);
    expect(volumes.stats.logRewrites - before).toBeLessThan(30);
    expect(volumes.stats.damaged).toEqual(expect.arrayContaining([disk, backup]));
    await restart({ logBytesMax });
  }
  expect(longest).toBeLessThan(logBytesMax + 3 * CHUNK);
  store.damaged.clear();
  for (let again = 0; again < 2; again++) {
    expect(await read(other, 0, 40 * CHUNK)).toEqual(Buffer.concat(expected));
    expect(await read(backup, 0, 8 * CHUNK)).toEqual(bytes);
    expect(await read(disk, 0, 8 * CHUNK)).toEqual(
      patched(bytes, [4 * CHUNK, 3, 7], [5 * CHUNK, CHUNK + 10, 0]),
    );
    expect(await read(disk, 1000 * CHUNK, 512)).toEqual(Buffer.alloc(512, 3));
    expect(await read(disk, 8 * CHUNK, 2 * CHUNK)).toEqual(Buffer.alloc(2 * CHUNK));
    await volumes.settleAll();
    expect(volumes.stats.overlays).toBe(0);
  }
});

it('loses nothing whenever the power fails while the log is made shorter', async () => {
  const logBytesMax = 32 * CHUNK;
  let rewrites = 0;
  for (let operations = 1; ; operations++) {
    const records = new MemoryCatalog();
    const first = mortalCatalog(records);
    catalog = first.catalog;
    fs = new CrashFileSystem();
    store = new TestStore(CHUNK);
    volumes = await open({ logBytesMax });
    const disk = await damagedDisk({ logBytesMax });
    // Above what is damaged, in overlays of their own: a part of a chunk that only the overlay below holds, and one anew.
    await write(disk, 4 * CHUNK, Buffer.alloc(CHUNK, 2));
    const [old, other] = [await fork(disk), await volumes.create({ size: 8 * CHUNK }, none)];
    await write(disk, 4 * CHUNK + 100, Buffer.alloc(CHUNK, 3));
    let left = operations;
    let crashed: CrashFileSystem | undefined;
    fs.faults.before = () => {
      if (crashed !== undefined || left-- > 0) return;
      rewrites += volumes.stats.logRewrites;
      first.kill();
      crashed = fs.crash(() => 0.5);
    };
    let flushed = 0;
    for (let i = 1; i <= 45; i++) {
      const value = Buffer.alloc(CHUNK, 10 + i);
      // Both at once: the one that is damaged is written to while its overlays are appended anew.
      const part = write(disk, 4 * CHUNK + 200, value.subarray(0, 10));
      const both = [part, write(other, 0, value)];
      const done = await Promise.allSettled(both);
      if (crashed !== undefined || done.some(({ status }) => status === 'rejected')) break;
      flushed = i;
    }
    const hasCrashed = crashed !== undefined;
    void volumes.close().catch(() => undefined);
    if (!hasCrashed) break;
    fs = crashed!;
    store = store.crash();
    catalog = mortalCatalog(records).catalog;
    volumes = await open({ logBytesMax });
    store.damaged.clear();
    const bytes = patched(bases, [2 * CHUNK + 50, 100, 7], [4 * CHUNK, CHUNK, 2]);
    expect(await read(old, 0, 8 * CHUNK)).toEqual(bytes);
    const found = await read(disk, 0, 8 * CHUNK);
    const now = found[4 * CHUNK + 200]!;
    expect([flushed, flushed + 1]).toContain(now === 3 ? 0 : now - 10);
    expect(found).toEqual(patched(bytes, [4 * CHUNK + 100, CHUNK, 3], [4 * CHUNK + 200, 10, now]));
    const otherNow = (await read(other, 0, 1))[0]!;
    expect([flushed, flushed + 1]).toContain(otherNow === 0 ? 0 : otherNow - 10);
    await volumes.settleAll();
    await volumes.close();
  }
  expect(rewrites).toBeGreaterThan(5);
}, 60_000);
