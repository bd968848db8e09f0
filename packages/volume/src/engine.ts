/**
 * What the parts of this room share: the store, the log, the memory, the layers that are not in the tree
 * yet, and the state that says whether writes are taken.
 *
 * Invariants:
 * - `pending` holds every layer that is not committed, in the order in which their overlays were opened; the log
 *   is kept from the first position of any of them on.
 * - Records of disks change in one commit at a time (`exclusively`), built from the layers as they are then; only
 *   commits that add disks may share a sync with each other (`adding`).
 */
import { DurationHistogram, SharedLock, type Clock, type PandoError, type SpaceGuard } from '@pando/common';
import type { Catalog, CatalogOperation } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import type { LogPosition, WriteLog } from '@pando/write-log';
import {
  DISK_TABLE,
  NUMBERS_KEY,
  NUMBERS_TABLE,
  PENDING_TABLE,
  diskKey,
  recordOf,
  type Disk,
  type DiskState,
  type NumbersRecord,
} from './disk.ts';
import { CopyPool } from './copy-pool.ts';
import { Layer, unresolvedOf } from './layer.ts';
import { Overlay } from './overlay.ts';
import type { SlotPool } from './slot-pool.ts';
import type { LogGate, OnDestaged } from './types.ts';
import { EdgeBases } from './layer-write.ts';
import { Room } from './room.ts';

/** Writers wait while more than this is gathered for the log and not written yet. */
export const LOG_PENDING_BYTES_MAX = 64 * 1024 * 1024;

export class Engine {
  readonly store: ChunkStore;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly pool: SlotPool;
  /** Scratch for the edges of writes that need no waiting. */
  readonly edges: EdgeBases;
  /** Buffers of destage that nobody reads. */
  readonly batches: Buffer[] = [];
  /** For the data of writes that wait. */
  readonly copies = new CopyPool();
  readonly logBytesMax: number;
  readonly disks = new Map<number, Disk>();
  readonly pending: Layer[] = [];
  /** Room for what destage has to make room for: memory and log. */
  readonly room: Room;
  /** Told when a layer was opened or frozen, or memory ran low. */
  wake: () => void = () => undefined;
  log!: WriteLog;
  lastDisk = 0;
  lastOverlay = 0;
  writtenBytes = 0;
  destagedBytes = 0;
  readonly destageTimes = new DurationHistogram();
  /** Times that the log was relieved, since start. */
  logRewrites = 0;
  /** While set, writers wait as they do for room. */
  holdsWriters = false;
  /** Counts the instants of forks. */
  instant = 0;
  /** Asked before the log is released. */
  gate: LogGate | undefined;
  onDestaged: OnDestaged | undefined;
  /** While it refuses, guests' writes are refused as well. */
  space: SpaceGuard | undefined;
  /** Set for good when a destage failed for good. */
  failure: PandoError | undefined;
  /** Why the log could not be shortened the last time, if so. */
  releaseTrouble: PandoError | undefined;
  readonly #records = new SharedLock();

  constructor(store: ChunkStore, catalog: Catalog, clock: Clock, pool: SlotPool, logBytesMax: number) {
    this.store = store;
    this.catalog = catalog;
    this.clock = clock;
    this.pool = pool;
    this.edges = new EdgeBases(pool.chunkBytes);
    this.logBytesMax = logBytesMax;
    this.room = new Room(() => this.#isFull);
    pool.onFreed = () => this.room.open();
  }

  get chunkBytes(): number {
    return this.pool.chunkBytes;
  }

  /**
   * Why no more writes are taken, once a sync or a write of log, catalog, segments or index has failed: nobody knows what is on
   * the disk then, and what is written now could not be kept safe.
   */
  get stopped(): PandoError | undefined {
    return this.failure ?? this.log.failure ?? this.catalog.failure ?? this.store.failure;
  }

  /** Whether a write has to wait before it may be taken. */
  get congested(): boolean {
    return this.space?.refusal !== undefined || this.log.pendingBytes > LOG_PENDING_BYTES_MAX || this.#isFull;
  }

  /** A log that has failed gets no shorter: writers are let in, and told. */
  get #isFull(): boolean {
    if (this.stopped !== undefined) return false;
    return this.holdsWriters || this.pool.exhausted || this.log.bytes > this.logBytesMax;
  }

  /** The active layer of a disk; opens one when the newest layer is frozen. */
  activeLayer(disk: Disk): Layer {
    return disk.top.frozen ? this.openLayer(disk, disk.size) : disk.top;
  }

