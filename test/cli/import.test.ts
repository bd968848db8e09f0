/** `pando vm import` from files, NBD exports and pipes; as backups since another; verified. Against a real server. */
import { MemoryBlockDevice } from '@pando/block-device';
import { createNbdServer, type NbdServer } from '@pando/nbd';
import { NbdClient } from '@pando/nbd/client';
import { DeviceExports } from '@pando/nbd/testing';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { pando, type Ran } from './pando.ts';

const MiB = 1024 * 1024;
const SIZE = 32 * MiB;
const CHUNK = 4096;

const random = seededRandom(runSeed());
let server: TestServer;
let folder: string;
let image: string;
let content: Buffer;
let foreign: NbdServer | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-import-'));
  image = join(folder, 'golden.raw');
  content = Buffer.alloc(SIZE);
  fillRandom(random, content.subarray(4 * MiB, 20 * MiB));
  await writeFile(image, content);
  server = await TestServer.start({ args: ['--import-dir', folder] });
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});
afterEach(async () => {
  await foreign?.close({ drainMsMax: 1_000 });
  foreign = undefined;
});

const run = (...args: string[]): Promise<Ran> => pando(args, { url: server.url });

async function done(...args: string[]): Promise<Ran> {
  const ran = await run(...args);
  expect(ran, `pando ${args.join(' ')}\n${ran.stderr}`).toMatchObject({ status: 0, stderr: '' });
  return ran;
}

async function refused(code: string, ...args: string[]): Promise<Ran> {
  const ran = await run(...args);
  expect(ran, `pando ${args.join(' ')}\n${ran.stdout}`).toMatchObject({ status: 1 });
  expect(ran.stderr).toContain(`(${code})`);
  return ran;
}

async function vmNames(): Promise<string[]> {
  return (await done('vm', 'ls', '--json'))
    .json<{ items: { name: string }[] }>()
    .items.map(({ name }) => name);
}

async function contentOf(exportName: string): Promise<Buffer> {
  const disk = await NbdClient.connect({ host: '127.0.0.1', port: server.nbdPort }, { exportName });
  const bytes = Buffer.alloc(disk.size);
  await disk.read(0, disk.size, bytes, 0);
  await disk.close();
  return bytes;
}

interface Imported {
  root: string;
  sizeBytes: number;
  newBytes: number;
  storedBytes: number;
  changedBytes: number;
  vm: { lineage: string; id: string };
  backup: { id: string; name: string; vmId: string; vmName: string; lineage: string };
}

/** Serves a device as `disk` from this process. */
async function serve(device: MemoryBlockDevice): Promise<string> {
  const exports = new DeviceExports();
  exports.set('disk', device);
  foreign = createNbdServer({ exports });
  const address = await foreign.listen({ host: '127.0.0.1', port: 0 });
  return `nbd://127.0.0.1:${(address as { port: number }).port}/disk`;
}

test('a file is imported and read again', async () => {
  const result = (
    await done('vm', 'import', image, '--name', 'golden', '--verify', '--json')
  ).json<Imported>();
  expect(result).toMatchObject({ sizeBytes: SIZE, chunkBytes: CHUNK });
  expect((await contentOf('golden')).equals(content)).toBe(true);
});

test('again, it comes by the ids of its chunks: the same root, and nothing is stored', async () => {
  const [first, again] = [
    (await done('vm', 'import', image, '--name', 'once', '--json')).json<Imported>(),
    (await done('vm', 'import', image, '--name', 'twice', '--verify', '--json')).json<Imported>(),
  ];
  expect(again).toMatchObject({ root: first.root, sizeBytes: SIZE, newBytes: 0, storedBytes: 0 });
  expect((await contentOf('twice')).equals(content)).toBe(true);
});

test('chunks that the server does not have any more are sent after all', async () => {
  // A server that says it has everything: as if a collection came between its answer and the import.
  let refusals = 0;
  const liar = http.createServer((request, response) => {
    const on = http.request(
      `${server.url}${request.url!}`,
      // No connection that the server may just be closing, after it has refused something on it.
      { method: request.method!, headers: request.headers, agent: false },
      (answer) => {
        if (answer.statusCode === 409) refusals++;
        const isLookUp = request.url!.endsWith('/chunks/lookup');
        response.writeHead(answer.statusCode!, answer.headers);
        answer.on('data', (bytes: Buffer) =>
          response.write(isLookUp ? Buffer.alloc(bytes.length, 1) : bytes),
        );
        answer.on('end', () => response.end());
      },
    );
    on.on('continue', () => response.writeContinue());
    on.on('error', () => response.destroy());
    request.pipe(on);
  });
  liar.on('checkContinue', (request, response) => liar.emit('request', request, response));
  await new Promise<void>((resolve) => liar.listen(0, '127.0.0.1', resolve));
  const fresh = join(folder, 'fresh.raw');
  const bytes = fillRandom(random, Buffer.alloc(9 * MiB));
  await writeFile(fresh, bytes);
  try {
    const url = `http://127.0.0.1:${(liar.address() as AddressInfo).port}`;
    const ran = await pando(['vm', 'import', fresh, '--name', 'fresh', '--json'], {
      url,
      token: server.token,
    });
    expect(ran, ran.stderr).toMatchObject({ status: 0 });
    expect(refusals).toBe(1);
    expect((await contentOf('fresh')).equals(bytes)).toBe(true);
  } finally {
    liar.closeAllConnections();
    liar.close();
  }
});

