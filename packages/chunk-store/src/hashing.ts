/**
 * BLAKE3-256, the hash that names chunks: native where it can be loaded, portable elsewhere; plain, or keyed with 32 bytes that a store has for
 * itself (ADR 0021).
 *
 * Measured per 4 KiB chunk, processor time of all threads: one native hasher that is kept, and says the id in hex digits, 2.8 µs; the function `blake3` of
 * the same package 5.5, because V8 has to keep track of the memory outside of its heap that each id then is; `@noble/hashes` 81–109.
 */
import { createRequire } from 'node:module';
import { blake3 as portableBlake3 } from '@noble/hashes/blake3.js';

export type Hash = (bytes: Uint8Array) => Uint8Array;

const HASH_BYTES = 32;
/** Of the key of a keyed hash. */
export const HASH_KEY_BYTES = 32;

/** The portable implementation. Returns a fresh 32-byte id. */
export const hashPortable: Hash = (bytes) => portableBlake3(bytes);

/** The same with a key. */
function keyedPortable(key: Uint8Array): Hash {
  return (bytes) => portableBlake3(bytes, { key });
}

interface NativeHasher {
  reset(): void;
  update(bytes: Uint8Array): unknown;
  digest(format: 'hex'): string;
}

interface NativePackage {
  readonly blake3?: unknown;
  readonly Blake3Hasher?: (new () => NativeHasher) & { newKeyed?(key: Buffer): NativeHasher };
}

/**
 * The native implementation when `load` gives one that answers correctly, else the portable one after
 * `warn` was told. `load` is an argument so that the way without it can be tested.
 */
export function chooseHash(load: () => unknown, warn: (message: string) => void, key?: Uint8Array): Hash {
  const portable = key === undefined ? hashPortable : keyedPortable(key);
  try {
    const native = load() as NativePackage;
    const kept = keptHash(native, portable, key);
    if (kept !== undefined) return kept;
    if (key !== undefined) throw new TypeError('it has no keyed hasher that answers correctly');
    if (typeof native.blake3 !== 'function') throw new TypeError('it has no function blake3');
    const hash = native.blake3 as Hash;
    if (!isRight(hash, portable)) throw new Error('it computes something else');
    return hash;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    warn(`the native BLAKE3 package cannot be used, so hashing is about 30 times slower: ${reason}`);
    return portable;
  }
}

/**
 * With one hasher for all chunks, which keeps its key when it is reset; undefined where there is none that answers correctly, also when it is used
 * again.
 */
function keptHash({ Blake3Hasher }: NativePackage, portable: Hash, key?: Uint8Array): Hash | undefined {
  if (typeof Blake3Hasher !== 'function') return undefined;
  try {
    const hasher = key === undefined ? new Blake3Hasher() : Blake3Hasher.newKeyed!(Buffer.from(key));
    const hash: Hash = (bytes) => {
      hasher.reset();
      hasher.update(bytes);
      return fromHex(hasher.digest('hex'));
    };
    return isRight(hash, portable) && isRight(hash, portable) ? hash : undefined;
  } catch {
    return undefined;
  }
}

const PROBE = new Uint8Array(5000).map((_, i) => i % 251);

function isRight(hash: Hash, portable: Hash): boolean {
  const probes = [PROBE, PROBE.subarray(0, 4096), new Uint8Array()];
  return probes.every((bytes) => Buffer.from(hash(bytes)).equals(portable(bytes)));
}

/** Values of the lower-case hex digits by their character code. */
const DIGITS = Uint8Array.from({ length: 128 }, (_, code) => parseInt(String.fromCharCode(code), 16) || 0);

/** A fresh id, in memory of V8's own heap: it takes no more than that. */
function fromHex(digits: string): Uint8Array {
  const id = new Uint8Array(HASH_BYTES);
  for (let i = 0; i < HASH_BYTES; i++) {
    id[i] = (DIGITS[digits.charCodeAt(2 * i)]! << 4) | DIGITS[digits.charCodeAt(2 * i + 1)]!;
  }
  return id;
}

const load = (): unknown => createRequire(import.meta.url)('@napi-rs/blake-hash') as unknown;
const warn = (message: string): void => process.emitWarning(message, { code: 'PANDO_SLOW_HASH' });

/** The plain hash of `bytes`: 32 bytes, fresh. The id of a chunk in a store without a key. */
export const hashChunk: Hash = chooseHash(load, warn);

/** What names the chunks of a store: with its key, or without one the plain hash. Each thread makes its own, once. */
export function hashOf(key: Uint8Array | undefined): Hash {
  return key === undefined ? hashChunk : chooseHash(load, warn, key);
}
