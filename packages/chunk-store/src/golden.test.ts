import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blake3 } from '@noble/hashes/blake3.js';
import { describe, expect, it } from 'vitest';
import { openChunkStore } from './chunk-store.ts';
import { segmentFileName } from './directory-segment-storage.ts';
import {
  GOLDEN_CHUNK_BYTES,
  GOLDEN_DIRECTORY,
  GOLDEN_HASH_KEY,
  GOLDEN_KEYED,
  GOLDEN_STORE_ID,
  goldenNoise,
  goldenSegments,
  goldenText,
} from './golden.ts';
import { hashChunk } from './hashing.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { MemorySegmentStorage } from './memory-segment-storage.ts';
import { readStoreOf } from './store-of-segments.ts';
import { idAt, range } from './test-world.ts';

const golden = [1, 2, 3].map((segment) => readFileSync(join(GOLDEN_DIRECTORY, segmentFileName(segment))));
const hex = (bytes: Uint8Array, from: number, length: number): string =>
  Buffer.from(bytes.subarray(from, from + length)).toString('hex');

describe('format version 1', () => {
  it('is what the golden segments have that are not compressed, byte for byte', async () => {
    const [raw, , anchor] = await goldenSegments();
    expect(Buffer.compare(raw!, golden[0]!)).toBe(0);
    expect(Buffer.compare(anchor!, golden[2]!)).toBe(0);
  });

  it('has anchors in runs of kind 2', () => {
    const bytes = golden[2]!;
    const id = hex(hashChunk(goldenNoise(4)), 0, 32);
    expect(hex(bytes, 52, 4)).toBe('00020100');
    expect(hex(bytes, 76, 32)).toBe(id);
    expect(hex(bytes, 108 + 4096, 16)).toBe('30000000' + '3c100000' + '00000000' + '01000002');
  });

  it('lies in the file as docs/format.md says', () => {
    const bytes = golden[0]!;
    const chunks = [goldenNoise(1), goldenNoise(2), goldenNoise(3)];
    const ids = chunks.map((chunk) => hex(hashChunk(chunk), 0, 32));
    const listing: [at: number, length: number, hex: string][] = [
      [0, 8, Buffer.from('PANDOSEG').toString('hex')],
      [8, 4, '01000000'], // format version
      [12, 4, '00100000'], // chunk bytes
      [16, 16, 'a0a1a2a3a4a5a6a7a8a9aaabacadaeaf'], // store id
      [32, 8, '0100000000000000'], // segment
      [40, 4, '00000000'],
      [44, 4, 'c3c133ae'], // CRC
      // First run: raw, data, 2 chunks, 8192 bytes, slot 0
      [48, 4, Buffer.from('PRUN').toString('hex')],
      [52, 4, '00000200'],
      [56, 12, '00200000' + '00200000' + '00000000'],
      [76, 64, ids[0]! + ids[1]!],
      [140, 4096, hex(chunks[0]!, 0, 4096)],
      [4236, 4096, hex(chunks[1]!, 0, 4096)],
      // Second run: raw, node, 1 chunk, 4096 bytes, slot 2
      [8332, 4, Buffer.from('PRUN').toString('hex')],
      [8336, 4, '00010100'],
      [8340, 12, '00100000' + '00100000' + '02000000'],
      [8360, 32, ids[2]!],
      [8392, 4096, hex(chunks[2]!, 0, 4096)],
      // Footer: run table, ids, trailer
      [12488, 16, '30000000' + '5c200000' + '00000000' + '02000000'],
      [12504, 16, '8c200000' + '3c100000' + '02000000' + '01000001'],
      [12520, 96, ids.join('')],
      [12616, 8, Buffer.from('PANDOEND').toString('hex')],
      [12624, 8, '0100000000000000'], // segment
      [12632, 12, 'c8300000' + '02000000' + '03000000'], // footer offset, runs, slots
      [12648, 4, '00000000'],
    ];
    for (const [at, length, expected] of listing) expect(hex(bytes, at, length), `at ${at}`).toBe(expected);
    expect(bytes.byteLength).toBe(12656);
  });

  it('is read: every chunk of the golden segments, raw and zstd', async () => {
    const storage = new MemorySegmentStorage();
    for (const [i, bytes] of golden.entries()) await (await storage.create(i + 1)).append([bytes]);
    const store = await openChunkStore({
      storage,
      index: new MemoryChunkIndex(),
      storeId: GOLDEN_STORE_ID,
      chunkBytes: GOLDEN_CHUNK_BYTES,
      limits: { workers: 0 },
    });
    const chunks = [...[1, 2, 3].map(goldenNoise), ...[0, 1, 2].map(goldenText), goldenNoise(4)];
    const ids = Buffer.concat(chunks.map((chunk) => hashChunk(chunk)));
    for (const i of range(0, 7)) expect(await store.readChunk(idAt(ids, i), 0)).toEqual(chunks[i]);
    expect(await store.verify()).toMatchObject({ chunks: 7, damaged: [] });
    expect(await store.anchors()).toEqual(new Uint8Array(ids.subarray(6 * 32)));
    await store.close();
  });
});

