/**
 * All disks of a store: made, forked, replaced, resized, removed, opened.
 *
 * Every change of records is one commit, made `exclusively`, and takes effect in memory after it is
 * durable; a commit that fails has changed nothing.
 */
import {
  PandoError,
  systemClock,
  type Clock,
  type FileSystem,
  type PagePool,
  type SpaceGuard,
} from '@pando/common';
import type { Catalog, CatalogOperation } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import { emptyRoot, resizeTree, rootsEqual, type Root } from '@pando/tree';
import { LogDamageError, openWriteLog } from '@pando/write-log';
import { DESTAGE_AFTER_MS, Destager } from './destage.ts';
import { DISK_TABLE, Disk, PENDING_TABLE, checkRecord, diskKey, forkedOf, rootOf } from './disk.ts';
import { Engine } from './engine.ts';
import { Layer, bottomOf, unresolvedOf } from './layer.ts';
import { DiskHandle } from './open-volume.ts';
import { Recovery } from './recovery.ts';
import { SlotPool } from './slot-pool.ts';
import type {
  DiskNumber,
  DiskRecord,
  ForkRequest,
  LogGate,
  LogLoss,
  OnDestaged,
  OpenVolume,
  VolumeStats,
  Volumes,
} from './types.ts';

const OVERLAY_BYTES_MAX_DEFAULT = 176 * 1024 * 1024;
const LOG_BYTES_MAX_DEFAULT = 1024 * 1024 * 1024;
/** How long `close` destages before it leaves the rest to the log. */
const CLOSE_SETTLE_MS_MAX = 10_000;

export interface VolumesOptions {
  readonly store: ChunkStore;
  readonly catalog: Catalog;
  readonly fs: FileSystem;
  /** Directory of the write log; it must exist. */
  readonly logDirectory: string;
  readonly storeId: Uint8Array;
  readonly clock?: Clock;
  /** Guest data held in memory before writers wait. */
  readonly overlayBytesMax?: number;
  /** Where memory for it comes from; it may be shared with the store. */
  readonly pages?: PagePool;
  /** Bytes of log before writers wait. */
  readonly logBytesMax?: number;
  readonly logFileBytes?: number;
  readonly destageAfterMs?: number;
  readonly space?: SpaceGuard;
  /** Open a log that is damaged, without the writes that are lost: see `Volumes.logLoss`. */
  readonly acceptLogDamage?: boolean;
  /** Without one, the log lets go of what is destaged at once. */
  readonly logGate?: LogGate;
  readonly onDestaged?: OnDestaged;
}

/** Opens the disks of a store: replays the log and starts to destage. @throws log-corrupt, catalog-corrupt, store-newer */
export async function openVolumes(options: VolumesOptions): Promise<Volumes> {
  const { store, catalog, fs, logDirectory, storeId } = options;
  const clock = options.clock ?? systemClock;
  const pool = new SlotPool(
    store.chunkBytes,
    options.overlayBytesMax ?? OVERLAY_BYTES_MAX_DEFAULT,
    options.pages,
  );
  const engine = new Engine(store, catalog, clock, pool, options.logBytesMax ?? LOG_BYTES_MAX_DEFAULT);
  engine.space = options.space;
  engine.gate = options.logGate;
  engine.onDestaged = options.onDestaged;
  const recovery = new Recovery(engine);
  await recovery.loadPending();
  const { logFileBytes: fileBytes, acceptLogDamage: acceptDamage = false } = options;
  engine.log = await openWriteLog(
    {
      ...{ fs, directory: logDirectory, storeId, acceptDamage },
      ...(fileBytes === undefined ? {} : { fileBytes }),
      hasRoom: () => options.space?.isScarce !== true,
    },
    (record) => recovery.replay(record),
  ).catch(async (error: unknown) => {
    throw error instanceof LogDamageError ? await recovery.explain(error) : error;
  });
  const logLoss = recovery.finish(engine.log.damage, acceptDamage);
  await engine.releaseLog();
  options.space?.onScarce?.(() => void engine.log.dropSpares());
  engine.gate?.onRelease(() => void engine.releaseLog());
  const destager = new Destager(engine, options.destageAfterMs ?? DESTAGE_AFTER_MS);
  destager.start();
  return new AllVolumes(engine, destager, logLoss);
}

