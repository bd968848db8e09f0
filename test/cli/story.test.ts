/** The story of the README, typed command by command, against a real server. */
import { mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdClient } from '@pando/nbd/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { pando, type Ran } from './pando.ts';

const SIZE = 64 * 1024 * 1024;

let server: TestServer;
let folder: string;
let image: string;
let content: Buffer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-cli-'));
  image = join(folder, 'golden.raw');
  content = Buffer.alloc(SIZE);
  content.fill('all the files of an installation ', 1024 * 1024, 5 * 1024 * 1024);
  content.fill('and a few at the end', SIZE - 5000);
  const file = await open(image, 'w');
  await file.truncate(SIZE);
  await file.write(content.subarray(1024 * 1024, 5 * 1024 * 1024), 0, undefined, 1024 * 1024);
  await file.write(content.subarray(SIZE - 5000), 0, undefined, SIZE - 5000);
  await file.close();
  server = await TestServer.start({ args: ['--import-dir', folder] });
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

async function done(...args: string[]): Promise<Ran> {
  const ran = await pando(args, { url: server.url });
  expect(ran, `pando ${args.join(' ')}\n${ran.stderr}`).toMatchObject({ status: 0, stderr: '' });
  return ran;
}

async function disk(exportName: string): Promise<NbdClient> {
  return NbdClient.connect({ host: '127.0.0.1', port: server.nbdPort }, { exportName });
}

interface VmView {
  id: string;
  name: string;
  disks: { name: string; sizeBytes: number }[];
}

test('a disk is imported, cheaply where it is sparse', async () => {
  const { stdout } = await done('vm', 'import', image, '--name', 'golden');
  expect(stdout).toMatch(/^golden: 64 MiB disk, 4\.0 MiB data, stored .+: 1\/[\d,]+ \(in .+ s\)\n$/);
  const ran = await done('vm', 'import', image, '--name', 'again', '--disk', 'root', '--json');
  expect(ran.json()).toMatchObject({
    vm: { name: 'again', disks: [{ name: 'root', sizeBytes: SIZE }] },
    newChunks: 0,
  });
});

test('standard input is imported too, and a file of the server', async () => {
  const ran = await pando(['vm', 'import', '-', '--name', 'piped', '--json'], {
    url: server.url,
    input: content,
  });
  expect(ran.status).toBe(0);
  expect(ran.json()).toMatchObject({ vm: { disks: [{ name: 'disk0', sizeBytes: SIZE }] }, newChunks: 0 });
  const byPath = await done('vm', 'import', 'golden.raw', '--path', '--name', 'by-path', '--json');
  expect(byPath.json()).toMatchObject({ vm: { name: 'by-path' }, newChunks: 0 });
});

test('it is cloned a hundred times, and once', async () => {
  expect((await done('vm', 'clone', 'golden', 'web', '--count', '100')).stdout).toBe(
    '100 clones: web-1 … web-100\n',
  );
  expect((await done('vm', 'clone', 'golden', 'copy')).stdout).toBe('copy\n');
  const { items } = (await done('vm', 'ls', '--prefix', 'web-', '--json')).json<{ items: VmView[] }>();
  expect(items).toHaveLength(100);
  const lines = (await done('vm', 'ls')).stdout.trimEnd().split('\n');
  expect(lines[0]).toMatch(/^NAME +SIZE +DISKS +CLIENTS +CREATED +ID$/);
  expect(lines).toHaveLength(1 + 105);
});

test('a clone is backed up, changed, restored as another and in place', async () => {
  expect((await done('backup', 'create', 'web-1', '--name', 'before-upgrade')).stdout).toBe(
    'web-1@before-upgrade\n',
  );
  const client = await disk('web-1/disk0');
  await client.write(10_000, Buffer.from('upgraded'));
  await client.flush();
  await client.close();

  expect((await done('backup', 'restore', 'web-1@before-upgrade', '--as', 'web-1b')).stdout).toBe(
    'web-1b: disk0 64 MiB\n',
  );
  const changed = Buffer.from(content);
  changed.write('upgraded', 10_000);
  for (const [vm, expected] of [
    ['web-1', changed],
    ['web-1b', content],
    ['web-1@before-upgrade', content],
    ['web-2', content],
  ] as const) {
    const file = join(folder, 'out.raw');
    const exported = await done('vm', 'export', vm, file, '--force', '--json');
    expect(exported.json()).toMatchObject({ file, disk: 'disk0', sizeBytes: SIZE });
    expect((await readFile(file)).equals(expected), vm).toBe(true);
    expect((await stat(file)).blocks * 512).toBeLessThan(8 * 1024 * 1024);
  }
  await done('backup', 'restore', 'web-1@before-upgrade');
  await done('vm', 'export', 'web-1', join(folder, 'out.raw'), '--force');
  expect((await readFile(join(folder, 'out.raw'))).equals(content)).toBe(true);

  // The backups that exports take for themselves are gone, and so are partial files.
  const { items } = (await done('backup', 'ls', '--json')).json<{ items: { name: string }[] }>();
  expect(items.map(({ name }) => name)).toEqual(['before-upgrade']);
  expect((await readdir(folder)).sort()).toEqual(['golden.raw', 'out.raw']);
});

