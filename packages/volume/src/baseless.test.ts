/** Writes in the log onto chunks that are damaged when it is replayed: one small, fixed order of events a test. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CHUNK, DAMAGED, TestMachine, base, bases, none, patched, until } from './testing/test-machine.ts';

let m: TestMachine;

beforeEach(async () => {
  m = new TestMachine();
  await m.open();
});

afterEach(() => m.close());

it.each([true, false])(
  'opens, and fails nothing but that chunk, again and again (warm: %s)',
  async (isWarm) => {
    m.warm = isWarm;
    const other = await m.volumes.create({ size: 8 * CHUNK }, none);
    await m.write(other, 10, Buffer.alloc(20, 1));
    const disk = await m.damagedDisk();
    for (let boot = 0; boot < 3; boot++) {
      expect(m.volumes.stats.damaged).toEqual([disk]);
      await expect(m.read(disk, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
      // Also of the bytes that are known, and within a larger read.
      await expect(m.read(disk, 2 * CHUNK + 60, 10)).rejects.toMatchObject(DAMAGED);
      await expect(m.read(disk, 0, 8 * CHUNK)).rejects.toMatchObject(DAMAGED);
      expect(await m.read(disk, 0, 2 * CHUNK)).toEqual(Buffer.from(bases.subarray(0, 2 * CHUNK)));
      expect((await m.read(disk, 3 * CHUNK, 5 * CHUNK)).subarray(CHUNK)).toEqual(
        Buffer.from(bases.subarray(4 * CHUNK)),
      );
      // Part of it cannot be written; the rest of the disk can, and another disk even be destaged.
      await expect(m.write(disk, 2 * CHUNK, Buffer.alloc(10))).rejects.toMatchObject(DAMAGED);
      await m.write(disk, 3 * CHUNK + 5, Buffer.alloc(10, 2 + boot));
      await m.write(other, 30, Buffer.alloc(20, 1 + boot));
      await expect(m.volumes.settle(disk)).rejects.toMatchObject(DAMAGED);
      await m.volumes.settle(other);
      expect((await m.read(other, 0, 60)).subarray(30, 50)).toEqual(Buffer.alloc(20, 1 + boot));
      const volume = await m.volumes.open(disk);
      expect((await volume.allocation(0, 8 * CHUNK, 10)).holes).toEqual([false]);
      await volume.close();
      await m.restart();
    }
    m.store.damaged.clear();
    expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
    expect((await m.read(disk, 3 * CHUNK, CHUNK)).subarray(5, 15)).toEqual(Buffer.alloc(10, 4));
  },
);

it('heals when the same bytes are stored again, and lets the log go', async () => {
  const disk = await m.damagedDisk();
  const other = await m.volumes.create({ size: 8 * CHUNK }, none);
  await m.write(other, 5 * CHUNK, base(2));
  await m.volumes.settle(other);
  expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
  await m.volumes.settleAll();
  expect(m.volumes.stats).toMatchObject({ overlays: 0, overlayBytes: 0, damaged: [] });
  await m.restart();
  expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
});

it('is well again when a guest writes all of the chunk, and lets the log go, over a restart at any time', async () => {
  for (const settled of [false, true]) {
    const disk = await m.damagedDisk();
    await m.write(disk, 4 * CHUNK, Buffer.alloc(10, 9));
    // Two overlays above the one that is damaged.
    const copy = await m.fork(disk);
    await m.volumes.remove([copy], none);
    await m.write(disk, 2 * CHUNK, Buffer.alloc(CHUNK, 8));
    await m.write(disk, 2 * CHUNK + 5, Buffer.alloc(10, 3));
    const whole = patched(Buffer.alloc(CHUNK, 8), [5, 10, 3]);
    expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(whole);
    if (settled) {
      await m.volumes.settleAll();
      expect(m.volumes.stats).toMatchObject({ overlays: 0, overlayBytes: 0, damaged: [] });
      await m.store.collect(m.catalog);
    }
    await m.restart();
    expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(whole);
    expect(await m.read(disk, 4 * CHUNK, CHUNK)).toEqual(patched(base(4), [0, 10, 9]));
    expect(await m.read(disk, 5 * CHUNK, 3 * CHUNK)).toEqual(Buffer.from(bases.subarray(5 * CHUNK)));
    await m.volumes.settleAll();
    expect((await m.fs.list('log')).length).toBe(0);
  }
});

it('keeps what is known for a backup while another disk has written the chunk anew', async () => {
  const disk = await m.damagedDisk();
  const backup = await m.fork(disk);
  await m.write(disk, 2 * CHUNK, Buffer.alloc(CHUNK, 8));
  for (let boot = 0; boot < 2; boot++) {
    expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
    await expect(m.read(backup, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
    await expect(m.volumes.settle(disk)).rejects.toMatchObject(DAMAGED);
    await m.restart();
  }
  const [a, b] = [await m.volumes.open(disk), await m.volumes.open(backup)];
  expect(await b.differences(a, 0, 8 * CHUNK, 10)).toEqual({
    lengths: [2 * CHUNK, CHUNK, 5 * CHUNK],
    flags: [0, 1, 0],
  });
  await a.close();
  await b.close();
  m.store.damaged.clear();
  await m.volumes.settleAll();
  expect(await m.read(backup, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
  expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
});

it('stays so when overlays lie on each other, and heals from below', async () => {
  const disk = await m.volumes.create({ size: 8 * CHUNK }, none);
  await m.write(disk, 0, bases);
  await m.volumes.settle(disk);
  await m.write(disk, 2 * CHUNK + 50, Buffer.alloc(100, 7));
  const first = await m.fork(disk);
  await m.write(disk, 2 * CHUNK + 100, Buffer.alloc(100, 8));
  const second = await m.fork(disk);
  const volume = await m.volumes.open(disk);
  await volume.zero(2 * CHUNK + 40, 20);
  await volume.flush();
  await volume.close();
  m.store.damage(base(2));
  for (let boot = 0; boot < 2; boot++) {
    await m.restart();
    for (const one of [disk, first, second])
      await expect(m.read(one, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
  }
  m.store.damaged.clear();
  const check = async (): Promise<void> => {
    expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(
      patched(base(2), [50, 100, 7], [100, 100, 8], [40, 20, 0]),
    );
    expect(await m.read(second, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7], [100, 100, 8]));
    expect(await m.read(first, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
  };
  await check();
  await m.volumes.settleAll();
  await check();
});

it('needs no base for a chunk of which the log holds every byte, also at the end of a disk', async () => {
  const size = 2 * CHUNK + 512;
  const disk = await m.volumes.create({ size }, none);
  await m.write(disk, 0, bases.subarray(0, size));
  await m.volumes.settle(disk);
  const end = new Uint8Array(CHUNK);
  end.set(bases.subarray(2 * CHUNK, size));
  await m.write(disk, CHUNK, Buffer.alloc(4000, 1));
  await m.write(disk, CHUNK + 3000, Buffer.alloc(1096, 2));
  await m.write(disk, 2 * CHUNK + 100, Buffer.alloc(412, 4));
  await m.write(disk, 2 * CHUNK, Buffer.alloc(200, 3));
  m.store.damage(base(1));
  m.store.damage(end);
  await m.restart();
  const expected = Buffer.alloc(CHUNK + 512, 1);
  expected.fill(2, 3000, 4096).fill(3, 4096, 4296).fill(4, 4296);
  expect(await m.read(disk, CHUNK, CHUNK + 512)).toEqual(expected);
  await m.volumes.settleAll();
  await m.volumes.resize(disk, 3 * CHUNK, none);
  expect(await m.read(disk, CHUNK, 2 * CHUNK)).toEqual(Buffer.concat([expected, Buffer.alloc(CHUNK - 512)]));
});

/** Lets nothing of the log be synced before `pass` is called. */
function holdSyncs(): () => void {
  let pass!: () => void;
  const passed = new Promise<void>((resolve) => (pass = resolve));
  const openFile = m.fs.open.bind(m.fs);
  m.fs.open = async (path, mode) => {
    const file = await openFile(path, mode);
    const sync = file.sync.bind(file);
    file.sync = () => passed.then(sync);
    return file;
  };
  return pass;
}

