/**
 * A group: the records that will go out in one write, gathered in plain buffers.
 *
 * Invariant: records lie in the buffers in position order, whole, and never across two buffers, so that
 * a group that could not be written can give back its `open` records alone.
 */
import { RECORD_HEADER_BYTES, TYPE_OPEN, encodeRecord } from './format.ts';
import { WRITE_BYTES_MAX } from './types.ts';

/** Holds the longest record; buffers are kept for reuse up to FREE_BUFFERS_MAX. */
export const BUFFER_BYTES = WRITE_BYTES_MAX + RECORD_HEADER_BYTES;
const FREE_BUFFERS_MAX = 16;

/** One `open` record as it goes to disk. */
export interface Open {
  readonly position: number;
  readonly bytes: Uint8Array;
}

export class BufferPool {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
  }

  give(buffer: Buffer): void {
    if (this.#free.length < FREE_BUFFERS_MAX) this.#free.push(buffer);
  }
}

export class Group {
  readonly #pool: BufferPool;
  readonly #crcSeed: number;
  readonly #buffers: Buffer[] = [];
  readonly #used: number[] = [];
  /** `open` records that a group before this one could not write; they go out in front of this one's. */
  readonly #carried: Open[] = [];
  readonly #opens: Open[] = [];
  readonly promise: Promise<void>;
  resolve!: () => void;
  reject!: (error: unknown) => void;
  bytes = 0;
  /** Records added, carried ones not counted: what is carried waits for something to go out with. */
  records = 0;
  lastPosition = 0;
  #firstPosition = 0;

  constructor(pool: BufferPool, crcSeed: number) {
    this.#pool = pool;
    this.#crcSeed = crcSeed;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // A group may fail while nobody waits for it (its writers have gone away); that is no crash.
    this.promise.catch(() => undefined);
  }

  add(
    type: number,
    position: number,
    overlay: number,
    a: number,
    b: number,
    data: Uint8Array | undefined,
  ): void {
    const dataBytes = data === undefined ? 0 : data.byteLength;
    const length = RECORD_HEADER_BYTES + dataBytes;
    const buffer = this.#room(length);
    const last = this.#buffers.length - 1;
    const at = this.#used[last]!;
    if (data !== undefined) buffer.set(data, at + RECORD_HEADER_BYTES);
    encodeRecord(buffer, at, type, position, overlay, a, b, dataBytes, this.#crcSeed);
    this.#used[last] = at + length;
    this.bytes += length;
    if (type === TYPE_OPEN)
      this.#opens.push({ position, bytes: new Uint8Array(buffer.subarray(at, at + length)) });
    if (this.records === 0) this.#firstPosition = position;
    this.records++;
    this.lastPosition = position;
  }

  /** The `open` records of this group, carried ones first. */
  get opens(): readonly Open[] {
    return [...this.#carried, ...this.#opens];
  }

  get firstPosition(): number {
    return this.#carried[0]?.position ?? this.#firstPosition;
  }

  /** Takes over the `open` records of a group that could not be written. */
  carry(opens: readonly Open[]): void {
    for (const open of opens) {
      this.#carried.push(open);
      this.bytes += open.bytes.byteLength;
    }
  }

  parts(): Uint8Array[] {
    const gathered = this.#buffers.map((buffer, index) => buffer.subarray(0, this.#used[index]));
    return [...this.#carried.map((open) => open.bytes), ...gathered];
  }

  /** Gives the buffers back; `parts` are void from then on. */
  recycle(): void {
    for (const buffer of this.#buffers) this.#pool.give(buffer);
    this.#buffers.length = 0;
    this.#used.length = 0;
  }

  #room(length: number): Buffer {
    const last = this.#buffers.length - 1;
    if (last >= 0 && this.#used[last]! + length <= BUFFER_BYTES) return this.#buffers[last]!;
    const buffer = this.#pool.take();
    this.#buffers.push(buffer);
    this.#used.push(0);
    return buffer;
  }
}
