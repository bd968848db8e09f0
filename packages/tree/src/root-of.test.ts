/** The root of bytes against roots that were made another way: by changes to an empty disk, in a store. */
import { blake3 } from '@noble/hashes/blake3.js';
import { HOLE_ID, ID_BYTES, idToHex, type DiskPart } from '@pando/common';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { rootOf } from './root-of.ts';
import { emptyRoot, heightFor } from './shape.ts';
import { MemoryChunks } from './testing.ts';
import { NODE_BYTES, type Root } from './types.ts';
import { updateTree } from './update.ts';

const CHUNK = 512;
const ROUNDS = 60;

async function* given(parts: readonly DiskPart[]): AsyncGenerator<DiskPart> {
  for (const part of parts) yield await Promise.resolve(part);
}

let hashes = 0;
const options = {
  chunkBytes: CHUNK,
  hash: (bytes: Uint8Array) => {
    hashes++;
    return blake3(bytes);
  },
};

/** The root of a disk with these bytes at its chunks, made by `updateTree`. */
async function rootByUpdate(size: number, chunks: ReadonlyMap<number, Uint8Array>): Promise<Root> {
  const store = new MemoryChunks({ chunkBytes: CHUNK });
  const indexes = [...chunks.keys()].sort((a, b) => a - b);
  const ids = new Uint8Array(indexes.length * ID_BYTES);
  for (const [i, index] of indexes.entries())
    ids.set(await store.writeChunks(chunks.get(index)!, 1), i * ID_BYTES);
  return updateTree(store, store, emptyRoot(size, CHUNK), {
    indexes: Float64Array.from(indexes),
    count: indexes.length,
    ids,
    holes: new Float64Array(0),
  });
}

const shown = ({ id, height, size }: Root): unknown => ({ id: idToHex(id), height, size });

describe('the root of bytes', () => {
  it('is that of the same disk in a store, however the bytes are cut', async () => {
    const seed = runSeed();
    const random = seededRandom(seed);
    const below = (limit: number): number => Math.floor(random() * limit);
    for (let round = 0; round < ROUNDS; round++) {
      const chunkCount = 1 + below(below(4) === 0 ? 40_000 : 300);
      const size = chunkCount * CHUNK - (below(2) === 0 ? 0 : below(CHUNK));
      const chunks = new Map<number, Uint8Array>();
      for (let i = below(60); i > 0; i--) {
        const index = below(chunkCount);
        const bytes = new Uint8Array(CHUNK);
        // Some stay zero: they are holes however they come.
        if (below(5) > 0) fillRandom(random, bytes);
        if (index === chunkCount - 1) bytes.fill(0, size - index * CHUNK);
        chunks.set(index, bytes);
      }
      const parts: DiskPart[] = [];
      for (let at = 0; at < size;) {
        const index = Math.floor(at / CHUNK);
        const bytes = chunks.get(index);
        const next = Math.min(...[...chunks.keys()].filter((key) => key > index), Infinity);
        const end = Math.min(size, bytes === undefined ? next * CHUNK : (index + 1) * CHUNK);
        const length = Math.min(end - at, 1 + below(below(3) === 0 ? 100 : 40_000_000));
        if (bytes !== undefined) parts.push(bytes.subarray(at % CHUNK, (at % CHUNK) + length));
        else if (length < 10_000 && below(2) === 0) parts.push(new Uint8Array(length));
        else parts.push({ holeBytes: length });
        at += length;
      }
      const found = await rootOf(given(parts), options);
      expect(shown(found), `PANDO_TEST_SEED=${seed}, round ${round}`).toEqual(
        shown(await rootByUpdate(size, chunks)),
      );
    }
  });

  it('hashes nothing for a hole of 64 TiB', async () => {
    const size = 64 * 2 ** 40;
    hashes = 0;
    const root = await rootOf(given([{ holeBytes: size }]), options);
    expect(shown(root)).toEqual({ id: idToHex(HOLE_ID), height: heightFor(size, CHUNK), size });
    expect(hashes).toBe(0);
    await rootOf(given([{ holeBytes: size - 1 }, Uint8Array.of(1)]), options);
    expect(hashes).toBe(1 + root.height);
  });

  it('shows every chunk and node on the way, children first', async () => {
    const random = seededRandom(runSeed());
    const seen = new Map<string, number>();
    const visit = async (bytes: Uint8Array, count: number, ids: Uint8Array, level: number): Promise<void> => {
      const each = bytes.byteLength / count;
      for (let i = 0; i < count; i++) {
        const id = idToHex(ids, i * ID_BYTES);
        if (id === idToHex(HOLE_ID)) continue;
        expect(idToHex(blake3(bytes.subarray(i * each, (i + 1) * each)))).toBe(id);
        for (let child = 0; level > 0 && child < each; child += ID_BYTES) {
          const below = idToHex(bytes, i * each + child);
          if (below !== idToHex(HOLE_ID)) expect(seen.get(below)).toBe(level - 1);
        }
        seen.set(id, level);
      }
      await Promise.resolve();
    };
    const parts = [
      fillRandom(random, new Uint8Array(300 * CHUNK)),
      { holeBytes: 20_000 * CHUNK },
      Uint8Array.of(1),
    ];
    const root = await rootOf(given(parts), {
      ...options,
      // The batch of chunks is longer than what is in it.
      visit: (bytes, count, ids, level) =>
        visit(bytes.subarray(0, count * (level === 0 ? CHUNK : NODE_BYTES)), count, ids, level),
    });
    expect(seen.get(idToHex(root.id))).toBe(root.height);
    expect([...seen.values()].filter((level) => level === 0)).toHaveLength(301);
    expect([...seen.values()].filter((level) => level === 1)).toHaveLength(4);
  });

  it('of nothing is the root of an empty disk', async () => {
    expect(shown(await rootOf(given([]), options))).toEqual(shown(emptyRoot(0, CHUNK)));
  });

  it('tells how far it is, and fails as its source fails', async () => {
    const told: number[] = [];
    const onProgress = (done: number): void => void told.push(done);
    await rootOf(given([new Uint8Array(700), { holeBytes: 300 }]), { ...options, onProgress });
    expect(told).toEqual([700, 1000]);
    await expect(rootOf(given([{ holeBytes: -1 }]), options)).rejects.toMatchObject({
      code: 'request-invalid',
    });
    const broken = new Error('broken');
    const source = async function* (): AsyncGenerator<DiskPart> {
      await Promise.resolve();
      throw broken;
    };
    await expect(rootOf(source(), options)).rejects.toBe(broken);
  });
});
