/** What bad input gets: a code, an exit status, and nothing lost. */
import { execFileSync, type ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdClient } from '@pando/nbd/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { pando } from './pando.ts';

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-cli-'));
  await mkdir(join(folder, 'images'));
  await writeFile(join(folder, 'disk.raw'), Buffer.alloc(1 << 20, 'x'));
  await writeFile(join(folder, 'empty.raw'), '');
  await symlink('../disk.raw', join(folder, 'images/link'));
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  server = await TestServer.start({ args: ['--import-dir', join(folder, 'images')] });
  const made = await pando(['vm', 'import', join(folder, 'disk.raw'), '--name', 'web'], { url: server.url });
  expect(made, made.stderr).toMatchObject({ status: 0 });
  await pando(['backup', 'create', 'web', '--name', 'b'], { url: server.url });
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

/** `DIR` in an argument is the test's folder. */
async function refused(line: readonly string[], status: number, code: string): Promise<void> {
  const args = line.map((arg) => arg.replace('DIR', folder));
  const ran = await pando([...args, '--json'], { url: server.url });
  expect(ran, ran.stderr).toMatchObject({ status, stdout: '' });
  const { error } = JSON.parse(ran.stderr) as { error: Record<string, string> };
  expect(error).toEqual({
    code,
    detail: expect.any(String) as string,
    remedy: expect.stringMatching(/\w/) as string,
  });
}

test.each([
  ['a name that is taken', ['vm', 'create', 'web', '--disk', '1G'], 'name-taken'],
  ['an empty name', ['vm', 'create', '', '--disk', '1G'], 'name-invalid'],
  ['a name of 256 bytes', ['vm', 'create', 'x'.repeat(256), '--disk', '1G'], 'name-invalid'],
  ['a name of 128 characters in 256 bytes', ['vm', 'clone', 'web', 'ü'.repeat(128)], 'name-invalid'],
  ['a slash in a name', ['vm', 'rename', 'web', 'a/b'], 'name-invalid'],
  ['an @ in a name', ['vm', 'clone', 'web', 'a@b'], 'name-invalid'],
  ['a control character in a name', ['backup', 'create', 'web', '--name', 'a\nb'], 'name-invalid'],
  ['the name of a backup that is taken', ['backup', 'create', 'web', '--name', 'b'], 'name-taken'],
  ['a size of zero', ['vm', 'create', 'a', '--disk', '0'], 'size-invalid'],
  ['a size that is no multiple of 512', ['vm', 'create', 'a', '--disk', '1000'], 'size-invalid'],
  ['a size beyond 64 TiB', ['vm', 'resize', 'web', '65T'], 'size-invalid'],
  ['a smaller size', ['vm', 'resize', 'web', '512K'], 'shrink-refused'],
  ['an unknown VM', ['vm', 'show', 'nobody'], 'vm-missing'],
  ['an unknown VM to clone', ['vm', 'clone', 'nobody', 'a'], 'vm-missing'],
  ['an unknown VM to delete', ['vm', 'rm', 'nobody'], 'vm-missing'],
  ['an unknown VM to export', ['vm', 'export', 'nobody', 'DIR/out.raw'], 'vm-missing'],
  ['an unknown disk', ['vm', 'resize', 'web', '1G', '--disk', 'disk9'], 'disk-missing'],
  ['an unknown disk to export', ['vm', 'export', 'web', 'DIR/out.raw', '--disk', 'disk9'], 'disk-missing'],
  ['an unknown backup', ['backup', 'restore', 'web@c', '--as', 'a'], 'backup-missing'],
  ['an unknown backup to delete', ['backup', 'rm', 'b'], 'backup-missing'],
  ['an unknown job', ['jobs', 'show', 'x'], 'job-missing'],
  ['a folder to import', ['vm', 'import', 'DIR', '--name', 'a'], 'import-not-a-file'],
  ['a pipe to import', ['vm', 'import', 'DIR/pipe', '--name', 'a'], 'import-not-a-file'],
  ['a device to import', ['vm', 'import', '/dev/zero', '--name', 'a'], 'import-not-a-file'],
  ['a file that is not there', ['vm', 'import', 'DIR/missing', '--name', 'a'], 'import-not-a-file'],
  ['an empty file', ['vm', 'import', 'DIR/empty.raw', '--name', 'a'], 'size-invalid'],
  ['an import under a name that is taken', ['vm', 'import', 'DIR/disk.raw', '--name', 'web'], 'name-taken'],
  [
    'a path that leaves the import directory',
    ['vm', 'import', '../disk.raw', '--path', '--name', 'a'],
    'import-path-refused',
  ],
  ['a link that leaves it', ['vm', 'import', 'link', '--path', '--name', 'a'], 'import-path-refused'],
  ['a path elsewhere', ['vm', 'import', '/etc/passwd', '--path', '--name', 'a'], 'import-path-refused'],
  ['an export onto a file', ['vm', 'export', 'web', 'DIR/disk.raw'], 'file-exists'],
  ['an export onto a folder', ['vm', 'export', 'web', 'DIR/images', '--force'], 'file-exists'],
  ['an export into a folder that is not there', ['vm', 'export', 'web', 'DIR/no/out.raw'], 'file-failed'],
] as [string, string[], string][])('%s is refused', async (_what, line, code) => {
  await refused(line, 1, code);
});

