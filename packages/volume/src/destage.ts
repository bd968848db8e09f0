/**
 * Destage: from overlays into chunks, nodes and a new root.
 *
 * Order of the durable steps: chunks and nodes in segments, synced, indexed (the session's flush) → the
 * records of all disks that hold the layer name the new root, in one commit → it is read from there, and the log lets go. A crash
 * between any two leaves the log with everything and at most garbage in the segments.
 *
 * One layer at a time, oldest overlay first, whoever it belongs to: that is what frees the log.
 *
 * A layer with baseless chunks (overlay.ts) waits until their bases can be read, or until nobody reads those chunks any
 * more, because they were written anew on all disks. Then it goes together with the layers above it up to one that
 * covers them, in one commit: a root without what is known of those chunks must never be in a record, because the
 * write that covers them may be lost in a power cut.
 */
import type { CatalogOperation } from '@pando/catalog';
import { LOST_ID, PandoError, isPandoError } from '@pando/common';
import type { WriteSession } from '@pando/chunk-store';
import { resizeTree, updateTree, type Root } from '@pando/tree';
import type { Disk } from './disk.ts';
import type { Engine } from './engine.ts';
import { findChunk, unresolvedOf, type Layer } from './layer.ts';
import { makeWhole } from './layer-read.ts';
import { relieveLog } from './log-relief.ts';
import { LOST, ZERO, isBaseless } from './overlay.ts';

/** Chunks handed to the store at once, and how many such batches are under way. */
const BATCH_CHUNKS = 256;
const BATCHES_IN_FLIGHT = 3;
/** How long a layer rests after it could not be destaged. */
const RETRY_FULL_MS = 1_000;
const RETRY_DAMAGED_MS = 30_000;

/** Overlays are destaged when they are older than this, or memory or log are half full. */
export const DESTAGE_AFTER_MS = 3_000;
const LOOK_EVERY_MS = 500;
/** Memory for overlays that nobody needed for so long is given back. */
const TRIM_EVERY_MS = 10_000;

export class Destager {
  readonly #engine: Engine;
  readonly #destageAfterMs: number;
  readonly #stop = new AbortController();
  #woken: (() => void) | undefined;
  /** Length of the log after it was relieved, from when on that may be done again, and what the last attempt met, if it failed. */
  #relieved: { bytes: number; after: number; met?: PandoError | 'writers' } = { bytes: 0, after: 0 };
  #trimmedAt = 0;
  #running: Promise<void> | undefined;
  #waiters: { layer: Layer; resolve: () => void; reject: (error: Error) => void }[] = [];