describe('format version 2, of stores with a key', () => {
  const bytes = readFileSync(GOLDEN_KEYED);

  it('is what the golden segment has, byte for byte: as version 1 but for the key in its header, what is named with it, and CRCs', async () => {
    expect(Buffer.compare((await goldenSegments(GOLDEN_HASH_KEY))[0]!, bytes)).toBe(0);
    const ids = [1, 2, 3].map((number) => hex(blake3(goldenNoise(number), { key: GOLDEN_HASH_KEY }), 0, 32));
    const listing: [at: number, length: number, hex: string][] = [
      [0, 8, Buffer.from('PANDOSEG').toString('hex')],
      [8, 4, '02000000'], // format version
      [12, 4, '00100000'], // chunk bytes
      [16, 16, 'a0a1a2a3a4a5a6a7a8a9aaabacadaeaf'], // store id
      [32, 8, '0100000000000000'], // segment
      [40, 4, '00000000'],
      [44, 4, '3dbad3ca'], // CRC of what is before
      [48, 32, hex(GOLDEN_HASH_KEY, 0, 32)],
      [80, 4, '3a56b469'], // CRC of all before but that one, from which the others start
      // First run, second run: 36 bytes later than without a key
      [84, 4, Buffer.from('PRUN').toString('hex')],
      [112, 64, ids[0]! + ids[1]!],
      [176, 4096, hex(goldenNoise(1), 0, 4096)],
      [8368, 4, Buffer.from('PRUN').toString('hex')],
      [8396, 32, ids[2]!],
      [8428, 4096, hex(goldenNoise(3), 0, 4096)],
      [12524, 16, '54000000' + '5c200000' + '00000000' + '02000000'],
      [12556, 96, ids.join('')],
      [12652, 8, Buffer.from('PANDOEND').toString('hex')],
    ];
    for (const [at, length, expected] of listing) expect(hex(bytes, at, length), `at ${at}`).toBe(expected);
    expect(bytes.byteLength).toBe(12692);
  });

  it('is read', async () => {
    const storage = new MemorySegmentStorage();
    await (await storage.create(1)).append([bytes]);
    const store = await openChunkStore({
      storage,
      index: new MemoryChunkIndex(),
      ...(await readStoreOf(storage))!,
      limits: { workers: 0 },
    });
    for (const number of [1, 2, 3]) {
      const chunk = goldenNoise(number);
      expect(await store.readChunk(blake3(chunk, { key: GOLDEN_HASH_KEY }), 0)).toEqual(chunk);
    }
    expect(await store.verify()).toMatchObject({ chunks: 3, damaged: [] });
    await store.close();
  });
});
