/** A store whose ids are keyed, on a real server: everything works as in any other, but for what takes ids that mean something outside of it. */
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { hashChunk } from '@pando/chunk-store';
import { MiB, SPARSE_IDS_MEDIA_TYPE } from '@pando/common';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connect, mustVerify, readExport } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { pando, type Ran } from './pando.ts';

const CHUNK = 4096;
const SIZE = 3 * MiB;

const seed = runSeed();
const random = seededRandom(seed);
const content = fillRandom(random, Buffer.alloc(SIZE)).fill(0, MiB, MiB + 300_000);
let folder: string;
let image: string;
let server: TestServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-keyed-'));
  image = join(folder, 'golden.raw');
  await writeFile(image, content);
  server = await TestServer.start({ args: ['--keyed-hash', '--gc-every', '0', '--import-dir', folder] });
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

const run = (...args: string[]): Promise<Ran> => pando(args, { url: server.url });

async function done<T>(...args: string[]): Promise<T> {
  const ran = await run(...args, '--json');
  expect(ran, `pando ${args.join(' ')}\n${ran.stderr}`).toMatchObject({ status: 0 });
  return ran.json<T>();
}

async function refused(code: string, ...args: string[]): Promise<void> {
  const ran = await run(...args);
  expect(ran, ran.stdout).toMatchObject({
    status: 1,
    stderr: expect.stringContaining(`(${code})`) as string,
  });
}

async function hashKey(): Promise<Buffer> {
  const store = JSON.parse(await readFile(join(server.dataDirectory, 'store.json'), 'utf8')) as object;
  expect(store).toMatchObject({ format: 3 });
  return Buffer.from((store as { hashKey: string }).hashKey, 'hex');
}

interface Imported {
  readonly root: string;
  readonly keyed: boolean;
  readonly newBytes: number;
  readonly knownChunks: number;
}

test(`images go in, are cloned, backed up and come out as they were, and equal chunks are stored once (seed ${seed})`, async () => {
  const first = await done<Imported>('vm', 'import', image, '--name', 'golden', '--verify');
  expect(first).toMatchObject({ keyed: true, knownChunks: 0 });
  // The ids cannot be computed here, so bytes are sent, and found to be there.
  const again = await done<Imported>('vm', 'import', image, '--name', 'again');
  const path = { path: 'golden.raw', name: 'by-path', verify: true };
  expect(await server.rest.job('/imports', path)).toMatchObject({ root: first.root, newBytes: 0 });
  await server.rest.must('DELETE', '/vms/by-path');
  expect(again).toMatchObject({ keyed: true, root: first.root, newBytes: 0 });
  // What it took to read the first one back is gone.
  expect(await server.rest.must('GET', '/backups')).toMatchObject({ items: [] });
  await server.rest.must('POST', '/vms/golden/clone', { name: 'web' });
  await server.rest.must('POST', '/vms/web/backups', { name: 'before' });
  await server.rest.job('/backups/web@before/restore', { as: 'golden-2', verify: true });
  await server.rest.must('DELETE', '/vms/golden-2');
  const client = await connect(server, 'web');
  await client.write(CHUNK, Buffer.alloc(CHUNK, 'x'));
  await client.flush();
  await client.close();
  const changed = Buffer.from(content).fill('x', CHUNK, 2 * CHUNK);
  const diff = (b: string): Promise<unknown> => server.rest.must('GET', `/diff?a=golden&b=${b}`);
  expect(await diff('web')).toMatchObject({ changedBytes: CHUNK });
  expect(await diff('web@before')).toMatchObject({ changedBytes: 0 });
  const file = join(folder, 'web.raw');
  const exported = await done<{ root: string }>('vm', 'export', 'web', file, '--verify');
  expect(exported).toMatchObject({ keyed: true, verified: true });
  // Of the bytes, which anybody can compute: not what the server calls them.
  expect(exported.root).not.toBe(first.root);
  expect((await readFile(file)).equals(changed)).toBe(true);
  expect((await readExport(server, 'web@before')).equals(content)).toBe(true);
  // As a backup since another one, from a pipe and from a file.
  const since = await done<Imported>('vm', 'import', file, '--since', 'web@before', '--verify');
  expect(since).toMatchObject({ keyed: true, newBytes: 0 });
});

test('roots say that they are keyed and are equal within the store; nothing is proven, and nothing is asked or sent by ids', async () => {
  const roots = async (of: string) =>
    ((await server.rest.must('GET', `${of}/roots`)) as { items: readonly unknown[] }).items;
  expect(await roots('/vms/golden')).toEqual(await roots('/backups/web@before'));
  expect(await roots('/vms/golden')).toMatchObject([{ keyed: true }]);
  expect((await run('root', 'golden')).stdout).toContain('compare them with roots of this store only');
  expect(await server.rest.must('GET', '/report/space')).toMatchObject({ keyed: true });
  await refused('ids-keyed', 'prove', 'web@before', join(folder, 'proof'), '--range', '0+512');
  const id = Buffer.from(hashChunk(content.subarray(0, CHUNK)));
  const headers = { 'content-type': 'application/octet-stream' };
  const asked = await server.fetch('/api/v1/chunks/lookup', { method: 'POST', headers, body: id });
  expect([asked.status, await asked.json()]).toMatchObject([409, { code: 'ids-keyed' }]);
  const sent = await server.fetch('/api/v1/imports?name=thief', {
    ...{ method: 'POST', headers: { 'content-type': SPARSE_IDS_MEDIA_TYPE }, body: id },
  });
  expect([sent.status, await sent.json()]).toMatchObject([409, { code: 'ids-keyed' }]);
});

