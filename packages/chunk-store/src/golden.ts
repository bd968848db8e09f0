/**
 * The golden segments: a small store whose bytes pin the format. `node src/golden.ts` writes them anew,
 * which is right only when the format gets a new version.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openChunkStore } from './chunk-store.ts';
import { segmentFileName } from './directory-segment-storage.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { MemorySegmentStorage } from './memory-segment-storage.ts';

export const GOLDEN_STORE_ID = new Uint8Array(16).map((_, i) => 0xa0 + i);
export const GOLDEN_CHUNK_BYTES = 4096;
/** Of the golden segment of a keyed store. */
export const GOLDEN_HASH_KEY = new Uint8Array(32).map((_, i) => 0x40 + i);
export const GOLDEN_DIRECTORY = fileURLToPath(new URL('../test/golden', import.meta.url));
/** Segment 1 of a store with that key. */
export const GOLDEN_KEYED = join(GOLDEN_DIRECTORY, 'keyed-000000000001.seg');

/** A chunk that does not compress, from a number: xorshift32. */
export function goldenNoise(number: number): Uint8Array {
  const words = new Uint32Array(GOLDEN_CHUNK_BYTES / 4);
  let state = number;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}

/** A chunk that compresses well. */
export function goldenText(number: number): Uint8Array {
  return new Uint8Array(GOLDEN_CHUNK_BYTES).fill(0x61 + number);
}

/**
 * Segment 1: a run of two data chunks and a run of one node, both raw, so that every byte is fixed. Segment 2: a run of
 * three chunks in zstd, which another version of zstd may pack into other bytes. Segment 3: an anchor, raw.
 */
export async function goldenSegments(hashKey?: Uint8Array): Promise<Uint8Array[]> {
  const storage = new MemorySegmentStorage();
  const store = await openChunkStore({
    storage,
    index: new MemoryChunkIndex(),
    storeId: GOLDEN_STORE_ID,
    chunkBytes: GOLDEN_CHUNK_BYTES,
    hashKey,
    limits: { workers: 0 },
  });
  const session = store.openSession();
  await session.writeChunks(Buffer.concat([goldenNoise(1), goldenNoise(2)]), 2);
  await session.flush();
  await session.writeNodes(goldenNoise(3), 1, 1);
  await store.seal();
  await session.writeChunks(Buffer.concat([goldenText(0), goldenText(1), goldenText(2)]), 3);
  await store.seal();
  await session.writeAnchor(goldenNoise(4));
  await store.seal();
  const segments: Uint8Array[] = [];
  for (const { segment, size } of await storage.list()) {
    const bytes = new Uint8Array(size);
    await storage.read(segment, bytes, 0);
    segments.push(bytes);
  }
  await store.close();
  return segments;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(GOLDEN_DIRECTORY, { recursive: true });
  (await goldenSegments()).forEach((bytes, i) => {
    writeFileSync(join(GOLDEN_DIRECTORY, segmentFileName(i + 1)), bytes);
  });
  writeFileSync(GOLDEN_KEYED, (await goldenSegments(GOLDEN_HASH_KEY))[0]!);
}
