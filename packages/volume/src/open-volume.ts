/** A disk that somebody has open: the block device on top of layers and log. */
import { PandoError } from '@pando/common';
import { WRITE_BYTES_MAX } from '@pando/write-log';
import { checkRange, type Extents, type StatusExtents } from '@pando/block-device';
import type { Disk } from './disk.ts';
import { LOG_PENDING_BYTES_MAX, type Engine } from './engine.ts';
import { readLayers, retryOnNewRoot } from './layer-read.ts';
import { EdgeBases, readEdges, writeToLayer, zeroInLayer } from './layer-write.ts';
import type { Root } from '@pando/tree';
import { bottomOf } from './layer.ts';
import {
  depthsOfLayers,
  differencesOfLayers,
  pendingInLayers,
  storedInLayers,
  type Source,
} from './status.ts';
import type { OpenVolume } from './types.ts';

/** Prefetch reads in steps of this, and no more than so many bytes a call. */
const PREFETCH_STEP_BYTES = 1024 * 1024;
const PREFETCH_BYTES_MAX = 64 * 1024 * 1024;

export class DiskHandle implements OpenVolume {
  readonly disk: number;
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockBytes: number;
  readonly #engine: Engine;
  readonly #disk: Disk;
  /** Writes that wait for room or for the base of a partial chunk. */
  readonly #waiting = new Set<Promise<void>>();
  #closed = false;

  constructor(engine: Engine, disk: Disk) {
    this.#engine = engine;
    this.#disk = disk;
    this.disk = disk.number;
    this.size = disk.size;
    this.readOnly = disk.readOnly;
    this.blockBytes = engine.chunkBytes;
    disk.handles++;
  }