  openLayer(disk: Disk, size: number): Layer {
    const number = ++this.lastOverlay;
    const layer = Layer.onTopOf(disk.top, number, size, this.chunkBytes, new Overlay(this.pool));
    layer.firstPosition = this.log.appendOpen(number, disk.number, size);
    layer.openedAt = this.clock.monotonic();
    layer.disks.add(disk);
    disk.top = layer;
    this.addPending(layer);
    return layer;
  }

  addPending(layer: Layer): void {
    layer.pending = true;
    this.pending.push(layer);
  }

  /** Takes the layer out of `pending`, if it is there. */
  removePending(layer: Layer): void {
    if (!layer.pending) return;
    layer.pending = false;
    this.pending.splice(this.pending.indexOf(layer), 1);
  }

  /** Runs a change of records while no other one is under way. */
  exclusively<T>(run: () => Promise<T>): Promise<T> {
    return this.#records.hold('exclusive', run);
  }

  /**
   * Runs a change that only adds records, beside others of its kind, so that they share a sync. What it adds
   * must be held by its layers (`hold`) before it ends: a destage that follows has to know of it.
   */
  adding<T>(run: () => Promise<T>): Promise<T> {
    return this.#records.hold('shared', run);
  }

  /** The operations that make a disk's record say what the disk is now, or is to be. */
  operationsFor(disk: Disk, change: Partial<DiskState> = {}): CatalogOperation[] {
    const key = diskKey(disk.number);
    const { top, overlayFloor, readOnly, forked } = disk;
    const record = recordOf({ top, overlayFloor, readOnly, forked, ...change });
    const pending: CatalogOperation =
      record.overlays.length > 0
        ? { type: 'put', table: PENDING_TABLE, key, value: { version: 1 } }
        : { type: 'delete', table: PENDING_TABLE, key };
    return [{ type: 'put', table: DISK_TABLE, key, value: record }, pending];
  }

  /** Only inside `exclusively` or `adding`. @throws `store-failed` also when the catalog would take it, but another part has failed */
  async commit(operations: readonly CatalogOperation[]): Promise<void> {
    if (this.stopped !== undefined) throw this.stopped;
    const numbers: NumbersRecord = { version: 1, lastDisk: this.lastDisk, lastOverlay: this.lastOverlay };
    await this.catalog.commit([
      ...operations,
      { type: 'put', table: NUMBERS_TABLE, key: NUMBERS_KEY, value: numbers },
    ]);
  }

  /** Makes `disk` one of those whose record has to follow when the layers of its chain are destaged. */
  hold(disk: Disk, layers: readonly Layer[] = unresolvedOf(disk.top)): void {
    for (const layer of layers) layer.disks.add(disk);
  }

  /** `disk` no longer reads through these layers; those that nobody reads through any more are let go. */
  unhold(disk: Disk, layers: readonly Layer[]): void {
    for (const layer of layers) layer.disks.delete(disk);
    this.dropUnused();
  }

  /** Takes layers without disks out of `pending`; their memory goes unless destage is reading it. */
  dropUnused(): void {
    for (let i = this.pending.length - 1; i >= 0; i--) {
      const layer = this.pending[i]!;
      if (layer.disks.size > 0) continue;
      layer.pending = false;
      this.pending.splice(i, 1);
      if (!layer.destaging) layer.overlay?.dispose();
    }
  }

  /**
   * Lets the log go up to the first record that is still needed. Never rejects: a file that could not be removed costs
   * space, nothing else, and the next release tries again.
   */
  async releaseLog(): Promise<void> {
    let first = this.log.nextPosition;
    for (const layer of this.pending) first = Math.min(first, layer.firstPosition);
    try {
      await this.log.release(await this.#pass(first));
      this.releaseTrouble = undefined;
    } catch (error) {
      this.releaseTrouble = error as PandoError;
    }
    this.room.open();
  }

  /** How far the gate lets the log go; when the log is half full, it is waited for. */
  async #pass(first: LogPosition): Promise<LogPosition> {
    if (this.gate === undefined) return first;
    const isTight = this.log.bytes * 2 > this.logBytesMax;
    const may = this.gate.release(first, isTight);
    if (may === first || !isTight) return may;
    await this.gate.settle();
    return this.gate.release(first, isTight);
  }

  /** Forgets a disk that is neither open nor in flight; it is loaded again when asked for. */
  evict(disk: Disk): void {
    if (disk.handles > 0 || disk.uses > 0 || disk.top.root === undefined) return;
    if (this.pending.some((layer) => layer.disks.has(disk))) return;
    if (this.disks.get(disk.number) === disk) this.disks.delete(disk.number);
  }
}
