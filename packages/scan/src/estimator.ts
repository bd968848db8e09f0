/**
 * What disks would take in a store, for chunks of each size that a store can have: disks are read once, nothing is stored.
 *
 * Costs a hash of all bytes that are not zeros, and compression of some; memory is bounded, whatever is read (about 100 MiB).
 */
import { hashChunk } from '@pando/chunk-store/hashing';
import { ID_BYTES, type DiskPart } from '@pando/common';
import { SizeCounter } from './size-counter.ts';

export const SCAN_CHUNK_BYTES = [4096, 8192, 16_384, 32_768, 65_536] as const;

const PIECE_BYTES = SCAN_CHUNK_BYTES[0];
const BLOCK_BYTES = SCAN_CHUNK_BYTES.at(-1)!;

/** A chunk's id in the header of its run and in the footer of its segment, and its entry in the index, as measured. */
const CHUNK_OVERHEAD_BYTES = 2 * ID_BYTES + 45;
/** Of a node's bytes in the nodes above it. */
const INNER_NODES = 1 + 1 / 127;

/** What chunks of one size would come to. */
export interface SizeEstimate {
  readonly chunkBytes: number;
  /** Bytes of chunks that are not all zeros: what is left without deduplication. */
  readonly allocatedBytes: number;
  /** Bytes of different ones. */
  readonly uniqueBytes: number;
  /** Those compressed in runs. */
  readonly compressedBytes: number;
  /** Nodes, ids in runs and segments, and the index. */
  readonly metadataBytes: number;
  /** compressedBytes + metadataBytes: what a store of this chunk size would take. */
  readonly storedBytes: number;
}

export interface Estimate {
  readonly disks: number;
  readonly logicalBytes: number;
  /** One for each size of SCAN_CHUNK_BYTES. */
  readonly sizes: readonly SizeEstimate[];
  /** Numbers of different chunks are estimates, by a sample of their ids: there were too many to keep all. */
  readonly isSampled: boolean;
}

export class Estimator {
  readonly #counters = SCAN_CHUNK_BYTES.map((bytes) => new SizeCounter(bytes, PIECE_BYTES));
  readonly #block = new Uint8Array(BLOCK_BYTES);
  readonly #words = new Int32Array(this.#block.buffer);
  readonly #ids = new Uint8Array((BLOCK_BYTES / PIECE_BYTES) * ID_BYTES);
  #filled = 0;
  /** Whether anything but holes has come into the block. */
  #touched = false;
  #disks = 0;
  #logicalBytes = 0;

  /** The next bytes of a disk, or a hole. The bytes are only read during the call. */
  add(part: DiskPart): void {
    if (part instanceof Uint8Array) this.#addBytes(part);
    else this.#addHole(part.holeBytes);
  }

  /** The disk is over; the next part begins another one. */
  endDisk(): void {
    if (this.#filled > 0) this.#endBlock();
    for (const counter of this.#counters) counter.endDisk();
    this.#disks++;
  }

  estimate(): Estimate {
    return {
      disks: this.#disks,
      logicalBytes: this.#logicalBytes,
      sizes: this.#counters.map((counter) => {
        const uniqueBytes = counter.uniqueChunks * counter.chunkBytes;
        const compressedBytes = Math.round(uniqueBytes * counter.compressed);
        const metadataBytes = Math.round(
          counter.leafBytes * INNER_NODES + counter.uniqueChunks * CHUNK_OVERHEAD_BYTES,
        );
        return {
          chunkBytes: counter.chunkBytes,
          allocatedBytes: counter.chunksStored * counter.chunkBytes,
          uniqueBytes,
          compressedBytes,
          metadataBytes,
          storedBytes: compressedBytes + metadataBytes,
        };
      }),
      isSampled: this.#counters.some((counter) => counter.isSampled),
    };
  }

  #addBytes(bytes: Uint8Array): void {
    this.#logicalBytes += bytes.byteLength;
    for (let at = 0; at < bytes.byteLength;) {
      const count = Math.min(bytes.byteLength - at, BLOCK_BYTES - this.#filled);
      this.#block.set(bytes.subarray(at, at + count), this.#filled);
      this.#touched = true;
      this.#filled += count;
      at += count;
      if (this.#filled === BLOCK_BYTES) this.#endBlock();
    }
  }

  #addHole(holeBytes: number): void {
    this.#logicalBytes += holeBytes;
    let left = holeBytes;
    while (left > 0) {
      if (this.#filled === 0 && left >= BLOCK_BYTES) {
        const blocks = Math.floor(left / BLOCK_BYTES);
        for (const counter of this.#counters) counter.addZeros(blocks * (BLOCK_BYTES / counter.chunkBytes));
        left -= blocks * BLOCK_BYTES;
        continue;
      }
      const count = Math.min(left, BLOCK_BYTES - this.#filled);
      this.#block.fill(0, this.#filled, this.#filled + count);
      this.#filled += count;
      left -= count;
      if (this.#filled === BLOCK_BYTES) this.#endBlock();
    }
  }

  /** Also at the end of a disk: its last chunk is filled up with zeros, as a store does it. */
  #endBlock(): void {
    this.#block.fill(0, this.#filled);
    this.#filled = 0;
    if (!this.#touched) {
      for (const counter of this.#counters) counter.addZeros(BLOCK_BYTES / counter.chunkBytes);
      return;
    }
    this.#touched = false;
    for (let piece = 0; piece < BLOCK_BYTES / PIECE_BYTES; piece++) {
      const from = piece * ID_BYTES;
      if (this.#isZero(piece)) this.#ids.fill(0, from, from + ID_BYTES);
      else
        this.#ids.set(hashChunk(this.#block.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES)), from);
    }
    for (const counter of this.#counters) counter.add(this.#ids, this.#block, PIECE_BYTES);
  }

  #isZero(piece: number): boolean {
    const words = PIECE_BYTES / 4;
    const end = (piece + 1) * words;
    for (let at = piece * words; at < end; at++) if (this.#words[at] !== 0) return false;
    return true;
  }
}