  read(
    offset: number,
    length: number,
    target: Uint8Array,
    at: number,
    holes?: number[],
  ): Promise<void> | undefined {
    this.#check(offset, length);
    const { pool, store } = this.#engine;
    const buffer = asBuffer(target);
    const top = this.#disk.top;
    const before = holes?.length ?? 0;
    const waiting = readLayers(top, offset, length, buffer, at, pool, store, holes);
    if (waiting === undefined) return undefined;
    const root = bottomOf(top).root;
    return waiting.catch((error: unknown) => {
      // The old root's own chunks may have been collected; once more on the new one.
      if (bottomOf(this.#disk.top).root === root) throw error;
      if (holes !== undefined) holes.length = before;
      return retryOnNewRoot(
        () => [this.#disk.top],
        async ([now]) => readLayers(now!, offset, length, buffer, at, pool, store, holes),
      );
    });
  }

  write(offset: number, data: Uint8Array): Promise<void> | undefined {
    this.#checkWrite(offset, data.byteLength);
    if (data.byteLength === 0) return undefined;
    const engine = this.#engine;
    const bytes = asBuffer(data);
    const waiting = engine.congested
      ? null
      : readEdges(this.#disk.top, offset, bytes.byteLength, engine.pool, engine.store, engine.edges);
    if (waiting === undefined) return this.#write(offset, bytes, engine.edges);
    waiting?.catch(() => undefined);
    const copy = engine.copies.copy(bytes);
    const later = this.#later(offset, copy.byteLength, (bases) => this.#write(offset, copy, bases));
    return later.finally(() => engine.copies.give(copy));
  }

  zero(offset: number, length: number): Promise<void> | undefined {
    this.#checkWrite(offset, length);
    if (length === 0) return undefined;
    const engine = this.#engine;
    const waiting = engine.congested
      ? null
      : readEdges(this.#disk.top, offset, length, engine.pool, engine.store, engine.edges);
    if (waiting === undefined) return this.#zero(offset, length, engine.edges);
    waiting?.catch(() => undefined);
    return this.#later(offset, length, (bases) => this.#zero(offset, length, bases));
  }

  flush(): Promise<void> {
    return this.#engine.log.sync();
  }

  async prefetch(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    const end = offset + Math.min(length, PREFETCH_BYTES_MAX);
    const scratch = Buffer.allocUnsafe(Math.min(PREFETCH_STEP_BYTES, end - offset));
    for (let at = offset; at < end; at += PREFETCH_STEP_BYTES) {
      await this.read(at, Math.min(PREFETCH_STEP_BYTES, end - at), scratch, 0);
    }
  }

  async allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    this.#check(offset, length);
    const { lengths, flags } = await retryOnNewRoot(
      () => [this.#disk.top],
      ([top]) => storedInLayers(top!, { offset, length, extentsMax }, this.#source),
    );
    return { lengths, holes: flags.map((flag) => flag === 0) };
  }

  async differences(
    other: OpenVolume,
    offset: number,
    length: number,
    extentsMax: number,
  ): Promise<StatusExtents> {
    this.#check(offset, length);
    if (!(other instanceof DiskHandle) || other.#engine !== this.#engine) {
      throw new PandoError('internal', 'only disks of one store can be compared');
    }
    other.#check(0, 0);
    return retryOnNewRoot(
      () => [this.#disk.top, other.#disk.top],
      ([a, b]) => differencesOfLayers(a!, b!, { offset, length, extentsMax }, this.#source),
    );
  }

  async depths(offset: number, length: number, extentsMax: number): Promise<StatusExtents> {
    this.#check(offset, length);
    const disk = this.#disk;
    return retryOnNewRoot(
      () => [disk.top],
      ([top]) => depthsOfLayers(top!, disk.forked, { offset, length, extentsMax }, this.#source),
    );
  }

  async pending(offset: number, length: number, extentsMax: number): Promise<StatusExtents> {
    this.#check(offset, length);
    return pendingInLayers(this.#disk.top, { offset, length, extentsMax }, this.#engine.pool);
  }

  get root(): Root {
    return bottomOf(this.#disk.top).root!;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.allSettled(this.#waiting);
    this.#disk.handles--;
    this.#engine.evict(this.#disk);
  }

  /** One turn: log and overlay get the data in the same order. */
  #write(offset: number, data: Buffer, bases: EdgeBases): Promise<void> {
    const engine = this.#engine;
    const layer = engine.activeLayer(this.#disk);
    for (let done = 0; done < data.byteLength; done += WRITE_BYTES_MAX) {
      engine.log.appendWrite(layer.number, offset + done, data.subarray(done, done + WRITE_BYTES_MAX));
    }
    writeToLayer(layer, offset, data, engine.pool, bases);
    engine.writtenBytes += data.byteLength;
    if (engine.pool.usedBytes * 2 > engine.pool.bytesMax) engine.wake();
    return engine.log.written();
  }

  #zero(offset: number, length: number, bases: EdgeBases): Promise<void> {
    const engine = this.#engine;
    const layer = engine.activeLayer(this.#disk);
    engine.log.appendZero(layer.number, offset, length);
    zeroInLayer(layer, offset, length, engine.pool, bases);
    return engine.log.written();
  }

  /** For a change that has to wait: for room, and for what partial chunks hold around it. */
  #later(offset: number, length: number, change: (bases: EdgeBases) => Promise<void>): Promise<void> {
    const run = this.#waitAndChange(offset, length, change).finally(() => this.#waiting.delete(run));
    this.#waiting.add(run);
    return run;
  }

  async #waitAndChange(
    offset: number,
    length: number,
    change: (bases: EdgeBases) => Promise<void>,
  ): Promise<void> {
    const engine = this.#engine;
    const bases = new EdgeBases(engine.chunkBytes);
    let done: Promise<void> | undefined;
    while (done === undefined) {
      let root: Root | undefined;
      let size: number;
      await enter(engine);
      try {
        await retryOnNewRoot(
          () => [this.#disk.top],
          async ([top]) => {
            root = bottomOf(top!).root;
            size = top!.size;
            await readEdges(top!, offset, length, engine.pool, engine.store, bases);
          },
        );
        // What was read from the tree holds while the tree below is the same one: what has come into overlays
        // meanwhile is found there when the change is made. A disk that has grown has another last chunk.
        if (bottomOf(this.#disk.top).root === root && this.#disk.size === size!) done = change(bases);
      } finally {
        engine.room.leave();
      }
    }
    await done;
  }

  get #source(): Source {
    const { pool, store } = this.#engine;
    return { pool, reader: store, hash: store.hash };
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new PandoError('shutting-down', 'this handle of the disk is closed');
    checkRange(this.size, offset, length);
  }

  #checkWrite(offset: number, length: number): void {
    if (this.readOnly) throw new PandoError('read-only', `disk ${this.disk} belongs to a backup`);
    this.#check(offset, length);
    const { stopped } = this.#engine;
    if (stopped !== undefined) throw stopped;
  }
}

/** Waits until a write may be taken, and enters the room for it. @throws what keeps destage from making room */
async function enter(engine: Engine): Promise<void> {
  while (engine.congested) {
    const refusal = engine.space?.refusal;
    if (refusal !== undefined) throw refusal;
    engine.wake();
    await engine.room.wait();
    if (engine.log.pendingBytes > LOG_PENDING_BYTES_MAX) await engine.log.written();
  }
  if (engine.stopped !== undefined) throw engine.stopped;
  engine.room.enter();
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
