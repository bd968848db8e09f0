/**
 * Files out of a backup with the real thing: an appliance of libguestfs, over REST and with the command. One appliance for all of
 * it, because starting one takes long where the processor is emulated.
 */
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { pando } from '../cli/pando.ts';
import { connect, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun } from '../support/tools.ts';

const TOOLS = ['guestfish', 'mkfs.ext4', 'mkfs.xfs', 'sfdisk'];
const TEST_MS_MAX = 400_000;
const START = MiB;
const XFS_BYTES = 300 * MiB;
const HOSTILE = ['!rm -rf', 'a\nb', '"; !touch pwned "', "it's", 'back\\slash', '-x'];

/** A disk with a partition in which an operating system seems to be, and one that is a file system of XFS, which that mounts. */
async function makeDisks(folder: string): Promise<readonly string[]> {
  const root = join(folder, 'root');
  for (const name of ['bin', 'etc', 'home', 'srv', 'usr/bin', 'usr/lib', 'many'])
    await mkdir(join(root, name), { recursive: true });
  await writeFile(
    join(root, 'etc/fstab'),
    'LABEL=root / ext4 defaults 0 1\nLABEL=data /srv xfs defaults 0 2\nLABEL=gone /gone ext4 defaults 0 2\n',
  );
  await writeFile(
    join(root, 'etc/os-release'),
    'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
  );
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\n');
  for (const [i, name] of HOSTILE.entries()) await writeFile(join(root, 'home', name), `${name} ${i}`);
  await writeFile(Buffer.concat([Buffer.from(join(root, 'home/')), Buffer.from([0xff, 0x41])]), 'no text');
  await writeFile(join(root, 'home/setuid'), '#!/bin/sh\n');
  await chmod(join(root, 'home/setuid'), 0o4755);
  await symlink('/etc/passwd', join(root, 'home/absolute'));
  await symlink('../etc/passwd', join(root, 'home/relative'));
  await symlink('../../../../../../../../../../etc/hostname', join(root, 'home/outside'));
  await writeFile(join(root, 'many/big'), Buffer.alloc(3 * MiB + 77, 'abcdefg'));
  await writeFile(join(root, 'many/empty'), '');
  const system = join(folder, 'system.raw');
  await (await open(system, 'w')).close();
  await mustRun('truncate', ['-s', '66M', system]);
  await mustRun('sh', [
    '-c',
    'printf \'label: gpt\nstart=2048,size=131072\n\' | sfdisk -q "$1"',
    'sh',
    system,
  ]);
  await mustRun('mkfs.ext4', [
    '-q',
    '-L',
    'root',
    '-d',
    root,
    '-E',
    `offset=${START},root_owner=0:0`,
    system,
    '64M',
  ]);
  const data = join(folder, 'data.raw');
  await mustRun('truncate', ['-s', String(XFS_BYTES), data]);
  const proto = join(folder, 'proto');
  await writeFile(join(folder, 'hello'), 'from the second disk\n');
  await writeFile(proto, `nothing\n0 0\nd--755 0 0\nhello ---644 7 8 ${join(folder, 'hello')}\n$\n`);
  await mustRun('mkfs.xfs', ['-q', '-L', 'data', '-p', proto, data]);
  return [system, data];
}

/** A VM with these disks: only what is not zeros is written. */
async function makeVm(server: TestServer, name: string, images: readonly string[]): Promise<void> {
  const files = await Promise.all(images.map((path) => open(path)));
  const sizes = await Promise.all(files.map(async (file) => (await file.stat()).size));
  await server.rest.must('POST', '/vms', {
    name,
    disks: sizes.map((sizeBytes, i) => ({ name: `disk${i}`, sizeBytes })),
  });
  for (const [i, file] of files.entries()) {
    const client = await connect(server, `${name}/disk${i}`);
    const piece = Buffer.alloc(64 * 1024);
    for (let at = 0; at < sizes[i]!; at += piece.length) {
      const { bytesRead } = await file.read(piece, 0, piece.length, at);
      if (piece.subarray(0, bytesRead).some((byte) => byte !== 0))
        await client.write(at, Buffer.from(piece.subarray(0, bytesRead)));
    }
    await client.close();
    await file.close();
  }
}

