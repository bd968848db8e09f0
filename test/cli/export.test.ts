/** `pando vm export`: image files of every format, checked against the root of the disk, whole or not there. */
import { seededRandom, runSeed } from '@pando/common/testing';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, rm, stat } from 'node:fs/promises';
import * as http from 'node:http';
import * as net from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun } from '../support/tools.ts';
import { pando } from './pando.ts';

const TOOLS = ['qemu-img', 'qemu-nbd', 'bwrap', 'prlimit'];
const MiB = 2 ** 20;
const SIZE = 24 * MiB + 512;
const seed = runSeed();

let server: TestServer;
let folder: string;
let out: string;
let golden: string;
let goldenHash: string;

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return hash.digest('hex');
}

beforeAll(async () => {
  console.log(`PANDO_SEED=${seed}`);
  folder = await mkdtemp(join(tmpdir(), 'pando-export-'));
  golden = join(folder, 'golden.raw');
  const random = seededRandom(seed);
  const file = await open(golden, 'wx');
  await file.truncate(SIZE);
  for (let i = 0; i < 60; i++) {
    const data = Buffer.alloc(512 * (1 + Math.floor(random() * 300)), Math.floor(random() * 256));
    const at = 512 * Math.floor((random() * (SIZE - data.length)) / 512);
    await file.write(data, 0, data.length, at);
  }
  await file.close();
  goldenHash = await sha256(golden);
  server = await TestServer.start();
  const made = await pando(['vm', 'import', golden, '--name', 'golden'], { url: server.url });
  expect(made, made.stderr).toMatchObject({ status: 0 });
  await mkdir(join(folder, 'tmp'));
  process.env['TMPDIR'] = join(folder, 'tmp');
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});
let run = 0;
beforeEach(async () => {
  out = join(folder, `out${run++}`);
  await mkdir(out);
});

async function nothingLeft(...names: string[]): Promise<void> {
  expect(await readdir(out)).toEqual(names);
  expect((await readdir(join(folder, 'tmp'))).filter((name) => name.startsWith('pando'))).toEqual([]);
  // Nor the backup that the export took for itself.
  expect((await pando(['backup', 'ls', '--json'], { url: server.url })).json()).toEqual({ items: [] });
}

for (const [name, format, flags] of [
  ['disk.img', 'raw', []],
  ['disk.qcow2', 'qcow2', []],
  ['disk.qcow2', 'qcow2', ['--compress']],
  ['disk.vmdk', 'vmdk', []],
  ['disk.vdi', 'vdi', []],
  ['disk.vhdx', 'vhdx', []],
  ['disk.vhd', 'vpc', []],
  ['disk', 'qcow2', ['--format', 'qcow2']],
  ['disk.qcow2', 'raw', ['--format', 'raw']],
] as const) {
  itWithTools(
    TOOLS,
    `${name} ${flags.join(' ')} is ${format}, and its bytes are those of the disk`,
    async () => {
      const file = join(out, name);
      const ran = await pando(['vm', 'export', 'golden', file, '--verify', '--json', ...flags], {
        url: server.url,
      });
      expect(ran, ran.stderr).toMatchObject({ status: 0 });
      const exported = ran.json();
      expect(exported).toMatchObject({ file, disk: 'disk0', format, sizeBytes: SIZE, verified: true });
      expect(exported['root']).toMatch(/^[0-9a-f]{64}$/);
      await nothingLeft(name);
      const raw = join(folder, 'converted.raw');
      await mkdir(join(folder, 'x'), { recursive: true });
      await mustRun('qemu-img', ['convert', '-f', format, '-O', 'raw', file, raw]);
      expect(await sha256(raw)).toBe(goldenHash);
    },
  );
}

itWithTools(TOOLS, 'what was exported is imported again to the same root', async () => {
  const file = join(out, 'disk.vmdk');
  const ran = await pando(['vm', 'export', 'golden', file, '--json'], { url: server.url });
  const again = await pando(['vm', 'import', file, '--name', 'again', '--json'], { url: server.url });
  expect(again, again.stderr).toMatchObject({ status: 0 });
  expect(again.json()['root']).toBe(ran.json()['root']);
  await pando(['vm', 'rm', 'again'], { url: server.url });
});

itWithTools(
  TOOLS,
  'an image is imported with the images that it builds on: beside it, or where one says',
  async () => {
    await mkdir(join(out, 'bases'));
    await mkdir(join(out, 'tops'));
    const base = join(out, 'bases', 'base.qcow2');
    await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', golden, base]);
    for (const top of [join(out, 'bases', 'top.qcow2'), join(out, 'tops', 'top.qcow2')]) {
      await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top]);
    }
    const root = (
      await pando(['vm', 'export', 'golden', join(out, 'golden.raw'), '--json'], { url: server.url })
    ).json()['root'];
    for (const [where, flags, status] of [
      ['bases', [], 0],
      ['tops', [], 1],
      ['tops', ['--backing-dir', out], 0],
    ] as const) {
      const args = ['vm', 'import', join(out, where, 'top.qcow2'), '--name', 'chained', '--json', ...flags];
      const ran = await pando(args, { url: server.url });
      expect(ran, ran.stderr).toMatchObject({ status });
      if (status === 1) expect(ran.stderr).toContain('image-refused');
      else {
        expect(ran.json()['root']).toBe(root);
        await pando(['vm', 'rm', 'chained'], { url: server.url });
      }
    }
  },
);

