/**
 * Buffers for replies and payloads, for all connections of a server: reused by size class, counted,
 * and bounded. A connection that finds the pool at its bound stops reading and waits in line.
 *
 * A class is a power of two plus room for reply headers, so that a read of 2^k bytes fits class k.
 * Buffers come with whatever bytes they held before: users send only what they have filled.
 */
import { WaitingLine } from './waiting-line.ts';

/** Room for headers beside a power of two of data. */
const SLACK_BYTES = 4096;
const SMALLEST_SHIFT = 12;
const LARGEST_SHIFT = 25;

/** Bytes of the buffer that `take(bytes)` returns. */
export function classBytes(bytes: number): number {
  return (1 << shiftOf(bytes)) + SLACK_BYTES;
}

function shiftOf(bytes: number): number {
  const shift = bytes <= SLACK_BYTES ? 0 : 32 - Math.clz32(bytes - SLACK_BYTES - 1);
  if (shift > LARGEST_SHIFT) throw new RangeError(`no buffer class holds ${bytes} bytes`);
  return Math.max(SMALLEST_SHIFT, shift);
}

export class BufferPool {
  readonly #inUseMax: number;
  readonly #keptMax: number;
  readonly #kept: Buffer[][] = Array.from({ length: LARGEST_SHIFT + 1 }, () => []);
  #keptBytes = 0;
  #inUseBytes = 0;
  readonly #line = new WaitingLine();

  constructor(limits: { readonly bufferBytesMax: number; readonly poolBytesMax: number }) {
    this.#inUseMax = limits.bufferBytesMax;
    this.#keptMax = limits.poolBytesMax;
  }

  get inUseBytes(): number {
    return this.#inUseBytes;
  }

  /** Whether anyone waits for room. */
  get contended(): boolean {
    return !this.#line.isEmpty;
  }

  /** Whether `take(bytes)` stays within the bound; with nothing in use, any single request does. */
  admits(bytes: number): boolean {
    if (this.#line.closed) return false;
    return this.#inUseBytes === 0 || this.#inUseBytes + classBytes(bytes) <= this.#inUseMax;
  }

  /** A buffer of at least `bytes`. Does not look at the bound: callers that can wait ask `admits` first. */
  take(bytes: number): Buffer {
    const shift = shiftOf(bytes);
    let buffer = this.#kept[shift]!.pop();
    if (buffer === undefined) {
      buffer = Buffer.allocUnsafeSlow((1 << shift) + SLACK_BYTES);
    } else {
      this.#keptBytes -= buffer.byteLength;
    }
    this.#inUseBytes += buffer.byteLength;
    this.#line.took();
    return buffer;
  }

  /** Takes a buffer back; the caller must not touch it any more. */
  give(buffer: Buffer): void {
    const bytes = buffer.byteLength;
    this.#inUseBytes -= bytes;
    if (this.#keptBytes + bytes <= this.#keptMax) {
      this.#kept[shiftOf(bytes)]!.push(buffer);
      this.#keptBytes += bytes;
    }
    this.#line.wake();
  }

  /** Calls `resume` once when it is its turn: buffers have come back, and those who asked first have been called. */
  wait(resume: () => void): void {
    this.#line.join(resume);
  }

  hasWaiting(resume: () => void): boolean {
    return this.#line.has(resume);
  }

  stopWaiting(resume: () => void): void {
    this.#line.leave(resume);
  }
}