itWithTools(
  TOOLS,
  'files of a guest with two disks are listed, read and extracted, whatever their names and links are',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'pando-files-test-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const server = await TestServer.start();
    onTestFinished(() => server.close());
    await makeVm(server, 'web', await makeDisks(folder));
    await server.rest.must('POST', '/vms/web/backups', { name: 'b' });
    const run = (...args: string[]) => pando(['backup', ...args], { url: server.url });
    const must = async (...args: string[]): Promise<string> => {
      const ran = await run(...args);
      expect(ran, ran.stderr).toMatchObject({ status: 0 });
      return ran.stdout;
    };
    // The first question starts the appliance; the command would not wait so long for its test.
    const found = await server.rest.must('GET', '/backups/web%40b/file-systems');
    expect(found).toEqual({
      items: [
        { name: '/dev/sda1', type: 'ext4', label: 'root', sizeBytes: 64 * MiB },
        { name: '/dev/sdb', type: 'xfs', label: 'data', sizeBytes: XFS_BYTES },
      ],
      operatingSystems: [
        expect.objectContaining({ fileSystem: '/dev/sda1', product: 'Debian GNU/Linux 12 (bookworm)' }),
      ],
    });
    expect(await must('ls-files', 'web@b', '--file-systems')).toMatch(
      /\/dev\/sdb +xfs +300 MiB +data\n\nDebian/,
    );

    // What the guest mounts, over both disks; and one file system alone.
    expect(await must('cat', 'web@b', '/srv/hello')).toBe('from the second disk\n');
    expect(await must('cat', 'web@b', '/hello', '--file-system', '/dev/sdb')).toBe('from the second disk\n');
    expect(await must('ls-files', 'web@b', '/srv')).toMatch(/^-rw-r--r-- +7:8 +21 .* {2}\/srv\/hello\n$/);

    const listed = await must('ls-files', 'web@b', '/home');
    for (const name of ['!rm -rf', 'a\\nb', 'back\\\\slash', '\\xffA', 'absolute -> /etc/passwd'])
      expect(listed).toContain(`  /home/${name}\n`);
    const lines = (await must('ls-files', 'web@b', '/', '--recursive', '--json')).trim().split('\n');
    const paths = lines.map((line) => (JSON.parse(line) as { path: string }).path);
    expect(paths).toEqual(
      expect.arrayContaining([
        '/etc',
        '/etc/fstab',
        '/srv/hello',
        '/many/big',
        ...HOSTILE.map((name) => `/home/${name}`),
      ]),
    );
    expect(new Set(paths).size).toBe(paths.length);

    const content = async (path: string): Promise<string> => {
      const query = `path=${encodeURIComponent(path)}`;
      return (await server.fetch(`/api/v1/backups/web%40b/files/content?${query}`)).text();
    };
    for (const [i, name] of HOSTILE.entries()) expect(await content(`/home/${name}`)).toBe(`${name} ${i}`);
    expect(await must('cat', 'web@b', '/home/\\xffA', '--escaped')).toBe('no text');
    // Links lead where they lead in the guest.
    expect(await content('/home/absolute')).toBe('root:x:0:0::/root:/bin/sh\n');
    expect(JSON.parse(await content('/home/outside'))).toMatchObject({ code: 'file-missing' });
    expect(JSON.parse(await content('/home'))).toMatchObject({ code: 'file-type-wrong' });
    const none = await run('cat', 'web@b', '/nope', '--json');
    expect([none.status, none.stdout]).toEqual([1, '']);
    expect(none.stderr).toContain('"code":"file-missing"');

    const out = join(folder, 'out');
    const extracted = JSON.parse(
      await must('extract', 'web@b', '/home', '/many', '/etc/fstab', out, '--json'),
    ) as { items: object[] };
    expect(extracted.items).toMatchObject([
      { files: HOSTILE.length + 2, links: 3, problems: [] },
      { files: 2 },
      { files: 1 },
    ]);
    expect((await readdir(out)).sort()).toEqual(['fstab', 'home', 'many']);
    for (const [i, name] of HOSTILE.entries())
      expect(await readFile(join(out, 'home', name), 'utf8')).toBe(`${name} ${i}`);
    expect(await readlink(join(out, 'home/outside'))).toMatch(/^\.\.\/\.\./);
    expect(await readlink(join(out, 'home/absolute'))).toBe('/etc/passwd');
    expect((await lstat(join(out, 'home/setuid'))).mode & 0o7000).toBe(0);
    expect(await readFile(join(out, 'many/big'))).toEqual(Buffer.alloc(3 * MiB + 77, 'abcdefg'));
    expect((await lstat(join(out, 'home'))).mode & 0o777).toBe(0o755);
    expect((await run('extract', 'web@b', '/home', out)).stderr).toContain('file-exists');
    if (process.getuid!() === 0) {
      const own = join(folder, 'own');
      await must('extract', 'web@b', '/home/setuid', '/srv/hello', own, '--same-owner');
      expect((await lstat(join(own, 'setuid'))).mode & 0o7777).toBe(0o4755);
      expect(await lstat(join(own, 'hello'))).toMatchObject({ uid: 7, gid: 8 });
    }

    const tar = await server.fetch('/api/v1/backups/web%40b/files/archive?path=%2Fmany');
    const bytes = Buffer.from(await tar.arrayBuffer());
    expect([tar.headers.get('content-type'), bytes.includes('./big')]).toEqual(['application/x-tar', true]);

    expect(await must('extract', 'web@b', '/many', '-')).toContain('./big\0');

    // Nobody reads any more: the backup can be deleted, and the appliance and its folder are gone.
    await must('rm', 'web@b');
    expect(await server.stop()).toBe(0);
    expect(server.log).not.toMatch(/"level":50/);
  },
  TEST_MS_MAX,
);
