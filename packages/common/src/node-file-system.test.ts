import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFileSystem } from './node-file-system.ts';
import { fillRandom, seededRandom } from './testing/random.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-fs-'));
});
afterEach(() => rm(folder, { recursive: true }));

describe('files of the system', () => {
  it('write parts one after another, more of them than one call takes, and read them back', async () => {
    const file = await nodeFileSystem.open(join(folder, 'a'), 'create');
    const bytes = fillRandom(seededRandom(1), new Uint8Array(5000));
    await file.write(
      Array.from(bytes, (_, index) => bytes.subarray(index, index + 1)),
      7,
    );
    expect(await file.size()).toBe(5007);
    const found = new Uint8Array(6000);
    expect(await file.read(found, 7)).toBe(5000);
    expect(found.subarray(0, 5000)).toEqual(bytes);
    expect(file.readSync(found, 5000)).toBe(7);
    expect(await file.read(new Uint8Array(10), 5007)).toBe(0);
    expect(await file.read(new Uint8Array(0), 0)).toBe(0);
    await file.write([], 0);
    await file.close();
  });

  it('finish what is under way before they are closed, so that no other file gets it', async () => {
    const file = await nodeFileSystem.open(join(folder, 'a'), 'create');
    const bytes = fillRandom(seededRandom(2), new Uint8Array(1 << 20));
    const work = [
      file.write([bytes], 0),
      ...Array.from({ length: 50 }, (_, i) => file.write([bytes.subarray(0, 100)], 2_000_000 + i * 100)),
    ];
    const closed = file.close();
    const other = await nodeFileSystem.open(join(folder, 'b'), 'create');
    await Promise.all([...work, closed]);
    expect(await other.size()).toBe(0);
    await other.close();
    const again = await nodeFileSystem.open(join(folder, 'a'), 'read');
    const found = new Uint8Array(1 << 20);
    const reading = again.read(found, 0);
    await again.close();
    expect(await reading).toBe(1 << 20);
    expect(Buffer.compare(found, bytes)).toBe(0);
  });

  it('refuse everything once they are closed, and closing twice is nothing', async () => {
    const file = await nodeFileSystem.open(join(folder, 'a'), 'create');
    await file.close();
    await file.close();
    await expect(file.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'EBADF' });
    await expect(file.write([new Uint8Array(1)], 0)).rejects.toMatchObject({ code: 'EBADF' });
    expect(() => file.readSync(new Uint8Array(1), 0)).toThrow(/closed/);
  });

  it('report what the system says', async () => {
    await expect(nodeFileSystem.open(join(folder, 'no'), 'read')).rejects.toMatchObject({ code: 'ENOENT' });
    const file = await nodeFileSystem.open(join(folder, 'a'), 'create');
    await file.close();
    await expect(nodeFileSystem.open(join(folder, 'a'), 'create')).rejects.toMatchObject({ code: 'EEXIST' });
    const readOnly = await nodeFileSystem.open(join(folder, 'a'), 'read');
    await expect(readOnly.write([new Uint8Array(1)], 0)).rejects.toMatchObject({ code: 'EBADF' });
    await readOnly.close();
  });
});
