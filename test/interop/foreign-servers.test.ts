/** The NBD client, and the source that reads through it, on the servers that people have. */
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { openNbdSource } from '@pando/images';
import { NbdClient, type NbdClientOptions } from '@pando/nbd/client';
import {
  AUTHORITY,
  CLIENT_CERTIFICATE,
  CLIENT_KEY,
  SERVER_CERTIFICATE,
  SERVER_KEY,
} from '@pando/nbd/testing';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect } from 'vitest';
import { EXTENDED_QEMU, itWithTools, mustRun } from '../support/tools.ts';

const MiB = 2 ** 20;
const SIZE = 24 * MiB;
const START_MS_MAX = 20_000;

const random = seededRandom(runSeed());
let folder: string;
let socket: string;
let image: string;
let content: Buffer;
let child: ChildProcess | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-foreign-'));
  socket = join(folder, 'nbd.sock');
  image = join(folder, 'disk.raw');
  content = Buffer.alloc(SIZE);
  fillRandom(random, content.subarray(MiB + 512, 9 * MiB));
  fillRandom(random, content.subarray(SIZE - 512));
  const file = await open(image, 'w');
  await file.truncate(SIZE);
  await file.write(content.subarray(MiB, 9 * MiB), 0, undefined, MiB);
  await file.write(content.subarray(SIZE - 4096), 0, undefined, SIZE - 4096);
  await file.close();
});
afterEach(async () => {
  await stop();
  await rm(folder, { recursive: true, force: true });
});

async function stop(): Promise<void> {
  if (child !== undefined && child.exitCode === null && child.signalCode === null) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  child = undefined;
  await rm(socket, { force: true });
}