class AllVolumes implements Volumes {
  readonly logLoss: LogLoss | undefined;
  readonly #engine: Engine;
  readonly #destager: Destager;
  readonly #loading = new Map<DiskNumber, Promise<void>>();

  constructor(engine: Engine, destager: Destager, logLoss: LogLoss | undefined) {
    this.logLoss = logLoss;
    this.#engine = engine;
    this.#destager = destager;
  }

  get chunkBytes(): number {
    return this.#engine.chunkBytes;
  }

  get stats(): VolumeStats {
    const engine = this.#engine;
    return {
      overlayBytes: engine.pool.usedBytes,
      overlays: engine.pending.length,
      logBytes: engine.log.bytes,
      logDiskBytes: engine.log.diskBytes,
      logBytesMax: engine.logBytesMax,
      log: engine.log.stats,
      writtenBytes: engine.writtenBytes,
      destagedBytes: engine.destagedBytes,
      destageTimes: engine.destageTimes,
      full: engine.space?.refusal !== undefined || engine.room.refusal?.code === 'store-full',
      logRewrites: engine.logRewrites,
      failure: engine.stopped,
      damaged: engine.pending.flatMap((layer) =>
        layer.trouble === undefined ? [] : [...layer.disks].map((disk) => disk.number),
      ),
    };
  }

  async create(
    from: { readonly size: number } | { readonly root: Root },
    records: (disk: DiskNumber) => readonly CatalogOperation[],
  ): Promise<DiskNumber> {
    const [disk] = await this.createMany([from], (disks) => records(disks[0]!));
    return disk!;
  }

  createMany(
    from: readonly ({ readonly size: number } | { readonly root: Root })[],
    records: (disks: readonly DiskNumber[]) => readonly CatalogOperation[],
  ): Promise<readonly DiskNumber[]> {
    const engine = this.#engine;
    return engine.adding(async () => {
      const disks = from.map(() => ++engine.lastDisk);
      const operations = from.flatMap((state, index) => {
        const root = 'root' in state ? state.root : emptyRoot(state.size, this.chunkBytes);
        const top = Layer.ofRoot(root, this.chunkBytes);
        return engine.operationsFor(new Disk(disks[index]!, false, top, engine.lastOverlay, undefined));
      });
      await engine.commit([...operations, ...records(disks)]);
      return disks;
    });
  }

