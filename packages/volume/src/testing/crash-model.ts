/**
 * Disks against a model, with power cuts: random writes, zeroes, flushes, forks, replacements, resizes,
 * removals and collections on several disks, then a crash at any moment, then recovery and a comparison
 * of every byte. What was flushed must be there; what was only acknowledged may be there or not, sector by
 * sector. Forks, replacements, resizes and removals that returned must have happened.
 */
import type { Catalog } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import { isPandoError, systemClock, type Clock } from '@pando/common';
import { between, fillRandom, seededRandom, type CrashFileSystem } from '@pando/common/testing';
import { diskKey, openVolumes, type DiskNumber, type LogGate, type Volumes } from '../index.ts';

const CHUNK = 4096;
const SECTOR = 512;
const storeId = new Uint8Array(16).fill(9);
const none = (): [] => [];

/** What waits before it tries again does so in a run that takes seconds. */
const quick: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * 1000,
  sleep: (ms, signal) => systemClock.sleep(ms / 1000, signal),
};

/** What a disk must hold: for each sector the values that are allowed after a crash, newest last. */
class ModelDisk {
  /** Each sector's history since the last flush: index 0 is durable. */
  sectors: Buffer[][];
  readonly readOnly: boolean;
  /** Sectors of writes that were refused: what those wrote may be there or not, also after a flush, a fork, a crash. */
  readonly doubtful: Set<number>;

  constructor(sectors: Buffer[][], readOnly: boolean, doubtful: Iterable<number> = []) {
    this.sectors = sectors;
    this.readOnly = readOnly;
    this.doubtful = new Set(doubtful);
  }

  get size(): number {
    return this.sectors.length * SECTOR;
  }

  write(offset: number, data: Buffer): void {
    for (let done = 0; done < data.byteLength;) {
      const sector = Math.floor((offset + done) / SECTOR);
      const within = (offset + done) % SECTOR;
      const count = Math.min(SECTOR - within, data.byteLength - done);
      const history = this.sectors[sector]!;
      const isPart = count < SECTOR;
      for (const version of isPart && this.doubtful.has(sector) ? [...history] : history.slice(-1)) {
        const next = Buffer.from(version);
        data.copy(next, within, done, done + count);
        history.push(next);
      }
      done += count;
    }
  }

  /** A write of this range was refused. */
  doubt(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / SECTOR);
    for (let sector = Math.floor(offset / SECTOR); sector <= last; sector++) this.doubtful.add(sector);
  }

  flush(): void {
    this.sectors = this.#durable();
  }

  /** Whether a running process may read this. */
  holds(bytes: Buffer): boolean {
    return this.sectors.every((history, sector) => {
      const found = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      return this.doubtful.has(sector)
        ? history.some((one) => one.equals(found))
        : history.at(-1)!.equals(found);
    });
  }

  copy(readOnly: boolean): ModelDisk {
    return new ModelDisk(this.#durable(), readOnly, this.doubtful);
  }

  #durable(): Buffer[][] {
    return this.sectors.map((history, sector) =>
      this.doubtful.has(sector) ? [...history] : history.slice(-1),
    );
  }
}

/** The machine that the disks live on: a store, a catalog, a disk for the log. */
export interface World {
  readonly fs: CrashFileSystem;
  readonly catalog: Catalog;
  /** Opens the store as a starting process does. */
  openStore(): Promise<ChunkStore>;
  /** Collects garbage while everything goes on. */
  collect(store: ChunkStore): Promise<unknown>;
  /** Damages about this share of all chunks that are stored; `repair` makes all of them whole again. */
  damage?(share: number): void;
  repair?(): void;
  /** Of a world whose catalog is mirrored, once the store is open: what keeps the log, and what brings everything committed into the mirror. */
  gate?(): LogGate;
  cover?(): Promise<void>;
  /** Before the store is open: loses the catalog and makes it anew. What was made since `cover` may be gone, what was removed may be back. */
  loseCatalog?(): Promise<void>;
  /** Power loss; returns the world of the next boot. What still runs of the old process must not reach it. */
  crash(): World;
}

