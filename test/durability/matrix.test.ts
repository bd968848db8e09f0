/**
 * The table of docs/durability.md, cell by cell: each operation on the simulated machine, and each thing that may befall
 * it, at every storage operation of it. Afterwards everything must be as the oracle says: see ../simulation/oracle.ts.
 * What a second process may do is in second-process.test.ts, over a real server.
 */
import { isPandoError } from '@pando/common';
import { runSeed, seededRandom } from '@pando/common/testing';
import { beforeAll, describe, expect, it } from 'vitest';
import { check, verify } from '../simulation/check.ts';
import { SECTOR_BYTES } from '../simulation/disk-model.ts';
import {
  Machine,
  copyOf,
  emptyImage,
  ended,
  prepare as prepareMachine,
  type Engine,
  type Image,
} from '../simulation/machine.ts';
import { Oracle } from '../simulation/oracle.ts';
import { mix } from '../simulation/run.ts';
import { OPERATIONS, prepare, storyOf, type Operation } from './operations.ts';

const seed = runSeed();
const CHUNK = 4096;
const TUNING = {
  segmentBytesMax: 60_000,
  logFileBytes: 30_000,
  logBytesMax: 1_000_000,
  overlayBytesMax: 100 * CHUNK,
  destageAfterMs: 1e9,
  cacheBytes: 20_000,
  pendingBytesMax: 1_000_000,
};
/** Different things that a power cut may leave at one moment; of long operations fewer. */
const POWER_CUTS = 3;
const LONG = 60;
/** Moments of an operation at which the clock is set. */
const JUMPS = 8;
/** Every how many-th sector of the segments is damaged. */
const STRIDE = 17;
const YEARS_MS = 10 * 365 * 86_400_000;

interface Moment {
  readonly image: Image;
  readonly oracle: Oracle;
}

/** The machine that every operation begins with: stopped, and what it must hold. */
async function beginning(): Promise<Moment> {
  await prepareMachine();
  const machine = new Machine(emptyImage(), mix(seed, 1));
  const oracle = new Oracle();
  const engine = await machine.scheduler.drive(machine.open(TUNING));
  await machine.scheduler.drive(prepare(engine, oracle, seed));
  machine.off();
  // What the operations below do not cut the power before is on the disk.
  return { image: ended(machine.image(), 'kill', seededRandom(seed)), oracle };
}

interface Boot {
  readonly machine: Machine;
  readonly engine: Engine;
  readonly oracle: Oracle;
}

async function boot({ image, oracle }: Moment, salt: number): Promise<Boot> {
  const machine = new Machine(copyOf(image), mix(seed, 2, salt));
  const copy = oracle.copy();
  const engine = await machine.scheduler.drive(machine.open(TUNING));
  return { machine, engine, oracle: copy };
}

/** Boots, and holds everything against the oracle, before and after a collection. */
async function checkAll(moment: Moment, salt: number): Promise<void> {
  const { machine, engine, oracle } = await boot(moment, salt);
  const { scheduler } = machine;
  await scheduler.drive(check(engine, oracle));
  await scheduler.drive(verify(engine));
  await scheduler.drive(engine.collect(true));
  await scheduler.drive(check(engine, oracle));
  machine.off();
}

/** The moments before each storage operation of `operation`, and the one after it. */
async function momentsOf(start: Moment, operation: Operation): Promise<Moment[]> {
  const { machine, engine, oracle } = await boot(start, 0);
  const moments: Moment[] = [];
  machine.scheduler.observer = ({ isRead }) => {
    if (isRead !== true) moments.push({ image: machine.image(), oracle: oracle.copy() });
    return undefined;
  };
  await machine.scheduler.drive(operation.run(storyOf(engine, oracle)));
  moments.push({ image: machine.image(), oracle: oracle.copy() });
  machine.off();
  return moments;
}

