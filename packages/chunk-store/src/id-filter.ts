/**
 * A set of ids that may say yes by mistake and never no: a Bloom filter in blocks of one cache line (Putze, Sanders,
 * Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007). Ids are hashes, so their own bytes are the hash functions.
 *
 * Nothing is ever taken out. With 10 bits for each id one question in eighty about another id gets a yes, with 5 one in eight.
 */
import { ID_BYTES } from '@pando/common';

const BLOCK_WORDS = 16;
const BITS_PER_ID = 10;

export class IdFilter {
  readonly #words: Uint32Array;
  readonly #blockMask: number;
  #added = 0;

  /** `bytes`: a power of two, at least 64. */
  constructor(bytes: number) {
    this.#words = new Uint32Array(bytes / 4);
    this.#blockMask = this.#words.length / BLOCK_WORDS - 1;
  }

  get bytes(): number {
    return this.#words.byteLength;
  }

  /** Whether there are more ids in it than it is good for. */
  get isFull(): boolean {
    return this.#added * BITS_PER_ID > this.#words.length * 32;
  }

  add(ids: Uint8Array, offset: number): void {
    const block = (word(ids, offset) & this.#blockMask) * BLOCK_WORDS;
    for (let at = offset + 4; at < offset + 12; at += 4) {
      let bits = word(ids, at);
      for (let k = 0; k < 3; k++, bits >>>= 9) this.#words[block + ((bits >>> 5) & 15)]! |= 1 << (bits & 31);
    }
    this.#added++;
  }

  /** Adds `count` ids that stand one after another. */
  addAll(ids: Uint8Array, count: number): void {
    for (let at = 0; at < count * ID_BYTES; at += ID_BYTES) this.add(ids, at);
  }

  mayHave(ids: Uint8Array, offset: number): boolean {
    const block = (word(ids, offset) & this.#blockMask) * BLOCK_WORDS;
    for (let at = offset + 4; at < offset + 12; at += 4) {
      let bits = word(ids, at);
      for (let k = 0; k < 3; k++, bits >>>= 9) {
        if ((this.#words[block + ((bits >>> 5) & 15)]! & (1 << (bits & 31))) === 0) return false;
      }
    }
    return true;
  }
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}
