/**
 * Opening disks after a stop of any kind: records from the catalog, then the log on top.
 *
 * Only disks whose records list overlays, and those that the log names, are loaded: start-up does not
 * depend on how many disks there are. An overlay that a record lists must be in the log: forks are
 * recorded only after the log was synced.
 *
 * Damage below a write that is in the log keeps nothing from opening: the chunk is baseless (overlay.ts) and reads as an
 * error, its layer waits in the log, and destage tries again.
 */
import { PandoError, idToHex } from '@pando/common';
import type { LogDamage, LogDamageError, LogRecord } from '@pando/write-log';
import {
  DISK_TABLE,
  Disk,
  PENDING_TABLE,
  checkRecord,
  diskKey,
  forkedOf,
  rootOf,
  readNumbers,
} from './disk.ts';
import type { Engine } from './engine.ts';
import { EdgeBases, loseInLayer, readEdgesForReplay, writeToLayer, zeroInLayer } from './layer-write.ts';
import { Layer } from './layer.ts';
import { LogLossError, lossNow, lossOf } from './log-loss.ts';
import { Overlay } from './overlay.ts';
import type { DiskNumber, DiskRecord, LogLoss } from './types.ts';

const PAGE = 1000;

const NO_DAMAGE: LogDamage = { places: [], lost: [], isAllKnown: true, isAnyDisk: false, disks: new Map() };