describe(`what survives what (seed ${seed})`, () => {
  let start: Moment;

  beforeAll(async () => {
    start = await beginning();
  });

  for (const operation of OPERATIONS) {
    it(`${operation.name}, killed process`, async () => {
      const moments = await momentsOf(start, operation);
      expect(moments.length).toBeGreaterThan(1);
      for (const [i, { image, oracle }] of moments.entries())
        await checkAll({ image: ended(copyOf(image), 'kill', seededRandom(seed)), oracle }, i);
    });

    it(`${operation.name}, power cut`, async () => {
      const moments = await momentsOf(start, operation);
      for (const [i, { image, oracle }] of moments.entries()) {
        for (let time = 0; time < (moments.length > LONG ? 1 : POWER_CUTS); time++) {
          const after = oracle.copy();
          after.powerCut();
          const found = ended(copyOf(image), 'powerCut', seededRandom(mix(seed, i, time)));
          await checkAll({ image: found, oracle: after }, mix(i, time));
        }
      }
    });

    it(`${operation.name}, full disk`, async () => {
      const count = (await momentsOf(start, operation)).length;
      let refused = 0;
      for (let from = 1; from < count; from++) {
        const { machine, engine, oracle } = await boot(start, from);
        const { scheduler } = machine;
        let seen = 0;
        scheduler.observer = ({ kind, isRead }) => {
          if (isRead === true || !/^(write|create|catalog commit|index write|index mark)$/.test(kind))
            return undefined;
          return ++seen >= from ? { code: 'ENOSPC' } : undefined;
        };
        try {
          await scheduler.drive(operation.run(storyOf(engine, oracle)));
        } catch (error) {
          if (!isPandoError(error, 'store-full')) throw error;
          refused++;
        }
        // Nothing else breaks meanwhile, and when there is room, all goes on without a restart.
        expect(await scheduler.drive(readable(engine, oracle))).toBe(0);
        scheduler.observer = undefined;
        await scheduler.drive(scheduler.clock.sleep(60_000));
        await scheduler.drive(other(engine, oracle));
        expect(await scheduler.drive(readable(engine, oracle))).toBe(0);
        await scheduler.drive(verify(engine));
        machine.off();
        await checkAll({ image: ended(machine.image(), 'kill', seededRandom(seed)), oracle }, from);
      }
      // gc drops what it can; nothing but what needs room is refused.
      if (operation.name !== 'gc') expect(refused).toBeGreaterThan(0);
    });

    it(`${operation.name}, bad sector`, async () => {
      const { image } = start;
      let unreadable = 0;
      for (const path of image.disk.paths().filter((name) => name.endsWith('.seg'))) {
        const { byteLength } = image.disk.bytesOf(path);
        for (let sector = 0; sector * SECTOR_BYTES < byteLength; sector += STRIDE) {
          const { machine, engine, oracle } = await boot(start, sector);
          const { scheduler } = machine;
          const good = machine.disk.bytesOf(path).slice();
          machine.disk.damage(path, (bytes) =>
            bytes.fill(0xba, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES),
          );
          try {
            await scheduler.drive(operation.run(storyOf(engine, oracle)));
          } catch (error) {
            if (!isPandoError(error, 'chunk-corrupt')) throw error;
          }
          unreadable += await scheduler.drive(readable(engine, oracle));
          // The sector is there again: nothing was lost that it does not hold, and nothing else was touched.
          if (machine.disk.paths().includes(path)) machine.disk.damage(path, () => good);
          machine.off();
          await checkAll({ image: ended(machine.image(), 'kill', seededRandom(seed)), oracle }, sector);
        }
      }
      expect(unreadable).toBeGreaterThan(0);
    });

    it(`${operation.name}, failed sync`, async () => {
      const count = (await momentsOf(start, operation)).length;
      let failed = 0;
      for (let at = 0; at < count; at++) {
        const { machine, engine, oracle } = await boot(start, at);
        const { scheduler } = machine;
        let seen = 0;
        let failing = '';
        const again: string[] = [];
        scheduler.observer = ({ kind, path }) => {
          if (!kind.endsWith('sync')) return undefined;
          // A log file that is made in advance is done without; one that is in use has another name, and is known by its first.
          if (/spare-\d+$/.test(path) && machine.disk.paths().includes(path)) return undefined;
          if (path === failing) again.push(`${kind} ${path}`);
          if (seen++ !== at) return undefined;
          failing = path;
          return { code: 'EIO' };
        };
        try {
          await scheduler.drive(operation.run(storyOf(engine, oracle)));
          await scheduler.drive(flush(engine));
        } catch (error) {
          if (!isPandoError(error, 'store-failed')) throw error;
          failed++;
          // What it was is said once; nothing is taken as if it had not been, and everything can be read.
          await expect(scheduler.drive(other(engine, oracle))).rejects.toMatchObject({
            code: 'store-failed',
          });
          expect(engine.volumes.stats.failure).toBeDefined();
          expect(await scheduler.drive(readable(engine, oracle))).toBe(0);
        }
        machine.off();
        if (failing === '') break;
        expect(again).toEqual([]);
        const after = oracle.copy();
        after.powerCut();
        const found = ended(machine.image(), 'powerCut', seededRandom(mix(seed, at)));
        await checkAll({ image: found, oracle: after }, at);
      }
      expect(failed).toBeGreaterThan(0);
    });

    it(`${operation.name}, clock that jumps`, async () => {
      const count = (await momentsOf(start, operation)).length;
      for (const jump of [-YEARS_MS, YEARS_MS]) {
        for (let at = 0; at < count; at += Math.ceil(count / JUMPS)) {
          const { machine, engine, oracle } = await boot(start, at);
          const { scheduler } = machine;
          let seen = 0;
          scheduler.observer = ({ isRead }) => {
            if (isRead !== true && seen++ === at) scheduler.jump(jump);
            return undefined;
          };
          const before = await scheduler.drive(backupNames(engine));
          await scheduler.drive(operation.run(storyOf(engine, oracle)));
          await scheduler.drive(check(engine, oracle));
          // The newest is listed first: that is the order of creation, whatever the clock says.
          const after = await scheduler.drive(backupNames(engine));
          const kept = before.filter((name) => after.includes(name));
          expect(after.slice(after.length - kept.length)).toEqual(kept);
          machine.off();
          await checkAll({ image: ended(machine.image(), 'kill', seededRandom(seed)), oracle }, at);
        }
      }
    });
  }
});