  fork(request: ForkRequest): Promise<readonly (readonly DiskNumber[])[]> {
    return this.#using(request.sources, async (sources) => {
      for (;;) {
        const disks = await this.#forkOnce(sources, request);
        if (disks !== undefined) return disks;
      }
    });
  }

  /** Undefined when what the sources were at the instant of the fork was gone before it could be recorded. */
  async #forkOnce(
    sources: readonly Disk[],
    request: ForkRequest,
  ): Promise<readonly (readonly DiskNumber[])[] | undefined> {
    const engine = this.#engine;
    // The instant: nothing is awaited between the first disk and the last.
    const instant = ++engine.instant;
    for (const disk of sources) disk.freeze();
    const tops = sources.map((disk) => disk.top);
    // What the copies will be recorded to hold must be in the log for good before they are recorded.
    if (tops.some((top) => top.root === undefined)) await engine.log.syncOpens();
    return engine.adding(async () => {
      for (const disk of sources) this.#checkThere(disk);
      if (!tops.every((top, index) => isHeld(top, sources[index]!))) return undefined;
      // Records name the newest fork: one that was overtaken would put an older one in its place.
      if (sources.some((disk) => disk.forkingAt > instant)) return undefined;
      const held = tops.map((top) => listedOf(top));
      const floor = engine.lastOverlay;
      const newDisk = (number: DiskNumber, index: number): Disk =>
        new Disk(number, request.readOnly, tops[index]!, floor, tops[index]);
      const disks = Array.from({ length: request.copies }, () => sources.map(() => ++engine.lastDisk));
      const operations = disks.flatMap((copy) =>
        copy.flatMap((number, index) => engine.operationsFor(newDisk(number, index))),
      );
      for (const [index, disk] of sources.entries())
        operations.push(...sourceOperations(engine, disk, tops[index]!, instant));
      await engine.commit([...operations, ...request.records(disks)]);
      for (const [index, disk] of sources.entries()) forkedAs(disk, tops[index]!, instant);
      for (const copy of disks) {
        for (const [index, number] of copy.entries()) {
          if (held[index]!.length === 0) continue;
          const disk = newDisk(number, index);
          engine.disks.set(number, disk);
          engine.hold(disk, held[index]);
        }
      }
      return disks;
    });
  }

  replace(
    pairs: readonly { readonly target: DiskNumber; readonly source: DiskNumber }[],
    records: () => readonly CatalogOperation[],
  ): Promise<void> {
    const engine = this.#engine;
    const numbers = pairs.flatMap((pair) => [pair.target, pair.source]);
    return this.#using(numbers, (disks) =>
      engine.exclusively(async () => {
        const targets = disks.filter((_, index) => index % 2 === 0);
        const sources = disks.filter((_, index) => index % 2 === 1);
        for (const disk of disks) this.#checkThere(disk);
        await this.#changing(targets, async () => {
          for (const disk of sources) disk.freeze();
          const tops = sources.map((disk) => disk.top);
          if (tops.some((top) => top.root === undefined)) await engine.log.syncOpens();
          const held = tops.map((top) => listedOf(top));
          // From here on the log opens nothing for the targets that they had before.
          const floor = engine.lastOverlay;
          const instant = ++engine.instant;
          const operations = targets.flatMap((disk, index) => {
            const top = tops[index]!;
            return engine.operationsFor(disk, { top, overlayFloor: floor, forked: top });
          });
          for (const [index, disk] of sources.entries()) {
            if (!targets.includes(disk))
              operations.push(...sourceOperations(engine, disk, tops[index]!, instant));
          }
          await engine.commit([...operations, ...records()]);
          for (const [index, disk] of sources.entries()) forkedAs(disk, tops[index]!, instant);
          for (const [index, disk] of targets.entries()) {
            const before = unresolvedOf(disk.top);
            disk.top = tops[index]!;
            disk.overlayFloor = floor;
            disk.forkingAt = instant;
            disk.forked = tops[index]!;
            disk.forkedAt = instant;
            engine.hold(disk, held[index]);
            engine.unhold(
              disk,
              before.filter((layer) => !held[index]!.includes(layer)),
            );
          }
          await this.#remember();
        });
        await engine.releaseLog();
      }),
    );
  }

  resize(number: DiskNumber, size: number, records: () => readonly CatalogOperation[]): Promise<void> {
    return this.#using([number], ([disk]) => {
      if (size < disk!.size) return this.#shrink(disk!, size, records);
      return this.#grow(disk!, size, records);
    });
  }

  remove(numbers: readonly DiskNumber[], records: () => readonly CatalogOperation[]): Promise<void> {
    const engine = this.#engine;
    return this.#using(numbers, (disks) =>
      engine.exclusively(async () => {
        for (const disk of disks) this.#checkThere(disk);
        await this.#changing(disks, async () => {
          const operations = numbers.flatMap((number): CatalogOperation[] => [
            { type: 'delete', table: DISK_TABLE, key: diskKey(number) },
            { type: 'delete', table: PENDING_TABLE, key: diskKey(number) },
          ]);
          await engine.commit([...operations, ...records()]);
          for (const disk of disks) {
            disk.removed = true;
            engine.disks.delete(disk.number);
            for (const layer of engine.pending) layer.disks.delete(disk);
          }
          engine.dropUnused();
        });
        await engine.releaseLog();
      }),
    );
  }

  async open(number: DiskNumber): Promise<OpenVolume> {
    return this.#using([number], ([disk]) => {
      if (disk!.changing) throw new PandoError('disk-in-use', `disk ${number} is being changed`);
      this.#checkThere(disk!);
      return Promise.resolve(new DiskHandle(this.#engine, disk!));
    });
  }

  isOpen(number: DiskNumber): boolean {
    return (this.#engine.disks.get(number)?.handles ?? 0) > 0;
  }

  settle(number: DiskNumber): Promise<Root> {
    return this.#using([number], ([disk]) => this.#settled(disk!));
  }

  async #settled(disk: Disk): Promise<Root> {
    for (;;) {
      disk.freeze();
      const { top } = disk;
      await this.#destager.settle(top);
      this.#checkThere(disk);
      // Without a root it was dropped, because the disk was replaced meanwhile.
      if (top.root !== undefined) return top.root;
    }
  }

  async settleAll(): Promise<void> {
    const layers = [...this.#engine.pending];
    for (const layer of layers) if (!layer.frozen) for (const disk of layer.disks) disk.freeze();
    await Promise.all(layers.map((layer) => this.#destager.settle(layer)));
  }

  async close(): Promise<void> {
    const engine = this.#engine;
    const timer = new AbortController();
    const limit = engine.clock.sleep(CLOSE_SETTLE_MS_MAX, timer.signal).catch(() => undefined);
    // What cannot be destaged now stays in the log.
    await Promise.race([this.settleAll().catch(() => undefined), limit]);
    timer.abort();
    await this.#destager.stop();
    engine.room.refuse(new PandoError('shutting-down', 'the volumes are being closed'));
    await engine.exclusively(() => Promise.resolve());
    if (engine.gate !== undefined) {
      // What has to be replayed at the next start is what could not be destaged.
      await engine.gate.settle();
      engine.gate.onRelease(() => undefined);
      await engine.releaseLog();
    }
    await engine.log.close();
  }

  /** A larger size is a new overlay that says so, so that writes under way need not stop. */
  #grow(disk: Disk, size: number, records: () => readonly CatalogOperation[]): Promise<void> {
    const engine = this.#engine;
    return engine.exclusively(async () => {
      this.#checkThere(disk);
      if (size > disk.size) {
        disk.freeze();
        engine.openLayer(disk, size);
        disk.freeze();
        const { top } = disk;
        await engine.log.syncOpens();
        listedOf(top);
      }
      await engine.commit([...engine.operationsFor(disk), ...records()]);
    });
  }

  /** A smaller size is a new root, so that it happens in the commit or not at all. */
  async #shrink(disk: Disk, size: number, records: () => readonly CatalogOperation[]): Promise<void> {
    const engine = this.#engine;
    await this.#changing([disk], async () => {
      const session = engine.store.openSession();
      try {
        let done = false;
        while (!done) {
          await this.#settled(disk);
          done = await engine.exclusively(async () => {
            this.#checkThere(disk);
            // It was grown meanwhile: that comes first.
            if (disk.top.root === undefined) return false;
            const root = await resizeTree(engine.store, session, disk.top.root, size);
            await session.flush();
            const top = Layer.ofRoot(root, this.chunkBytes);
            await engine.commit([...engine.operationsFor(disk, { top }), ...records()]);
            disk.top = top;
            return true;
          });
        }
      } finally {
        session.release();
      }
      await this.#remember();
    });
  }

  /**
   * After what a disk was has been replaced, before it can be written to again: in the log of a catalog from before, those writes
   * would apply to what it was.
   */
  async #remember(): Promise<void> {
    await this.#engine.gate?.settle();
  }

  /** Runs while nobody can open the disks. @throws `disk-in-use` when somebody has, or something else changes one */
  async #changing<T>(disks: readonly Disk[], run: () => Promise<T>): Promise<T> {
    for (const disk of disks) {
      if (disk.handles > 0 || disk.changing)
        throw new PandoError('disk-in-use', `disk ${disk.number} is in use`);
    }
    for (const disk of disks) disk.changing = true;
    try {
      return await run();
    } finally {
      for (const disk of disks) disk.changing = false;
    }
  }

  #checkThere(disk: Disk): void {
    if (disk.removed) throw new PandoError('disk-missing', `there is no disk ${disk.number}`);
  }

  /** Loads disks and keeps them loaded while `run` works with them. */
  async #using<T>(numbers: readonly DiskNumber[], run: (disks: Disk[]) => Promise<T>): Promise<T> {
    const disks: Disk[] = [];
    try {
      for (const number of numbers) {
        let disk = this.#engine.disks.get(number);
        // One object a disk: what was loaded may have been let go again before we got to it.
        while (disk === undefined) {
          await this.#load(number);
          disk = this.#engine.disks.get(number);
        }
        disk.uses++;
        disks.push(disk);
      }
      return await run(disks);
    } finally {
      for (const disk of disks) {
        disk.uses--;
        this.#engine.evict(disk);
      }
    }
  }

  #load(number: DiskNumber): Promise<void> {
    let loading = this.#loading.get(number);
    if (loading === undefined) {
      loading = this.#read(number).finally(() => this.#loading.delete(number));
      this.#loading.set(number, loading);
    }
    return loading;
  }

  async #read(number: DiskNumber): Promise<void> {
    const engine = this.#engine;
    let record = await this.#recordOf(number);
    if (record.overlays.length > 0) {
      // A fork whose record can be read already is about to put the disk into memory; a destage may have taken it out again.
      await engine.exclusively(() => Promise.resolve());
      if (engine.disks.has(number)) return;
      record = await this.#recordOf(number);
    }
    if (engine.disks.has(number)) return;
    if (record.overlays.length > 0) {
      throw new PandoError('internal', `disk ${number} has overlays but is not in memory`);
    }
    const top = Layer.ofRoot(rootOf(record), this.chunkBytes);
    const forked = forkedOf(record, top, this.chunkBytes);
    engine.disks.set(number, new Disk(number, record.readOnly, top, record.overlayFloor, forked));
  }

  async #recordOf(number: DiskNumber): Promise<DiskRecord> {
    const value = await this.#engine.catalog.get(DISK_TABLE, diskKey(number));
    if (value === undefined) throw new PandoError('disk-missing', `there is no disk ${number}`);
    return checkRecord(number, value, this.chunkBytes);
  }
}