test('a disk elsewhere is imported over NBD, byte for byte', async () => {
  const uri = `nbd://127.0.0.1:${server.nbdPort}/golden/disk0`;
  const result = (
    await done('vm', 'import', uri, '--name', 'from-nbd', '--verify', '--json')
  ).json<Imported>();
  expect(result).toMatchObject({ sizeBytes: SIZE, newBytes: 0 });
  expect((await contentOf('from-nbd')).equals(content)).toBe(true);
});

test('since a backup only what changed is stored, and the result is the next backup', async () => {
  const { vm } = (await done('vm', 'import', image, '--name', 'web', '--json')).json<Imported>();
  await done('backup', 'create', 'web', '--name', 'monday');
  const next = join(folder, 'tuesday.raw');
  const changed = Buffer.from(content);
  let chunks = 0;
  for (let at = 3 * CHUNK; at < SIZE; at += 100 * CHUNK) {
    fillRandom(random, changed.subarray(at, at + CHUNK));
    chunks++;
  }
  await writeFile(next, changed);
  const ran = await done(
    'vm',
    'import',
    next,
    '--since',
    'web@monday',
    '--name',
    'tuesday',
    '--verify',
    '--json',
  );
  const result = ran.json<Imported>();
  expect(result).toMatchObject({
    changedBytes: chunks * CHUNK,
    backup: { name: 'tuesday', vmId: vm.id, vmName: 'web', lineage: vm.lineage },
  });
  // The chunks that changed, one leaf for every 128 chunks, and the top.
  expect(result.newBytes).toBeLessThanOrEqual(chunks * CHUNK + (SIZE / CHUNK / 128 + 1) * 4096);
  expect(result.storedBytes).toBeLessThan(1.1 * result.newBytes);
  const listed = (await done('backup', 'ls', 'web', '--json')).json<{ items: { name: string }[] }>();
  expect(listed.items.map(({ name }) => name)).toEqual(['tuesday', 'monday']);

  await done('backup', 'restore', 'web@tuesday', '--as', 'web-new', '--verify');
  expect((await contentOf('web-new')).equals(changed)).toBe(true);
  const out = join(folder, 'out.raw');
  await done('vm', 'export', 'web@monday', out);
  expect((await readFile(out)).equals(content)).toBe(true);

  const byPath = await done(
    'vm',
    'import',
    'tuesday.raw',
    '--path',
    '--since',
    'web@tuesday',
    '--verify',
    '--json',
  );
  expect(byPath.json()).toMatchObject({ changedBytes: 0, storedBytes: 0, root: result.root });
  const { stdout } = await done('vm', 'import', image, '--since', 'web@tuesday', '--name', 'back');
  expect(stdout).toMatch(
    /^web@back: 32 MiB disk, .+ changed, stored nothing that was not there \(in .+ s\)\n$/,
  );
});

test('since a backup of a VM that is gone, and with another size', async () => {
  await done('vm', 'import', image, '--name', 'gone');
  await done('backup', 'create', 'gone', '--name', 'a');
  await done('vm', 'rm', 'gone');
  const longer = join(folder, 'longer.raw');
  await writeFile(longer, content);
  await truncate(longer, SIZE + 512);
  await done('vm', 'import', longer, '--since', 'gone@a', '--name', 'b');
  await done('backup', 'restore', 'gone@b', '--as', 'returned');
  expect((await contentOf('returned')).equals(Buffer.concat([content, Buffer.alloc(512)]))).toBe(true);
});

test('what reads differently the second time does not stay', async () => {
  let reads = 0;
  /** Its last chunk changes after it was read once. */
  class Moving extends MemoryBlockDevice {
    override async read(offset: number, length: number, target: Uint8Array, at: number): Promise<void> {
      await super.read(offset, length, target, at);
      if (offset + length === this.size) target[at + length - 1] = ++reads;
    }
  }
  const device = new Moving({ size: 4 * MiB });
  await device.write(0, Buffer.alloc(4 * MiB, 7));
  const uri = await serve(device);
  const before = await vmNames();
  await refused('verify-failed', 'vm', 'import', uri, '--name', 'moving', '--verify');
  expect(await vmNames()).toEqual(before);
  await refused(
    'verify-failed',
    'vm',
    'import',
    uri,
    '--since',
    'web@monday',
    '--name',
    'moving',
    '--verify',
  );
  await refused('backup-missing', 'backup', 'show', 'web@moving');
  await done('vm', 'import', uri, '--name', 'moving');
});

