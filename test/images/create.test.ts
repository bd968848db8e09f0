/** Images that Pando writes, as QEMU sees them: the same bytes, sound, complete or not there at all. */
import { openSparseFile, type DiskPart } from '@pando/common';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { createImage, formatOfName, type CreateImageOptions, type ImageFormat } from '@pando/images';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { itWithTools, mustRun, runTool } from '../support/tools.ts';
import { descendant, MiB, readImage, readParts, sha256OfFile, writeSample } from './support.ts';

const TOOLS = ['qemu-img', 'qemu-nbd', 'bwrap', 'prlimit'];
const NEVER = new AbortController().signal;
const seed = runSeed();
const SAMPLE_BYTES = 18 * MiB + 5 * 512;

let folder: string;
let out: string;
let sample: string;
const at = (name: string): string => join(out, name);

beforeAll(async () => {
  console.log(`PANDO_SEED=${seed}`);
  folder = await mkdtemp(join(tmpdir(), 'pando-create-'));
  await mkdir(join(folder, 'tmp'));
  process.env['TMPDIR'] = join(folder, 'tmp');
  sample = join(folder, 'sample.img');
  await writeSample(sample, SAMPLE_BYTES, seed);
});
let run = 0;
beforeEach(async () => {
  out = join(folder, `out${run++}`);
  await mkdir(out);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Copies the sample in pieces of odd sizes. */
async function copyInto(
  name: string,
  options: Omit<CreateImageOptions, 'sizeBytes'>,
  bytesMax = Infinity,
): Promise<void> {
  const random = seededRandom(seed);
  const target = await createImage(at(name), { ...options, sizeBytes: SAMPLE_BYTES });
  const source = await openSparseFile(sample);
  try {
    let position = 0;
    for await (const part of source.parts() as AsyncIterable<DiskPart>) {
      if (part instanceof Uint8Array) {
        for (let done = 0; done < part.byteLength;) {
          const data = Buffer.from(part.subarray(done, done + between(random, 1, 300_000)));
          await target.write(position + done, data);
          done += data.byteLength;
          // It was taken: what happens to the buffer now does not matter.
          data.fill(0xee);
        }
      }
      position += part instanceof Uint8Array ? part.byteLength : part.holeBytes;
      if (position > bytesMax) throw new Error('enough');
    }
    await target.finish();
  } finally {
    await target.abort();
    await source.close();
  }
}

async function nothingLeft(...names: string[]): Promise<void> {
  expect((await readdir(out)).sort()).toEqual(names);
  expect(await readdir(join(folder, 'tmp'))).toEqual([]);
}

const variants: readonly (readonly [name: string, format: ImageFormat, compress: boolean])[] = [
  ['disk.raw', 'raw', false],
  ['disk.qcow2', 'qcow2', false],
  ['small.qcow2', 'qcow2', true],
  ['disk.vmdk', 'vmdk', false],
  ['disk.vdi', 'vdi', false],
  ['disk.vhdx', 'vhdx', false],
  ['disk.vhd', 'vpc', false],
];
for (const [name, format, compress] of variants) {
  itWithTools(TOOLS, `${format}${compress ? ', compressed' : ''}: the bytes that were written`, async () => {
    expect(formatOfName(name)).toBe(format);
    await copyInto(name, { format, compress });
    await nothingLeft(name);
    const size = (
      JSON.parse(await mustRun('qemu-img', ['info', '-f', format, '--output=json', at(name)])) as Record<
        string,
        unknown
      >
    )['virtual-size'];
    expect(size).toBe(SAMPLE_BYTES);
    const raw = join(folder, 'converted.img');
    await mustRun('qemu-img', ['convert', '-f', format, '-O', 'raw', at(name), raw]);
    expect(await sha256OfFile(raw)).toBe(await sha256OfFile(sample));
    expect(await readImage(at(name), { format })).toMatchObject({ sha256: await sha256OfFile(sample) });
    if (format === 'qcow2') {
      const check = JSON.parse(await mustRun('qemu-img', ['check', '--output=json', at(name)])) as Record<
        string,
        number
      >;
      // Random data does not get smaller and is stored as it is.
      const compressed = check['compressed-clusters'] ?? 0;
      if (compress) expect(compressed).toBeGreaterThan(0);
      else expect(compressed).toBe(0);
      expect(check['corruptions'] ?? 0).toBe(0);
      expect(check['leaks'] ?? 0).toBe(0);
    }
    await rm(at(name));
  });
}

itWithTools(TOOLS, 'a disk of nothing but holes, of one sector, and of one more than a slot', async () => {
  for (const [index, sizeBytes] of [512, 65_536 + 512, 3 * 2 ** 40].entries()) {
    const target = await createImage(at(`edge${index}.qcow2`), { format: 'qcow2', sizeBytes });
    if (index < 2) await target.write(sizeBytes - 512, Buffer.alloc(512, 7));
    await target.finish();
    await target.finish().catch(() => undefined);
    const raw = join(folder, `edge${index}.img`);
    await mustRun('qemu-img', ['convert', '-O', 'raw', at(`edge${index}.qcow2`), raw]);
    expect((await stat(raw)).size).toBe(sizeBytes);
    if (index < 2) expect((await readFile(raw)).subarray(-512).equals(Buffer.alloc(512, 7))).toBe(true);
    await rm(raw);
    await rm(at(`edge${index}.qcow2`));
  }
});

itWithTools(
  TOOLS,
  'finish shows the finished file to who verifies it; when that says no, there is none',
  async () => {
    for (const format of ['raw', 'qcow2'] as const) {
      const target = await createImage(at(`checked.${format}`), { format, sizeBytes: MiB });
      await target.write(4096, Buffer.alloc(4096, 1));
      let seen = 0;
      await expect(
        target.finish(async (written) => {
          seen = (await readParts(written.parts(NEVER))).bytes;
          throw new Error('no');
        }),
      ).rejects.toThrow('no');
      expect(seen).toBe(MiB);
      await target.abort();
      await nothingLeft();
    }
  },
);

itWithTools(TOOLS, 'nothing is left of an image that was given up, at any time', async () => {
  for (const format of ['raw', 'qcow2', 'vhdx'] as const) {
    await expect(copyInto('half', { format }, SAMPLE_BYTES / 2)).rejects.toThrow('enough');
    await nothingLeft();
    for (const delay of [0, 3, 30, 150]) {
      const stop = new AbortController();
      const reason = new Error('given up');
      const timer = setTimeout(() => stop.abort(reason), delay);
      await copyInto('half', { format, signal: stop.signal }).then(
        () => rm(at('half')),
        (error: unknown) => expect(error).toBe(reason),
      );
      clearTimeout(timer);
      await nothingLeft();
    }
  }
});

itWithTools(TOOLS, 'a file that is there stays, unless it may be replaced; never a link', async () => {
  await writeFile(at('there.qcow2'), 'x');
  await symlink('there.qcow2', at('link.qcow2'));
  await expect(createImage(at('there.qcow2'), { format: 'qcow2', sizeBytes: MiB })).rejects.toMatchObject({
    code: 'file-exists',
  });
  await expect(
    createImage(at('link.qcow2'), { format: 'qcow2', sizeBytes: MiB, replace: true }),
  ).rejects.toMatchObject({
    code: 'file-exists',
  });
  // One that appears meanwhile, too.
  const target = await createImage(at('late.qcow2'), { format: 'qcow2', sizeBytes: MiB });
  await writeFile(at('late.qcow2'), 'y');
  await expect(target.finish()).rejects.toMatchObject({ code: 'file-exists' });
  expect(await readFile(at('late.qcow2'), 'utf8')).toBe('y');
  const second = await createImage(at('late.qcow2'), { format: 'qcow2', sizeBytes: MiB, replace: true });
  await second.finish();
  expect((await readImage(at('late.qcow2'))).sizeBytes).toBe(MiB);
  for (const name of ['there.qcow2', 'link.qcow2', 'late.qcow2']) await rm(at(name));
  await nothingLeft();
});

itWithTools(TOOLS, 'what a format cannot be is refused', async () => {
  await expect(createImage(at('a.vhd'), { format: 'vpc', sizeBytes: 3 * 2 ** 40 })).rejects.toMatchObject({
    code: 'image-unsupported',
  });
  await expect(
    createImage(at('a.vdi'), { format: 'vdi', sizeBytes: MiB, compress: true }),
  ).rejects.toMatchObject({
    code: 'request-invalid',
  });
  await expect(createImage(at('no/a.vdi'), { format: 'vdi', sizeBytes: MiB })).rejects.toMatchObject({
    code: 'file-failed',
  });
  await nothingLeft();
});

itWithTools([...TOOLS, 'bash'], 'a full disk is an error that says so, and leaves nothing', async () => {
  // A limit on the size of files stands for a full disk: QEMU gets an error from its writes.
  const program = `
    import { createImage } from '@pando/images';
    const target = await createImage(process.argv[1], { format: 'qcow2', sizeBytes: 64 * 2 ** 20 });
    try {
      for (let at = 0; at < 64; at++) await target.write(at * 2 ** 20, Buffer.alloc(2 ** 20, at + 1));
      await target.finish();
      console.log('done');
    } catch (error) {
      console.log(error.code, error.message);
      await target.abort();
    }`;
  const limited = 'trap "" XFSZ; ulimit -f 8192; exec "$0" --input-type=module -e "$1" "$2"';
  const { stdout, stderr } = await runTool(
    'bash',
    ['-c', limited, process.execPath, program, at('full.qcow2')],
    {
      cwd: join(import.meta.dirname, '../../apps/cli'),
    },
  );
  expect(stdout, stderr).toMatch(/^file-failed cannot write .*(ENOSPC|No space|writing)/);
  await nothingLeft();
});

itWithTools(TOOLS, 'the helper dies with its parent', async () => {
  const program = `
    import { createImage } from '@pando/images';
    import { readFileSync } from 'node:fs';
    await createImage(process.argv[1], { format: 'qcow2', sizeBytes: 2 ** 20 });
    console.log(readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8').trim());
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, at('killed.qcow2')], {
    cwd: join(import.meta.dirname, '../../apps/cli'),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [printed] = (await once(child.stdout, 'data')) as [Buffer];
  const helper = await descendant(printed.toString().trim(), 'qemu-nbd');
  child.kill('SIGKILL');
  await once(child, 'exit');
  await expect.poll(() => readlink(`/proc/${helper}/exe`).catch(() => 'gone')).toBe('gone');
  // A kill -9 leaves the hidden file; the name that was asked for never appears.
  expect((await readdir(out)).every((name) => name.endsWith('.partial'))).toBe(true);
  for (const name of await readdir(out)) await rm(at(name));
});

test('names tell formats', () => {
  expect(
    ['a.qcow2', 'A.VMDK', 'a.vdi', 'a.vhdx', 'a.vhd', 'a.vpc', 'a.raw', 'a.img', 'a', 'qcow2'].map(
      formatOfName,
    ),
  ).toEqual(['qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc', 'vpc', 'raw', 'raw', 'raw', 'raw']);
});