  constructor(engine: Engine, destageAfterMs: number) {
    this.#engine = engine;
    this.#destageAfterMs = destageAfterMs;
    engine.wake = () => this.#woken?.();
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Resolves when the layer is committed, or nobody needs it any more. Rejects when that cannot be done for now. */
  settle(layer: Layer): Promise<void> {
    if (!layer.pending) return Promise.resolve();
    if (this.#engine.failure !== undefined) return Promise.reject(this.#engine.failure);
    // Somebody wants to know now: perhaps what was damaged has healed.
    for (const below of unresolvedOf(layer)) {
      if (below.trouble?.error.kind === 'data') below.trouble = { ...below.trouble, retryAt: 0 };
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ layer, resolve, reject });
      this.#engine.wake();
    });
  }

  /** Ends after the layer under way. */
  async stop(): Promise<void> {
    this.#stop.abort(new PandoError('shutting-down', 'the volumes are being closed'));
    this.#woken?.();
    await this.#running;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#stop.signal.reason as Error);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const layer = this.#next();
      if (layer === undefined) {
        if (await this.#relieve()) continue;
        this.#refuseWhenStuck();
        // A quiet store ends up with an empty log, also when the last release came while a group was written.
        if (this.#engine.pending.length === 0 && this.#engine.log.bytes > 0) {
          await this.#engine.releaseLog();
        }
        await this.#rest();
        continue;
      }
      // There is something to make room with again.
      if (layer.trouble === undefined && isDamage(this.#engine.room.refusal))
        this.#engine.room.refuse(undefined);
      try {
        await this.#destage(layer);
      } catch (error) {
        this.#troubled(layer, error);
      }
      this.#answer();
    }
  }

  /** The oldest layer that should go now. Its parent, being older, is in the tree already. */
  #next(): Layer | undefined {
    const engine = this.#engine;
    if (engine.failure !== undefined) return undefined;
    const now = engine.clock.monotonic();
    const tight =
      engine.pool.usedBytes * 2 > engine.pool.bytesMax || engine.log.bytes * 2 > engine.logBytesMax;
    // Somebody who waits for a layer waits for all below it; what is older goes first all the same.
    const wanted = this.#waiters.reduce((newest, { layer }) => Math.max(newest, layer.number), 0);
    for (const layer of engine.pending) {
      if (layer.parent?.root === undefined) continue;
      if (layer.trouble !== undefined && layer.trouble.retryAt > now) continue;
      const due = now - layer.openedAt >= this.#destageAfterMs;
      return tight || due || layer.number <= wanted ? layer : undefined;
    }
    return undefined;
  }

  /**
   * Called when nothing can be destaged now: when the log is half full, and damage is what keeps it, what is still needed
   * is appended anew. Only where that frees at least half of it, and a quarter of its maximum has come since
   * the last time: so it costs less than what guests write.
   */
  async #relieve(): Promise<boolean> {
    const engine = this.#engine;
    const { log, logBytesMax, pending, room } = engine;
    if (engine.failure !== undefined || log.failure !== undefined) return false;
    if (log.bytes * 2 <= logBytesMax || !pending.some((layer) => layer.trouble?.error.kind === 'data'))
      return false;
    const { bytes, after } = this.#relieved;
    if (log.bytes < bytes + logBytesMax / 4 || engine.clock.monotonic() < after) return false;
    // What is appended counts as taken from guests already: while they are not refused, it leaves the reserve alone.
    if (engine.pool.usedBytes * 2 > log.bytes || engine.space?.refusal !== undefined) return false;
    // Those who come now wait for the room that there will be.
    room.refuse(undefined);
    const failed = (met: PandoError | 'writers', retryMs: number): void => {
      this.#relieved = { bytes: 0, after: engine.clock.monotonic() + retryMs, met };
    };
    try {
      const done = await relieveLog(engine);
      if (done) this.#relieved = { bytes: log.bytes, after: 0 };
      else failed('writers', RETRY_DAMAGED_MS);
      return done;
    } catch (cause) {
      failed(asPandoError(cause, 'the log could not be relieved'), RETRY_FULL_MS);
      return false;
    }
  }

  /** Called when nothing can be destaged now: writers that wait for room would wait until somebody repairs what is damaged. */
  #refuseWhenStuck(): void {
    const { room, pending } = this.#engine;
    if (!room.isFull || room.refusal !== undefined) return;
    const trouble = pending.find((layer) => layer.trouble !== undefined)?.trouble?.error;
    const { met } = this.#relieved;
    // Who waits for a read that takes long waits for no repair.
    if (trouble !== undefined && met !== 'writers') room.refuse(met ?? trouble);
  }

  async #destage(first: Layer): Promise<void> {
    const engine = this.#engine;
    const began = performance.now();
    if (!first.frozen) for (const disk of first.disks) disk.freeze();
    const layers = await readableFrom(engine, first);
    const layer = layers.at(-1)!;
    if (!layer.frozen) for (const disk of layer.disks) disk.freeze();
    const bytes = layers.reduce((sum, { overlay }) => sum + overlay!.slots, 0) * engine.chunkBytes;
    // Guests are refused already when room gets short; what they were promised has to leave the log all the same.
    const session = engine.store.openSession({ usesReserve: true });
    for (const one of layers) one.destaging = true;
    try {
      const root = await buildRoot(engine, layers, session);
      await session.flush();
      // Durable, and pinned by the session until the records name it.
      await this.#record(layers, root);
    } finally {
      for (const one of layers) {
        one.destaging = false;
        if (one.disks.size === 0) one.overlay?.dispose();
      }
      session.release();
    }
    engine.destagedBytes += bytes;
    engine.destageTimes.record(performance.now() - began);
    tellOf(engine, layer, session);
    layer.trouble = undefined;
    engine.room.refuse(undefined);
    for (const disk of [...layer.disks]) {
      layer.disks.delete(disk);
      engine.evict(disk);
    }
    await engine.releaseLog();
  }

  /**
   * Points every disk of the layers at their root, in one commit, and only then lets them be read through it. Were it the
   * other way round, a record that is written in between, of one of these disks, would name the root, and those of the
   * others still the overlays. Tried until there is room.
   */
  async #record(layers: readonly Layer[], root: Root): Promise<void> {
    const engine = this.#engine;
    const layer = layers.at(-1)!;
    for (;;) {
      try {
        await engine.exclusively(async () => {
          if (layers.some((one) => one.disks.size !== layer.disks.size))
            throw new PandoError('chunk-corrupt', 'what a fork was made of lies on damaged chunks');
          if (layer.disks.size === 0) return;
          await engine.commit(operationsWith(engine, layers, root));
          if (layers.length > 1) absorb(engine, layers, root);
          else layer.resolve(root);
          engine.removePending(layer);
        });
        return;
      } catch (error) {
        if (!isPandoError(error, 'store-full')) {
          throw isPandoError(error)
            ? error
            : new PandoError('store-failed', 'a root could not be recorded', { cause: error });
        }
        engine.room.refuse(error);
        this.#rejectWaiters(undefined, error);
        await engine.clock.sleep(RETRY_FULL_MS, this.#stop.signal);
      }
    }
  }

  #troubled(layer: Layer, cause: unknown): void {
    const engine = this.#engine;
    const error = asPandoError(cause, 'destage failed');
    if (this.#stop.signal.aborted) return;
    if (error.code === 'store-failed') {
      engine.failure = error;
      engine.room.refuse(error);
      this.#rejectWaiters(undefined, error);
      return;
    }
    const full = error.code === 'store-full';
    layer.trouble = { error, retryAt: engine.clock.monotonic() + (full ? RETRY_FULL_MS : RETRY_DAMAGED_MS) };
    if (full) engine.room.refuse(error);
    this.#rejectWaiters(full ? undefined : layer, error);
  }

  /** Tells those who wait for a layer that needs `layer` (for any layer, without one) that it cannot be done now. */
  #rejectWaiters(layer: Layer | undefined, error: PandoError): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      if (layer !== undefined && !unresolvedOf(waiter.layer).includes(layer)) return true;
      waiter.reject(error);
      return false;
    });
  }

  #answer(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      if (waiter.layer.pending) return true;
      waiter.resolve();
      return false;
    });
  }

  async #rest(): Promise<void> {
    this.#answer();
    const now = this.#engine.clock.monotonic();
    const { pool } = this.#engine;
    const isTime = now - this.#trimmedAt >= TRIM_EVERY_MS;
    if (isTime || pool.pages.wasWanted()) pool.trim();
    if (isTime) {
      this.#trimmedAt = now;
      pool.pages.trim();
    }
    const woken = new Promise<void>((resolve) => (this.#woken = resolve));
    const timer = new AbortController();
    const sleep = this.#engine.clock.sleep(LOOK_EVERY_MS, timer.signal).catch(() => undefined);
    if (this.#stop.signal.aborted) this.#woken?.();
    await Promise.race([woken, sleep]);
    this.#woken = undefined;
    timer.abort();
  }
}

function asPandoError(cause: unknown, what: string): PandoError {
  return cause instanceof PandoError
    ? cause
    : new PandoError('internal', `${what}: ${String(cause)}`, { cause });
}

/** What happens to the numbers must not keep the log. */
function tellOf({ onDestaged }: Engine, { disks }: Layer, session: WriteSession): void {
  if (onDestaged === undefined) return;
  for (const { number, readOnly } of disks) {
    if (readOnly) continue;
    try {
      onDestaged(number, session.counts.data);
    } catch {
      // Whoever listens has told whom it concerns.
    }
    return;
  }
}

function isDamage(refusal: PandoError | undefined): boolean {
  return refusal !== undefined && refusal.code !== 'store-full';
}

/**
 * The layers that can go into the tree in one commit, beginning with `first`: itself when it can be read, else all up to
 * one that covers its baseless chunks. @throws why it cannot be read
 */
async function readableFrom(engine: Engine, first: Layer): Promise<readonly Layer[]> {
  let failed: { error: unknown } | undefined;
  for (const chunk of first.overlay!.baseless) {
    try {
      await makeWhole(first, chunk, engine.pool, engine.store);
    } catch (error) {
      failed = { error };
    }
  }
  if (failed === undefined) return [first];
  const covering = coveringFrom(first);
  if (covering === undefined) throw failed.error as Error;
  return covering;
}

/** Layers from `first` on that every disk holds which holds `first`, up to one from where no baseless chunk of theirs is seen. */
function coveringFrom(first: Layer): readonly Layer[] | undefined {
  const [disk] = first.disks;
  if (disk === undefined) return undefined;
  const layers: Layer[] = [];
  const baseless = new Set<number>();
  for (const layer of unresolvedOf(disk.top)) {
    if (layer.disks.size !== first.disks.size) return undefined;
    layers.push(layer);
    for (const chunk of layer.overlay!.baseless) baseless.add(chunk);
    if (![...baseless].some((chunk) => isBaseless(findChunk(layer, chunk)))) return layers;
  }
  return undefined;
}

/** The records of all disks of the layers, as they will be with the root. */
function operationsWith(engine: Engine, layers: readonly Layer[], root: Root): CatalogOperation[] {
  const layer = layers.at(-1)!;
  const older = layers.slice(0, -1);
  layer.root = root; // until this returns: nobody sees it
  try {
    return [...layer.disks].flatMap((disk) =>
      engine.operationsFor(disk, isForkOf(disk, older) ? { forked: undefined } : {}),
    );
  } finally {
    layer.root = undefined;
  }
}

/** Whether what a disk was at its newest fork is one of `layers`. */
function isForkOf({ forked }: Disk, layers: readonly Layer[]): boolean {
  return forked !== undefined && layers.includes(forked);
}

/**
 * Makes all of the layers one, the newest, with the root that they were built into. Inside `exclusively`, in one turn:
 * nobody may be about to record one of the older ones.
 */
function absorb(engine: Engine, layers: readonly Layer[], root: Root): void {
  const top = layers.at(-1)!;
  const older = layers.slice(0, -1);
  // What the log is kept for, and when its turn is, goes over to the newest.
  top.firstPosition = Math.min(...layers.map((layer) => layer.firstPosition));
  engine.removePending(top);
  engine.pending[engine.pending.indexOf(layers[0]!)] = top;
  top.pending = true;
  layers[0]!.pending = false;
  for (const layer of older) engine.removePending(layer);
  for (const disk of top.disks) {
    // What it was at that fork is in no tree.
    if (isForkOf(disk, older)) disk.forked = undefined;
  }
  for (const layer of older) {
    layer.absorbed = true;
    layer.trouble = undefined;
    layer.disks.clear();
    layer.resolve(root);
  }
  top.resolve(root);
}

/** Writes what the overlays hold, oldest first, through `session` and returns the root on top of the first one's parent. */
async function buildRoot(engine: Engine, layers: readonly Layer[], session: WriteSession): Promise<Root> {
  let root = layers[0]!.parent!.root!;
  for (const layer of layers) root = await putLayer(engine, layer, root, session);
  return root;
}

async function putLayer(engine: Engine, layer: Layer, below: Root, session: WriteSession): Promise<Root> {
  const { store, pool, chunkBytes } = engine;
  const overlay = layer.overlay!;
  const base = await resizeTree(store, session, below, layer.size);
  const indexes = overlay.sortedChunks();
  const ids = new Uint8Array(indexes.length * 32);
  // What was written is not read any more: the next batch takes its place.
  const free = engine.batches;
  const inFlight = new Set<Promise<void>>();
  let failed: { error: unknown } | undefined;
  let next = 0;
  while (next < indexes.length && failed === undefined) {
    const batch = free.pop() ?? Buffer.allocUnsafeSlow(BATCH_CHUNKS * chunkBytes);
    const places: number[] = [];
    while (next < indexes.length && places.length < BATCH_CHUNKS) {
      const slot = overlay.find(indexes[next]!);
      if (slot === LOST) ids.set(LOST_ID, next * 32);
      else if (slot !== ZERO) {
        const at = pool.offsetOf(slot);
        pool.slabOf(slot).copy(batch, places.length * chunkBytes, at, at + chunkBytes);
        places.push(next);
      }
      next++;
    }
    if (places.length === 0) break;
    const written = session
      .writeChunks(batch.subarray(0, places.length * chunkBytes), places.length)
      .then((found) => {
        for (const [index, place] of places.entries())
          ids.set(found.subarray(index * 32, index * 32 + 32), place * 32);
      })
      .catch((error: unknown) => {
        failed ??= { error };
      })
      .finally(() => {
        free.push(batch);
        inFlight.delete(written);
      });
    inFlight.add(written);
    if (inFlight.size >= BATCHES_IN_FLIGHT) await Promise.race(inFlight);
  }
  await Promise.all(inFlight);
  if (failed !== undefined) throw failed.error as Error;
  return updateTree(store, session, base, {
    indexes,
    count: indexes.length,
    ids,
    holes: overlay.zeroRanges(),
  });
}
