/**
 * Changing an active layer's overlay: the part of a write that must happen in one turn.
 *
 * A write that covers only part of a chunk needs what the rest of the chunk holds (its base). The base is
 * found in the layers below or read from the tree; `EdgeBases` carries what had to be read. At most the
 * first and the last chunk of a write are partial.
 *
 * A write whose base is damaged is refused, before anything of it is in the log. One that is in the log already, because
 * the damage came later, must not be lost: replay keeps what is known of the chunk, which is baseless then (overlay.ts).
 */
import { PandoError } from '@pando/common';
import { readTree, type ChunkReader } from '@pando/tree';
import { bottomOf, findChunk, type Layer } from './layer.ts';
import { afterAll, lostError, makeWhole } from './layer-read.ts';
import { ABSENT, LOST, ZERO, isBaseless } from './overlay.ts';
import type { SlotPool } from './slot-pool.ts';

/** Up to two partial chunks whose bases come from the tree. */
export class EdgeBases {
  readonly #chunks = [-1, -1];
  readonly #unreadable = [-1, -1];
  readonly #bytes: [Buffer, Buffer];

  constructor(chunkBytes: number) {
    this.#bytes = [Buffer.alloc(chunkBytes), Buffer.alloc(chunkBytes)];
  }

  clear(): void {
    this.#chunks.fill(-1);
    this.#unreadable.fill(-1);
  }

  /** Room for the base of `chunk`; `which` is 0 for the first chunk of a write, 1 for the last. */
  place(which: 0 | 1, chunk: number): Buffer {
    this.#chunks[which] = chunk;
    return this.#bytes[which];
  }

  /** The base of `chunk` cannot be read. */
  giveUp(which: 0 | 1, chunk: number): void {
    this.#chunks[which] = -1;
    this.#unreadable[which] = chunk;
  }

  isUnreadable(chunk: number): boolean {
    return this.#unreadable.includes(chunk);
  }

