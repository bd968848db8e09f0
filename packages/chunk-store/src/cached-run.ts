/** A decompressed run in memory, and the slot of a page where its bytes stand (run-memory.ts). */
import { ID_BYTES, idsEqual, idToHex, PandoError } from '@pando/common';
import type { Hash } from './hashing.ts';
import type { RunPage } from './run-memory.ts';

export class CachedRun {
  key = 0;
  readonly raw: Uint8Array;
  readonly ids: Uint8Array;
  /** Where its memory comes from; undefined when it has its own. */
  readonly page: RunPage | undefined;
  readonly slot: number;
  firstSlot = 0;
  chunkBytes = 0;
  used = true;
  /** Somebody may hold it past the turn in which it was handed out: its memory is never used for another run. */
  kept = false;
  /** Its position in the order of the cache, or −1. */
  at = -1;
  /** A bit for each chunk whose bytes were hashed and found to be what its id says. */
  #verified = 0;

  /** Memory for a run, with anything in it. */
  constructor(rawBytes: number, idsBytes: number, page?: RunPage, slot = 0, offset = 0) {
    const { buffer } = page ?? Buffer.allocUnsafeSlow(rawBytes + idsBytes);
    this.raw = new Uint8Array(buffer, offset, rawBytes);
    this.ids = new Uint8Array(buffer, offset + rawBytes, idsBytes);
    this.page = page;
    this.slot = slot;
  }

  /** Says which run its memory holds from now on, and which of its chunks were verified, a bit for each. */
  hold(key: number, firstSlot: number, chunkBytes: number, verified = 0): void {
    this.key = key;
    this.firstSlot = firstSlot;
    this.chunkBytes = chunkBytes;
    this.used = true;
    this.#verified = verified;
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
  chunkAt(slot: number, ids: Uint8Array, offset: number, hash: Hash): number {
    const chunk = slot - this.firstSlot;
    const idAt = chunk * ID_BYTES;
    if (!(chunk >= 0 && idAt < this.ids.byteLength) || !idsEqual(this.ids, idAt, ids, offset)) {
      throw new PandoError('chunk-corrupt', `the place of chunk ${idToHex(ids, offset)} holds another chunk`);
    }
    const bit = chunk < 32 ? 1 << chunk : 0;
    if ((this.#verified & bit) !== 0) return chunk;
    const bytes = this.raw.subarray(chunk * this.chunkBytes, (chunk + 1) * this.chunkBytes);
    if (!idsEqual(hash(bytes), 0, ids, offset)) {
      throw new PandoError('chunk-corrupt', `the bytes of chunk ${idToHex(ids, offset)} do not match its id`);
    }
    this.#verified |= bit;
    return chunk;
  }
}
