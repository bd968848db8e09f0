/** `POST /imports` with a path: images of any format inside the import directory, and nothing outside of it. */
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runSeed } from '@pando/common/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { readExport, sha256 } from '../support/disks.ts';
import { itWithTools, mustRun } from '../support/tools.ts';
import { MiB, sha256OfFile, writeSample } from './support.ts';

const TOOLS = ['qemu-img', 'qemu-nbd', 'bwrap', 'prlimit'];
const seed = runSeed();
const SAMPLE_BYTES = 9 * MiB + 512;
let folder: string;
let images: string;
let server: TestServer;
const at = (name: string): string => join(images, name);

beforeAll(async () => {
  console.log(`PANDO_SEED=${seed}`);
  folder = await mkdtemp(join(tmpdir(), 'pando-by-path-'));
  images = join(folder, 'images');
  await mkdir(images);
  await writeSample(at('sample.img'), SAMPLE_BYTES, seed);
  await writeSample(join(folder, 'secret.img'), SAMPLE_BYTES, seed + 1);
  await mkdir(join(folder, 'tmp'));
  server = await TestServer.start({ args: ['--import-dir', images], env: { TMPDIR: join(folder, 'tmp') } });
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

interface Answer {
  readonly id?: string;
  readonly code?: string;
}

async function post(body: object): Promise<{ status: number; answer: Answer }> {
  const response = await server.fetch('/api/v1/imports', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: response.status, answer: (await response.json()) as Answer };
}

async function imported(name: string, body: object): Promise<string> {
  await server.rest.job('/imports', { name, ...body });
  return sha256(await readExport(server, `${name}/disk0`));
}

itWithTools(TOOLS, 'images of every format become VMs with the same bytes', async () => {
  const expected = await sha256OfFile(at('sample.img'));
  for (const [format, more] of [
    ['qcow2', ['-c']],
    ['vmdk', []],
    ['vdi', []],
    ['vhdx', []],
    ['vpc', ['-o', 'force_size=on']],
  ] as const) {
    const path = `disk.${format}`;
    await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', format, ...more, at('sample.img'), at(path)]);
    expect(await imported(`recognised-${format}`, { path }), format).toBe(expected);
    expect(await imported(`said-${format}`, { path, format }), format).toBe(expected);
  }
  await mustRun('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-b',
    'disk.qcow2',
    '-F',
    'qcow2',
    at('top.qcow2'),
  ]);
  expect(await imported('chain', { path: 'top.qcow2' })).toBe(expected);
  expect(await imported('verbatim', { path: 'disk.qcow2', format: 'raw' })).toBe(
    await sha256OfFile(at('disk.qcow2')),
  );
});

itWithTools(
  TOOLS,
  'a backing file outside the import directory is not read, however it is named',
  async () => {
    await symlink('../secret.img', at('link.img'));
    for (const [index, backing] of [
      join(folder, 'secret.img'),
      '../secret.img',
      'link.img',
      '/etc/passwd',
      'nbd://127.0.0.1:1/x',
    ].entries()) {
      const path = `evil${index}.qcow2`;
      await mustRun('qemu-img', [
        'create',
        '-q',
        '-u',
        '-f',
        'qcow2',
        '-b',
        backing,
        '-F',
        'raw',
        at(path),
        '1M',
      ]);
      expect(await post({ name: 'evil', path })).toMatchObject({
        status: 400,
        answer: { code: 'image-refused' },
      });
      expect(await post({ name: 'evil', path, format: 'qcow2' })).toMatchObject({
        status: 400,
        answer: { code: 'image-refused' },
      });
    }
  },
);

itWithTools(TOOLS, 'a wrong or an unknown format is refused', async () => {
  expect(await post({ name: 'x', path: 'sample.img', format: 'qcow2' })).toMatchObject({
    status: 400,
    answer: { code: 'image-format-mismatch' },
  });
  expect(await post({ name: 'x', path: 'sample.img', format: 'qcow' })).toMatchObject({
    status: 400,
    answer: { code: 'request-invalid' },
  });
  await writeFile(
    at('broken.qcow2'),
    Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(500, 0xff)]),
  );
  expect(await post({ name: 'x', path: 'broken.qcow2' })).toMatchObject({
    status: 400,
    answer: { code: 'image-damaged' },
  });
});

/** Processes of QEMU that have a file of ours open. */
async function helpers(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
    if (!command.startsWith('qemu')) continue;
    const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
    const links = await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
    if (links.some((link) => link.startsWith(images))) found.push(pid);
  }
  return found;
}

test('the server has no helper left', async () => {
  await expect.poll(helpers).toEqual([]);
  expect((await readdir(join(folder, 'tmp'))).filter((name) => name.startsWith('pando'))).toEqual([]);
});
