/**
 * BLAKE3-256, the hash that names chunks: native where it can be loaded, portable elsewhere.
 *
 * Measured per 4 KiB chunk: native 2.4 µs, `@noble/hashes` 81–109 µs.
 */
import { createRequire } from 'node:module';
import { blake3 as portableBlake3 } from '@noble/hashes/blake3.js';

export type Hash = (bytes: Uint8Array) => Uint8Array;

/** The portable implementation. Returns a fresh 32-byte id. */
export const hashPortable: Hash = (bytes) => portableBlake3(bytes);

/**
 * The native implementation when `load` gives one that answers correctly, else the portable one after
 * `warn` was told. `load` is an argument so that the way without it can be tested.
 */
export function chooseHash(load: () => unknown, warn: (message: string) => void): Hash {
  try {
    const native = (load() as { blake3?: unknown }).blake3;
    if (typeof native !== 'function') throw new TypeError('it has no function blake3');
    const hash = native as Hash;
    if (!Buffer.from(hash(PROBE)).equals(hashPortable(PROBE))) throw new Error('it computes something else');
    return hash;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    warn(`the native BLAKE3 package cannot be used, so hashing is about 30 times slower: ${reason}`);
    return hashPortable;
  }
}

const PROBE = new Uint8Array(5000).map((_, i) => i % 251);

/** The id of `bytes`: 32 bytes, fresh. */
export const hashChunk: Hash = chooseHash(
  () => createRequire(import.meta.url)('@napi-rs/blake-hash') as unknown,
  (message) => process.emitWarning(message, { code: 'PANDO_SLOW_HASH' }),
);
