import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { chooseHash, hashChunk, hashPortable } from './hashing.ts';

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

  it('uses the native package here, without a warning', () => {
    const warnings: string[] = [];
    const native = createRequire(import.meta.url)('@napi-rs/blake-hash') as { blake3: unknown };
    expect(
      chooseHash(
        () => native,
        (message) => warnings.push(message),
      ),
    ).toBe(native.blake3);
    expect(warnings).toEqual([]);
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
