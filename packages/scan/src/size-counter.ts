/**
 * One chunk size: which chunks of disks are new, what their leaf nodes would be, and how well the new ones compress.
 *
 * A chunk of more than 4 KiB is told by the ids of its 4 KiB pieces, one behind the other: it is hashed over 32 bytes a piece and not over
 * all of its bytes again. Two such chunks are equal exactly when their pieces are.
 */
import { compressRun } from '@pando/chunk-store/codec';
import { hashChunk } from '@pando/chunk-store/hashing';
import { ID_BYTES } from '@pando/common';
import { FingerprintSet } from './fingerprint-set.ts';

/** What a run holds at least, where chunks are smaller. */
const RUN_BYTES = 16 * 1024;
/** Children of a node. */
const FANOUT = 128;
/** One run in so many is compressed, once so many have been: the ratio of the others is taken for theirs. */
const COMPRESS_ONE_IN = 8;
const COMPRESS_ALL_MAX = 4_096;
/** Fingerprints that are kept for chunks, and for leaf nodes. */
const CHUNKS_KEPT_MAX = 2 ** 21;
const LEAVES_KEPT_MAX = 2 ** 16;

export class SizeCounter {
  readonly chunkBytes: number;
  readonly #pieces: number;
  readonly #chunks = new FingerprintSet(CHUNKS_KEPT_MAX);
  readonly #leaves = new FingerprintSet(LEAVES_KEPT_MAX);
  /** Ids of the chunks under the leaf node that is being gathered. */
  readonly #leaf = new Uint8Array(FANOUT * ID_BYTES);
  #leafChunks = 0;
  #leafUsed = 0;
  /** New chunks that wait for their run to be full. */
  readonly #run: Uint8Array;
  #runBytes = 0;
  #runs = 0;
  #rawBytes = 0;
  #packedBytes = 0;
  /** Bytes of ids in new leaf nodes, and how many chunks there are that are not all zeros. */
  #leafBytes = 0;
  chunksStored = 0;

  constructor(chunkBytes: number, pieceBytes: number) {
    this.chunkBytes = chunkBytes;
    this.#pieces = chunkBytes / pieceBytes;
    this.#run = new Uint8Array(Math.max(RUN_BYTES, chunkBytes));
  }

  /** Different chunks so far; an estimate once there are very many. */
  get uniqueChunks(): number {
    return this.#chunks.count;
  }

  get isSampled(): boolean {
    return this.#chunks.scale > 1;
  }

  /** Compressed bytes a byte of new chunks; 1 as long as there are none. */
  get compressed(): number {
    return this.#rawBytes === 0 ? 1 : this.#packedBytes / this.#rawBytes;
  }

  /** Bytes of leaf nodes, each once. */
  get leafBytes(): number {
    return this.#leafBytes;
  }

  /**
   * The next pieces of a disk, a whole number of chunks: their ids, with zeros for pieces of zeros, and their bytes. Both are only read during
   * the call.
   */
  add(ids: Uint8Array, bytes: Uint8Array, pieceBytes: number): void {
    const pieces = ids.byteLength / ID_BYTES;
    for (let piece = 0; piece < pieces; piece += this.#pieces) {
      const end = piece + this.#pieces;
      const own = ids.subarray(piece * ID_BYTES, end * ID_BYTES);
      if (isZero(own)) {
        this.addZeros(1);
        continue;
      }
      const id = this.#pieces === 1 ? own : hashChunk(own);
      this.chunksStored++;
      this.#leaf.set(id, this.#leafChunks * ID_BYTES);
      this.#leafUsed++;
      this.#endOfChunk();
      if (this.#chunks.add(id, 0)) this.#pack(bytes.subarray(piece * pieceBytes, end * pieceBytes));
    }
  }

  /** So many chunks of zeros. */
  addZeros(count: number): void {
    for (let left = count; left > 0;) {
      if (this.#leafChunks === 0 && left >= FANOUT) left %= FANOUT;
      else {
        this.#leaf.fill(0, this.#leafChunks * ID_BYTES, (this.#leafChunks + 1) * ID_BYTES);
        left--;
        this.#endOfChunk();
      }
    }
  }

  /** The next bytes begin another disk. */
  endDisk(): void {
    this.#endLeaf();
    this.#compress();
  }

  #endOfChunk(): void {
    if (++this.#leafChunks === FANOUT) this.#endLeaf();
  }

  #endLeaf(): void {
    if (this.#leafUsed > 0) {
      const leaf = this.#leaf.subarray(0, this.#leafChunks * ID_BYTES);
      if (this.#leaves.add(hashChunk(leaf), 0))
        this.#leafBytes += this.#leafUsed * ID_BYTES * this.#leaves.scale;
    }
    this.#leafChunks = 0;
    this.#leafUsed = 0;
  }

  #pack(chunk: Uint8Array): void {
    if (this.#runBytes + chunk.byteLength > this.#run.byteLength) this.#compress();
    this.#run.set(chunk, this.#runBytes);
    this.#runBytes += chunk.byteLength;
  }

  #compress(): void {
    const raw = this.#run.subarray(0, this.#runBytes);
    this.#runBytes = 0;
    if (raw.byteLength === 0) return;
    if (this.#runs++ >= COMPRESS_ALL_MAX && this.#runs % COMPRESS_ONE_IN !== 0) return;
    this.#rawBytes += raw.byteLength;
    this.#packedBytes += compressRun(raw)?.byteLength ?? raw.byteLength;
  }
}

function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.byteLength; at++) if (bytes[at] !== 0) return false;
  return true;
}