test('killed and started anew, it is the same; told that it is not keyed, it does not start', async () => {
  const client = await connect(server, 'again');
  await client.write(0, Buffer.alloc(CHUNK, 'y'));
  await client.flush();
  await server.kill();
  await server.restart();
  const expected = Buffer.from(content).fill('y', 0, CHUNK);
  expect((await readExport(server, 'again')).equals(expected)).toBe(true);
  await server.rest.must('DELETE', '/vms/golden');
  await server.rest.job('/gc', { thorough: true });
  await mustVerify(server);
  await server.stop();
  const { dataDirectory } = server;
  const start = TestServer.start({ dataDirectory, env: { PANDO_KEYED_HASH: 'false' } });
  await expect(start).rejects.toThrow(/was made with keyed ids, for good.*\(store-hash-fixed\)/s);
  await server.restart();
});

test('the key is in store.json and the segments, and nowhere else', async () => {
  const key = await hashKey();
  const bundle = join(folder, 'bundle');
  await done('support-bundle', bundle);
  const told = [server.log, (await readFile(bundle)).toString('latin1')];
  for (const path of ['/report/space', '/vms', '/health', '/audit', '/events'])
    told.push(JSON.stringify(await server.rest.call('GET', path)));
  for (const text of told) expect(text).not.toContain(key.toString('hex'));
  const holders = new Set<string>();
  for (const name of await readdir(server.dataDirectory, { recursive: true })) {
    const path = join(server.dataDirectory, name);
    const { mode, isFile } = await stat(path).then((found) => ({ mode: found.mode, isFile: found.isFile() }));
    if (!isFile) continue;
    const bytes = await readFile(path);
    if (!bytes.includes(key) && !bytes.includes(key.toString('hex'))) continue;
    holders.add(name.replace(/^segments\/.*/, 'segments'));
    expect(mode & 0o077, name).toBe(0);
  }
  expect([...holders].sort()).toEqual(['segments', 'store.json']);
});

test('of a store of which only segments and log are left, all comes back', async () => {
  const expected = await readExport(server, 'web');
  await server.rest.job('/gc');
  const { dataDirectory } = server;
  const before = await hashKey();
  await server.stop();
  for (const name of ['catalog', 'catalog.commits', 'index', 'store.json'])
    await rm(join(dataDirectory, name), { recursive: true });
  const ran = await pando([
    ...['verify', '--rebuild-catalog', '--rebuild-index', '--data', dataDirectory, '--json'],
  ]);
  expect(ran, ran.stderr).toMatchObject({ status: 0 });
  expect(ran.json()).toMatchObject({ damaged: [], disks: [], catalog: { vms: 2, backups: 2 } });
  await server.restart();
  expect((await hashKey()).equals(before)).toBe(true);
  expect(sha(await readExport(server, 'web'))).toBe(sha(expected));
  await mustVerify(server);
});

test('another key in the header of a segment is damage, and a damaged chunk heals out of a copy of the store and out of an image', async () => {
  const { dataDirectory } = server;
  await server.stop();
  const copy = join(folder, 'copy');
  await cp(join(dataDirectory, 'segments'), copy, { recursive: true });
  let path = '';
  for (const [number, source] of [
    [700, copy],
    [100, image],
  ] as const) {
    // Noise is stored as it is: in the segment where this chunk of it stands.
    const chunk = Buffer.from(content.subarray(number * CHUNK, (number + 1) * CHUNK));
    for (const name of await readdir(copy)) {
      path = join(dataDirectory, 'segments', name);
      const bytes = await readFile(path);
      const at = bytes.indexOf(chunk);
      if (at < 0) continue;
      bytes[at + 500]! ^= 1;
      await writeFile(path, bytes);
      break;
    }
    const healed = await pando(['verify', '--data', dataDirectory, '--repair-from', source, '--json']);
    expect(healed, healed.stderr + healed.stdout).toMatchObject({ status: 0 });
    expect(healed.json<{ repairedChunks: number }>().repairedChunks).toBeGreaterThan(0);
  }
  const other = await readFile(path);
  other.fill(1, 48, 80).writeUInt32LE(crc32(other.subarray(48, 80), crc32(other.subarray(0, 44))), 80);
  await writeFile(path, other);
  await server.restart();
  const damaged = [{ offset: 0, problem: 'the file header is damaged' }];
  expect(await server.rest.job('/verify')).toMatchObject({ damaged, disks: [] });
  expect((await readExport(server, 'web@before')).equals(content)).toBe(true);
});

const sha = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
