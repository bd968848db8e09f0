/** Relief of the log, and every sentence of its argument: each test here fails when that sentence is made untrue. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { PandoError, isPandoError, type Clock } from '@pando/common';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import type { DiskNumber } from './index.ts';
import { WRITERS_MS_MAX } from './log-relief.ts';
import {
  CHUNK,
  DAMAGED,
  TestMachine,
  base,
  bases,
  none,
  patched,
  quick,
  type MachineOptions,
  type Patch,
} from './testing/test-machine.ts';

/** Called once when a relief begins; it is told so by how long that waits for writers. */
let onRelief: (() => void) | undefined;
const clock: Clock = {
  ...quick,
  sleep: (ms, signal) => {
    const run = ms === WRITERS_MS_MAX ? onRelief : undefined;
    if (run !== undefined) onRelief = undefined;
    run?.();
    return quick.sleep(ms, signal);
  },
};
const options = { logBytesMax: 48 * CHUNK, logFileBytes: 2 * CHUNK, clock };

let m: TestMachine;

/** A new machine, for another attempt in the same test. */
async function fresh(more: MachineOptions = {}): Promise<Disks> {
  await m.close();
  onRelief = undefined;
  m = new TestMachine();
  await m.open({ ...options, ...more });
  return makeDisks(more);
}

beforeEach(async () => {
  onRelief = undefined;
  m = new TestMachine();
  await m.open(options);
});

afterEach(() => m.close());

interface Disks {
  /** Four overlays, of which `copy` and `backup` hold the oldest and the two oldest, and the others are in no record. */
  readonly disk: DiskNumber;
  readonly copy: DiskNumber;
  readonly backup: DiskNumber;
  readonly other: DiskNumber;
}

const ofCopy = patched(bases, [2 * CHUNK + 50, 100, 7], [5 * CHUNK, CHUNK, 0]);
const ofBackup = patched(ofCopy, [2 * CHUNK + 200, 10, 9]);
const ofDisk = patched(ofBackup, [6 * CHUNK + 10, 20, 3], [6 * CHUNK + 20, 20, 4]);

/** Makes the disks, damages chunk 2, and lets the power fail. */
async function makeDisks(more: MachineOptions = {}): Promise<Disks> {
  const other = await m.volumes.create({ size: 40 * CHUNK }, none);
  const disk = await m.volumes.create({ size: 8 * CHUNK }, none);
  const fill = async (value: number): Promise<void> => m.write(other, 0, Buffer.alloc(3 * CHUNK, value));
  await m.write(disk, 0, bases);
  await m.volumes.settle(disk);
  await m.write(disk, 2 * CHUNK + 50, Buffer.alloc(100, 7));
  await m.zero(disk, 5 * CHUNK, CHUNK);
  const copy = await m.fork(disk, false);
  await fill(1);
  await m.write(disk, 2 * CHUNK + 200, Buffer.alloc(10, 9));
  // Of a chunk that the overlay below says is zero, this one says nothing then.
  await m.zero(disk, 5 * CHUNK + 10, 20);
  const backup = await m.fork(disk);
  await fill(2);
  await m.write(disk, 6 * CHUNK + 10, Buffer.alloc(20, 3));
  m.store.damage(base(2));
  await m.restart({ ...options, ...more });
  await fill(3);
  await m.write(disk, 6 * CHUNK + 20, Buffer.alloc(20, 4));
  return { disk, copy, backup, other };
}