/** Runs `rounds` boots, each ended by a power cut. The same seed makes the same choices. */
export async function runCrashModel(
  seed: number,
  rounds: number,
  makeWorld: (random: () => number) => World,
  options: { readonly fillsUp?: boolean; readonly damages?: boolean } = {},
): Promise<{ readonly unreadable: number; readonly logRewrites: number }> {
  /** Chunks found unreadable after a restart. */
  let unreadable = 0;
  let logRewrites = 0;
  /** Disks that are in the mirror for certain, and whether the catalog was lost since the last boot. */
  let covered = new Set<DiskNumber>();
  let lost = false;
  const random = seededRandom(seed);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
  let world = makeWorld(random);
  let store: ChunkStore;
  const model = new Map<DiskNumber, ModelDisk>();

  /** Runs what a full or damaged disk may refuse, whole; false when it did. */
  const allowed = async (run: () => Promise<unknown>): Promise<boolean> => {
    try {
      await run();
      return true;
    } catch (error) {
      if (isPandoError(error, options.damages === true ? 'chunk-corrupt' : 'store-full')) return false;
      throw error;
    }
  };

  const start = async (): Promise<Volumes> => {
    lost = world.loseCatalog !== undefined && model.size > 0 && random() < 0.6;
    if (lost) await world.loseCatalog!();
    store = await world.openStore();
    return openVolumes({
      store,
      catalog: world.catalog,
      fs: world.fs,
      logDirectory: 'log',
      storeId,
      destageAfterMs: random() < 0.5 ? 0 : 1e9,
      overlayBytesMax: 24 * CHUNK,
      logFileBytes: options.damages === true ? pick([500, 4000, 15_000]) : 30_000,
      ...(world.gate === undefined ? {} : { logGate: world.gate() }),
      // So short that it is relieved again and again.
      ...(options.damages === true ? { clock: quick, logBytesMax: between(random, 80_000, 240_000) } : {}),
    });
  };

  const compare = async (volumes: Volumes, when: string): Promise<void> => {
    for (const [number, disk] of [...model]) {
      if (lost && !covered.has(number) && (await world.catalog.get('disk', diskKey(number))) === undefined) {
        model.delete(number);
        continue;
      }
      const handle = await volumes.open(number);
      if (handle.size !== disk.size)
        throw new Error(`${when}: disk ${number} has ${handle.size} bytes, not ${disk.size}`);
      const bytes = Buffer.alloc(disk.size, 0xee);
      const holes: number[] = [];
      const damaged = new Set<number>();
      if (options.damages === true) {
        for (let at = 0; at < disk.size; at += CHUNK) {
          const length = Math.min(CHUNK, disk.size - at);
          if (!(await allowed(async () => handle.read(at, length, bytes, at)))) damaged.add(at / CHUNK);
        }
        unreadable += damaged.size;
      } else await handle.read(0, disk.size, bytes, 0, holes);
      await handle.close();
      for (const [sector, history] of disk.sectors.entries()) {
        if (damaged.has(Math.floor((sector * SECTOR) / CHUNK))) {
          // Which of the versions it will be once it heals is not known.
          if (history.length > 1) disk.doubtful.add(sector);
          continue;
        }
        disk.doubtful.delete(sector);
        const found = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
        const allowed = history.some((version) => version.equals(found));
        if (!allowed)
          throw new Error(
            `${when}: disk ${number}, sector ${sector} holds what nobody wrote (${history.length} versions)`,
          );
        // What is there now is what counts from here on.
        disk.sectors[sector] = [Buffer.from(found)];
      }
      for (let i = 0; i < holes.length; i += 2) {
        const hole = bytes.subarray(holes[i], holes[i]! + holes[i + 1]!);
        if (hole.some((byte) => byte !== 0)) throw new Error(`${when}: a hole of disk ${number} holds data`);
      }
    }
  };

  for (let round = 0; round < rounds; round++) {
    const when = `seed ${seed}, round ${round}`;
    let volumes: Volumes;
    try {
      volumes = await start();
      await compare(volumes, when);
      if (options.damages === true && random() < 0.3) {
        world.repair!();
        const before = unreadable;
        await compare(volumes, `${when}, repaired`);
        if (unreadable > before) throw new Error('what was repaired cannot be read');
        if (random() < 0.5) await volumes.settleAll();
      }
    } catch (error) {
      throw new Error(when, { cause: error });
    }
    // Several clients at once: steps of different tasks interleave at every await.
    const busy = new Set<DiskNumber>();
    let resizing = 0;
    const isFull = (): boolean => world.fs.faults.freeBytes !== Infinity;
    const step = async (): Promise<void> => {
      const dice = random();
      if (options.damages === true && random() < 0.05) world.damage!(random() * 0.3);
      if (options.damages === true && random() < 0.01) world.repair!();
      if (options.fillsUp === true && resizing === 0 && random() < (isFull() ? 0.1 : 0.2)) {
        world.fs.faults.freeBytes = isFull() ? Infinity : pick([0, 0, 100, 3000]);
      }
      if (world.cover !== undefined && random() < 0.1) {
        const made = new Set(model.keys());
        await world.cover();
        covered = made;
        return;
      }
      const numbers = [...model.keys()].filter((number) => !busy.has(number));
      if (numbers.length === 0 || (dice < 0.05 && model.size < 12)) {
        const sectors = between(random, 1, 160);
        const number = await volumes.create({ size: sectors * SECTOR }, none);
        model.set(
          number,
          new ModelDisk(
            Array.from({ length: sectors }, () => [Buffer.alloc(SECTOR)]),
            false,
          ),
        );
        return;
      }
      const number = pick(numbers);
      const disk = model.get(number)!;
      busy.add(number);
      try {
        if (dice < 0.6 && !disk.readOnly) {
          const offset = between(random, 0, disk.size - 1);
          const length = between(
            random,
            1,
            Math.min(disk.size - offset, pick([10, SECTOR, CHUNK, 5 * CHUNK])),
          );
          const handle = await volumes.open(number);
          const zero = random() < 0.3;
          const data = zero ? Buffer.alloc(length) : Buffer.from(fillRandom(random, new Uint8Array(length)));
          const before = disk.sectors.map((history) => history.length);
          // From here on either is allowed, acknowledged or not.
          disk.write(offset, data);
          // The same again and again fills the log, and nothing else.
          const times =
            options.damages === true && random() < 0.3 ? Math.min(60, Math.ceil(150_000 / length)) : 1;
          let done = 0;
          const write = async (): Promise<void> => {
            for (; done < times; done++)
              await (zero ? handle.zero(offset, length) : handle.write(offset, data));
          };
          if (!(await allowed(write)) && done === 0) {
            // What is refused for damage is so before anything of it is in the log.
            if (options.damages === true)
              for (const [sector, count] of before.entries()) disk.sectors[sector]!.length = count;
            else disk.doubt(offset, length);
          }
          if (random() < 0.3) {
            const versions = disk.sectors.map((history) => history.length);
            await handle.flush();
            disk.sectors = disk.sectors.map((history, sector) =>
              disk.doubtful.has(sector) ? history : history.slice(versions[sector]! - 1),
            );
          }
          const bytes = Buffer.alloc(disk.size);
          const read = await allowed(async () => handle.read(0, disk.size, bytes, 0));
          if (read && !disk.holds(bytes))
            throw new Error(`${when}: disk ${number} does not hold what was written`);
          await handle.close();
        } else if (dice < 0.75 && model.size < 14) {
          const readOnly = random() < 0.5;
          const done = await allowed(async () => {
            const request = { sources: [number], copies: 1, readOnly, records: none };
            const [[copy]] = (await volumes.fork(request)) as [[number]];
            model.set(copy, disk.copy(readOnly));
          });
          if (done) disk.flush();
        } else if (dice < 0.8 && numbers.length > 1) {
          const target = pick(numbers.filter((other) => other !== number));
          if (model.get(target)!.readOnly) return;
          busy.add(target);
          try {
            const pair = { target, source: number };
            if (await allowed(() => volumes.replace([pair], none))) {
              model.set(target, disk.copy(false));
              disk.flush();
            }
          } finally {
            busy.delete(target);
          }
        } else if (dice < 0.86 && !disk.readOnly) {
          if (isFull()) return;
          const sectors = between(random, 1, 200);
          const before = disk.sectors.length;
          resizing++;
          const done = await allowed(() => volumes.resize(number, sectors * SECTOR, none)).finally(
            () => resizing--,
          );
          if (!done) return;
          if (sectors > before)
            while (disk.sectors.length < sectors) disk.sectors.push([Buffer.alloc(SECTOR)]);
          else disk.sectors.length = sectors;
          for (const sector of disk.doubtful) if (sector >= sectors) disk.doubtful.delete(sector);
          // To stay as large as it is makes nothing durable.
          if (sectors !== before) disk.flush();
        } else if (dice < 0.9 && model.size > 3) {
          await volumes.remove([number], none);
          model.delete(number);
        } else if (dice < 0.95) {
          if (await allowed(() => volumes.settle(number))) {
            // In the tree it is as durable as the record of the disk, which can be lost; the log need not be synced.
            await world.cover?.();
            disk.flush();
          }
        } else await world.collect(store);
      } finally {
        busy.delete(number);
      }
    };
    const tasks = Array.from({ length: 3 }, async () => {
      for (let count = between(random, 3, 25); count > 0; count--) await step();
    });
    try {
      await Promise.all(tasks);
    } catch (error) {
      throw new Error(when, { cause: error });
    }
    // Parts of chunks that the log has, and damage below them, so that the next boot has something to wait for.
    for (const [number, disk] of model) {
      if (options.damages !== true || disk.readOnly || random() < 0.5) continue;
      const handle = await volumes.open(number);
      const data = Buffer.from(fillRandom(random, new Uint8Array(Math.min(disk.size, 100))));
      if (await allowed(async () => handle.write(0, data))) {
        disk.write(0, data);
        await handle.flush();
        disk.flush();
      }
      await handle.close();
    }
    if (options.damages === true && random() < 0.7) world.damage!(0.7);
    // A last burst of writes that nobody waits for, and the lights go out.
    for (const [number, disk] of model) {
      if (disk.readOnly || random() < 0.5) continue;
      const handle = await volumes.open(number);
      const data = Buffer.from(fillRandom(random, new Uint8Array(Math.min(disk.size, 700))));
      disk.write(0, data);
      void (async () => handle.write(0, data))().catch(() => undefined);
    }
    for (let turns = between(random, 0, 12); turns > 0; turns--)
      await new Promise((resolve) => setImmediate(resolve));
    logRewrites += volumes.stats.logRewrites;
    world = world.crash();
    void volumes.close().catch(() => undefined);
  }
  return { unreadable, logRewrites };
}
