/** Relief of the log, and every sentence of its argument: each test here fails when that sentence is made untrue. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { PandoError } from '@pando/common';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { LOG_BYTES_MAX, ReliefMachine, ofCopy, ofDisk, type Disks } from './testing/relief-machine.ts';
import { CHUNK, DAMAGED, base, bases, none, patched, type MachineOptions } from './testing/test-machine.ts';

let m: ReliefMachine;

/** A new machine, for another attempt in the same test. */
async function fresh(more: MachineOptions = {}): Promise<Disks> {
  await m.close();
  m = new ReliefMachine();
  await m.open(more);
  return m.makeDisks(more);
}

beforeEach(async () => {
  m = new ReliefMachine();
  await m.open();
});

afterEach(() => m.close());

it.each([true, false])(
  'loses nothing when the power fails after some of the old files are removed (healed meanwhile: %s)',
  async (healed) => {
    let removed = 1;
    for (let cut = true; cut; removed++) {
      const disks = await fresh();
      let left = removed;
      m.onRelief = () => {
        m.fs.faults.before = (operation) => {
          if (operation !== 'remove' || left-- > 0) return;
          m.crash();
        };
      };
      await m.relieve(disks.other, () => m.isOff).catch(() => undefined);
      cut = m.isOff;
      if (!cut) m.crash();
      if (healed) m.store.damaged.clear();
      await m.open();
      if (!healed) {
        await expect(m.read(disks.copy, 2 * CHUNK, 10)).rejects.toMatchObject(DAMAGED);
        m.store.damaged.clear();
      }
      await m.check(disks);
      await m.restart();
      await m.volumes.settleAll();
      await m.check(disks);
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
      m.onRelief = () => {
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
      await m.relieve(disks.other, () => m.isOff).catch(() => undefined);
      cut = m.isOff;
      if (!cut) m.crash();
      for (let boot = 0; boot < 3; boot++) {
        // Without another relief. What is destaged lets the log go as far as it may.
        await m.open({ logBytesMax: Infinity });
        await m.write(disks.other, CHUNK, Buffer.alloc(CHUNK, boot));
        await m.volumes.settle(disks.other);
        if (boot < 2) m.crash();
      }
      m.store.damaged.clear();
      await m.check(disks);
    }
    expect(operations).toBeGreaterThan(3);
  }
});

it('keeps the log from the open record of a disk that grows meanwhile', async () => {
  for (let turns = 0; turns < 40; turns++) {
    const small = { logFileBytes: 100 };
    const disks = await fresh(small);
    let grown: Promise<void> | undefined;
    m.onRelief = () => {
      let waited = Promise.resolve();
      for (let i = 0; i < turns; i++) waited = waited.then(() => undefined);
      grown = waited.then(() => m.volumes.resize(disks.disk, 9 * CHUNK, none));
    };
    await m.relieve(disks.other);
    await grown;
    await m.restart(small);
    m.store.damaged.clear();
    await m.check(disks);
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
  m.onRelief = () => setImmediate(go);
  await m.relieve(disks.other);
  await written;
  await handle.flush();
  await m.restart();
  m.store.damaged.clear();
  await m.check(disks, [7 * CHUNK - 10, 20, 6]);
});

it('does not wait for ever for a writer whose read hangs', async () => {
  const disks = await fresh();
  const go = m.store.holdRead(base(7));
  const handle = await m.volumes.open(disks.disk);
  const written = handle.write(7 * CHUNK - 10, Buffer.alloc(20, 6));
  const stopped = new AbortController();
  m.onRelief = () => stopped.abort();
  await m.relieve(disks.other, () => stopped.signal.aborted);
  for (let i = 0; i < 5; i++) await m.write(disks.other, CHUNK, Buffer.alloc(CHUNK, i));
  expect(m.volumes.stats.logRewrites).toBe(0);
  go();
  await written;
  await handle.close();
  await m.relieve(disks.other);
  await m.restart();
  m.store.damaged.clear();
  await m.check(disks, [7 * CHUNK - 10, 20, 6]);
});

it('has changed nothing when the disk gets full, and tries again', async () => {
  for (let free = 0; free <= 900; free += 60) {
    const disks = await fresh();
    m.onRelief = () => (m.fs.faults.freeBytes = free);
    const error = await m.relieve(disks.other).then(
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
    if (free % 120 === 0) await m.relieve(disks.other);
    await m.restart();
    m.store.damaged.clear();
    await m.check(disks);
  }
});

it('says that the disk is full, and not that it is damaged, to those who wait meanwhile', async () => {
  const disks = await fresh();
  let isRelief = false;
  const again = (): void => {
    isRelief = true;
    m.onRelief = again;
  };
  m.onRelief = again;
  m.fs.faults.before = (operation) => {
    if (!isRelief || (operation !== 'write' && operation !== 'create')) return;
    isRelief = false;
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  };
  await expect(m.relieve(disks.other)).rejects.toMatchObject({ code: 'store-full' });
  expect(m.volumes.stats.logBytes).toBeGreaterThan(LOG_BYTES_MAX);
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
  m.onRelief = () => (m.fs.faults.before = (operation) => (isWritten ||= operation === 'write'));
  const relieved = m.relieve(disks.other).catch(() => undefined);
  await vi.waitFor(async () => {
    expect(removed).not.toBe(undefined);
    await removed;
  });
  m.crash();
  go();
  await relieved;
  m.store.damaged.clear();
  await m.open();
  expect(await m.read(disks.copy, 0, 8 * CHUNK)).toEqual(ofCopy);
  expect(await m.read(disks.disk, 0, 8 * CHUNK)).toEqual(ofDisk);
});

it('takes no more writes after a failed sync, and keeps what there was', async () => {
  const disks = await fresh();
  m.onRelief = () => (m.fs.faults.failSyncOf = 'log');
  await expect(m.relieve(disks.other)).rejects.toMatchObject({ code: 'store-failed' });
  expect(m.volumes.stats).toMatchObject({ logRewrites: 0, failure: { code: 'store-failed' } });
  await expect(m.write(disks.disk, 0, base(0))).rejects.toMatchObject({ code: 'store-failed' });
  await m.restart();
  m.store.damaged.clear();
  await m.check(disks);
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
  for (let round = 0; round < 4; round++) await m.relieve(disks.other);
  await m.restart({ ...more });
  m.store.damaged.clear();
  await m.check(disks);
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
  m.onRelief = () => (relieved = true);
  while (m.volumes.stats.logBytes * 2 <= LOG_BYTES_MAX) await m.write(disks.other, 0, Buffer.alloc(CHUNK, 1));
  refusal = new PandoError('store-full', 'as the test wanted');
  await m.volumes.settle(disks.other);
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(relieved).toBe(false);
  refusal = undefined;
  await m.relieve(disks.other);
  expect(relieved).toBe(true);
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
