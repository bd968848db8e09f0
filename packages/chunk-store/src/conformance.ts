/**
 * The suites that every SegmentStorage and every ChunkIndex passes. Each takes a name and a factory;
 * `reopen` gives the same storage again after its `close`, where it outlives that.
 */
import { ID_BYTES, isPandoError } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { readPlace, writePlace } from './place.ts';
import { PLACE_BYTES, type ChunkIndex, type SegmentStorage } from './types.ts';

export interface StorageUnderTest {
  readonly storage: SegmentStorage;
  readonly reopen: () => Promise<SegmentStorage>;
}

function bytesOf(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}

async function readAll(
  storage: SegmentStorage,
  segment: number,
  position: number,
  length: number,
): Promise<number[]> {
  const target = new Uint8Array(length);
  const read = await storage.read(segment, target, position);
  return [...target.subarray(0, read)];
}

export function segmentStorageSuite(name: string, make: () => Promise<StorageUnderTest>): void {
  describe(`segment storage: ${name}`, () => {
    it('is empty at first', async () => {
      const { storage } = await make();
      expect(await storage.list()).toEqual([]);
      await storage.close();
    });

    it('reads what was appended at once, before any sync, and short only at the end', async () => {
      const { storage } = await make();
      const writer = await storage.create(1);
      expect(writer.segment).toBe(1);
      expect(writer.size).toBe(0);
      await writer.append([bytesOf(1, 2), bytesOf(), bytesOf(3)]);
      await writer.append([bytesOf(4)]);
      expect(writer.size).toBe(4);
      expect(await readAll(storage, 1, 0, 4)).toEqual([1, 2, 3, 4]);
      expect(await readAll(storage, 1, 1, 2)).toEqual([2, 3]);
      expect(await readAll(storage, 1, 3, 9)).toEqual([4]);
      expect(await readAll(storage, 1, 4, 1)).toEqual([]);
      expect(await readAll(storage, 1, 99, 1)).toEqual([]);
      await writer.append([bytesOf(5)]);
      expect(await readAll(storage, 1, 0, 9)).toEqual([1, 2, 3, 4, 5]);
      await writer.sync();
      await writer.sync();
      await writer.close();
      await storage.close();
    });

    it('does not keep the parts that it was given', async () => {
      const { storage } = await make();
      const writer = await storage.create(1);
      const part = bytesOf(7, 7);
      await writer.append([part]);
      part.fill(0);
      expect(await readAll(storage, 1, 0, 2)).toEqual([7, 7]);
      await writer.close();
      await storage.close();
    });

    it('lists segments ascending, with sizes', async () => {
      const { storage } = await make();
      for (const segment of [10, 9, 123_456]) {
        const writer = await storage.create(segment);
        await writer.append([new Uint8Array(segment % 7)]);
        await writer.close();
      }
      expect(await storage.list()).toEqual([
        { segment: 9, size: 2 },
        { segment: 10, size: 3 },
        { segment: 123_456, size: 4 },
      ]);
      await storage.close();
    });

    it('refuses to create a segment that exists', async () => {
      const { storage } = await make();
      const writer = await storage.create(3);
      await writer.append([bytesOf(1)]);
      await expect(storage.create(3)).rejects.toSatisfy((error) => isPandoError(error, 'internal'));
      expect(await readAll(storage, 3, 0, 1)).toEqual([1]);
      await writer.close();
      await storage.close();
    });

    it('says that a segment is missing', async () => {
      const { storage } = await make();
      await storage.list();
      await expect(readAll(storage, 5, 0, 1)).rejects.toSatisfy((error) =>
        isPandoError(error, 'chunk-missing'),
      );
      // And does not remember it: the segment may come.
      const writer = await storage.create(5);
      await writer.append([bytesOf(1)]);
      expect(await readAll(storage, 5, 0, 1)).toEqual([1]);
      await writer.close();
      await storage.close();
    });

    it('cuts a tail off and appends behind the cut', async () => {
      const { storage } = await make();
      const writer = await storage.create(1);
      await writer.append([bytesOf(1, 2, 3, 4, 5)]);
      await writer.close();
      expect(await readAll(storage, 1, 0, 9)).toEqual([1, 2, 3, 4, 5]);
      await storage.truncate(1, 2);
      expect(await readAll(storage, 1, 0, 9)).toEqual([1, 2]);
      const again = await storage.reopen(1);
      expect(again.size).toBe(2);
      await again.append([bytesOf(9, 8)]);
      await again.sync();
      expect(await readAll(storage, 1, 0, 9)).toEqual([1, 2, 9, 8]);
      expect(await storage.list()).toEqual([{ segment: 1, size: 4 }]);
      await again.close();
      await storage.close();
    });

    it('removes a segment, also one that was read or is not there', async () => {
      const { storage } = await make();
      const writer = await storage.create(1);
      await writer.append([bytesOf(1)]);
      await writer.close();
      await readAll(storage, 1, 0, 1);
      await storage.remove(1);
      await storage.remove(1);
      expect(await storage.list()).toEqual([]);
      await expect(readAll(storage, 1, 0, 1)).rejects.toSatisfy((error) =>
        isPandoError(error, 'chunk-missing'),
      );
      await storage.close();
    });

    it('lets reads under way finish when the segment is removed', async () => {
      const { storage } = await make();
      const writer = await storage.create(1);
      await writer.append([new Uint8Array(5000).fill(3)]);
      await writer.close();
      await readAll(storage, 1, 0, 1);
      const reads = Array.from({ length: 10 }, (_, i) => readAll(storage, 1, i * 500, 500));
      await storage.remove(1);
      for (const end of await Promise.allSettled(reads)) {
        // Whoever comes first: all of the bytes, or a segment that is missing. Never wrong bytes.
        if (end.status === 'fulfilled') expect(end.value).toEqual(new Array(500).fill(3));
        else expect(isPandoError(end.reason, 'chunk-missing')).toBe(true);
      }
      await storage.close();
    });

    it('reads many segments at the same time', async () => {
      const { storage } = await make();
      for (let segment = 1; segment <= 40; segment++) {
        const writer = await storage.create(segment);
        await writer.append([bytesOf(segment)]);
        await writer.close();
      }
      const reads = Array.from({ length: 200 }, (_, i) => readAll(storage, (i % 40) + 1, 0, 2));
      expect(await Promise.all(reads)).toEqual(Array.from({ length: 200 }, (_, i) => [(i % 40) + 1]));
      await storage.close();
    });

    it('still has everything after it was closed and opened', async () => {
      const { storage, reopen } = await make();
      const writer = await storage.create(2);
      await writer.append([bytesOf(6, 5)]);
      await writer.sync();
      await writer.close();
      await storage.close();
      const again = await reopen();
      expect(await again.list()).toEqual([{ segment: 2, size: 2 }]);
      expect(await readAll(again, 2, 0, 2)).toEqual([6, 5]);
      await again.close();
    });
  });
}