/** A write elsewhere, flushed: shows that the store takes writes. */
async function other(engine: Engine, oracle: Oracle): Promise<void> {
  const { model } = oracle.vms.get('other')!.get('disk0')!;
  const device = await engine.fleet.attach('other/disk0');
  const data = Buffer.alloc(6_000, 0x6f);
  const written = model.write(70_000, data);
  await device.write(70_000, data);
  model.acknowledge(written);
  const moment = model.moment();
  await device.flush();
  model.harden(moment);
  await device.close();
}

async function flush(engine: Engine): Promise<void> {
  const device = await engine.fleet.attach('vm/disk0');
  try {
    await device.flush();
  } finally {
    await device.close();
  }
}

async function backupNames(engine: Engine): Promise<string[]> {
  const { items } = await engine.fleet.listBackups({ limit: 50 });
  return items.map(({ name }) => name);
}

/** Reads every chunk of every disk: what comes is right, and what does not come is said to be damaged. */
async function readable(engine: Engine, oracle: Oracle): Promise<number> {
  let unreadable = 0;
  for (const [name, disks] of [...oracle.vms, ...oracle.backups]) {
    for (const [disk, { model }] of disks) {
      const device = await engine.fleet.attach(`${name}/${disk}`);
      const bytes = Buffer.alloc(model.size);
      const damaged = new Set<number>();
      for (let at = 0; at < model.size; at += CHUNK) {
        try {
          await device.read(at, Math.min(CHUNK, model.size - at), bytes, at);
        } catch (error) {
          if (!isPandoError(error, 'chunk-corrupt')) throw error;
          damaged.add(at / CHUNK);
        }
      }
      unreadable += damaged.size;
      for (let sector = 0; sector * SECTOR_BYTES < model.size; sector++) {
        if (damaged.has(Math.floor((sector * SECTOR_BYTES) / CHUNK))) continue;
        const found = bytes.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
        expect(model.allows(sector, found), `${name}/${disk}, sector ${sector}`).toBe(true);
      }
      await device.close();
    }
  }
  return unreadable;
}