/** The layers of a chain that have no root yet, named in records from now on: their `open` records were synced. */
function listedOf(top: Layer): Layer[] {
  const layers = unresolvedOf(top);
  for (const layer of layers) layer.listed = true;
  return layers;
}

/**
 * The operations that a fork of `disk` as `top` needs for the disk itself: that others hold its overlays now, and which
 * fork is its newest. They go into the commit that the fork makes anyway.
 */
function sourceOperations(engine: Engine, disk: Disk, top: Layer, instant: number): CatalogOperation[] {
  // While another fork is on its way into the record, what the record says is not known.
  const named = disk.readOnly || (disk.forkingAt === disk.forkedAt && isSame(disk.forked, top));
  disk.forkingAt = instant;
  return named && disk.top.root !== undefined ? [] : engine.operationsFor(disk, { forked: top });
}

/** Once that commit is done. Forks of one disk may end in another order than that of their instants. */
function forkedAs(disk: Disk, top: Layer, instant: number): void {
  if (disk.readOnly || disk.forkedAt > instant) return;
  disk.forked = top;
  disk.forkedAt = instant;
}

/** Whether a record that names one layer names the other as well. */
function isSame(a: Layer | undefined, b: Layer): boolean {
  if (a === b) return true;
  return a?.root !== undefined && b.root !== undefined && rootsEqual(a.root, b.root);
}

/**
 * Whether the catalog, or the destage of `disk`, still keeps all that is read through `top`, which was the disk's newest
 * layer at some instant. When the disk was replaced since, the layer absorbed, or destaged and written to and destaged again, a
 * collection may have taken it.
 */
function isHeld(top: Layer, disk: Disk): boolean {
  return (
    !top.absorbed &&
    bottomOf(top).root === bottomOf(disk.top).root &&
    unresolvedOf(top).every((layer) => layer.disks.size > 0)
  );
}