test('people are told in words', async () => {
  const ran = await pando(['vm', 'show', 'nobody'], { url: server.url });
  expect(ran).toMatchObject({ status: 1, stdout: '' });
  expect(ran.stderr).toBe(
    'pando: there is no VM "nobody" (vm-missing)\n       Check the name or id; `pando vm ls` lists VMs.\n',
  );
});

test('nothing was lost or left behind by all of that', async () => {
  const vms = (await pando(['vm', 'ls', '--json'], { url: server.url })).json<{
    items: { name: string }[];
  }>();
  expect(vms.items.map(({ name }) => name)).toEqual(['web']);
  const backups = (await pando(['backup', 'ls', '--json'], { url: server.url })).json<{
    items: { name: string }[];
  }>();
  expect(backups.items.map(({ name }) => name)).toEqual(['b']);
  expect((await readdir(folder)).sort()).toEqual(['disk.raw', 'empty.raw', 'images', 'pipe']);
});

test.each([
  ['no command', []],
  ['an unknown command', ['fly']],
  ['an unknown subcommand', ['vm', 'fly']],
  ['an unknown flag', ['vm', 'ls', '--fast']],
  ['a missing argument', ['vm', 'show']],
  ['an argument too many', ['vm', 'show', 'a', 'b']],
  ['a missing flag', ['vm', 'import', 'disk.raw']],
  ['a size that is none', ['vm', 'create', 'a', '--disk', 'big']],
  ['a size that is none, to resize', ['vm', 'resize', 'web', '-5G']],
  ['a count that is none', ['vm', 'clone', 'web', 'a', '--count', '0']],
  ['a wrong address', ['serve', '--http', 'here']],
  ['a wrong level', ['serve', '--log-level', 'loud']],
  ['an index to rebuild nowhere', ['verify', '--rebuild-index']],
])('%s is wrong usage', async (_what, line) => {
  const ran = await pando(line, { url: server.url });
  expect(ran).toMatchObject({ status: 2, stdout: '' });
  expect(ran.stderr).not.toBe('');
});

test.each([['--help'], ['vm', '--help'], ['vm', 'import', '--help'], ['--version']])(
  '%s %s %s tells and ends well',
  async (...line) => {
    const ran = await pando(line);
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(ran.stdout).not.toBe('');
  },
);

test('a VM with a client is neither restored in place nor deleted, unless forced', async () => {
  const client = await NbdClient.connect(
    { host: '127.0.0.1', port: server.nbdPort },
    { exportName: 'web/disk0' },
  );
  await refused(['backup', 'restore', 'web@b'], 1, 'vm-attached');
  await refused(['vm', 'rm', 'web'], 1, 'vm-attached');
  const forced = await pando(['backup', 'restore', 'web@b', '--force'], { url: server.url });
  expect(forced, forced.stderr).toMatchObject({ status: 0 });
  await expect(client.flush()).rejects.toThrow();
  await client.close();
});

