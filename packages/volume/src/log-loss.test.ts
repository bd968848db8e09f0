/** Disks of a log that is damaged: which are named, and what they read as when that is accepted. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { DISK_TABLE, NUMBERS_TABLE, PENDING_TABLE, diskKey } from './disk.ts';
import { LogLossError } from './log-loss.ts';
import { CHUNK, TestMachine, base, bases, none, patched } from './testing/test-machine.ts';

const LOST = { code: 'chunk-missing', kind: 'data' };
const MARK = 0x5e;

let m: TestMachine;
beforeEach(async () => {
  m = new TestMachine();
  await m.open();
});
afterEach(() => m.close());

/** A disk of 8 chunks in the tree. */
async function disk(): Promise<number> {
  const number = await m.volumes.create({ size: 8 * CHUNK }, none);
  await m.write(number, 0, bases);
  await m.volumes.settle(number);
  return number;
}

/** Flips a bit in the data of the records that are full of `mark`, or `before` bytes before it, and the power fails. */
async function damage(mark = MARK, before = 0): Promise<void> {
  m.crash();
  for (const name of await m.fs.list('log')) {
    m.fs.damage(`log/${name}`, (bytes) => {
      const at = Buffer.from(bytes).indexOf(Buffer.alloc(64, mark));
      if (at >= 0) bytes[at - before + 10 * Number(before === 0)]! ^= 1;
      return bytes;
    });
  }
}

async function loss(): Promise<LogLossError> {
  const error: unknown = await m.open().then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(LogLossError);
  return error as LogLossError;
}

it('a write that is lost is named with its disks, and reads as an error, until it is written anew', async () => {
  const [web, other] = [await disk(), await disk()];
  await m.write(web, CHUNK, Buffer.alloc(CHUNK, 1));
  await m.write(web, 2 * CHUNK + 100, Buffer.alloc(2 * CHUNK, MARK));
  const backup = await m.fork(web);
  await m.write(web, 3 * CHUNK, Buffer.alloc(CHUNK, 3));
  await m.write(web, 4 * CHUNK + 50, Buffer.alloc(10, 4));
  await m.write(other, 5 * CHUNK, Buffer.alloc(10, 5));
  await damage();
  const { message, loss: named } = await loss();
  expect(message).toMatch(/^the write log is damaged: log\/\d+\.log at byte \d+: /);
  const ranges = [{ offset: 2 * CHUNK + 100, bytes: 2 * CHUNK }];
  expect(named).toMatchObject({ isAllKnown: true, maybe: [], isAnyDisk: false });
  expect([...named.disks].sort((a, b) => a.disk - b.disk)).toEqual([
    { disk: web, ranges },
    { disk: backup, ranges },
  ]);

  await m.open({ acceptLogDamage: true });
  expect(m.volumes.logLoss).toMatchObject({ isAllKnown: true, places: named.places });
  const [ofWeb, ofBackup] = [web, backup].map(
    (one) => m.volumes.logLoss!.disks.find((each) => each.disk === one)!.ranges,
  );
  expect(ofBackup).toEqual([{ offset: 2 * CHUNK, bytes: 3 * CHUNK }]);
  expect(ofWeb).toEqual([
    { offset: 2 * CHUNK, bytes: CHUNK },
    { offset: 4 * CHUNK, bytes: CHUNK },
  ]);
  const check = async (): Promise<void> => {
    for (const chunk of [2, 4]) await expect(m.read(web, chunk * CHUNK, 512)).rejects.toMatchObject(LOST);
    for (const chunk of [2, 3, 4])
      await expect(m.read(backup, chunk * CHUNK, CHUNK)).rejects.toMatchObject(LOST);
    await expect(m.read(web, 0, 8 * CHUNK)).rejects.toMatchObject(LOST);
    expect(await m.read(web, 0, 2 * CHUNK)).toEqual(Buffer.concat([base(0), Buffer.alloc(CHUNK, 1)]));
    expect(await m.read(web, 3 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 3));
    expect(await m.read(web, 5 * CHUNK, 3 * CHUNK)).toEqual(Buffer.from(bases.subarray(5 * CHUNK)));
    expect(await m.read(other, 5 * CHUNK, CHUNK)).toEqual(patched(base(5), [0, 10, 5]));
    // Part of it cannot be written, as nobody knows the rest.
    await expect(m.write(web, 2 * CHUNK + 7, Buffer.alloc(9))).rejects.toMatchObject(LOST);
  };
  await check();
  const [a, b] = [await m.volumes.open(web), await m.volumes.open(backup)];
  // Of chunk 4 the disk has ten bytes that the backup has not.
  expect(await a.differences(b, 2 * CHUNK, 3 * CHUNK, 10)).toEqual({
    lengths: [CHUNK, 2 * CHUNK],
    flags: [0, 1],
  });
  expect((await a.allocation(0, 8 * CHUNK, 10)).holes).toEqual([false]);
  await a.close();
  await b.close();

  // The write that was refused in part for want of a base lies on top, and is in the log as long as it does.
  await m.write(web, 4 * CHUNK, Buffer.alloc(CHUNK, 9));
  await m.volumes.settle(web);
  await m.volumes.settle(backup);
  await m.volumes.settleAll();
  expect(await m.fs.list('log')).toEqual([]);
  // What is lost stays lost without the log, and without being asked again.
  await m.restart();
  await m.store.collect(m.catalog);
  expect(m.volumes.logLoss).toBeUndefined();
  await expect(m.read(web, 2 * CHUNK, CHUNK)).rejects.toMatchObject(LOST);
  for (const chunk of [2, 3, 4])
    await expect(m.read(backup, chunk * CHUNK, CHUNK)).rejects.toMatchObject(LOST);
  expect(await m.read(web, 4 * CHUNK, CHUNK)).toEqual(Buffer.alloc(CHUNK, 9));
  await m.write(web, 2 * CHUNK, Buffer.alloc(CHUNK, 8));
  await m.volumes.settleAll();
  expect(await m.read(web, 0, 8 * CHUNK)).toEqual(
    Buffer.concat([
      base(0),
      Buffer.alloc(CHUNK, 1),
      Buffer.alloc(CHUNK, 8),
      Buffer.alloc(CHUNK, 3),
      Buffer.alloc(CHUNK, 9),
      bases.subarray(5 * CHUNK),
    ]),
  );
});