  of(chunk: number): Buffer | undefined {
    if (this.#chunks[0] === chunk) return this.#bytes[0];
    return this.#chunks[1] === chunk ? this.#bytes[1] : undefined;
  }
}

/**
 * Reads the bases that a write of [offset, offset + length) onto `top` needs from the tree. Returns undefined when
 * that was done, or nothing was needed, without waiting. When it fails, nothing writes to `bases` any more.
 */
export function readEdges(
  top: Layer,
  offset: number,
  length: number,
  pool: SlotPool,
  reader: ChunkReader,
  bases: EdgeBases,
): Promise<void> | undefined {
  bases.clear();
  if (length === 0) return undefined;
  let pending: Promise<void>[] | undefined;
  for (const which of EDGES) {
    try {
      const waiting = readEdge(which, top, offset, length, pool, reader, bases);
      if (waiting !== undefined) (pending ??= []).push(waiting);
    } catch (error) {
      if (pending === undefined) throw error;
      return afterAll(pending).then(() => Promise.reject(error as Error));
    }
  }
  return pending === undefined ? undefined : afterAll(pending);
}

/** As `readEdges`, for a write that is in the log: a base that is damaged is noted as unreadable. Returns why, if one was. */
export async function readEdgesForReplay(
  layer: Layer,
  offset: number,
  length: number,
  pool: SlotPool,
  reader: ChunkReader,
  bases: EdgeBases,
): Promise<PandoError | undefined> {
  bases.clear();
  if (length === 0) return undefined;
  let damage: PandoError | undefined;
  for (const which of EDGES) {
    const chunk = edgeOf(which, layer, offset, length, pool.chunkBytes);
    // The base of a chunk that is baseless in this overlay has been tried already.
    if (chunk === undefined || isBaseless(layer.overlay!.find(chunk))) continue;
    try {
      await readEdge(which, layer, offset, length, pool, reader, bases);
    } catch (error) {
      if (!(error instanceof PandoError) || error.kind !== 'data') throw error;
      bases.giveUp(which, chunk);
      damage = error;
    }
  }
  return damage;
}

const EDGES = [0, 1] as const;

/** The first (0) or last (1) chunk of a write, when it needs its base; never the same one twice. */
function edgeOf(
  which: 0 | 1,
  top: Layer,
  offset: number,
  length: number,
  chunkBytes: number,
): number | undefined {
  const end = offset + length;
  const first = Math.floor(offset / chunkBytes);
  const last = Math.floor((end - 1) / chunkBytes);
  if (which === 1 && last === first) return undefined;
  const chunk = which === 0 ? first : last;
  return covers(top, offset, end, chunk, chunkBytes) ? undefined : chunk;
}

function readEdge(
  which: 0 | 1,
  top: Layer,
  offset: number,
  length: number,
  pool: SlotPool,
  reader: ChunkReader,
  bases: EdgeBases,
): Promise<void> | undefined {
  const { chunkBytes } = pool;
  const chunk = edgeOf(which, top, offset, length, chunkBytes);
  if (chunk === undefined) return undefined;
  const found = findChunk(top, chunk);
  if (isBaseless(found)) return makeWhole(top, chunk, pool, reader);
  if (found === LOST) throw lostError(chunk);
  if (found !== ABSENT) return undefined;
  const root = bottomOf(top).root!;
  const at = chunk * chunkBytes;
  const target = bases.place(which, chunk).fill(0);
  return readTree(reader, root, at, Math.min(chunkBytes, root.size - at), target, 0);
}

/** Whether [offset, end) holds all of the chunk that lies on the disk. */
function covers(top: Layer, offset: number, end: number, chunk: number, chunkBytes: number): boolean {
  const start = chunk * chunkBytes;
  return offset <= start && end >= Math.min(start + chunkBytes, top.size);
}

/** Puts `data` into the overlay of an active layer. The bases of partial chunks must be at hand. */
export function writeToLayer(
  layer: Layer,
  offset: number,
  data: Buffer,
  pool: SlotPool,
  bases: EdgeBases,
): void {
  const chunkBytes = pool.chunkBytes;
  let done = 0;
  while (done < data.byteLength) {
    const at = offset + done;
    const chunk = Math.floor(at / chunkBytes);
    const within = at - chunk * chunkBytes;
    const count = Math.min(chunkBytes - within, data.byteLength - done);
    const whole = within === 0 && at + count >= Math.min(at + chunkBytes, layer.size);
    const slot = whole
      ? layer.overlay!.slotFor(chunk)
      : slotWithBase(layer, chunk, within, within + count, pool, bases);
    if (slot !== LOST) {
      const slab = pool.slabOf(slot);
      const start = pool.offsetOf(slot);
      data.copy(slab, start + within, done, done + count);
      // The last chunk of a disk is padded with zeros.
      if (whole && count < chunkBytes) slab.fill(0, start + count, start + chunkBytes);
    }
    done += count;
  }
}

/** Makes [offset, offset + length) of an active layer zero. */
export function zeroInLayer(
  layer: Layer,
  offset: number,
  length: number,
  pool: SlotPool,
  bases: EdgeBases,
): void {
  const chunkBytes = pool.chunkBytes;
  const end = offset + length;
  // The last chunk of a disk is padded with zeros: zeroing up to the end of the disk zeroes all of it.
  const start = Math.ceil(offset / chunkBytes);
  const stop =
    end >= layer.size ? Math.max(start, Math.ceil(end / chunkBytes)) : Math.floor(end / chunkBytes);
  if (offset < Math.min(start * chunkBytes, end)) {
    zeroPart(layer, offset, Math.min(start * chunkBytes, end), pool, bases);
  }
  if (start < stop) layer.overlay!.zero(start, stop);
  if (stop >= start && stop * chunkBytes < end) zeroPart(layer, stop * chunkBytes, end, pool, bases);
}

function zeroPart(layer: Layer, from: number, to: number, pool: SlotPool, bases: EdgeBases): void {
  const chunk = Math.floor(from / pool.chunkBytes);
  if (findChunk(layer, chunk) === ZERO) return;
  const within = from - chunk * pool.chunkBytes;
  const slot = slotWithBase(layer, chunk, within, within + to - from, pool, bases);
  if (slot === LOST) return;
  const start = pool.offsetOf(slot) + within;
  pool.slabOf(slot).fill(0, start, start + to - from);
}

/**
 * The slot of a chunk in the layer's own overlay, filled with what the chunk holds now, for a change of its bytes
 * `from` … `to` − 1. LOST for one that is lost there, which only replay writes to in part: it stays so.
 */
function slotWithBase(
  layer: Layer,
  chunk: number,
  from: number,
  to: number,
  pool: SlotPool,
  bases: EdgeBases,
): number {
  const own = layer.overlay!.find(chunk);
  if (own >= 0 || own === LOST) return own;
  if (isBaseless(own) || bases.isUnreadable(chunk)) return slotWithoutBase(layer, chunk, from, to, pool);
  const below = own === ZERO ? ZERO : findChunk(layer.parent!, chunk);
  const slot = layer.overlay!.slotFor(chunk);
  const slab = pool.slabOf(slot);
  const at = pool.offsetOf(slot);
  if (below === ZERO) slab.fill(0, at, at + pool.chunkBytes);
  else if (below >= 0) {
    pool.slabOf(below).copy(slab, at, pool.offsetOf(below), pool.offsetOf(below) + pool.chunkBytes);
  } else {
    const base = bases.of(chunk);
    if (base === undefined) throw new Error(`the base of chunk ${chunk} was not read`);
    base.copy(slab, at);
  }
  return slot;
}

function slotWithoutBase(layer: Layer, chunk: number, from: number, to: number, pool: SlotPool): number {
  const isLast = chunk * pool.chunkBytes + to >= layer.size;
  const slot = layer.overlay!.slotForPart(chunk, from, isLast ? pool.chunkBytes : to);
  // Past the end of the disk there are zeros.
  const at = pool.offsetOf(slot);
  if (isLast) pool.slabOf(slot).fill(0, at + to, at + pool.chunkBytes);
  return slot;
}

/** Chunks of which a write to [offset, offset + length) of a layer changes anything: they are lost, when the write is. */
export function loseInLayer(layer: Layer, offset: number, length: number, chunkBytes: number): void {
  if (length === 0) return;
  layer.overlay!.lose(Math.floor(offset / chunkBytes), Math.ceil((offset + length) / chunkBytes));
}
