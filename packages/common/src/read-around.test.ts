import { beforeEach, describe, expect, it } from 'vitest';
import type { File } from './file-system.ts';
import { MemoryFileSystem } from './memory-file-system.ts';
import { readAround } from './read-around.ts';
import { rewriteInPlace } from './rewrite.ts';

const PAGE = 4096;
const SIZE = 20 * PAGE + 100;

/** Reads of the pages fail, as of a device with bad sectors. */
function badAt(file: File, pages: readonly number[], code = 'EIO'): File {
  const check = (position: number, bytes: number): void => {
    if (pages.some((page) => page * PAGE < position + bytes && (page + 1) * PAGE > position))
      throw Object.assign(new Error(code), { code });
  };
  return {
    ...{ path: file.path, size: () => file.size(), sync: () => file.sync(), close: () => file.close() },
    write: (parts, position) => file.write(parts, position),
    truncate: (size) => file.truncate(size),
    readSync: (target, position) => file.readSync(target, position),
    read: async (target, position) => {
      check(position, target.byteLength);
      return file.read(target, position);
    },
  };
}

describe('a file of which some pages cannot be read', () => {
  const bytes = Buffer.alloc(SIZE, (Math.PI * 1e6).toFixed(0));
  let file: File;
  beforeEach(async () => {
    file = await new MemoryFileSystem().open('file', 'create');
    await file.write([bytes], 0);
  });

  it.each([0, 1, 4095, 4096, 5000])('is read around them, from byte %i on', async (from) => {
    const target = Buffer.alloc(SIZE - from, 0xff);
    const places: [number, number][] = [];
    const count = await readAround(badAt(file, [3, 4, 20]), target, from, (...place) => places.push(place));
    expect(count).toBe(SIZE - from);
    const expected = Buffer.from(bytes);
    expected.fill(0, 3 * PAGE, 5 * PAGE);
    expected.fill(0, 20 * PAGE);
    expect(target.equals(expected.subarray(from))).toBe(true);
    expect(places.map(([at]) => at)).toEqual([3 * PAGE, 4 * PAGE, 20 * PAGE]);
  });

  it('is read as ever where all can be read, and up to its end', async () => {
    const target = Buffer.alloc(3 * PAGE);
    expect(await readAround(badAt(file, [3]), target, 19 * PAGE, () => expect.unreachable())).toBe(
      PAGE + 100,
    );
  });

  it('fails for other errors', async () => {
    const reading = readAround(badAt(file, [3], 'EBADF'), Buffer.alloc(SIZE), 0, () => undefined);
    await expect(reading).rejects.toMatchObject({ code: 'EBADF' });
  });

  it('is written again but for those pages, which stay as they are', async () => {
    const written: [number, number][] = [];
    const bad = badAt(file, [3, 4, 9]);
    const watched: File = {
      ...bad,
      write: (parts, position) => {
        written.push([position, parts.reduce((sum, part) => sum + part.byteLength, 0)]);
        return bad.write(parts, position);
      },
    };
    await rewriteInPlace(watched, 100, 10 * PAGE + 7);
    expect(written).toEqual([
      [100, 3 * PAGE - 100],
      [5 * PAGE, 4 * PAGE],
      [10 * PAGE, 7],
    ]);
    const target = Buffer.alloc(SIZE);
    await file.read(target, 0);
    expect(target.equals(bytes)).toBe(true);
  });
});