it('a write whose place is lost too is one of any disk that was written to, and everything else goes on', async () => {
  const [web, other] = [await disk(), await disk()];
  await m.write(web, CHUNK, Buffer.alloc(CHUNK, 1));
  await m.write(web, 2 * CHUNK, Buffer.alloc(CHUNK, MARK));
  await m.write(web, 3 * CHUNK, Buffer.alloc(CHUNK, 3));
  await damage(MARK, 20); // the offset
  const { loss: named } = await loss();
  expect(named).toMatchObject({ isAllKnown: false, disks: [], maybe: [web], isAnyDisk: false });
  await m.open({ acceptLogDamage: true });
  expect(m.volumes.logLoss).toMatchObject({ isAllKnown: false, maybe: [web] });
  expect(await m.read(web, 0, 4 * CHUNK)).toEqual(
    Buffer.concat([base(0), Buffer.alloc(CHUNK, 1), base(2), Buffer.alloc(CHUNK, 3)]),
  );
  expect(await m.read(other, 0, 8 * CHUNK)).toEqual(Buffer.from(bases));
});

it('a catalog that was put back names overlays that the log has let go: refused with their disks, and can be accepted', async () => {
  const [web, other] = [await disk(), await disk()];
  await m.write(web, CHUNK, Buffer.alloc(CHUNK, 1));
  await m.fork(web);
  const before = [];
  for (const table of [DISK_TABLE, PENDING_TABLE])
    for (const { key, value } of await m.records.list(table))
      before.push({ type: 'put', table, key, value } as const);
  await m.volumes.settleAll();
  await m.write(other, 5 * CHUNK, Buffer.alloc(10, 5));
  m.crash();
  await m.records.commit(before);
  const { message, loss: named } = await loss();
  expect(message).toMatch(/^overlay \d+ of disk \d+, \d+ is not in the write log$/);
  expect(named).toMatchObject({ isAllKnown: false, maybe: [web, web + 2], disks: [], isAnyDisk: false });
  await m.open({ acceptLogDamage: true });
  expect(m.volumes.logLoss).toEqual(named);
  expect(await m.read(web, 0, 8 * CHUNK)).toEqual(Buffer.from(bases));
  expect(await m.read(other, 5 * CHUNK, CHUNK)).toEqual(patched(base(5), [0, 10, 5]));
  await m.volumes.settleAll();
  await m.restart();
  expect(m.volumes.logLoss).toBeUndefined();
  expect(await m.read(web, 0, 8 * CHUNK)).toEqual(Buffer.from(bases));
});

