/**
 * Decompressed runs in memory, keyed by one number (segment and offset), bounded by bytes, replaced in
 * CLOCK order: a hit costs one map look-up and one store.
 */
import { ID_BYTES, idsEqual, idToHex, PandoError } from '@pando/common';
import { hashChunk } from './hashing.ts';

/** Memory of an entry besides its bytes and ids, roughly. */
const ENTRY_OVERHEAD_BYTES = 200;

/** Offsets take the low 27 bits; see SEGMENT_BYTES_MAX. */
export function runKey(segment: number, runOffset: number): number {
  return segment * 2 ** 27 + runOffset;
}

/** The segment in such a key. */
export function segmentOfKey(key: number): number {
  return Math.floor(key / 2 ** 27);
}

/** The offset in such a key. */
export function offsetOfKey(key: number): number {
  return key % 2 ** 27;
}

export class CachedRun {
  key = 0;
  readonly raw: Uint8Array;
  readonly ids: Uint8Array;
  firstSlot = 0;
  chunkBytes = 0;
  used = true;
  /** Somebody may hold it past the turn in which it was handed out: its memory is never used for another run. */
  kept = false;
  /** A bit for each chunk whose bytes were hashed and found to be what its id says. */
  #verified = 0;

  /** Memory for a run, with anything in it. */
  constructor(rawBytes: number, idsBytes: number) {
    const { buffer } = Buffer.allocUnsafeSlow(rawBytes + idsBytes);
    this.raw = new Uint8Array(buffer, 0, rawBytes);
    this.ids = new Uint8Array(buffer, rawBytes, idsBytes);
  }

  /** Says which run its memory holds from now on; none of it is verified. */
  hold(key: number, firstSlot: number, chunkBytes: number): void {
    this.key = key;
    this.firstSlot = firstSlot;
    this.chunkBytes = chunkBytes;
    this.used = true;
    this.#verified = 0;
  }

  get memoryBytes(): number {
    return this.raw.byteLength + this.ids.byteLength + ENTRY_OVERHEAD_BYTES;
  }

  /** The slot of the chunk with that id, or -1. Says nothing about its bytes. */
  slotOf(ids: Uint8Array, offset: number): number {
    for (let at = 0; at < this.ids.byteLength; at += ID_BYTES) {
      if (idsEqual(this.ids, at, ids, offset)) return this.firstSlot + at / ID_BYTES;
    }
    return -1;
  }

  /**
   * The number within the run of the chunk in `slot`, after making sure that it is the one that was asked
   * for: a run may hold up to 32 chunks for which that is remembered, more are hashed each time.
   * @throws `chunk-corrupt`
   */
  chunkAt(slot: number, ids: Uint8Array, offset: number): number {
    const chunk = slot - this.firstSlot;
    const idAt = chunk * ID_BYTES;
    if (!(chunk >= 0 && idAt < this.ids.byteLength) || !idsEqual(this.ids, idAt, ids, offset)) {
      throw new PandoError('chunk-corrupt', `the place of chunk ${idToHex(ids, offset)} holds another chunk`);
    }
    const bit = chunk < 32 ? 1 << chunk : 0;
    if ((this.#verified & bit) !== 0) return chunk;
    const bytes = this.raw.subarray(chunk * this.chunkBytes, (chunk + 1) * this.chunkBytes);
    if (!idsEqual(hashChunk(bytes), 0, ids, offset)) {
      throw new PandoError('chunk-corrupt', `the bytes of chunk ${idToHex(ids, offset)} do not match its id`);
    }
    this.#verified |= bit;
    return chunk;
  }
}

/**
 * Runs that are evicted give their memory to the next ones, because fresh buffers are what garbage collection costs on reads
 * that miss: so what `get` and `spare` return is only for the same turn, unless it is marked as kept.
 */
export class RunCache {
  readonly #bytesMax: number;
  readonly #byKey = new Map<number, CachedRun>();
  readonly #clock: CachedRun[] = [];
  #hand = 0;
  #bytes = 0;
  /** The run evicted last, when nobody holds it. */
  #spare: CachedRun | undefined;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: number): CachedRun | undefined {
    const run = this.#byKey.get(key);
    if (run !== undefined) run.used = true;
    return run;
  }

  /** Memory for a run of that size: that of one evicted before, or fresh. */
  take(rawBytes: number, idsBytes: number): CachedRun {
    const spare = this.#spare;
    if (spare?.raw.byteLength !== rawBytes || spare.ids.byteLength !== idsBytes) {
      return new CachedRun(rawBytes, idsBytes);
    }
    this.#spare = undefined;
    return spare;
  }

  /** Takes memory back that nobody uses any more. */
  give(run: CachedRun): void {
    if (!run.kept) this.#spare = run;
  }

  /** Keeps a run, unless another one of its key is there. */
  add(run: CachedRun): void {
    if (this.#byKey.has(run.key)) return;
    this.#byKey.set(run.key, run);
    this.#clock.push(run);
    this.#bytes += run.memoryBytes;
    while (this.#bytes > this.#bytesMax && this.#clock.length > 0) this.#evict();
  }

  #evict(): void {
    for (;;) {
      if (this.#hand >= this.#clock.length) this.#hand = 0;
      const run = this.#clock[this.#hand]!;
      if (!run.used) break;
      run.used = false;
      this.#hand++;
    }
    const run = this.#clock[this.#hand]!;
    const last = this.#clock.pop()!;
    if (last !== run) this.#clock[this.#hand++] = last;
    this.#byKey.delete(run.key);
    this.#bytes -= run.memoryBytes;
    this.give(run);
  }
}