test('an import that is interrupted leaves no VM', async () => {
  const interrupt = async (child: ChildProcess): Promise<void> => {
    const running = async (): Promise<boolean> => {
      const { items } = (await server.rest.must('GET', '/jobs')) as {
        items: { subject?: string; state: string }[];
      };
      return items.some(({ subject, state }) => subject === 'half' && state === 'running');
    };
    while (!(await running())) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill('SIGINT');
  };
  const ran = await pando(['vm', 'import', '-', '--name', 'half'], {
    url: server.url,
    onStart: (child) => {
      child.stdin!.write(Buffer.alloc(3 << 20, 'y'));
      void interrupt(child);
    },
    // The pipe stays open: the import can only be ended.
    keepInputOpen: true,
  });
  expect(ran.status).not.toBe(0);
  expect(ran.stderr).toContain('(cancelled)');
  expect((await pando(['vm', 'show', 'half'], { url: server.url })).status).toBe(1);
});

describe('without a server', () => {
  test('the commands say so, and what to do', async () => {
    const ran = await pando(['vm', 'ls'], { url: 'http://127.0.0.1:1' });
    expect(ran.status).toBe(1);
    expect(ran.stderr).toContain('(server-unreachable)');
    expect(ran.stderr).toContain('npm start');
  });

  test('something else that answers is recognised as something else', async () => {
    const other = net.createServer((socket) =>
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno'),
    );
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as net.AddressInfo;
    const ran = await pando(['vm', 'ls'], { url: `http://127.0.0.1:${port}` });
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining('no Pando server') as string });
    other.close();
  });

  test('a PANDO_URL that is none is refused', async () => {
    expect(await pando(['vm', 'ls'], { url: 'here' })).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('(address-invalid)') as string,
    });
  });
});

describe('a server does not start', () => {
  const serve = (...args: string[]) =>
    pando(['serve', '--http', '127.0.0.1:0', '--nbd', '127.0.0.1:0', '--log-level', 'silent', ...args]);

  test('on a directory that another process has open', async () => {
    const ran = await serve('--data', server.dataDirectory);
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining('(store-locked)') as string });
  });

  test('on a directory of something else, which it leaves as it is', async () => {
    const path = join(folder, 'foreign');
    await mkdir(path);
    await writeFile(join(path, 'thesis.txt'), 'mine');
    expect(await serve('--data', path)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('(store-foreign)') as string,
    });
    expect(await readdir(path)).toEqual(['thesis.txt']);
    await writeFile(join(path, 'store.json'), '{"program":"other","format":1}');
    expect(await serve('--data', path)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('(store-foreign)') as string,
    });
    await writeFile(join(path, 'store.json'), 'not JSON');
    expect(await serve('--data', path)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('(store-foreign)') as string,
    });
    expect(await readdir(path)).toEqual(['store.json', 'thesis.txt']);
    await rm(path, { recursive: true });
  });

  test('on a file', async () => {
    expect(await serve('--data', join(folder, 'disk.raw'))).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('(store-foreign)') as string,
    });
  });

  test('on a directory of a newer format, which it leaves as it is', async () => {
    const path = join(folder, 'newer');
    await mkdir(path);
    const text = '{"program":"pando","format":99,"something":"new"}';
    await writeFile(join(path, 'store.json'), text);
    expect(await serve('--data', path)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('(store-newer)') as string,
    });
    expect(await readdir(path)).toEqual(['store.json']);
    expect(await readFile(join(path, 'store.json'), 'utf8')).toBe(text);
    await rm(path, { recursive: true });
  });

  test('on an address that is taken, and leaves the store in order', async () => {
    const taken = new URL(server.url).host;
    const path = join(folder, 'data');
    const ran = await pando([
      'serve',
      '--data',
      path,
      '--http',
      taken,
      '--nbd',
      '127.0.0.1:0',
      '--log-level',
      'silent',
    ]);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^pando: another program listens on .+ \(address-in-use\)\n.+\n$/);
    const verified = await pando(['verify', '--data', path]);
    expect(verified, verified.stderr).toMatchObject({ status: 0 });
    await rm(path, { recursive: true });
  });

  test('with chunks of another size than the store has', async () => {
    expect(await serve('--data', join(folder, 'new'), '--chunk-bytes', '5000')).toMatchObject({ status: 1 });
    await rm(join(folder, 'new'), { recursive: true, force: true });
  });

  test('verify does not make a store where there is none', async () => {
    const ran = await pando(['verify', '--data', join(folder, 'nothing')]);
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining('(store-missing)') as string });
    expect(await readdir(folder)).not.toContain('nothing');
  });
});
