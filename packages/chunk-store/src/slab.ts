/**
 * A slab: the memory of one batch, shared between the main thread and a worker, and the two pure
 * functions that work on it: hash, and pack into runs. Both run in a worker or inline, with one result.
 *
 * A batch goes through a slab twice. `hashSlab`: chunks in `input` → `ids`. Then the main thread looks the
 * ids up and writes the numbers of the new chunks to `order`. `packSlab`: those chunks → runs in `output`, one
 * after another, ready to append but for their place.
 *
 * Bytes are copied with `Buffer.copy`: `set` of a typed array into or out of shared memory goes word by word. Measured: packing 1 MiB takes a fifth less.
 */
import { ID_BYTES } from '@pando/common';
import { compressRun } from './codec.ts';
import type { Hash } from './hashing.ts';
import { BATCH_BYTES, BATCH_CHUNKS_MAX, RUN_RAW_BYTES } from './limits.ts';
import { CODEC_RAW, CODEC_ZSTD, RUN_HEADER_BYTES, writeRunHeader } from './segment-format.ts';

const IDS_AT = BATCH_BYTES;
const ORDER_AT = IDS_AT + BATCH_CHUNKS_MAX * ID_BYTES;
const RUNS_AT = ORDER_AT + BATCH_CHUNKS_MAX * 4;
const OUTPUT_AT = RUNS_AT + BATCH_CHUNKS_MAX * 4;
const OUTPUT_BYTES = BATCH_BYTES + BATCH_CHUNKS_MAX * (RUN_HEADER_BYTES + ID_BYTES);

export const SLAB_BYTES = OUTPUT_AT + OUTPUT_BYTES;

export interface Slab {
  readonly buffer: SharedArrayBuffer;
  /** Chunks, one after another. */
  readonly input: Uint8Array;
  readonly words: Int32Array;
  /** Their ids; zeros for a chunk of zeros. */
  readonly ids: Uint8Array;
  /** Numbers of the chunks to pack, in the order in which they go into runs. */
  readonly order: Uint32Array;
  /** Bytes of each run in `output`. */
  readonly runs: Uint32Array;
  readonly output: Uint8Array;
  /** All of it, for copying. */
  readonly bytes: Buffer;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function slabOver(buffer: SharedArrayBuffer): Slab {
  return {
    buffer,
    input: new Uint8Array(buffer, 0, BATCH_BYTES),
    words: new Int32Array(buffer, 0, BATCH_BYTES / 4),
    ids: new Uint8Array(buffer, IDS_AT, BATCH_CHUNKS_MAX * ID_BYTES),
    order: new Uint32Array(buffer, ORDER_AT, BATCH_CHUNKS_MAX),
    runs: new Uint32Array(buffer, RUNS_AT, BATCH_CHUNKS_MAX),
    output: new Uint8Array(buffer, OUTPUT_AT, OUTPUT_BYTES),
    bytes: Buffer.from(buffer),
  };
}

/** Chunks of that size in one batch at most. */
export function batchChunks(chunkBytes: number): number {
  return Math.min(BATCH_CHUNKS_MAX, BATCH_BYTES / chunkBytes);
}

/** Chunks of that size in one run at most. */
export function runChunks(chunkBytes: number): number {
  return Math.max(1, RUN_RAW_BYTES / chunkBytes);
}

/** What a batch goes to a worker for: packs it into runs of `kind`, or hashes it without one. Returns how many runs `output` then holds. */
export function workOn(
  slab: Slab,
  count: number,
  chunkBytes: number,
  kind: number | undefined,
  hash: Hash,
): number {
  if (kind !== undefined) return packSlab(slab, count, chunkBytes, kind);
  hashSlab(slab, count, chunkBytes, hash);
  return 0;
}

/** Writes the ids of the first `count` chunks of `input`. */
export function hashSlab(slab: Slab, count: number, chunkBytes: number, hash: Hash): void {
  const words = chunkBytes / 4;
  for (let i = 0; i < count; i++) {
    if (isZero(slab.words, i * words, words)) slab.ids.fill(0, i * ID_BYTES, (i + 1) * ID_BYTES);
    else slab.ids.set(hash(slab.input.subarray(i * chunkBytes, (i + 1) * chunkBytes)), i * ID_BYTES);
  }
}

function isZero(words: Int32Array, from: number, count: number): boolean {
  for (let i = from; i < from + count; i++) {
    if (words[i] !== 0) return false;
  }
  return true;
}

let scratch = Buffer.alloc(0);

/** Packs the first `count` chunks of `order` into runs; returns how many runs `output` then holds. */
export function packSlab(slab: Slab, count: number, chunkBytes: number, kind: number): number {
  const perRun = runChunks(chunkBytes);
  if (scratch.byteLength < perRun * chunkBytes) scratch = Buffer.allocUnsafeSlow(perRun * chunkBytes);
  const { bytes } = slab;
  const raw = new Uint8Array(scratch.buffer, scratch.byteOffset, scratch.byteLength);
  let runs = 0;
  let at = 0;
  for (let first = 0; first < count; first += perRun) {
    const inRun = Math.min(perRun, count - first);
    const idsAt = at + RUN_HEADER_BYTES;
    for (let k = 0; k < inRun; k++) {
      const chunk = slab.order[first + k]!;
      // The input stands at the beginning.
      bytes.copy(scratch, k * chunkBytes, chunk * chunkBytes, (chunk + 1) * chunkBytes);
      const idAt = IDS_AT + chunk * ID_BYTES;
      bytes.copy(bytes, OUTPUT_AT + idsAt + k * ID_BYTES, idAt, idAt + ID_BYTES);
    }
    const whole = raw.subarray(0, inRun * chunkBytes);
    const packed = compressRun(whole);
    const stored = packed ?? whole;
    asBuffer(stored).copy(bytes, OUTPUT_AT + idsAt + inRun * ID_BYTES);
    const codec = packed === undefined ? CODEC_RAW : CODEC_ZSTD;
    writeRunHeader(slab.output, at, codec, kind, inRun, whole.byteLength, stored.byteLength);
    slab.runs[runs++] = RUN_HEADER_BYTES + inRun * ID_BYTES + stored.byteLength;
    at += slab.runs[runs - 1]!;
  }
  return runs;
}

/** Of `count` chunks that were packed: bytes of those in runs that are stored as they are. */
export function rawBytesOf({ runs }: Slab, count: number, chunkBytes: number): number {
  const perRun = runChunks(chunkBytes);
  let bytes = 0;
  for (let run = 0, first = 0; first < count; run++, first += perRun) {
    const inRun = Math.min(perRun, count - first);
    if (runs[run] === RUN_HEADER_BYTES + inRun * (ID_BYTES + chunkBytes)) bytes += inRun * chunkBytes;
  }
  return bytes;
}