interface Between {
  readonly url: string;
  close(): Promise<void>;
}

/** A server in between that changes one byte of a download, and speaks HTTP only: what is between two hops it does not hand on. */
async function liar(position: number): Promise<Between> {
  const proxy = http.createServer((request, response) => {
    const target = new URL(request.url!, server.url);
    const { connection: _connection, upgrade: _upgrade, ...headers } = request.headers;
    const onward = http.request(target, { method: request.method!, headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers);
      let seen = 0;
      answer.on('data', (piece: Buffer) => {
        const at = position - seen;
        seen += piece.length;
        if (request.url!.endsWith('/content') && at >= 0 && at < piece.length) piece[at]! ^= 1;
        response.write(piece);
      });
      answer.on('end', () => response.end());
    });
    request.pipe(onward);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    close: () => new Promise((resolve) => proxy.close(() => resolve())),
  };
}

/** A line in between that changes or cuts a download which is past HTTP, at a byte of its connection. */
async function line(position: number, what: 'changes' | 'cuts'): Promise<Between> {
  const proxy = net.createServer((client) => {
    const onward = net.connect(new URL(server.url).port as unknown as number, '127.0.0.1');
    let seen = 0;
    let isTunnel: boolean | undefined;
    onward.on('data', (piece: Buffer) => {
      isTunnel ??= piece.toString('latin1').startsWith('HTTP/1.1 101 ');
      const at = position - seen;
      seen += piece.length;
      const isHere = isTunnel && at >= 0 && at < piece.length;
      if (isHere && what === 'changes') piece[at]! ^= 1;
      client.write(isHere && what === 'cuts' ? piece.subarray(0, at) : piece);
      if (isHere && what === 'cuts') client.end();
    });
    client.pipe(onward);
    onward.on('end', () => client.end());
    client.on('error', () => onward.destroy());
    onward.on('error', () => client.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    close: () => new Promise((resolve) => proxy.close(() => resolve())),
  };
}

for (const [what, code, position] of [
  ['changes', 'verify-failed', 3 * MiB],
  ['cuts', 'export-interrupted', 3 * MiB],
  ['cuts', 'export-interrupted', 400],
] as const) {
  test(`a line that ${what} a download at byte ${position} leaves no file`, async () => {
    const proxy = await line(position, what);
    const ran = await pando(['vm', 'export', 'golden', join(out, 'disk.raw'), '--json'], {
      url: proxy.url,
      token: server.token,
    });
    await proxy.close();
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect((JSON.parse(ran.stderr) as { error: { code: string } }).error.code).toBe(code);
    await nothingLeft();
  });
}

for (const name of ['disk.raw', 'disk.qcow2']) {
  itWithTools(TOOLS, `bytes that are not the disk's leave no ${name}`, async () => {
    const proxy = await liar(3000);
    const ran = await pando(['vm', 'export', 'golden', join(out, name), '--json'], {
      url: proxy.url,
      token: server.token,
    });
    await proxy.close();
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect((JSON.parse(ran.stderr) as { error: { code: string } }).error.code).toBe('verify-failed');
    await nothingLeft();
  });

  itWithTools(TOOLS, `Ctrl-C leaves no ${name}`, async () => {
    for (const delay of [150, 200, 250, 300, 350, 400, 550, 700]) {
      const ran = await pando(['vm', 'export', 'golden', join(out, name)], {
        url: server.url,
        onStart: (child) => setTimeout(() => child.kill('SIGINT'), delay),
      });
      // Interrupted in time, or when the file was there already: then it is whole. Never something in between.
      const made = (await readdir(out)).includes(name);
      if (ran.status === 0) expect(made).toBe(true);
      if (made) {
        const format = name.endsWith('.raw') ? 'raw' : 'qcow2';
        await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', format, golden, join(out, name)]);
        await rm(join(out, name));
      }
      await nothingLeft();
    }
  });
}

test('wrong wishes are refused before anything is done', async () => {
  const file = join(out, 'disk.vmdk');
  for (const [flags, status] of [
    [['--compress'], 1],
    [['--format', 'qcow'], 2],
  ] as const) {
    const ran = await pando(['vm', 'export', 'golden', file, ...flags], { url: server.url });
    expect(ran).toMatchObject({ status, stdout: '' });
    expect(ran.stderr).not.toBe('');
    await nothingLeft();
  }
});

test('without QEMU a raw export works, and another says which package is missing', async () => {
  const path = process.env['PATH'];
  process.env['PATH'] = out;
  try {
    const raw = await pando(['vm', 'export', 'golden', join(out, 'disk.raw'), '--verify'], {
      url: server.url,
    });
    expect(raw, raw.stderr).toMatchObject({ status: 0 });
    expect((await stat(join(out, 'disk.raw'))).size).toBe(SIZE);
    const ran = await pando(['vm', 'export', 'golden', join(out, 'disk.vdi')], { url: server.url });
    expect(ran.status).toBe(1);
    expect(ran.stderr).toContain('apt install qemu-utils');
    await nothingLeft('disk.raw');
  } finally {
    process.env['PATH'] = path;
  }
});
