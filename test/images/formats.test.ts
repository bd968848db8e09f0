/** Images of every format, made by qemu-img, read byte for byte as qemu-img reads them. */
import { runSeed } from '@pando/common/testing';
import { recognise, openImage } from '@pando/images';
import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { itWithTools, mustRun } from '../support/tools.ts';
import { MiB, readImage, readParts, sha256OfFile, writeSample } from './support.ts';

const TOOLS = ['qemu-img', 'qemu-nbd', 'qemu-io', 'bwrap', 'prlimit'];
const seed = runSeed();
/** Not a whole number of clusters of any size. */
const SAMPLE_BYTES = 21 * MiB + 3 * 512;

let folder: string;
let sample: string;
const at = (name: string): string => join(folder, name);

beforeAll(async () => {
  console.log(`PANDO_SEED=${seed}`);
  folder = await mkdtemp(join(tmpdir(), 'pando-images-'));
  // For the helpers of the images, so that what they leave is seen.
  await mkdir(at('tmp'));
  process.env['TMPDIR'] = at('tmp');
  sample = at('sample.img');
  await writeSample(sample, SAMPLE_BYTES, seed);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Reads an image in both ways. */
async function sameAsQemu(path: string, format: string): Promise<Awaited<ReturnType<typeof readImage>>> {
  const raw = `${path}.converted`;
  await mustRun('qemu-img', ['convert', '-f', format, '-O', 'raw', path, raw]);
  const read = await readImage(path, { backingWithin: folder });
  expect(read).toMatchObject({ format, sha256: await sha256OfFile(raw), sizeBytes: (await stat(raw)).size });
  await rm(raw);
  return read;
}

describe('an image of one file reads as qemu-img reads it:', () => {
  const variants: readonly (readonly [name: string, format: string, args: readonly string[]])[] = [
    ['qcow2', 'qcow2', []],
    ['qcow2 of version 2', 'qcow2', ['-o', 'compat=0.10']],
    ['qcow2 with clusters of 512 bytes', 'qcow2', ['-o', 'cluster_size=512']],
    ['qcow2 with clusters of 2 MiB', 'qcow2', ['-o', 'cluster_size=2M']],
    ['qcow2 with extended L2 entries', 'qcow2', ['-o', 'extended_l2=on,cluster_size=128k']],
    ['qcow2 compressed with zlib', 'qcow2', ['-c', '-o', 'compression_type=zlib']],
    ['qcow2 compressed with zstd', 'qcow2', ['-c', '-o', 'compression_type=zstd']],
    ['qcow2 compressed, version 2', 'qcow2', ['-c', '-o', 'compat=0.10']],
    ['qcow2 preallocated', 'qcow2', ['-o', 'preallocation=metadata']],
    ['VMDK monolithicSparse', 'vmdk', ['-o', 'subformat=monolithicSparse']],
    ['VMDK streamOptimized', 'vmdk', ['-o', 'subformat=streamOptimized']],
    ['VMDK monolithicFlat', 'vmdk', ['-o', 'subformat=monolithicFlat']],
    ['VMDK twoGbMaxExtentSparse', 'vmdk', ['-o', 'subformat=twoGbMaxExtentSparse']],
    ['VMDK twoGbMaxExtentFlat', 'vmdk', ['-o', 'subformat=twoGbMaxExtentFlat']],
    ['VDI', 'vdi', []],
    ['VDI static', 'vdi', ['-o', 'static=on']],
    ['VHDX', 'vhdx', []],
    ['VHDX fixed', 'vhdx', ['-o', 'subformat=fixed']],
    ['VHD dynamic', 'vpc', ['-o', 'force_size=on']],
    ['VHD dynamic with its geometry as size', 'vpc', []],
    ['VHD fixed', 'vpc', ['-o', 'subformat=fixed,force_size=on']],
  ];
  for (const [index, [name, format, args]] of variants.entries()) {
    itWithTools(TOOLS, name, async () => {
      const path = at(`variant${index}.${format === 'vpc' ? 'vhd' : format}`);
      await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', format, ...args, sample, path]);
      expect(await recognise(path)).toEqual({ format });
      await sameAsQemu(path, format);
      // Said and recognised are the same.
      expect((await readImage(path, { format: format as 'qcow2', backingWithin: folder })).format).toBe(
        format,
      );
    });
  }
});

itWithTools(TOOLS, 'a raw image keeps its holes and needs no other program', async () => {
  const read = await readImage(sample);
  expect(read).toMatchObject({ format: 'raw', sizeBytes: SAMPLE_BYTES, sha256: await sha256OfFile(sample) });
  expect(read.holeBytes).toBeGreaterThan(0);
  const path = process.env['PATH'];
  process.env['PATH'] = '';
  try {
    expect((await readImage(sample)).sha256).toBe(read.sha256);
  } finally {
    process.env['PATH'] = path;
  }
});

itWithTools(TOOLS, 'a chain of three images is read through, also by a link to its top', async () => {
  await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', sample, at('base.qcow2')]);
  await mustRun('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-b',
    'base.qcow2',
    '-F',
    'qcow2',
    at('middle.qcow2'),
  ]);
  await mustRun('qemu-io', ['-c', 'write -P 7 1M 3M', '-c', 'write -z 5M 1M', at('middle.qcow2')]);
  // Longer than what it builds on, and of other clusters.
  const args = ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', '-b', 'middle.qcow2', '-F', 'qcow2'];
  await mustRun('qemu-img', [...args, at('top.qcow2'), String(SAMPLE_BYTES + 5 * MiB)]);
  await mustRun('qemu-io', ['-c', 'write -P 9 2M 1536', at('top.qcow2')]);
  await sameAsQemu(at('top.qcow2'), 'qcow2');
  await symlink('top.qcow2', at('link.qcow2'));
  await sameAsQemu(at('link.qcow2'), 'qcow2');
});

itWithTools(TOOLS, 'a raw and a VMDK image serve as backing files', async () => {
  for (const [format, name] of [
    ['raw', 'sample.img'],
    ['vmdk', 'backing.vmdk'],
  ] as const) {
    if (format !== 'raw') await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', format, sample, at(name)]);
    const path = at(`on-${format}.qcow2`);
    await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', name, '-F', format, path]);
    await sameAsQemu(path, 'qcow2');
  }
});

itWithTools(TOOLS, 'holes are not read: 10 TiB with 1 MiB in it takes no longer than 1 MiB', async () => {
  await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', at('huge.qcow2'), '10T']);
  await mustRun('qemu-io', ['-c', 'write -P 3 5T 1M', at('huge.qcow2')]);
  const source = await openImage(at('huge.qcow2'));
  const parts: (number | string)[] = [];
  for await (const part of source.parts(new AbortController().signal)) {
    parts.push(part instanceof Uint8Array ? `data ${part.byteLength}` : part.holeBytes);
  }
  await source.close();
  expect(parts).toEqual([5 * 2 ** 40, `data ${MiB}`, 5 * 2 ** 40 - MiB]);
});

itWithTools(TOOLS, 'a source is read as often as one likes, and ends for its signal', async () => {
  await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', sample, at('twice.qcow2')]);
  const source = await openImage(at('twice.qcow2'));
  const first = await readParts(source.parts(new AbortController().signal));
  expect(await readParts(source.parts(new AbortController().signal))).toEqual(first);
  const stop = new AbortController();
  const reason = new Error('enough');
  const reading = (async () => {
    for await (const part of source.parts(stop.signal)) if (part instanceof Uint8Array) stop.abort(reason);
  })();
  await expect(reading).rejects.toBe(reason);
  await source.close();
  await source.close();
});

describe('what the user said', () => {
  itWithTools(TOOLS, 'is not guessed against: raw takes the bytes of any file as they are', async () => {
    const path = at('verbatim.qcow2');
    await mustRun('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-u',
      '-b',
      '/etc/passwd',
      '-F',
      'raw',
      path,
      '1M',
    ]);
    const read = await readImage(path, { format: 'raw' });
    expect(read).toMatchObject({
      format: 'raw',
      sha256: await sha256OfFile(path),
      sizeBytes: (await stat(path)).size,
    });
  });

  itWithTools(TOOLS, 'has to fit: an image of another format is refused', async () => {
    for (const format of ['qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc'] as const) {
      await expect(readImage(sample, { format })).rejects.toMatchObject({ code: 'image-format-mismatch' });
    }
  });

  itWithTools(TOOLS, 'has to be clear: qcow2 in a file called .raw is neither without a word', async () => {
    const path = at('odd.raw');
    await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', path, '1M']);
    await expect(openImage(path)).rejects.toMatchObject({ code: 'image-format-mismatch' });
    expect((await readImage(path, { format: 'qcow2' })).sizeBytes).toBe(MiB);
    expect((await readImage(path, { format: 'raw' })).sizeBytes).toBe((await stat(path)).size);
  });

  itWithTools(
    TOOLS,
    'a fixed VHD needs its name or a word, for its mark may be a guest’s bytes',
    async () => {
      const path = at('fixed.img');
      await mustRun('qemu-img', [
        'convert',
        '-f',
        'raw',
        '-O',
        'vpc',
        '-o',
        'subformat=fixed,force_size=on',
        sample,
        path,
      ]);
      const { format, remark } = await recognise(path);
      expect(format).toBe('raw');
      expect(remark).toContain('VHD');
      expect((await readImage(path)).sizeBytes).toBe(SAMPLE_BYTES + 512);
      const source = await openImage(path);
      expect(source.remark).toContain('VHD');
      await source.close();
      expect((await readImage(path, { format: 'vpc' })).sha256).toBe(await sha256OfFile(sample));
    },
  );
});

test('without QEMU the error names the package', async () => {
  const image = Buffer.alloc(1024);
  image.write('QFI\xfb', 'latin1');
  image.writeUInt32BE(2, 4);
  image.writeUInt32BE(16, 20);
  await writeFile(at('no-tool.qcow2'), image);
  const path = process.env['PATH'];
  process.env['PATH'] = `:.:${folder}`;
  try {
    await expect(openImage(at('no-tool.qcow2'))).rejects.toMatchObject({
      code: 'tool-missing',
      message: expect.stringMatching(/apt install qemu-utils.*dnf install qemu-img/) as string,
    });
  } finally {
    process.env['PATH'] = path;
  }
});

test('nothing is left behind', async () => {
  expect(await readdir(at('tmp'))).toEqual([]);
});
