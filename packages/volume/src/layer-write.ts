/**
 * Changing an active layer's overlay: the part of a write that must happen in one turn.
 *
 * A write that covers only part of a chunk needs what the rest of the chunk holds (its base). The base is
 * found in the layers below or read from the tree; `EdgeBases` carries what had to be read. At most the
 * first and the last chunk of a write are partial.
 */
import { readTree, type ChunkReader } from '@pando/tree';
import { bottomOf, findChunk, type Layer } from './layer.ts';
import { ABSENT, ZERO } from './overlay.ts';
import type { SlotPool } from './slot-pool.ts';

/** Up to two partial chunks whose bases come from the tree. */
export class EdgeBases {
  readonly #chunks = [-1, -1];
  readonly #bytes: [Buffer, Buffer];

  constructor(chunkBytes: number) {
    this.#bytes = [Buffer.alloc(chunkBytes), Buffer.alloc(chunkBytes)];
  }

  clear(): void {
    this.#chunks[0] = -1;
    this.#chunks[1] = -1;
  }

  /** Room for the base of `chunk`; `which` is 0 for the first chunk of a write, 1 for the last. */
  place(which: 0 | 1, chunk: number): Buffer {
    this.#chunks[which] = chunk;
    return this.#bytes[which];
  }

  of(chunk: number): Buffer | undefined {
    if (this.#chunks[0] === chunk) return this.#bytes[0];
    return this.#chunks[1] === chunk ? this.#bytes[1] : undefined;
  }
}

/**
 * Reads the bases that a write of [offset, offset + length) onto `top` needs from the tree. Returns undefined when
 * that was done, or nothing was needed, without waiting.
 */
export function readEdges(
  top: Layer,
  offset: number,
  length: number,
  reader: ChunkReader,
  bases: EdgeBases,
): Promise<unknown> | undefined {
  bases.clear();
  if (length === 0) return undefined;
  const chunkBytes = reader.chunkBytes;
  const end = offset + length;
  const first = Math.floor(offset / chunkBytes);
  const last = Math.floor((end - 1) / chunkBytes);
  const pending: Promise<void>[] = [];
  const read = (which: 0 | 1, chunk: number): void => {
    if (findChunk(top, chunk) !== ABSENT) return;
    const root = bottomOf(top).root!;
    const at = chunk * chunkBytes;
    const target = bases.place(which, chunk).fill(0);
    const waiting = readTree(reader, root, at, Math.min(chunkBytes, root.size - at), target, 0);
    if (waiting !== undefined) pending.push(waiting);
  };
  if (!covers(top, offset, end, first, chunkBytes)) read(0, first);
  if (last !== first && !covers(top, offset, end, last, chunkBytes)) read(1, last);
  return pending.length === 0 ? undefined : Promise.all(pending);
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
    const slot = whole ? layer.overlay!.slotFor(chunk) : slotWithBase(layer, chunk, pool, bases);
    const slab = pool.slabOf(slot);
    const start = pool.offsetOf(slot);
    data.copy(slab, start + within, done, done + count);
    // The last chunk of a disk is padded with zeros.
    if (whole && count < chunkBytes) slab.fill(0, start + count, start + chunkBytes);
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
  const slot = slotWithBase(layer, chunk, pool, bases);
  const start = pool.offsetOf(slot) + from - chunk * pool.chunkBytes;
  pool.slabOf(slot).fill(0, start, start + to - from);
}

/** The slot of a chunk in the layer's own overlay, filled with what the chunk holds now. */
function slotWithBase(layer: Layer, chunk: number, pool: SlotPool, bases: EdgeBases): number {
  const own = layer.overlay!.find(chunk);
  if (own !== ABSENT && own !== ZERO) return own;
  const below = own === ZERO ? ZERO : findChunk(layer.parent!, chunk);
  const slot = layer.overlay!.slotFor(chunk);
  const slab = pool.slabOf(slot);
  const at = pool.offsetOf(slot);
  if (below === ZERO) slab.fill(0, at, at + pool.chunkBytes);
  else if (below === ABSENT) {
    const base = bases.of(chunk);
    if (base === undefined) throw new Error(`the base of chunk ${chunk} was not read`);
    base.copy(slab, at);
  } else pool.slabOf(below).copy(slab, at, pool.offsetOf(below), pool.offsetOf(below) + pool.chunkBytes);
  return slot;
}