test('what was interrupted while it was read again does not stay', async () => {
  let child: { kill(signal: NodeJS.Signals): boolean } | undefined;
  let zeros = 0;
  /** The second reading comes to an interrupt at once. */
  class Watched extends MemoryBlockDevice {
    override async read(offset: number, length: number, target: Uint8Array, at: number): Promise<void> {
      if (offset === 0 && ++zeros === 2) child?.kill('SIGINT');
      if (zeros === 2) await new Promise((resolve) => setTimeout(resolve, 100));
      await super.read(offset, length, target, at);
    }
  }
  const device = new Watched({ size: 4 * MiB });
  await device.write(0, Buffer.alloc(4 * MiB, 7));
  const before = await vmNames();
  const ran = await pando(['vm', 'import', await serve(device), '--name', 'interrupted', '--verify'], {
    url: server.url,
    onStart: (started) => (child = started),
  });
  expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining('(cancelled)') as string });
  expect(zeros).toBe(2);
  expect(await vmNames()).toEqual(before);
});

test('a server that dies in the middle of an import since a backup has no half of it', async () => {
  const labels = async (): Promise<string[]> => {
    const { items } = (await done('backup', 'ls', '--json')).json<{
      items: { vmName: string; name: string }[];
    }>();
    return items.map(({ vmName, name }) => `${vmName}@${name}`);
  };
  const before = await labels();
  let killed: Promise<void> | undefined;
  class Deadly extends MemoryBlockDevice {
    override async read(offset: number, length: number, target: Uint8Array, at: number): Promise<void> {
      if (offset >= 24 * MiB) await (killed ??= server.kill());
      await super.read(offset, length, target, at);
    }
  }
  const device = new Deadly({ size: SIZE });
  await device.write(0, fillRandom(random, Buffer.alloc(SIZE)));
  const ran = await run('vm', 'import', await serve(device), '--since', 'web@monday', '--name', 'half');
  expect(ran.status).toBe(1);
  await killed;
  await server.restart();
  expect(await labels()).toEqual(before);
  await done('vm', 'import', image, '--since', 'web@monday', '--name', 'half');
  await done('backup', 'restore', 'web@half', '--as', 'web-half', '--verify');
  expect((await contentOf('web-half')).equals(content)).toBe(true);
});

test('a connection that breaks leaves nothing', async () => {
  class Breaking extends MemoryBlockDevice {
    override async read(offset: number, length: number, target: Uint8Array, at: number): Promise<void> {
      if (offset >= 16 * MiB) void foreign!.close({ drainMsMax: 0 });
      if (offset >= 16 * MiB) await new Promise(() => undefined);
      await super.read(offset, length, target, at);
    }
  }
  const device = new Breaking({ size: SIZE });
  await device.write(0, content);
  await device.write(0, Buffer.alloc(4 * MiB, 5));
  await device.write(20 * MiB, Buffer.alloc(12 * MiB, 5));
  const before = await vmNames();
  await refused('connection-lost', 'vm', 'import', await serve(device), '--name', 'broken');
  expect(await vmNames()).toEqual(before);
});

test.each<[string, string, string[]]>([
  ['a second reading of standard input', 'request-invalid', ['-', '--name', 'x', '--verify']],
  ['a format for standard input', 'request-invalid', ['-', '--name', 'x', '--format', 'qcow2']],
  ['a format for an export', 'request-invalid', ['nbd://127.0.0.1:1/', '--name', 'x', '--format', 'qcow2']],
  [
    'a folder of this machine for a file of the server',
    'request-invalid',
    ['golden.raw', '--path', '--name', 'x', '--backing-dir', '/srv'],
  ],
  ['a URI that is none', 'uri-invalid', ['nbd:localhost:10809', '--name', 'x']],
  ['a server that is not there', 'connection-lost', ['nbd+unix:///?socket=/nowhere', '--name', 'x']],
  ['a backup that is not there', 'backup-missing', ['golden.raw', '--path', '--since', 'web@never']],
])('%s is refused', async (_what, code, args) => {
  await refused(code, 'vm', 'import', ...args);
});

test('an export that is not there, and TLS where there is none, are refused', async () => {
  const at = `127.0.0.1:${server.nbdPort}`;
  await refused('export-missing', 'vm', 'import', `nbd://${at}/nothing`, '--name', 'x');
  await refused('tls-failed', 'vm', 'import', `nbds://${at}/golden`, '--name', 'x');
});

test('a VM without a name is wrong usage', async () => {
  const ran = await run('vm', 'import', image);
  expect(ran.status).toBe(2);
  expect(ran.stderr).toContain('--name');
});