test('everything can be looked at', async () => {
  expect((await done('vm', 'show', 'web-1')).stdout).toMatch(
    /^name +web-1\nid +\S+\n(.*\n)*disk disk0 +64 MiB, 67108864 bytes\n$/,
  );
  const vm = (await done('vm', 'show', 'web-1', '--json')).json<VmView>();
  expect((await done('vm', 'show', vm.id, '--json')).json()).toEqual(vm);
  expect((await done('backup', 'ls', 'web-1')).stdout).toContain('web-1@before-upgrade');
  expect((await done('backup', 'show', 'web-1@before-upgrade')).stdout).toContain('web-1@before-upgrade');
  expect((await done('jobs', 'ls')).stdout).toMatch(/import +golden +done/);
  const { items } = (await done('jobs', 'ls', '--json')).json<{ items: { id: string }[] }>();
  expect((await done('jobs', 'show', items[0]!.id, '--json')).json()).toMatchObject({
    id: items[0]!.id,
    state: 'done',
  });
});

test('VMs are made empty, renamed, and resized', async () => {
  await done('vm', 'create', 'empty', '--disk', '20G', '--disk', 'data=512M');
  expect((await done('vm', 'rename', 'empty', 'new name')).stdout).toBe('new name\n');
  expect((await done('vm', 'resize', 'new name', '1T', '--disk', 'data')).stdout).toBe(
    'new name: disk0 20 GiB, data 1.0 TiB\n',
  );
  await done('vm', 'resize', 'new name', '10G', '--shrink');
  expect((await done('vm', 'show', 'new name', '--json')).json()).toMatchObject({
    disks: [
      { name: 'disk0', sizeBytes: 10 * 2 ** 30 },
      { name: 'data', sizeBytes: 2 ** 40 },
    ],
  });
});

test('things are deleted in any order; what is left lives, and gc takes the rest', async () => {
  await done('vm', 'rm', 'golden', 'again', 'piped', 'by-path');
  const client = await disk('web-7/disk0');
  await client.write(0, Buffer.from(Array.from({ length: 1_000_000 }, (_, i) => (i * 7919) % 251)));
  await client.flush();
  expect(await pando(['vm', 'rm', 'web-7'], { url: server.url })).toMatchObject({ status: 1 });
  await done('vm', 'rm', 'web-7', '--force');
  await client.close();
  expect((await done('gc', 'run')).stdout).toMatch(/^Freed .+: [\d,]+ dead chunks?, .+ live\.\n$/);
  expect((await done('gc', 'run', '--thorough')).stdout).toMatch(/^Freed /);
  const space = (await done('report', 'space', '--owners', '--json')).json<{
    vms: number;
    backups: number;
    owners: unknown[];
    ratios: { total: number };
  }>();
  expect(space).toMatchObject({ vms: 102, backups: 1 });
  expect(space.owners).toHaveLength(103);
  expect(space.ratios.total).toBeGreaterThan(100);
  expect((await done('report', 'space', '--owners')).stdout).toMatch(
    /logical[\s\S]+on disk[\s\S]+ONLY ITS OWN/,
  );
  await done('vm', 'export', 'web-100', join(folder, 'out.raw'), '--force');
  expect((await readFile(join(folder, 'out.raw'))).equals(content)).toBe(true);
  await done('backup', 'rm', 'web-1@before-upgrade');
  expect((await done('backup', 'ls')).stdout).toBe('No backups.\n');
});

test('the store is verified while it is served, and its index made anew when it is not', async () => {
  expect((await done('verify')).stdout).toMatch(/all good\.\n$/);
  const locked = await pando(['verify', '--data', server.dataDirectory]);
  expect(locked).toMatchObject({ status: 1, stderr: expect.stringContaining('(store-locked)') as string });
  expect(await server.stop()).toBe(0);
  const rebuilt = await pando(['verify', '--rebuild-index', '--data', server.dataDirectory]);
  expect(rebuilt, rebuilt.stderr).toMatchObject({ status: 0 });
  expect(rebuilt.stdout).toMatch(/all good\.\n$/);

  const segments = join(server.dataDirectory, 'segments');
  const path = join(segments, (await readdir(segments))[0]!);
  const good = await readFile(path);
  const bad = Buffer.from(good);
  bad[Math.floor(bad.byteLength / 2)]! ^= 1;
  await writeFile(path, bad);
  const damaged = await pando(['verify', '--data', server.dataDirectory, '--json']);
  expect(damaged.status).toBe(1);
  expect(damaged.json<{ damaged: unknown[] }>().damaged.length).toBeGreaterThan(0);
  await writeFile(path, good);

  await server.restart();
  await done('vm', 'export', 'web-50', join(folder, 'out.raw'), '--force');
  expect((await readFile(join(folder, 'out.raw'))).equals(content)).toBe(true);
});