/** Starts a server that listens on the socket; one that was there is stopped. */
async function serve(program: string, ...args: readonly string[]): Promise<void> {
  await stop();
  const started = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  child = started;
  let said = '';
  started.stderr.on('data', (bytes: Buffer) => (said += bytes.toString()));
  for (const end = Date.now() + START_MS_MAX; ;) {
    if (await isListening(socket)) return;
    if (started.exitCode !== null || Date.now() > end) throw new Error(`${program} does not serve: ${said}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Not by connecting: nbd-server -d serves one client. The file alone is there before anybody listens. */
async function isListening(path: string): Promise<boolean> {
  const ACCEPTS = '00010000';
  const sockets = await readFile('/proc/net/unix', 'utf8');
  return sockets.split('\n').some((line) => line.endsWith(` ${path}`) && line.split(' ')[3] === ACCEPTS);
}

const nbdkit = (...args: readonly string[]): Promise<void> => serve('nbdkit', '-f', '-U', socket, ...args);

const connect = (options: Partial<NbdClientOptions> = {}): Promise<NbdClient> =>
  NbdClient.connect({ path: socket }, { exportName: '', ...options });

const uri = (scheme: string, query = '', user = ''): string =>
  `${scheme}://${user}/?socket=${socket}${query}`;

/** What the source gives, and how much of it came as holes. */
async function readAll(text: string): Promise<{ bytes: Buffer; holeBytes: number }> {
  const source = await openNbdSource(text);
  try {
    const pieces: Buffer[] = [];
    let holeBytes = 0;
    for await (const part of source.parts(new AbortController().signal)) {
      if (!(part instanceof Uint8Array)) holeBytes += part.holeBytes;
      pieces.push(part instanceof Uint8Array ? Buffer.from(part) : Buffer.alloc(part.holeBytes));
    }
    return { bytes: Buffer.concat(pieces), holeBytes };
  } finally {
    await source.close();
  }
}

async function expectContent(text: string): Promise<void> {
  const { bytes, holeBytes } = await readAll(text);
  expect(bytes.equals(content)).toBe(true);
  expect(holeBytes).toBeGreaterThan(10 * MiB);
}

describe('nbdkit', () => {
  itWithTools(['nbdkit'], 'is read with structured replies, simple ones, and without extents', async () => {
    for (const more of [[], ['--no-sr'], ['--filter=noextents']]) {
      await nbdkit('-r', ...more, 'file', image);
      await expectContent(uri('nbd+unix'));
    }
  });

  itWithTools(['nbdkit'], 'is written to, zeroed, flushed and asked', async () => {
    await nbdkit('memory', String(SIZE));
    const client = await connect();
    expect(client).toMatchObject({ size: SIZE, readOnly: false, contexts: ['base:allocation'] });
    await client.write(3, content.subarray(0, SIZE - 3));
    await client.zero(2 * MiB, MiB);
    await client.flush();
    await client.prefetch(0, MiB);
    const found = Buffer.alloc(SIZE);
    await client.read(0, SIZE, found, 0);
    const wanted = Buffer.concat([Buffer.alloc(3), content]).subarray(0, SIZE);
    wanted.fill(0, 2 * MiB, 3 * MiB);
    expect(found.equals(wanted)).toBe(true);
    expect((await client.allocation(2 * MiB, MiB, 10)).holes).toEqual([true]);
    await client.close();
  });

  itWithTools(['nbdkit'], 'that takes whole blocks only is read at any byte', async () => {
    const policy = ['--filter=blocksize-policy', 'blocksize-minimum=4096', 'blocksize-error-policy=error'];
    await nbdkit('-r', 'file', image, ...policy);
    const client = await connect();
    expect(client.session.minimumBytes).toBe(4096);
    for (const [at, length] of [
      [MiB + 510, 5],
      [5 * MiB - 1, 4 * MiB + 2],
      [SIZE - 3, 3],
    ] as const) {
      const found = Buffer.alloc(length);
      await client.read(at, length, found, 0);
      expect(found.equals(content.subarray(at, at + length))).toBe(true);
    }
    await client.close();
    await expectContent(uri('nbd+unix'));
  });

  itWithTools(
    ['nbdkit'],
    'that fails a read, or falls silent, ends the reading with the reason',
    async () => {
      await nbdkit('-r', 'file', image, '--filter=error', 'error-pread=EIO', 'error-pread-rate=100%');
      await expect(readAll(uri('nbd+unix'))).rejects.toMatchObject({
        code: 'source-failed',
        message: expect.stringContaining('EIO') as string,
      });
      await nbdkit('-r', 'file', image, '--filter=delay', 'rdelay=30');
      const client = await connect({ silenceMsMax: 200 });
      await expect(client.read(0, 512, Buffer.alloc(512), 0)).rejects.toMatchObject({
        code: 'connection-lost',
      });
      await nbdkit('-r', 'file', image, '--filter=delay', 'rdelay=50ms');
      await expectContent(uri('nbd+unix'));
    },
  );

  itWithTools(['nbdkit'], 'with a shared key is read by who has it, and by nobody else', async () => {
    const keys = join(folder, 'keys.psk');
    await writeFile(keys, 'alice:0123456789abcdef0123456789abcdef\nbob:ffff456789abcdef0123456789abcdef\n', {
      mode: 0o600,
    });
    const wrong = join(folder, 'wrong.psk');
    await writeFile(wrong, 'alice:00000000000000000000000000000000\n', { mode: 0o600 });
    await nbdkit('-r', '--tls=require', `--tls-psk=${keys}`, 'file', image);
    for (const user of ['alice@', 'bob@'])
      await expectContent(uri('nbds+unix', `&tls-psk-file=${keys}`, user));
    const refused = { code: 'tls-failed' };
    await expect(readAll(uri('nbds+unix', `&tls-psk-file=${wrong}`, 'alice@'))).rejects.toMatchObject(
      refused,
    );
    await expect(readAll(uri('nbds+unix', `&tls-psk-file=${keys}`, 'eve@'))).rejects.toMatchObject(refused);
    await expect(readAll(uri('nbd+unix'))).rejects.toMatchObject(refused);
    // And never in clear text where TLS was asked for.
    await nbdkit('-r', '--tls=off', 'file', image);
    await expect(readAll(uri('nbds+unix', `&tls-psk-file=${keys}`, 'alice@'))).rejects.toMatchObject(refused);
  });

  itWithTools(['nbdkit'], 'with certificates is read when both sides can show theirs', async () => {
    const server = join(folder, 'server');
    const client = join(folder, 'client');
    const anonymous = join(folder, 'anonymous');
    for (const [directory, files] of [
      [
        server,
        { 'ca-cert.pem': AUTHORITY, 'server-cert.pem': SERVER_CERTIFICATE, 'server-key.pem': SERVER_KEY },
      ],
      [
        client,
        { 'ca-cert.pem': AUTHORITY, 'client-cert.pem': CLIENT_CERTIFICATE, 'client-key.pem': CLIENT_KEY },
      ],
      [anonymous, { 'ca-cert.pem': AUTHORITY }],
    ] as const) {
      await mkdir(directory);
      for (const [name, text] of Object.entries(files))
        await writeFile(join(directory, name), text, { mode: 0o600 });
    }
    await nbdkit('-r', '--tls=require', `--tls-certificates=${server}`, '--tls-verify-peer', 'file', image);
    await expectContent(uri('nbds+unix', `&tls-certificates=${client}`));
    const of = (query: string): Promise<unknown> => readAll(uri('nbds+unix', query));
    const refused = { code: 'tls-failed' };
    await expect(of(`&tls-certificates=${client}&tls-hostname=other.example`)).rejects.toMatchObject(refused);
    await expect(of(`&tls-certificates=${anonymous}`)).rejects.toMatchObject(refused);
    // Nobody in the system's list of authorities stands for this server.
    await expect(of('')).rejects.toMatchObject(refused);
    await expect(of(`&tls-certificates=${folder}`)).rejects.toMatchObject(refused);
  });
});

describe('qemu-nbd', () => {
  itWithTools(
    [`qemu-nbd${EXTENDED_QEMU}`, 'qemu-img', 'qemu-io'],
    'is read with extended headers; its bitmap and depth are contexts',
    async () => {
      const base = join(folder, 'base.qcow2');
      const top = join(folder, 'top.qcow2');
      await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', image, base]);
      await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top]);
      await mustRun('qemu-img', ['bitmap', '--add', top, 'changes']);
      await mustRun('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x77 12M 64k', top]);
      content.fill(0x77, 12 * MiB, 12 * MiB + 65_536);
      await serve('qemu-nbd', '-r', '-t', '-A', '-B', 'changes', '-k', socket, '-f', 'qcow2', top);
      const contexts = [
        'base:allocation',
        'qemu:allocation-depth',
        'qemu:dirty-bitmap:changes',
        'qemu:dirty-bitmap:none',
      ];
      const client = await connect({ contexts });
      expect(client.session.extendedHeaders).toBe(true);
      expect(client.contexts).toEqual(contexts.slice(0, 3));
      expect(await client.status('qemu:dirty-bitmap:changes', 0, SIZE)).toEqual({
        lengths: [12 * MiB, 65_536, 12 * MiB - 65_536],
        flags: [0, 1, 0],
      });
      const depth = await client.status('qemu:allocation-depth', 9 * MiB, 4 * MiB);
      expect(depth.flags).toContain(1);
      expect((await client.status('qemu:allocation-depth', 2 * MiB, MiB)).flags).toEqual([2]);
      await expect(client.status('qemu:dirty-bitmap:none', 0, 1)).rejects.toMatchObject({
        code: 'request-invalid',
      });
      await client.close();
      await stop();
      await serve('qemu-nbd', '-r', '-t', '-k', socket, '-f', 'qcow2', top);
      await expectContent(uri('nbd+unix'));
    },
  );
});

describe('nbd-server', () => {
  itWithTools(['nbd-server'], 'is read by export name, without block status', async () => {
    const config = join(folder, 'config');
    await writeFile(
      config,
      `[generic]\nunixsock = ${socket}\nallowlist = true\n[a disk]\nexportname = ${image}\nreadonly = true\n`,
    );
    // In the foreground it serves one client and ends.
    await serve('nbd-server', '-d', '-C', config);
    await expectContent(`nbd+unix:///a%20disk?socket=${socket}`);
    await serve('nbd-server', '-d', '-C', config);
    await expect(readAll(`nbd+unix:///none?socket=${socket}`)).rejects.toMatchObject({
      code: 'export-missing',
    });
  });
});