it('forks again when what it was going to fork has gone into the tree with what covers it', async () => {
  const other = await m.volumes.create({ size: 8 * CHUNK }, none);
  const disk = await m.damagedDisk();
  const pass = holdSyncs();
  const volume = await m.volumes.open(disk);
  const before = volume.root;
  const [a, b] = [volume, await m.volumes.open(other)];
  await b.write(0, Buffer.alloc(CHUNK, 1));
  const forked = m.volumes
    .fork({ sources: [disk, other], copies: 1, readOnly: true, records: none })
    .then(([copy]) => copy!);
  await b.write(0, Buffer.alloc(CHUNK, 2));
  await a.write(2 * CHUNK, Buffer.alloc(CHUNK, 8));
  const settled = m.volumes.settle(disk);
  await until(() => volume.root !== before);
  pass();
  await settled;
  const [copy, otherCopy] = await forked;
  await Promise.all([a.close(), b.close()]);
  // All of one instant, which is that of the second attempt.
  expect(await m.read(copy!, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
  expect(await m.read(otherCopy!, 0, CHUNK)).toEqual(Buffer.alloc(CHUNK, 2));
});

it('does not put what covers a chunk into the tree under a fork that does not hold it', async () => {
  const disk = await m.damagedDisk();
  const other = await m.volumes.create({ size: 8 * CHUNK }, none);
  const pass = holdSyncs();
  const volume = await m.volumes.open(disk);
  const otherVolume = await m.volumes.open(other);
  // So that the fork has something to wait for.
  await otherVolume.write(0, Buffer.alloc(CHUNK, 1));
  await otherVolume.close();
  const forked = m.fork(disk);
  await volume.write(2 * CHUNK, Buffer.alloc(CHUNK, 8));
  let go!: () => void;
  m.store.hold = new Promise<void>((resolve) => (go = resolve));
  const settled = m.volumes.settle(disk);
  settled.catch(() => undefined);
  await until(() => m.store.sessions.size > 0);
  pass();
  const copy = await forked;
  go();
  await expect(settled).rejects.toMatchObject(DAMAGED);
  await volume.close();
  expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
  await expect(m.read(copy, 2 * CHUNK, CHUNK)).rejects.toMatchObject(DAMAGED);
  expect(m.store.sessions.size).toBe(0);
  m.store.damaged.clear();
  await m.volumes.settleAll();
  expect(await m.read(copy, 2 * CHUNK, CHUNK)).toEqual(patched(base(2), [50, 100, 7]));
});

it('makes no fork of what it was before it was written anew, when that goes into the tree meanwhile', async () => {
  for (let delay = 0; delay < 40; delay++) {
    const disk = await m.damagedDisk();
    // The fork waits for the log; all of the chunk is written and destaged at about that time.
    const forked = m.fork(disk);
    for (let i = 0; i < delay; i++) await Promise.resolve();
    await m.write(disk, 2 * CHUNK, Buffer.alloc(CHUNK, 8));
    const settled = m.volumes.settle(disk).then(
      () => undefined,
      (error: unknown) => error,
    );
    const copy = await forked;
    await settled;
    m.store.damaged.clear();
    await m.volumes.settleAll();
    await m.store.collect(m.catalog);
    const is = await m.read(copy, 2 * CHUNK, CHUNK);
    const allowed = [patched(base(2), [50, 100, 7]), Buffer.alloc(CHUNK, 8)];
    expect(allowed.some((one) => one.equals(is))).toBe(true);
    expect(await m.read(disk, 2 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 8));
  }
});