/** Writes to `other` until the log was relieved, or `stop` says so. */
async function relieve(other: DiskNumber, stop = (): boolean => false): Promise<void> {
  const before = m.volumes.stats.logRewrites;
  for (let value = 1; !stop() && m.volumes.stats.logRewrites === before; value++) {
    await m.write(other, 0, Buffer.alloc(CHUNK, value));
    // Destage, too, gets its turn, before the log is full.
    if (m.volumes.stats.logBytes * 2 > options.logBytesMax)
      await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

async function check({ disk, copy, backup }: Disks, ...more: Patch[]): Promise<void> {
  expect(await m.read(copy, 0, 8 * CHUNK)).toEqual(ofCopy);
  expect(await m.read(backup, 0, 8 * CHUNK)).toEqual(ofBackup);
  expect(await m.read(disk, 0, 8 * CHUNK)).toEqual(patched(ofDisk, ...more));
}

it.each([true, false])(
  'loses nothing when the power fails after some of the old files are removed (healed meanwhile: %s)',
  async (healed) => {
    let removed = 1;
    for (let cut = true; cut; removed++) {
      const disks = await fresh();
      let left = removed;
      onRelief = () => {
        m.fs.faults.before = (operation) => {
          if (operation !== 'remove' || left-- > 0) return;
          m.crash();
        };
      };
      await relieve(disks.other, () => m.isOff).catch(() => undefined);
      cut = m.isOff;
      if (!cut) m.crash();
      if (healed) m.store.damaged.clear();
      await m.open(options);
      if (!healed) {
        await expect(m.read(disks.copy, 2 * CHUNK, 10)).rejects.toMatchObject(DAMAGED);
        m.store.damaged.clear();
      }
      await check(disks);
      await m.restart(options);
      await m.volumes.settleAll();
      await check(disks);
    }
    // Each overlay begins in a file of its own.
    expect(removed).toBeGreaterThan(4);
  },
);

it('keeps the old records while the new ones are not complete, over any number of restarts', async () => {
  for (const torn of [0, 20, 100, 250]) {
    let operations = 0;
    for (let cut = true; cut; operations++) {
      const disks = await fresh();
      let left = operations;
      let isOver = false;
      onRelief = () => {
        m.fs.faults.before = (operation) => {
          if (operation === 'remove') isOver = true;
          if (isOver || left-- > 0) return;
          // What was written stays, though it was not synced, but for the end of the newest.
          const newest = m.fs.paths().at(-1)!;
          m.fs.damage(newest, (bytes) =>
            bytes.subarray(0, bytes.byteLength - (operation === 'write' ? torn : 0)),
          );
          m.crash();
        };
      };
      await relieve(disks.other, () => m.isOff).catch(() => undefined);
      cut = m.isOff;
      if (!cut) m.crash();
      for (let boot = 0; boot < 3; boot++) {
        // Without another relief. What is destaged lets the log go as far as it may.
        await m.open({ ...options, logBytesMax: Infinity });
        await m.write(disks.other, CHUNK, Buffer.alloc(CHUNK, boot));
        await m.volumes.settle(disks.other);
        if (boot < 2) m.crash();
      }
      m.store.damaged.clear();
      await check(disks);
    }
    expect(operations).toBeGreaterThan(3);
  }
});

it('keeps the log from the open record of a disk that grows meanwhile', async () => {
  for (let turns = 0; turns < 40; turns++) {
    const small = { logFileBytes: 100 };
    const disks = await fresh(small);
    let grown: Promise<void> | undefined;
    onRelief = () => {
      let waited = Promise.resolve();
      for (let i = 0; i < turns; i++) waited = waited.then(() => undefined);
      grown = waited.then(() => m.volumes.resize(disks.disk, 9 * CHUNK, none));
    };
    await relieve(disks.other);
    await grown;
    await m.restart(small);
    m.store.damaged.clear();
    await check(disks);
    expect(await m.read(disks.disk, 8 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK));
  }
});

/** Writes to the log take a while from now on. */
function slowLog(): void {
  const open = m.fs.open.bind(m.fs);
  m.fs.open = async (path, mode) => {
    const file = await open(path, mode);
    const write = file.write.bind(file);
    file.write = async (parts, position) => {
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
      await write(parts, position);
    };
    return file;
  };
}

it('lets writers that were let in finish first, so that nothing comes between what is appended', async () => {
  const disks = await fresh({ logFileBytes: 1 });
  slowLog();
  const go = m.store.holdRead(base(7));
  const handle = await m.volumes.open(disks.disk);
  // Waits for what chunk 7 holds. What chunk 6 holds, two overlays know, which are appended last.
  const written = handle.write(7 * CHUNK - 10, Buffer.alloc(20, 6));
  onRelief = () => setImmediate(go);
  await relieve(disks.other);
  await written;
  await handle.flush();
  await m.restart(options);
  m.store.damaged.clear();
  await check(disks, [7 * CHUNK - 10, 20, 6]);
});

it('does not wait for ever for a writer whose read hangs', async () => {
  const disks = await fresh();
  const go = m.store.holdRead(base(7));
  const handle = await m.volumes.open(disks.disk);
  const written = handle.write(7 * CHUNK - 10, Buffer.alloc(20, 6));
  const stopped = new AbortController();
  onRelief = () => stopped.abort();
  await relieve(disks.other, () => stopped.signal.aborted);
  for (let i = 0; i < 5; i++) await m.write(disks.other, CHUNK, Buffer.alloc(CHUNK, i));
  expect(m.volumes.stats.logRewrites).toBe(0);
  go();
  await written;
  await handle.close();
  await relieve(disks.other);
  await m.restart(options);
  m.store.damaged.clear();
  await check(disks, [7 * CHUNK - 10, 20, 6]);
});

it('has changed nothing when the disk gets full, and tries again', async () => {
  for (let free = 0; free <= 900; free += 60) {
    const disks = await fresh();
    onRelief = () => (m.fs.faults.freeBytes = free);
    const error = await relieve(disks.other).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    m.fs.faults.freeBytes = Infinity;
    if (error !== undefined) {
      expect(error).toMatchObject({ code: 'store-full' });
      // Until it was tried again, who waits for room is told that the disk is full.
      await vi.waitFor(() => m.write(disks.other, 0, base(0)));
    }
    // Lets the log go as far as it may.
    await m.volumes.settle(disks.other);
    if (free % 120 === 0) await relieve(disks.other);
    await m.restart(options);
    m.store.damaged.clear();
    await check(disks);
  }
});

it('says that the disk is full, and not that it is damaged, to those who wait meanwhile', async () => {
  const disks = await fresh();
  let isRelief = false;
  const again = (): void => {
    isRelief = true;
    onRelief = again;
  };
  onRelief = again;
  m.fs.faults.before = (operation) => {
    if (!isRelief || (operation !== 'write' && operation !== 'create')) return;
    isRelief = false;
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  };
  await expect(relieve(disks.other)).rejects.toMatchObject({ code: 'store-full' });
  expect(m.volumes.stats.logBytes).toBeGreaterThan(options.logBytesMax);
});

it('keeps the old records until the new ones are synced, also when somebody else lets the log go', async () => {
  const disks = await fresh();
  let go!: () => void;
  const synced = new Promise<void>((resolve) => (go = resolve));
  let removed: Promise<void> | undefined;
  const { open } = m.fs;
  m.fs.open = async (path, mode) => {
    const file = await open.call(m.fs, path, mode);
    const sync = file.sync.bind(file);
    file.sync = async () => {
      // The first one in a relief of which everything is written.
      if (isWritten && removed === undefined) {
        removed = m.volumes.remove([disks.backup], none);
        await synced;
      }
      await sync();
    };
    return file;
  };
  let isWritten = false;
  onRelief = () => (m.fs.faults.before = (operation) => (isWritten ||= operation === 'write'));
  const relieved = relieve(disks.other).catch(() => undefined);
  await vi.waitFor(async () => {
    expect(removed).not.toBe(undefined);
    await removed;
  });
  m.crash();
  go();
  await relieved;
  m.store.damaged.clear();
  await m.open(options);
  expect(await m.read(disks.copy, 0, 8 * CHUNK)).toEqual(ofCopy);
  expect(await m.read(disks.disk, 0, 8 * CHUNK)).toEqual(ofDisk);
});

it('takes no more writes after a failed sync, and keeps what there was', async () => {
  const disks = await fresh();
  onRelief = () => (m.fs.faults.failSyncOf = 'log');
  await expect(relieve(disks.other)).rejects.toMatchObject({ code: 'store-failed' });
  expect(m.volumes.stats).toMatchObject({ logRewrites: 0, failure: { code: 'store-failed' } });
  await expect(m.write(disks.disk, 0, base(0))).rejects.toMatchObject({ code: 'store-failed' });
  await m.restart(options);
  m.store.damaged.clear();
  await check(disks);
});

it('works while what waits fills most of the memory', async () => {
  const overlayBytesMax = 24 * CHUNK;
  const more = { overlayBytesMax, logBytesMax: 100 * CHUNK };
  const disks = await fresh(more);
  const handle = await m.volumes.open(disks.disk);
  const kept = Buffer.alloc(CHUNK, 8);
  await m.volumes.resize(disks.disk, 28 * CHUNK, none);
  await handle.close();
  for (let chunk = 8; chunk < 27; chunk++) await m.write(disks.disk, chunk * CHUNK, kept);
  expect(m.volumes.stats.overlayBytes).toBeGreaterThan(overlayBytesMax * 0.9);
  for (let round = 0; round < 4; round++) await relieve(disks.other);
  await m.restart({ ...options, ...more });
  m.store.damaged.clear();
  await check(disks);
  expect(await m.read(disks.disk, 26 * CHUNK, CHUNK)).toEqual(kept);
});

it('leaves alone the room on a full disk that is kept for gc', async () => {
  let refusal: PandoError | undefined;
  const space = {
    get refusal() {
      return refusal;
    },
  };
  const disks = await fresh({ space });
  let relieved = false;
  onRelief = () => (relieved = true);
  while (m.volumes.stats.logBytes * 2 <= options.logBytesMax)
    await m.write(disks.other, 0, Buffer.alloc(CHUNK, 1));
  refusal = new PandoError('store-full', 'as the test wanted');
  await m.volumes.settle(disks.other);
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(relieved).toBe(false);
  refusal = undefined;
  await relieve(disks.other);
  expect(relieved).toBe(true);
});

interface Meanwhile {
  readonly what: string;
  readonly run: (disks: Disks) => Promise<unknown>;
  /** Throws when what was done is not there; nothing else may have changed. */
  readonly expectDone: (disks: Disks, result: unknown) => Promise<void>;
}

const PART = [7 * CHUNK - 10, 20, 6] as const;
const sizeOf = async (disk: DiskNumber): Promise<number> => {
  const handle = await m.volumes.open(disk);
  await handle.close();
  return handle.size;
};

const meanwhile: readonly Meanwhile[] = [
  {
    what: 'writes part of a chunk',
    run: ({ disk }) => m.write(disk, PART[0], Buffer.alloc(PART[1], PART[2])),
    expectDone: async (disks) => check(disks, PART),
  },
  {
    what: 'grows the disk',
    run: ({ disk }) => m.volumes.resize(disk, 12 * CHUNK, none),
    expectDone: async ({ disk }) => {
      expect(await sizeOf(disk)).toBe(12 * CHUNK);
      expect(await m.read(disk, 8 * CHUNK, 4 * CHUNK)).toEqual(Buffer.alloc(4 * CHUNK));
    },
  },
  {
    what: 'forks it',
    run: ({ disk }) => m.fork(disk, false),
    expectDone: async (_, copy) => expect(await m.read(copy as DiskNumber, 0, 8 * CHUNK)).toEqual(ofDisk),
  },
  {
    what: 'removes a backup of it',
    run: ({ backup }) => m.volumes.remove([backup], none),
    expectDone: async ({ backup }) =>
      expect(m.volumes.open(backup)).rejects.toMatchObject({ code: 'disk-missing' }),
  },
  {
    what: 'restores a backup onto a clone of it',
    run: ({ copy, backup }) => m.volumes.replace([{ target: copy, source: backup }], none),
    expectDone: async ({ copy }) => expect(await m.read(copy, 0, 8 * CHUNK)).toEqual(ofBackup),
  },
  {
    what: 'shrinks another disk',
    run: ({ other }) => m.volumes.resize(other, 20 * CHUNK, none),
    expectDone: async ({ other }) => expect(await sizeOf(other)).toBe(20 * CHUNK),
  },
  {
    what: 'heals what is damaged',
    run: async ({ copy, disk }) => {
      m.store.damaged.clear();
      await m.read(copy, 2 * CHUNK, 10);
      await m.volumes.settle(disk);
    },
    expectDone: async (disks) => check(disks),
  },
];

it.each(meanwhile)('loses nothing, nor waits for ever, when somebody $what meanwhile', async (one) => {
  const random = seededRandom(runSeed());
  for (let attempt = 0; attempt < 8; attempt++) {
    const disks = await fresh();
    const crashes = attempt > 1;
    let turns = between(random, 0, 20);
    let left = between(random, 1, 30);
    let running: Promise<unknown> | undefined;
    /** What it resolved with, if it did so before the power failed. */
    const done: unknown[] = [];
    onRelief = () => {
      const start = async (): Promise<void> => {
        for (; turns > 0; turns--) await Promise.resolve();
        const result = await one.run(disks);
        if (!m.isOff) done.push(result);
      };
      running = start();
      running.catch(() => undefined);
      m.fs.faults.before = () => {
        if (!crashes || m.isOff || left-- > 0) return;
        m.crash();
      };
    };
    await relieve(disks.other, () => m.isOff).catch((error: unknown) => {
      // It shares the other disk with whoever shrinks it.
      if (!m.isOff && !isPandoError(error, 'disk-in-use')) throw error;
    });
    if (!m.isOff) await running;
    if (!m.isOff) m.crash();
    await m.open(options);
    m.store.damaged.clear();
    for (let again = 0; again < 2; again++) {
      for (const result of done) await one.expectDone(disks, result);
      expect(await m.read(disks.disk, 0, 6 * CHUNK)).toEqual(ofDisk.subarray(0, 6 * CHUNK));
      const end = await m.read(disks.disk, 6 * CHUNK, 2 * CHUNK);
      const ends = [ofDisk, patched(ofDisk, PART)].map((bytes) => bytes.subarray(6 * CHUNK));
      expect(ends.some((bytes) => bytes.equals(end))).toBe(true);
      const copy = await m.read(disks.copy, 0, 8 * CHUNK);
      expect([ofCopy, ofBackup].some((bytes) => bytes.equals(copy))).toBe(true);
      await m.volumes.settleAll();
    }
  }
});

it('lets nobody wait for room in a log that has failed', async () => {
  const disk = await m.volumes.create({ size: 100 * CHUNK }, none);
  const go = m.store.holdWrites();
  const handle = await m.volumes.open(disk);
  await handle.write(0, Buffer.alloc(50 * CHUNK, 1));
  const waiting = handle.write(0, Buffer.alloc(10, 2))!;
  waiting.catch(() => undefined);
  m.fs.faults.failSyncOf = 'log';
  await expect(handle.flush()).rejects.toMatchObject({ code: 'store-failed' });
  go();
  await expect(waiting).rejects.toMatchObject({ code: 'store-failed' });
  await expect((async () => handle.write(0, Buffer.alloc(10, 2)))()).rejects.toMatchObject({
    code: 'store-failed',
  });
});

it('keeps the log short for others while one disk cannot go into the tree, and loses nothing of it', async () => {
  const logBytesMax = 64 * CHUNK;
  const disk = await m.damagedDisk();
  // What lies above is kept as well: parts and all of chunks, zeroed ones, a fork, a larger size.
  await m.write(disk, 3 * CHUNK + 7, Buffer.alloc(9, 1));
  await m.write(disk, 4 * CHUNK, Buffer.alloc(CHUNK, 2));
  const backup = await m.fork(disk);
  const bytes = patched(bases, [2 * CHUNK + 50, 100, 7], [3 * CHUNK + 7, 9, 1], [4 * CHUNK, CHUNK, 2]);
  await m.volumes.resize(disk, 1000 * CHUNK + 512, none);
  const volume = await m.volumes.open(disk);
  await volume.zero(5 * CHUNK, CHUNK + 10);
  await volume.write(1000 * CHUNK, Buffer.alloc(512, 3));
  await volume.zero(100 * CHUNK, 700 * CHUNK);
  await volume.flush();
  await volume.close();
  await m.restart({ logBytesMax });
  const other = await m.volumes.create({ size: 40 * CHUNK }, none);
  const random = seededRandom(12);
  const data = new Uint8Array(CHUNK);
  let longest = 0;
  const expected: Uint8Array[] = [];
  for (let round = 0; round < 3; round++) {
    const before = m.volumes.stats.logRewrites;
    for (let i = 0; i < 400; i++) {
      expected[i % 40] = fillRandom(random, data).slice();
      await m.write(other, (i % 40) * CHUNK, data);
      if (i % 50 === 0) await m.write(disk, 4 * CHUNK + round, Buffer.alloc(1, i / 50));
      longest = Math.max(longest, m.volumes.stats.logBytes);
    }
    // 400 chunks are six times what the log may hold.
    expect(m.volumes.stats.logRewrites - before).toBeGreaterThan(2);
    expect(m.volumes.stats.logRewrites - before).toBeLessThan(30);
    expect(m.volumes.stats.damaged).toEqual(expect.arrayContaining([disk, backup]));
    await m.restart({ logBytesMax });
  }
  expect(longest).toBeLessThan(logBytesMax + 3 * CHUNK);
  m.store.damaged.clear();
  for (let again = 0; again < 2; again++) {
    expect(await m.read(other, 0, 40 * CHUNK)).toEqual(Buffer.concat(expected));
    expect(await m.read(backup, 0, 8 * CHUNK)).toEqual(bytes);
    expect(await m.read(disk, 0, 8 * CHUNK)).toEqual(
      patched(bytes, [4 * CHUNK, 3, 7], [5 * CHUNK, CHUNK + 10, 0]),
    );
    expect(await m.read(disk, 1000 * CHUNK, 512)).toEqual(Buffer.alloc(512, 3));
    expect(await m.read(disk, 8 * CHUNK, 2 * CHUNK)).toEqual(Buffer.alloc(2 * CHUNK));
    await m.volumes.settleAll();
    expect(m.volumes.stats.overlays).toBe(0);
  }
});
