import { hashChunk } from '@pando/chunk-store/hashing';
import { ID_BYTES, idToHex, type DiskPart } from '@pando/common';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, test } from 'vitest';
import { Estimator, SCAN_CHUNK_BYTES } from './estimator.ts';
import { FingerprintSet } from './fingerprint-set.ts';

const KiB = 1024;

/** What the estimator is to find out, found out simply: whole disks in memory, chunks as keys. */
function model(
  disks: readonly Buffer[],
  chunkBytes: number,
): { allocated: number; unique: number; leaves: number } {
  const unique = new Set<string>();
  const leaves = new Map<string, number>();
  let allocated = 0;
  for (const disk of disks) {
    const padded = Buffer.alloc(Math.ceil(disk.byteLength / chunkBytes) * chunkBytes);
    disk.copy(padded);
    let leaf: string[] = [];
    const endLeaf = (): void => {
      const used = leaf.filter((id) => id !== '').length;
      const key = leaf.join(',').replace(/,+$/, '');
      if (used > 0) leaves.set(key, used);
      leaf = [];
    };
    for (let at = 0; at < padded.byteLength; at += chunkBytes) {
      const chunk = padded.subarray(at, at + chunkBytes);
      const id = chunk.every((byte) => byte === 0) ? '' : idToHex(hashChunk(chunk));
      if (id !== '') allocated += chunkBytes;
      if (id !== '') unique.add(id);
      leaf.push(id);
      if (leaf.length === 128) endLeaf();
    }
    endLeaf();
  }
  return {
    allocated,
    unique: unique.size * chunkBytes,
    leaves: [...leaves.values()].reduce((sum, used) => sum + used * ID_BYTES, 0),
  };
}

function estimate(
  disks: readonly Buffer[],
  cut: (disk: Buffer) => Iterable<DiskPart>,
): ReturnType<Estimator['estimate']> {
  const estimator = new Estimator();
  for (const disk of disks) {
    for (const part of cut(disk)) estimator.add(part);
    estimator.endDisk();
  }
  return estimator.estimate();
}

describe('what an estimate says', () => {
  test('is what whole disks in memory say, wherever they are cut into parts', () => {
    const seed = runSeed();
    console.log(`PANDO_SEED=${seed}`);
    const random = seededRandom(seed);
    // Few different 4 KiB blocks, so that chunks of all sizes repeat.
    const blocks = Array.from({ length: 6 }, (_, i) => Buffer.alloc(4096, i));
    const disks = Array.from({ length: 3 }, () => {
      const pieces = Array.from({ length: between(random, 1, 400) }, () => blocks[between(random, 0, 5)]!);
      // Ends of disks are odd, and long stretches of zeros are there.
      const zeros = Buffer.alloc(between(random, 0, 3) * 512 * KiB);
      return Buffer.concat([
        ...pieces,
        zeros,
        ...pieces.slice(0, 40),
        Buffer.alloc(between(random, 0, 3) * 512, 7),
      ]);
    });
    const cut = function* (disk: Buffer): Generator<DiskPart> {
      for (let at = 0; at < disk.byteLength;) {
        const part = disk.subarray(at, at + between(random, 1, 300 * KiB));
        at += part.byteLength;
        yield part.every((byte) => byte === 0) ? { holeBytes: part.byteLength } : part;
      }
    };
    const found = estimate(disks, cut);
    expect(found.disks).toBe(3);
    expect(found.isSampled).toBe(false);
    expect(found.logicalBytes).toBe(disks.reduce((sum, disk) => sum + disk.byteLength, 0));
    for (const size of found.sizes) {
      const expected = model(disks, size.chunkBytes);
      expect(size, String(size.chunkBytes)).toMatchObject({
        allocatedBytes: expected.allocated,
        uniqueBytes: expected.unique,
      });
      const ids = size.metadataBytes - (expected.unique / size.chunkBytes) * (2 * ID_BYTES + 45);
      expect(ids / expected.leaves, String(size.chunkBytes)).toBeCloseTo(1 + 1 / 127, 3);
      expect(size.storedBytes).toBe(size.compressedBytes + size.metadataBytes);
    }
  });

  test('tells what can be compressed from what cannot', () => {
    const random = seededRandom(7);
    const noise = Buffer.alloc(256 * KiB);
    fillRandom(random, noise);
    const text = Buffer.alloc(256 * KiB);
    for (let at = 0; at < text.byteLength; at += 16) text.write(`line ${at}`.padEnd(16, '.'), at);
    const [bad] = estimate([noise], (disk) => [disk]).sizes;
    const [good] = estimate([text], (disk) => [disk]).sizes;
    expect(bad!.compressedBytes).toBe(bad!.uniqueBytes);
    expect(good!.compressedBytes).toBeLessThan(good!.uniqueBytes / 4);
  });

  test('of nothing is nothing', () => {
    expect(new Estimator().estimate()).toMatchObject({ disks: 0, logicalBytes: 0, isSampled: false });
    const { sizes } = estimate([Buffer.alloc(0), Buffer.alloc(100_000)], (disk) => [disk]);
    expect(sizes.map((size) => size.storedBytes)).toEqual(SCAN_CHUNK_BYTES.map(() => 0));
  });

  test('of a hole of 64 TiB comes at once', () => {
    const estimator = new Estimator();
    estimator.add({ holeBytes: 64 * 2 ** 40 });
    estimator.add(Buffer.alloc(4096, 1));
    estimator.endDisk();
    const [size] = estimator.estimate().sizes;
    expect(size).toMatchObject({ allocatedBytes: 4096, uniqueBytes: 4096 });
  });
});

describe('a set of fingerprints', () => {
  const id = (number: number): Uint8Array => hashChunk(Buffer.from(String(number)));

  test('counts exactly as long as all fit', () => {
    const set = new FingerprintSet(4096);
    for (let i = 0; i < 10_000; i++) expect(set.add(id(i % 3000), 0)).toBe(i < 3000);
    expect(set.count).toBe(3000);
    expect(set.scale).toBe(1);
  });

  test('counts by a fair sample when they do not, whatever is repeated', () => {
    const set = new FingerprintSet(4096);
    for (let i = 0; i < 60_000; i++) {
      set.add(id(i), 0);
      set.add(id(i % 10), 0);
    }
    expect(set.scale).toBeGreaterThan(8);
    // Of 2,048 to 4,096 that are kept the deviation is about 2 %; five of those.
    expect(Math.abs(set.count / 60_000 - 1)).toBeLessThan(0.1);
  });

  test('knows ids of zeros in their first words', () => {
    const set = new FingerprintSet(1024);
    const ids = new Uint8Array(ID_BYTES);
    expect(set.add(ids, 0)).toBe(true);
    expect(set.add(ids, 0)).toBe(false);
    expect(set.count).toBe(1);
  });
});