export interface IndexUnderTest {
  readonly index: ChunkIndex;
  readonly reopen: () => Promise<ChunkIndex>;
}

/** `count` ids that differ, and places that tell which is which. */
function entries(
  first: number,
  count: number,
  segment: number,
): { ids: Uint8Array; places: Uint8Array; count: number } {
  const ids = Buffer.alloc(count * ID_BYTES);
  const places = new Uint8Array(count * PLACE_BYTES);
  for (let i = 0; i < count; i++) {
    ids.writeUInt32LE(Math.imul(first + i + 1, 2654435761) >>> 0, i * ID_BYTES);
    ids.writeUInt32LE(first + i, i * ID_BYTES + 28);
    writePlace(places, i * PLACE_BYTES, segment, 48 + i, 4096, first + i);
  }
  return { ids: new Uint8Array(ids), places, count };
}

export function chunkIndexSuite(name: string, make: () => Promise<IndexUnderTest>): void {
  describe(`chunk index: ${name}`, () => {
    it('has nothing at first', async () => {
      const { index } = await make();
      expect(index.get(new Uint8Array(32), 0)).toBeUndefined();
      expect(await index.count()).toBe(0);
      expect(await index.getMark('checkpoint')).toBeUndefined();
      await index.close();
    });

    it('finds what was written, at any offset, and nothing else', async () => {
      const { index } = await make();
      const written = entries(0, 100, 5);
      await index.write(written, false);
      for (let i = 0; i < 100; i++) {
        expect(readPlace(index.get(written.ids, i * ID_BYTES)!)).toEqual({
          segment: 5,
          runOffset: 48 + i,
          runBytes: 4096,
          slot: i,
        });
      }
      const others = entries(100, 100, 5);
      for (let i = 0; i < 100; i++) expect(index.get(others.ids, i * ID_BYTES)).toBeUndefined();
      expect(await index.count()).toBe(100);
      await index.close();
    });

    it('keeps the numbers of a place to their last bit', async () => {
      const { index } = await make();
      const { ids } = entries(0, 1, 1);
      const places = new Uint8Array(PLACE_BYTES);
      writePlace(places, 0, 2 ** 48 - 1, 2 ** 32 - 1, 2 ** 32 - 2, 2 ** 31 + 1);
      await index.write({ ids, places, count: 1 }, true);
      expect(readPlace(index.get(ids, 0)!)).toEqual({
        segment: 2 ** 48 - 1,
        runOffset: 2 ** 32 - 1,
        runBytes: 2 ** 32 - 2,
        slot: 2 ** 31 + 1,
      });
      await index.close();
    });

    it('replaces a place, newest wins, in the order of the calls', async () => {
      const { index } = await make();
      const writes: Promise<void>[] = [];
      for (let segment = 1; segment <= 20; segment++)
        writes.push(index.write(entries(0, 10, segment), false));
      await Promise.all(writes);
      const { ids } = entries(0, 10, 0);
      for (let i = 0; i < 10; i++) expect(readPlace(index.get(ids, i * ID_BYTES)!).segment).toBe(20);
      expect(await index.count()).toBe(10);
      await index.close();
    });

    it('deletes, and puts win over deletes of the same batch', async () => {
      const { index } = await make();
      const all = entries(0, 50, 1);
      await index.write(all, false);
      const put = entries(5, 5, 2);
      await index.write({ ...put, deletes: all.ids.slice(0, 20 * ID_BYTES) }, true);
      for (let i = 0; i < 50; i++) {
        const value = index.get(all.ids, i * ID_BYTES);
        const segment = value === undefined ? undefined : readPlace(value).segment;
        expect(segment).toBe(i >= 5 && i < 10 ? 2 : i < 20 ? undefined : 1);
      }
      expect(await index.count()).toBe(35);
      await index.close();
    });

    it('hands out places that the caller may keep', async () => {
      const { index } = await make();
      const first = entries(0, 1, 1);
      await index.write(first, false);
      const before = index.get(first.ids, 0)!;
      await index.write(entries(0, 1, 2), false);
      expect(readPlace(before).segment).toBe(1);
      await index.close();
    });

    it('takes batches of no entries and of many', async () => {
      const { index } = await make();
      await index.write(entries(0, 0, 1), true);
      expect(await index.count()).toBe(0);
      const many = entries(0, 5000, 1);
      await index.write(many, false);
      for (let i = 0; i < 5000; i++) {
        if (index.get(many.ids, i * ID_BYTES) === undefined) expect.fail(`entry ${i} is missing`);
      }
      expect(await index.count()).toBe(5000);
      await index.close();
    });

    it('keeps marks apart from ids, and takes their last value', async () => {
      const { index } = await make();
      await index.setMark('a', bytesOf(1));
      await index.setMark('b', bytesOf());
      await index.setMark('a', bytesOf(2, 3));
      expect([...(await index.getMark('a'))!]).toEqual([2, 3]);
      expect([...(await index.getMark('b'))!]).toEqual([]);
      expect(await index.count()).toBe(0);
      await index.write(entries(0, 3, 1), false);
      await index.clear();
      expect(await index.getMark('a')).toBeUndefined();
      expect(await index.count()).toBe(0);
      await index.close();
    });

    it('tells in bounded pieces what names segments that are gone, each once, and no marks', async () => {
      const { index } = await make();
      await index.setMark('a', bytesOf(1));
      await index.write(entries(0, 700, 1), false);
      await index.write(entries(700, 300, 2), false);
      const stored = entries(0, 100, 3); // again, elsewhere
      await index.write(stored, false);
      const found: string[] = [];
      let pieces = 0;
      let after: Uint8Array | undefined = new Uint8Array(0);
      while (after !== undefined) {
        const piece: Awaited<ReturnType<typeof index.findStale>> = await index.findStale(
          (segment) => segment === 1,
          after,
          130,
        );
        for (let at = 0; at < piece.ids.byteLength; at += ID_BYTES)
          found.push(Buffer.from(piece.ids.subarray(at, at + ID_BYTES)).toString('hex'));
        expect(piece.ids.byteLength).toBeLessThanOrEqual(130 * ID_BYTES);
        after = piece.next;
        expect(pieces++).toBeLessThan(12);
      }
      expect(pieces).toBeGreaterThan(7);
      const { ids } = entries(100, 600, 0);
      const expected = Array.from({ length: 600 }, (_, i) =>
        Buffer.from(ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES)).toString('hex'),
      );
      expect(found.sort()).toEqual(expected.sort());
      await index.close();
    });

    it('still has everything after it was closed and opened', async () => {
      const { index, reopen } = await make();
      const some = entries(0, 300, 9);
      await index.write(some, false);
      await index.setMark('checkpoint', bytesOf(4));
      await index.close();
      const again = await reopen();
      expect(await again.count()).toBe(300);
      expect(readPlace(again.get(some.ids, 299 * ID_BYTES)!).slot).toBe(299);
      expect([...(await again.getMark('checkpoint'))!]).toEqual([4]);
      await again.close();
    });
  });
}