export class Recovery {
  readonly #engine: Engine;
  readonly #layers = new Map<number, Layer>();
  readonly #opened = new Set<number>();
  readonly #ready = new Set<Layer>();
  readonly #damaged = new Map<Layer, PandoError>();
  readonly #bases: EdgeBases;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#bases = new EdgeBases(engine.chunkBytes);
  }

  /** Before the log is replayed. */
  async loadPending(): Promise<void> {
    const { catalog } = this.#engine;
    const numbers = await readNumbers(catalog);
    this.#engine.lastDisk = numbers?.lastDisk ?? 0;
    this.#engine.lastOverlay = numbers?.lastOverlay ?? 0;
    let after: string | undefined;
    for (;;) {
      const page = await catalog.list(PENDING_TABLE, {
        limit: PAGE,
        ...(after === undefined ? {} : { after }),
      });
      for (const entry of page) await this.#load(Number(entry.key));
      if (page.length < PAGE) return;
      after = page.at(-1)!.key;
    }
  }

  /** One record of the log, in order. */
  async replay(record: LogRecord): Promise<void> {
    if (record.type === 'open') return this.#open(record);
    const layer = this.#layers.get(record.overlay);
    if (layer === undefined || !this.#isReady(layer)) return;
    const engine = this.#engine;
    if (record.type === 'lost') {
      loseInLayer(layer, record.offset, record.length, engine.chunkBytes);
      return;
    }
    const length = record.type === 'zero' ? record.length : record.data.byteLength;
    const { pool, store } = engine;
    const damage = await readEdgesForReplay(layer, record.offset, length, pool, store, this.#bases);
    if (damage !== undefined) this.#damaged.set(layer, damage);
    if (record.type === 'zero') zeroInLayer(layer, record.offset, length, engine.pool, this.#bases);
    else {
      const data = Buffer.from(record.data.buffer, record.data.byteOffset, length);
      writeToLayer(layer, record.offset, data, engine.pool, this.#bases);
    }
  }

  /**
   * Whether the layer and those below it have been opened. Else the older records of one of them have gone, because the log
   * was relieved (log-relief.ts): all that is still needed comes again. Or damage took the `open` record: then they are
   * skipped, although the overlay may be known by its number. The number of an overlay that nothing but that record knew
   * is handed out again, so that records without it can be another disk's.
   */
  #isReady(layer: Layer): boolean {
    if (this.#ready.has(layer)) return true;
    for (let below = layer; below.root === undefined; below = below.parent!)
      if (!this.#opened.has(below.number)) return false;
    this.#ready.add(layer);
    return true;
  }

  /** Says of a damaged log which disks that concerns. */
  async explain({ message, damage }: LogDamageError): Promise<LogLossError> {
    return new LogLossError(message, await lossOf(damage, (...of) => this.#disksOf(...of)));
  }

  /** The disks that an overlay counts for. */
  async #disksOf(overlay: number, opener: DiskNumber | undefined): Promise<DiskNumber[]> {
    const layer = this.#layers.get(overlay);
    if (layer !== undefined) return [...layer.disks].map(({ number }) => number);
    if (opener === undefined) return [];
    const { catalog, chunkBytes } = this.#engine;
    const value = await catalog.get(DISK_TABLE, diskKey(opener));
    return value !== undefined && overlay > checkRecord(opener, value, chunkBytes).overlayFloor
      ? [opener]
      : [];
  }

  /**
   * After the log was replayed, of which `damage` was accepted; it says what is lost. `accept`: also overlays that are not in
   * the log at all, though nothing of it looks damaged; records of a catalog that has lost its newest ones name such.
   * @throws `log-corrupt` (a LogLossError)
   */
  finish(damage: LogDamage | undefined, accept: boolean): LogLoss | undefined {
    const engine = this.#engine;
    const layers = [...this.#layers.values()].sort((a, b) => a.number - b.number);
    const disks = [...engine.disks.values()];
    const missing = layers.filter((layer) => !this.#opened.has(layer.number));
    const accepted =
      missing.length === 0 || damage?.isAllKnown === false
        ? damage
        : { ...(damage ?? NO_DAMAGE), isAllKnown: false };
    const maybe = new Set<DiskNumber>();
    for (const layer of damage?.isAllKnown === false ? layers : missing)
      for (const disk of layer.disks) maybe.add(disk.number);
    if (missing.length > 0 && !accept) {
      const [{ number, disks: of }] = missing as [Layer];
      throw new LogLossError(
        `overlay ${number} of disk ${[...of].map((disk) => disk.number).join(', ')} is not in the write log`,
        lossNow({ ...NO_DAMAGE, isAllKnown: false }, [], [], maybe, engine.chunkBytes),
      );
    }
    for (const layer of layers) {
      layer.openedAt = engine.clock.monotonic();
      const error = this.#damaged.get(layer);
      if (error !== undefined && layer.overlay!.baseless.length > 0) layer.trouble = { error, retryAt: 0 };
      engine.addPending(layer);
    }
    const loss =
      accepted === undefined ? undefined : lossNow(accepted, disks, layers, maybe, engine.chunkBytes);
    for (const disk of disks) {
      disk.freeze();
      engine.evict(disk);
    }
    return loss;
  }

  async #open(record: LogRecord & { type: 'open' }): Promise<void> {
    const engine = this.#engine;
    engine.lastOverlay = Math.max(engine.lastOverlay, record.overlay);
    let layer = this.#layers.get(record.overlay);
    if (layer === undefined) {
      const disk = engine.disks.get(record.disk) ?? (await this.#load(record.disk));
      // Of a disk that is gone, or destaged already, or from before the disk was replaced.
      if (disk === undefined || record.overlay <= disk.overlayFloor) return;
      disk.freeze();
      layer = Layer.onTopOf(
        disk.top,
        record.overlay,
        record.size,
        engine.chunkBytes,
        new Overlay(engine.pool),
      );
      disk.top = layer;
      layer.disks.add(disk);
      this.#layers.set(record.overlay, layer);
    }
    layer.setSize(record.size, engine.chunkBytes);
    // Opened again when the log was relieved: whether all of it came again is not known.
    if (!this.#opened.has(record.overlay)) layer.firstPosition = record.position;
    this.#opened.add(record.overlay);
  }

  async #load(number: number): Promise<Disk | undefined> {
    const engine = this.#engine;
    const value = await engine.catalog.get(DISK_TABLE, diskKey(number));
    if (value === undefined) return undefined;
    const record = checkRecord(number, value, engine.chunkBytes);
    const top = this.#chainOf(number, record);
    const forked = forkedOf(record, top, engine.chunkBytes);
    const disk = new Disk(number, record.readOnly, top, record.overlayFloor, forked);
    engine.disks.set(number, disk);
    engine.hold(disk);
    return disk;
  }

  /** The layers that a record names, shared with the disks that name them too. */
  #chainOf(number: number, record: DiskRecord): Layer {
    const { chunkBytes, pool } = this.#engine;
    let top = Layer.ofRoot(rootOf(record), chunkBytes);
    for (const overlay of record.overlays) {
      let layer = this.#layers.get(overlay);
      if (layer === undefined) {
        layer = Layer.onTopOf(top, overlay, record.size, chunkBytes, new Overlay(pool));
        layer.frozen = true;
        layer.listed = true;
        this.#layers.set(overlay, layer);
      } else if (!sameState(layer.parent!, top)) {
        throw new PandoError(
          'catalog-corrupt',
          `disk ${number} and others disagree about what overlay ${overlay} lies on`,
        );
      }
      top = layer;
    }
    return top;
  }
}

function sameState(a: Layer, b: Layer): boolean {
  if (a === b) return true;
  return (
    a.root !== undefined &&
    b.root !== undefined &&
    idToHex(a.root.id) === idToHex(b.root.id) &&
    a.size === b.size
  );
}