it('a disk that gets the number of one that a catalog has lost gets none of its writes', async () => {
  await m.write(await disk(), 0, Buffer.alloc(10, 5)); // for which the log stays
  const numbers = await m.records.list(NUMBERS_TABLE);
  const lost = await m.volumes.create({ size: 8 * CHUNK }, none);
  for (let time = 0; time < 3; time++) {
    await m.write(lost, time * CHUNK, Buffer.alloc(CHUNK, MARK));
    await m.volumes.remove([await m.fork(lost)], none);
  }
  m.crash();
  await m.records.commit([
    ...numbers.map(({ key, value }) => ({ type: 'put', table: NUMBERS_TABLE, key, value }) as const),
    ...[DISK_TABLE, PENDING_TABLE].map((table) => ({ type: 'delete', table, key: diskKey(lost) }) as const),
  ]);
  await m.open({ acceptLogDamage: true });
  const other = await m.volumes.create({ size: 8 * CHUNK }, none);
  expect(other).toBe(lost);
  const mine = Buffer.alloc(8 * CHUNK);
  for (let time = 0; time < 3; time++) {
    expect(await m.read(other, 0, 8 * CHUNK)).toEqual(mine);
    await m.write(other, time * CHUNK + 7, Buffer.alloc(10, 3));
    mine.fill(3, time * CHUNK + 7, time * CHUNK + 17);
    if (time === 1) await m.fork(other);
    await m.restart();
  }
});

it('a write that is lost and written over, or of a disk that is gone, costs nothing', async () => {
  const [web, gone] = [await disk(), await disk()];
  await m.write(web, 2 * CHUNK, Buffer.alloc(CHUNK, MARK));
  await m.write(gone, 0, Buffer.alloc(CHUNK, 0x77));
  const volume = await m.volumes.open(web);
  await volume.zero(CHUNK, 4 * CHUNK);
  await volume.flush();
  await volume.close();
  await m.volumes.remove([gone], none);
  await damage();
  expect((await loss()).loss.disks.map((each) => each.disk)).toEqual([web]);
  await m.open({ acceptLogDamage: true });
  expect(m.volumes.logLoss).toMatchObject({ disks: [] });
  expect(await m.read(web, 0, 8 * CHUNK)).toEqual(patched(bases, [CHUNK, 4 * CHUNK, 0]));
});

it('random writes over lost ones: what is read is right, or an error where something is lost', async () => {
  let errors = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const random = seededRandom(seed);
    const web = await disk();
    const model = Buffer.from(bases);
    const lost = new Set<number>();
    const marks: Buffer[] = [];
    for (let step = 0; step < 12; step++) {
      const offset = Math.floor(random() * 7 * CHUNK);
      const length = 64 + Math.floor(random() * CHUNK);
      const isLost = random() < 0.2;
      const mark = Buffer.from([0x80 + step, seed]);
      const data = isLost
        ? Buffer.alloc(length, mark)
        : Buffer.from(fillRandom(random, new Uint8Array(length)));
      await m.write(web, offset, data);
      data.copy(model, offset);
      if (isLost) marks.push(mark);
      for (let chunk = Math.floor(offset / CHUNK); chunk * CHUNK < offset + length; chunk++) {
        if (isLost) lost.add(chunk);
        else if (offset <= chunk * CHUNK && offset + length >= (chunk + 1) * CHUNK) lost.delete(chunk);
      }
      if (random() < 0.2) await m.volumes.remove([await m.fork(web)], none);
    }
    m.crash();
    for (const name of await m.fs.list('log')) {
      m.fs.damage(`log/${name}`, (bytes) => {
        for (const mark of marks) {
          const at = Buffer.from(bytes).indexOf(Buffer.alloc(64, mark));
          if (at >= 0) bytes[at + 7]! ^= 4;
        }
        return bytes;
      });
    }
    await m.open({ acceptLogDamage: true });
    for (const settled of [false, true]) {
      for (let chunk = 0; chunk < 8; chunk++) {
        const read = m.read(web, chunk * CHUNK, CHUNK);
        const where = `seed ${seed}, chunk ${chunk}`;
        const bytes = await read.catch((error: unknown) => {
          expect(error, where).toMatchObject({ kind: 'data' });
          expect(lost.has(chunk), where).toBe(true);
          errors++;
        });
        // One that was written anew piece by piece may be known again.
        if (bytes !== undefined)
          expect(bytes.equals(model.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)), where).toBe(true);
      }
      if (settled) break;
      for (const chunk of lost)
        await m.write(web, chunk * CHUNK, model.subarray(chunk * CHUNK, (chunk + 1) * CHUNK));
      lost.clear();
      await m.volumes.settleAll();
    }
    await m.volumes.remove([web], none);
    await m.volumes.settleAll();
  }
  expect(errors).toBeGreaterThan(10);
});
