/** What others do while the log is relieved, and the power failing meanwhile. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { isPandoError } from '@pando/common';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import type { DiskNumber } from './index.ts';
import { ReliefMachine, ofBackup, ofCopy, ofDisk, type Disks } from './testing/relief-machine.ts';
import { CHUNK, none, patched } from './testing/test-machine.ts';

let m: ReliefMachine;

/** A new machine, for another attempt in the same test. */
async function fresh(): Promise<Disks> {
  await m.close();
  m = new ReliefMachine();
  await m.open();
  return m.makeDisks();
}

beforeEach(async () => {
  m = new ReliefMachine();
  await m.open();
});

afterEach(() => m.close());

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
    expectDone: async (disks) => m.check(disks, PART),
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
    expectDone: async (disks) => m.check(disks),
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
    m.onRelief = () => {
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
    await m
      .relieve(disks.other, () => m.isOff)
      .catch((error: unknown) => {
        // It shares the other disk with whoever shrinks it.
        if (!m.isOff && !isPandoError(error, 'disk-in-use')) throw error;
      });
    if (!m.isOff) await running;
    if (!m.isOff) m.crash();
    await m.open();
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
