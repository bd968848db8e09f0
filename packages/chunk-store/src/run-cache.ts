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

export class CachedRun {
  readonly key: number;
  readonly raw: Uint8Array;
  readonly ids: Uint8Array;
  readonly firstSlot: number;
  readonly chunkBytes: number;
  used = true;
  /** A bit for each chunk whose bytes were hashed and found to be what its id says. */
  #verified = 0;

  constructor(key: number, raw: Uint8Array, ids: Uint8Array, firstSlot: number, chunkBytes: number) {
    this.key = key;
    this.raw = raw;
    this.ids = ids;
    this.firstSlot = firstSlot;
    this.chunkBytes = chunkBytes;
  }

  get memoryBytes(): number {
    return this.raw.byteLength + this.ids.byteLength + ENTRY_OVERHEAD_BYTES;
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

export class RunCache {
  readonly #bytesMax: number;
  readonly #byKey = new Map<number, CachedRun>();
  readonly #clock: CachedRun[] = [];
  #hand = 0;
  #bytes = 0;

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
  }
}
