/** What is left to a program that reads images, when all the rest has gone wrong: others in its place try. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createImage, openImage } from '@pando/images';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { MEMORY_BYTES_MAX, sandboxed, sandboxFailure } from '../../packages/images/src/sandbox.ts';
import { itWithTools, mustRun } from '../support/tools.ts';
import { MiB, readImage } from './support.ts';

const TOOLS = ['bwrap', 'prlimit', 'bash', 'cat'];
const SECRET = 'the secret';
const PATH = process.env['PATH']!;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-confine-'));
  await writeFile(join(folder, 'image'), 'the image');
  await writeFile(join(folder, 'secret'), SECRET);
  await mkdir(join(folder, 'tools'));
});
afterEach(() => {
  process.env['PATH'] = PATH;
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

interface Answer {
  readonly code: number | null;
  readonly output: string;
}

/** Runs a program as qemu-nbd is run, with the image handed to it. */
async function confined(mode: 'r' | 'w', program: string, ...args: string[]): Promise<Answer> {
  const path = join(folder, 'image');
  const file = await open(path, 'r+');
  const images = [{ fd: file.fd, path }];
  const command = await sandboxed(program, { images, writable: mode === 'w' });
  const child = spawn(command.program, [...command.args, ...args], {
    env: command.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const [code] = (await once(child, 'close')) as [number | null];
  await command.release();
  await file.close();
  return { code, output };
}

const shell = (mode: 'r' | 'w', script: string): Promise<Answer> =>
  confined(mode, '/usr/bin/bash', '-c', script);

describe('a program in the place of qemu-nbd', () => {
  itWithTools(TOOLS, 'can read the image that it was handed', async () => {
    expect(await confined('r', '/usr/bin/cat', '/dev/fd/4')).toEqual({ code: 0, output: 'the image' });
  });

  itWithTools(TOOLS, 'finds no other file and no other directory', async () => {
    for (const path of [join(folder, 'secret'), '/etc/passwd', '/etc/hostname', '/proc/1/environ']) {
      const { code, output } = await shell('r', `cat "${path}"`);
      expect(code, path).not.toBe(0);
      expect(output, path).toMatch(/No such file or directory/);
    }
    for (const path of [folder, '/home', '/root', '/tmp', '/var', '/proc', '/run', '/sys', '/dev/shm']) {
      expect((await shell('r', `ls "${path}"`)).output, path).toMatch(/No such file or directory/);
    }
    const { output } = await shell('r', 'ls /; ls /dev; ls /dev/fd; ls /etc');
    const known = /^(usr|bin|sbin|lib|lib64|lib32|nix|gnu|dev|etc|null|urandom|fd|4|ld\.so\.cache)$/;
    expect(
      output
        .trim()
        .split('\n')
        .filter((name) => !known.test(name)),
    ).toEqual([]);
  });

  itWithTools(TOOLS, 'can write nowhere: neither to the image nor to a new file', async () => {
    const image = join(folder, 'image');
    for (const path of ['/dev/fd/4', '/dev/fd/5', '/new', '/tmp/new', '/usr/pando-new', '/dev/new', image]) {
      // Opening it for writing would cut it already.
      expect((await shell('r', `printf overwritten > "${path}"`)).code, path).not.toBe(0);
    }
    for (const change of ['chmod 777', 'chown 1', 'touch', 'rm', 'truncate -s 0']) {
      expect((await shell('r', `${change} /dev/fd/4`)).code, change).not.toBe(0);
    }
    expect((await shell('r', 'mount -o remount,rw /dev/fd/4')).code).not.toBe(0);
    expect(await readFile(image, 'utf8')).toBe('the image');
    // One that writes an image can write that, and nothing else.
    expect(await shell('w', 'printf overwritten > /dev/fd/4')).toEqual({ code: 0, output: '' });
    expect(await readFile(image, 'utf8')).toBe('overwritten');
    for (const path of [join(folder, 'secret'), '/new', '/usr/pando-new'])
      expect((await shell('w', `printf x > "${path}"`)).code, path).not.toBe(0);
    expect(await readFile(join(folder, 'secret'), 'utf8')).toBe(SECRET);
    await writeFile(image, 'the image');
  });

  itWithTools(
    [...TOOLS, 'python3'],
    'has no network, sees no other process, and has no privileges',
    async () => {
      const { output } = await confined(
        'r',
        '/usr/bin/python3',
        '-I',
        '-S',
        '-c',
        `
import ctypes, os, socket
print('interfaces', *(name for _, name in socket.if_nameindex()))
try:
    socket.create_connection(('192.0.2.1', 80), 5)
except OSError as error:
    print('connect', error.errno)
print('processes', os.getpid() < 10)
def attempt(name, action):
    try:
        action()
        print(name, 'done')
    except OSError:
        print(name, 'refused')
attempt('kill', lambda: os.kill(${process.pid}, 0))
attempt('setuid', lambda: os.setuid(1234))
attempt('mknod', lambda: os.mknod('/dev/x', 0o60600, os.makedev(8, 0)))
libc = ctypes.CDLL(None)
print('no_new_privs', libc.prctl(39, 0, 0, 0, 0))
`,
      );
      expect(Object.keys(networkInterfaces()).length).toBeGreaterThan(0);
      const ENETUNREACH = 101;
      expect(output.trim().split('\n')).toEqual([
        'interfaces lo',
        `connect ${ENETUNREACH}`,
        'processes True',
        'kill refused',
        'setuid refused',
        'mknod refused',
        'no_new_privs 1',
      ]);
    },
  );

  itWithTools(TOOLS, 'has bounds on memory, descriptors, core and other files', async () => {
    const { output } = await shell('r', 'ulimit -v; ulimit -n; ulimit -c; ulimit -f');
    expect(output.trim().split('\n')).toEqual([String(MEMORY_BYTES_MAX / 1024), '257', '0', '0']);
  });

  itWithTools(TOOLS, 'inherits nothing of the environment', async () => {
    process.env['PANDO_TEST_SECRET'] = SECRET;
    const { output } = await shell('r', 'export -p; env');
    delete process.env['PANDO_TEST_SECRET'];
    expect(output).not.toContain(SECRET);
    expect(output).toContain('LC_ALL');
  });
});

itWithTools(TOOLS, 'a file that took the place of an image is not read', async () => {
  const path = join(folder, 'swapped');
  await writeFile(path, 'looked at');
  const file = await open(path);
  await rename(join(folder, 'secret'), path);
  const images = [{ fd: file.fd, path }];
  const command = await sandboxed('/usr/bin/cat', { images, writable: false });
  const child = spawn(command.program, [...command.args, '/dev/fd/4'], { env: command.env });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  await once(child, 'close');
  await file.close();
  await rename(path, join(folder, 'secret'));
  expect(output).not.toContain(SECRET);
  expect(sandboxFailure(output)).toMatchObject({ code: 'image-refused' });
});

test('what bubblewrap complains of has a code', () => {
  expect(sandboxFailure("bwrap: Can't find source path /x: No such file or directory\n")).toMatchObject({
    code: 'import-not-a-file',
  });
  expect(sandboxFailure('qemu-nbd: Failed to open\n')).toBeUndefined();
});

/** A program of that name comes first from now on, for this test. */
async function replaceTool(name: string, script: string): Promise<void> {
  const path = join(folder, 'tools', name);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  process.env['PATH'] = `${join(folder, 'tools')}:${PATH}`;
}

describe('where there is no sandbox', () => {
  const QEMU = ['qemu-img', 'qemu-nbd', 'bwrap', 'prlimit', 'setpriv'];
  const image = (): string => join(folder, 'image.qcow2');

  afterEach(async () => {
    for (const name of await readdir(join(folder, 'tools'))) await rm(join(folder, 'tools', name));
    await rm(image(), { force: true });
  });

  for (const [what, prepare, code, message] of [
    [
      'bubblewrap is missing',
      async () => {
        const only = join(folder, 'tools');
        for (const name of ['qemu-nbd', 'qemu-img', 'prlimit', 'setpriv'])
          await replaceTool(name, `PATH='${PATH}' exec ${name} "$@"`);
        process.env['PATH'] = only;
      },
      'tool-missing',
      /apt install bubblewrap.*dnf install bubblewrap/,
    ],
    [
      'the kernel refuses namespaces',
      () => replaceTool('bwrap', 'echo "bwrap: No permissions to create new namespace" >&2; exit 1'),
      'confinement-unavailable',
      /No permissions to create new namespace/,
    ],
  ] as const) {
    itWithTools(QEMU, `because ${what}: an error, or a way out for who trusts the image`, async () => {
      await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', image(), '1M']);
      await prepare();
      await expect(openImage(image())).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message) as string,
      });
      expect(await readImage(image(), { confinement: 'none' })).toMatchObject({ sizeBytes: MiB });
    });

    itWithTools(QEMU, `because ${what}: images are written all the same`, async () => {
      await prepare();
      const target = await createImage(image(), { format: 'qcow2', sizeBytes: MiB });
      await target.write(0, Buffer.alloc(512, 1));
      let read = 0;
      await target.finish(async (written) => {
        for await (const part of written.parts(new AbortController().signal))
          read += part instanceof Uint8Array ? part.byteLength : part.holeBytes;
      });
      expect(read).toBe(MiB);
    });
  }

  itWithTools(QEMU, 'a program of another place runs in it, and finds no files', async () => {
    await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', image(), '1M']);
    await replaceTool('qemu-nbd', `cat '${join(folder, 'secret')}' >&2; exit 3`);
    await expect(openImage(image())).rejects.toMatchObject({
      code: 'image-damaged',
      message: expect.stringContaining('No such file or directory') as string,
    });
    // It does where nothing confines it: so the test sees what it looks for.
    await expect(openImage(image(), { confinement: 'none' })).rejects.toMatchObject({
      message: expect.stringContaining(SECRET) as string,
    });
  });
});
