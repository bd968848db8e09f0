import { createRequire } from 'node:module';
import { blake3 } from '@noble/hashes/blake3.js';
import { describe, expect, it } from 'vitest';
import { chooseHash, hashChunk, hashOf, hashPortable } from './hashing.ts';

interface Hasher {
  reset(): void;
  update(bytes: Uint8Array): unknown;
  digest(format: 'hex'): string;
}

interface Native {
  readonly blake3: unknown;
  readonly Blake3Hasher: {
    new (): Hasher;
    newKeyed(key: Buffer): Hasher;
  };
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('hashing', () => {
  it('computes BLAKE3-256 as its published test vectors say', () => {
    expect(hex(hashChunk(new Uint8Array(0)))).toBe(
      'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
    );
    expect(hex(hashChunk(Uint8Array.of(0)))).toBe(
      '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213',
    );
  });

  it('computes the same natively and portably, for sizes around blocks, chunks and subtrees', () => {
    for (const size of [
      0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 8192, 16384, 65536, 65537,
    ]) {
      const bytes = new Uint8Array(size).map((_, i) => (i * 7 + size) % 251);
      expect(hex(hashChunk(bytes))).toBe(hex(hashPortable(bytes)));
    }
  });

  it('computes the keyed mode as its published test vectors say', () => {
    const hash = hashOf(Buffer.from('whats the Elvish word for friend'));
    expect(hex(hash(new Uint8Array(0)))).toBe(
      '92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26',
    );
    expect(hex(hash(Uint8Array.of(0)))).toBe(
      '6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b',
    );
    expect(hashOf(undefined)).toBe(hashChunk);
  });

  it('computes the keyed mode natively as portably, with hashers of several keys in use at once', () => {
    const keys = [1, 2, 3].map((fill) => new Uint8Array(32).fill(fill));
    const hashes = keys.map((key) => hashOf(key));
    for (const size of [0, 1, 64, 1025, 4096, 4097, 65536]) {
      const bytes = new Uint8Array(size).map((_, i) => (i * 5 + size) % 251);
      for (const [i, hash] of hashes.entries())
        expect(hex(hash(bytes))).toBe(hex(blake3(bytes, { key: keys[i]! })));
    }
  });

  it('keys portably, with one warning, where no native hasher is right with a key, also when it is reset', () => {
    const { blake3: native, Blake3Hasher } = createRequire(import.meta.url)('@napi-rs/blake-hash') as Native;
    const key = new Uint8Array(32).fill(7);
    const Keyless = Object.assign(() => undefined, { newKeyed: () => new Blake3Hasher() });
    const Forgetful = Object.assign(() => undefined, {
      newKeyed: (of: Buffer) => {
        let hasher = Blake3Hasher.newKeyed(of);
        return {
          reset: () => (hasher = new Blake3Hasher()),
          update: (bytes: Uint8Array) => hasher.update(bytes),
          digest: (format: 'hex') => hasher.digest(format),
        };
      },
    });
    for (const Hasher of [undefined, Keyless, Forgetful]) {
      const warnings: string[] = [];
      const hash = chooseHash(
        () => ({ blake3: native, Blake3Hasher: Hasher }),
        (message) => warnings.push(message),
        key,
      );
      const bytes = new Uint8Array(4096).fill(3);
      expect(hex(hash(bytes))).toBe(hex(blake3(bytes, { key })));
      expect(warnings).toHaveLength(1);
    }
  });

  it('uses the native package here, with one hasher for all, without a warning', () => {
    const warnings: string[] = [];
    const native = createRequire(import.meta.url)('@napi-rs/blake-hash') as { blake3: unknown };
    const warn = (message: string): void => void warnings.push(message);
    const hash = chooseHash(() => native, warn);
    expect([hashPortable, native.blake3]).not.toContain(hash);
    const bytes = new Uint8Array(new SharedArrayBuffer(4096)).map((_, i) => i % 97);
    expect(hex(hash(bytes))).toBe(hex(hashPortable(bytes)));
    expect(warnings).toEqual([]);
  });

  it('uses its function where a hasher that is kept is missing, fails, or remembers what it saw', () => {
    const { blake3, Blake3Hasher } = createRequire(import.meta.url)('@napi-rs/blake-hash') as Native;
    class Forgetful extends Blake3Hasher {
      override reset(): void {
        // Goes on where it was.
      }
    }
    class Failing extends Blake3Hasher {
      override update(): never {
        throw new Error('cannot be used');
      }
    }
    for (const Hasher of [undefined, Forgetful, Failing]) {
      const warnings: string[] = [];
      const hash = chooseHash(
        () => ({ blake3, Blake3Hasher: Hasher }),
        (message) => warnings.push(message),
      );
      expect(hash).toBe(blake3);
      expect(warnings).toEqual([]);
    }
  });

  it('falls back with one warning where the native package does not load, or answers wrongly', () => {
    const loads = [
      () => {
        throw new Error('no binary for this platform');
      },
      () => ({}),
      () => ({ blake3: () => Buffer.alloc(32) }),
    ];
    for (const load of loads) {
      const warnings: string[] = [];
      expect(chooseHash(load, (message) => warnings.push(message))).toBe(hashPortable);
      expect(warnings).toHaveLength(1);
    }
  });
});
