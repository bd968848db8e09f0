/** `pando scan` on image files as people have them: formats, a file that is none, the same disk twice. */
import { mkdir, mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { expect, onTestFinished, test } from 'vitest';
import { itWithTools, mustRun } from '../support/tools.ts';
import { pando } from './pando.ts';

interface Scan {
  readonly disks: number;
  readonly images: readonly { readonly path: string; readonly format: string; readonly addsBytes: number }[];
  readonly failed: readonly { readonly path: string; readonly code: string }[];
  readonly passedBy: number;
  readonly sizes: readonly {
    readonly chunkBytes: number;
    readonly allocatedBytes: number;
    readonly uniqueBytes: number;
  }[];
}

itWithTools(
  ['qemu-img', 'bwrap'],
  'images of a directory are read, those that are none are named, others count',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'pando-scan-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const bytes = Buffer.alloc(1024 * 1024);
    fillRandom(seededRandom(3), bytes);
    await mkdir(join(folder, 'sub'));
    await writeFile(join(folder, 'a.raw'), bytes);
    await truncate(join(folder, 'a.raw'), 8 * 1024 * 1024);
    // The same data again, 8 KiB further on: equal for chunks of 4 and 8 KiB only.
    await writeFile(join(folder, 'shifted.raw'), Buffer.concat([Buffer.alloc(8192), bytes]));
    await mustRun('qemu-img', ['convert', '-O', 'qcow2', join(folder, 'a.raw'), join(folder, 'sub/b.qcow2')]);
    await writeFile(join(folder, 'broken.qcow2'), Buffer.from('QFI\u00fb\0\0\0\u0003 and no more', 'latin1'));
    await writeFile(join(folder, 'notes.txt'), 'no image');

    const ran = await pando(['scan', folder, '--json'], { url: 'http://127.0.0.1:9' });
    expect(ran.status).toBe(1);
    const scanned = ran.json<Scan>();
    expect(scanned.images.map(({ path, format }) => [path, format])).toEqual([
      [join(folder, 'a.raw'), 'raw'],
      [join(folder, 'shifted.raw'), 'raw'],
      [join(folder, 'sub/b.qcow2'), 'qcow2'],
    ]);
    expect(scanned.failed).toMatchObject([{ path: join(folder, 'broken.qcow2') }]);
    expect(scanned).toMatchObject({ disks: 3, passedBy: 1 });
    const unique = scanned.sizes.map(({ uniqueBytes }) => uniqueBytes / 1024 / 1024);
    expect(unique.slice(0, 2)).toEqual([1, 1]);
    expect(unique[2]).toBeGreaterThan(1.9);
    expect(scanned.sizes[0]!.allocatedBytes).toBe(3 * 1024 * 1024);
    expect(scanned.images[0]!.addsBytes).toBeGreaterThan(1024 * 1024);
    expect(scanned.images[2]!.addsBytes).toBe(0);

    const text = await pando(['scan', join(folder, 'a.raw')], { url: 'http://127.0.0.1:9' });
    expect(text).toMatchObject({ status: 0, stderr: expect.not.stringContaining('error') as string });
    expect(text.stdout).toContain('a store with chunks of 4 KiB would take about 1.0 MiB');
    const named = join(folder, 'line\n\u001b[31m');
    await writeFile(`${named}.raw`, bytes);
    await writeFile(`${named}.qcow2`, 'QFI\u00fb\0\0\0\u0003', 'latin1');
    const odd = await pando(['scan', `${named}.raw`, `${named}.qcow2`], { url: '' });
    expect(odd.stdout).toContain('line\\n\\x1b[31m.raw');
    expect(odd.stdout).toContain(`not read: ${folder}/line\\n\\x1b[31m.qcow2`);
    expect(odd.stdout + odd.stderr).not.toContain('\u001b');
    expect(await pando(['scan', join(folder, 'missing')], { url: '' })).toMatchObject({ status: 1 });
  },
);

test('what cannot be read in a directory is named, and the rest is read', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-scan-'));
  // Deeper than a path may be long: put into each other from the outside, and removed by a tool that goes down step by step.
  onTestFinished(() => mustRun('rm', ['-rf', folder]).then(() => undefined));
  const name = 'd'.repeat(250);
  await mkdir(join(folder, name));
  for (let i = 0; i < 20; i++) {
    await mkdir(join(folder, 'outer'));
    await rename(join(folder, name), join(folder, 'outer', name));
    await rename(join(folder, 'outer'), join(folder, name));
  }
  const shallow = Array.from({ length: 40 }, () => 's').join('/');
  await mkdir(join(folder, shallow), { recursive: true });
  await writeFile(join(folder, 'z.raw'), Buffer.alloc(4096, 1));
  const ran = await pando(['scan', folder, '--json'], { url: 'http://127.0.0.1:9' });
  expect(ran).toMatchObject({ status: 1, stderr: '' });
  const scanned = ran.json<Scan>();
  expect(scanned.images.map(({ path }) => path)).toEqual([join(folder, 'z.raw')]);
  expect(
    scanned.failed.map(({ path, code }) => [path.slice(folder.length + 1, folder.length + 4), code]),
  ).toEqual([
    ['ddd', 'file-failed'],
    ['s/s', 'file-failed'],
  ]);
});
