/**
 * Repair: whatever is damaged comes back from any source that holds the bytes, every disk reads as before, and nothing else
 * of the source is stored.
 */
import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hashChunk } from '@pando/chunk-store';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import type { DiskPart } from '@pando/common';
import { NbdClient } from '@pando/nbd/client';
import { openStoreSource, repairOffline, serve, verifyOffline, type Serving } from '@pando/server';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pando } from '../cli/pando.ts';
import { importVm, MiB } from '../support/disks.ts';
import { restOf } from '../support/rest.ts';
import { tokenOfServing } from '../support/tokens.ts';
import { itWithTools, mustRun } from '../support/tools.ts';

const CHUNK = 4096;
const SIZE = 3 * MiB + 512;
const DISKS = ['web/disk0', 'clone/disk0', 'other/disk0', 'web@monday/disk0', 'clone@settled/disk0'];

interface Repaired {
  readonly readBytes: number;
  readonly lostChunks: number;
  readonly lostNodes: number;
  readonly repairedChunks: number;
  readonly repairedNodes: number;
  readonly repairedDisks: readonly { readonly name: string; readonly disk: string }[];
  readonly again: boolean;
  readonly report: { readonly disks: readonly { readonly name: string }[] };
}

const seed = runSeed();
const random = seededRandom(seed);
const image = fillRandom(random, new Uint8Array(SIZE));
// Where they do not make the first nodes smaller when these are compressed: they are looked for by their bytes.
image.fill(0, 2.5 * MiB, 2.5 * MiB + 10 * CHUNK);
image.fill(7, 2.75 * MiB, 2.75 * MiB + 20 * CHUNK);
const other = fillRandom(random, new Uint8Array(MiB));
const rewritten = fillRandom(random, new Uint8Array(8 * CHUNK));

let folder: string;
let data: string;
let raw: string;
let contents: Map<string, Buffer>;
const servers: Serving[] = [];

async function serving(dataDirectory: string, chunkBytes?: number): Promise<Serving> {
  const address = { host: '127.0.0.1', port: 0 };
  const server = await serve({
    ...{
      dataDirectory,
      http: address,
      nbd: address,
      gcEveryMs: 0,
      verifyEveryMs: 0,
      importDirectory: folder,
    },
    ...(chunkBytes === undefined ? {} : { chunkBytes }),
  });
  servers.push(server);
  return server;
}

function connect(server: Serving, exportName: string): Promise<NbdClient> {
  const { port } = new URL(server.addresses.nbd);
  return NbdClient.connect({ host: '127.0.0.1', port: Number(port) }, { exportName });
}

async function readAll(server: Serving): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  for (const exportName of DISKS) {
    const client = await connect(server, exportName);
    const bytes = Buffer.alloc(client.size);
    await client.read(0, client.size, bytes, 0);
    await client.close();
    found.set(exportName, bytes);
  }
  return found;
}

/** A store with five disks that share most of what they hold. */
async function story(chunkBytes?: number): Promise<void> {
  const server = await serving(data, chunkBytes);
  const rest = restOf(server);
  await importVm(server, 'web', image);
  await rest.must('POST', '/vms/web/backups', { name: 'monday' });
  await rest.must('POST', '/vms/web/clone', { name: 'clone' });
  await importVm(server, 'other', other);
  const clone = await connect(server, 'clone/disk0');
  await clone.write(300 * CHUNK, rewritten);
  await clone.close();
  await rest.must('POST', '/vms/clone/backups', { name: 'settled' });
  contents = await readAll(server);
  await server.close();
}

const segmentsOf = async (directory: string): Promise<string[]> =>
  (await readdir(join(directory, 'segments'))).map((name) => join(directory, 'segments', name));

/** Flips a bit where these bytes are stored. */
async function flipStored(bytes: Uint8Array): Promise<void> {
  for (const path of await segmentsOf(data)) {
    const file = await readFile(path);
    const at = file.indexOf(bytes);
    if (at < 0) continue;
    file[at + between(random, 0, bytes.byteLength - 1)]! ^= 1 << between(random, 0, 7);
    await writeFile(path, file);
    return;
  }
  throw new Error('no segment holds these bytes');
}

const chunk = (index: number, of = image): Uint8Array => of.subarray(index * CHUNK, (index + 1) * CHUNK);

/** The leaf of the image over the 128 chunks from `index` on. */
function leafAt(index: number): Buffer {
  const ids = Buffer.alloc(128 * 32);
  for (let i = 0; i < 128; i++) {
    const bytes = chunk(index + i);
    if (bytes.some((byte) => byte !== 0)) ids.set(hashChunk(bytes), i * 32);
  }
  return ids;
}

async function bytesOfSegments(): Promise<number> {
  const sizes = await Promise.all((await segmentsOf(data)).map(async (path) => (await stat(path)).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Every disk reads as it did, and a verification of everything finds no disk damaged. */
async function expectWhole(): Promise<void> {
  const server = await serving(data);
  const found = await readAll(server);
  for (const [name, bytes] of contents) expect(found.get(name)!.equals(bytes), name).toBe(true);
  await server.close();
  expect((await verifyOffline(data)).disks).toEqual([]);
}

const sourceOf = (bytes: Uint8Array): { sizeBytes: number; parts: () => AsyncGenerator<DiskPart> } => ({
  sizeBytes: bytes.byteLength,
  parts: async function* () {
    for (let at = 0; at < bytes.byteLength; at += 100_000)
      yield await Promise.resolve(bytes.subarray(at, at + 100_000));
  },
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-repair-'));
  data = join(folder, 'data');
  raw = join(folder, 'image.raw');
  await writeFile(raw, image);
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await rm(folder, { recursive: true, force: true });
});

describe(`repair (seed ${seed})`, () => {
  beforeEach(() => story());

  it('brings back data and nodes from the image that was imported, below damaged nodes too, and stores nothing else', async () => {
    await flipStored(chunk(5));
    // A leaf, its neighbours with it, and data below: that can be seen once the leaf is back.
    await flipStored(leafAt(128));
    await flipStored(chunk(200));
    const before = await verifyOffline(data);
    expect(before.disks.map(({ name }) => name)).toHaveLength(4);
    const chunks = before.chunks;
    const result = await repairOffline(data, sourceOf(image));
    // A run holds four chunks, or four nodes.
    expect(result).toMatchObject({ lostChunks: 8, repairedChunks: 8, again: false, readBytes: 2 * SIZE });
    expect(result).toMatchObject({ lostNodes: 4, repairedNodes: 4 });
    expect(result.repairedDisks.map(({ name }) => name)).toEqual(before.disks.map(({ name }) => name));
    expect(result.report).toMatchObject({ disks: [], damaged: [], isComplete: true });
    await expectWhole();
    const after = await verifyOffline(data);
    // What was damaged is not hashed, what has replaced it is.
    expect(after.chunks).toBe(chunks + result.repairedChunks + result.repairedNodes);
  });

  it('goes by the damage that is known, and verifies everything where none is', async () => {
    await flipStored(chunk(5));
    const progress: string[] = [];
    const work = {
      onProgress: ({ phase, done, all }: { phase: string; done: number; all?: number }) =>
        void progress.push(phase === 'segments' ? `${phase} ${done === all ? 'whole' : 'part'}` : phase),
    };
    // Nobody has verified: it does, and repairs.
    expect(await repairOffline(data, sourceOf(image), work)).toMatchObject({
      lostChunks: 4,
      repairedChunks: 4,
    });
    expect([...new Set(progress)]).toEqual(expect.arrayContaining(['segments part', 'source']));
    // Again: nothing is missed, so the source is not read.
    progress.length = 0;
    expect(await repairOffline(data, sourceOf(image), work)).toMatchObject({ lostChunks: 0, readBytes: 0 });
    expect(progress).not.toContain('source');
    const server = await serving(data);
    const last = await restOf(server).must('GET', '/verify/last');
    expect(last).toMatchObject({ full: { report: { disks: [], damaged: [] } } });
    await server.close();

    // Damage that a guest has come upon since.
    await flipStored(chunk(9));
    const again = await serving(data);
    const client = await connect(again, 'web/disk0');
    await expect(client.read(9 * CHUNK, CHUNK, Buffer.alloc(CHUNK), 0)).rejects.toThrow();
    const rest = restOf(again);
    expect(await rest.job('/repairs', { path: 'image.raw' })).toMatchObject({
      lostChunks: 4,
      repairedChunks: 4,
    });
    const bytes = Buffer.alloc(CHUNK);
    await client.read(9 * CHUNK, CHUNK, bytes, 0);
    expect(bytes.equals(chunk(9))).toBe(true);
    await client.close();
    await again.close();
    await expectWhole();
  });

  it('takes from a source what it holds, at any aligned place, and says what is still damaged', async () => {
    await flipStored(chunk(5));
    await flipStored(rewritten.subarray(CHUNK, 2 * CHUNK));
    // The chunks of the first damage, elsewhere; nothing of the second.
    const source = Buffer.concat([other, chunk(40), image.subarray(0, 9 * CHUNK), other.subarray(0, 5000)]);
    const result = await repairOffline(data, sourceOf(source));
    expect(result).toMatchObject({ lostChunks: 8, repairedChunks: 4, repairedNodes: 0, again: false });
    expect(result.repairedDisks.map(({ name }) => name)).toEqual(['web', 'web@monday']);
    expect(result.report.disks.map(({ name }) => name)).toEqual(['clone', 'clone@settled']);
    const bytes = await bytesOfSegments();
    const none = await repairOffline(data, sourceOf(fillRandom(random, new Uint8Array(MiB + 77))));
    expect(none).toMatchObject({ lostChunks: 4, repairedChunks: 0, repairedDisks: [], readBytes: MiB + 77 });
    expect(none.report.disks).toEqual(result.report.disks);
    expect(await bytesOfSegments()).toBe(bytes);
    // Shifted by less than a chunk it is of no use.
    const shifted = Buffer.concat([Buffer.alloc(512), rewritten]);
    expect(await repairOffline(data, sourceOf(shifted))).toMatchObject({ repairedChunks: 0 });
    expect(await repairOffline(data, sourceOf(rewritten))).toMatchObject({ repairedChunks: 4 });
    await expectWhole();
  });

  it('of a source that fails, or work that is cancelled, keeps what had been found', async () => {
    await flipStored(chunk(5));
    await flipStored(chunk(700));
    const eio = new Error('EIO: i/o error, read');
    const failing = {
      sizeBytes: SIZE,
      parts: async function* (): AsyncGenerator<DiskPart> {
        yield await Promise.resolve(image.subarray(0, 2 * MiB));
        throw eio;
      },
    };
    await expect(repairOffline(data, failing)).rejects.toBe(eio);
    const stop = new AbortController();
    const cancelled = repairOffline(data, sourceOf(image), {
      signal: stop.signal,
      onProgress: ({ phase }) => {
        if (phase === 'source') stop.abort(new Error('enough'));
      },
    });
    await expect(cancelled).rejects.toThrow();
    const result = await repairOffline(data, sourceOf(image));
    expect(result).toMatchObject({ lostChunks: 4, repairedChunks: 4 });
    await expectWhole();
  });

  it.each([
    ['a copy of its directory', 8, () => undefined],
    [
      'a copy of which other parts are damaged',
      6,
      async (copy: string) => {
        const [first] = (await segmentsOf(copy)).sort();
        const bytes = await readFile(first!);
        for (let i = 0; i < 2; i++) bytes[between(random, 60, bytes.byteLength >> 1)]! ^= 1;
        // Its footer too.
        bytes[bytes.byteLength - 20]! ^= 1;
        await writeFile(first!, bytes);
      },
    ],
  ])('from %s repairs what that holds, whatever was hit', async (what, flips, damageCopy) => {
    const copy = join(folder, 'copy');
    await cp(data, copy, { recursive: true });
    await damageCopy(copy);
    for (const path of await segmentsOf(data)) {
      const bytes = await readFile(path);
      for (let i = 0; i < flips; i++)
        bytes[between(random, 48, bytes.byteLength - 1)]! ^= 1 << between(random, 0, 7);
      await writeFile(path, bytes);
    }
    const before = await verifyOffline(data);
    const source = await openStoreSource(copy);
    const result = await repairOffline(data, source);
    await source.close();
    expect(result.again).toBe(false);
    // Of a segment without its footer, a run whose header is hit is not found: nobody can count it among those that are lost.
    const isWhole = what === 'a copy of its directory';
    if (isWhole) expect(source.lostRuns).toBe(0);
    if (isWhole) {
      expect(result.report.disks).toEqual([]);
      await expectWhole();
    } else expect(result.report.disks.length).toBeLessThanOrEqual(before.disks.length);
    expect(result.repairedChunks + result.repairedNodes).toBeLessThanOrEqual(
      result.lostChunks + result.lostNodes,
    );
    if (isWhole) expect(result.repairedChunks).toBe(result.lostChunks);
  });

  it('from a copy that never had it open brings back segments that are gone', async () => {
    const copy = join(folder, 'copy');
    await cp(data, copy, { recursive: true });
    for (const path of await segmentsOf(data)) await rm(path);
    const files = async (): Promise<string[]> => (await readdir(copy, { recursive: true })).sort();
    const before = await files();
    for (const name of await readdir(copy))
      if (name !== 'segments') await rm(join(copy, name), { recursive: true });
    const server = await serving(data);
    const result = (await restOf(server).job('/repairs', { path: 'copy' })) as Repaired;
    expect(result.repairedChunks).toBe(result.lostChunks);
    expect(result.repairedNodes).toBe(result.lostNodes);
    expect(result.lostNodes).toBeGreaterThan(5);
    expect(result.report.disks).toEqual([]);
    await server.close();
    await expectWhole();
    expect(await files()).toEqual(before.filter((name) => name.startsWith('segments')));
  });

  it('by the command: sends a file, an export of another server, or a directory, and says what came of it', async () => {
    await flipStored(leafAt(128));
    await flipStored(chunk(200));
    const foreign = await serving(join(folder, 'foreign'));
    await importVm(foreign, 'golden', image);
    await restOf(foreign).must('POST', '/vms/golden/backups', { name: 'old' });
    const server = await serving(data);
    const url = server.addresses.http;
    tokenOfServing(server);
    const useless = join(folder, 'useless.raw');
    await writeFile(useless, other);
    const none = await pando(['verify', '--repair-from', useless], { url });
    expect(none.status, none.stderr).toBe(1);
    expect(none.stdout).toMatch(
      /^Nothing repaired: the source \(1\.0 MiB read\) holds none of the 0 chunks and \d nodes? that disks miss\.\nStill damaged:\n/,
    );

    const uri = `${foreign.addresses.nbd}/golden@old`;
    const done = await pando(['verify', '--repair-from', uri], { url });
    expect(done.status, done.stderr).toBe(0);
    expect(done.stdout).toMatch(
      /^Repaired 4 of 4 chunks and (\d) of \1 nodes? that disks missed\.\nWhole again: 4 disks\.\n {2}VM web, disk0\n/,
    );
    expect(done.stdout).toMatch(/\nNo disk misses anything any more, by the verification of .+\.\n$/);

    const nothing = await pando(['verify', '--repair-from', join(folder, 'foreign'), '--json'], { url });
    expect(nothing.status, nothing.stderr).toBe(0);
    expect(nothing.json()).toMatchObject({ lostChunks: 0, readBytes: 0, again: false });
    const missing = await pando(['verify', '--repair-from', join(folder, 'nowhere.raw')], { url });
    expect(missing).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('import-not-a-file') as string,
    });
    const empty = await pando(['verify', '--repair-from', tmpdir()], { url });
    expect(empty).toMatchObject({ status: 1, stderr: expect.stringContaining('store-missing') as string });
    expect((await pando(['verify', '--repair-from', raw, '--quick'])).status).toBe(2);
    const rest = restOf(server);
    for (const path of ['../etc/passwd', '/etc'])
      expect((await rest.call('POST', '/repairs', { path })).body).toMatchObject({
        code: 'import-path-refused',
      });
    await server.close();
    await expectWhole();
  });

  itWithTools(['qemu-img', 'qemu-nbd', 'bwrap', 'prlimit'], 'reads images of other formats', async () => {
    await flipStored(chunk(5));
    const qcow2 = join(folder, 'image.qcow2');
    await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2]);
    const done = await pando(['verify', '--data', data, '--repair-from', qcow2]);
    expect(done.status, done.stderr).toBe(0);
    expect(done.stdout).toContain('Repaired 4 of 4 chunks and 0 of 0 nodes that disks missed.');
    await expectWhole();
  });
});

it('with large chunks, nodes come back from a copy of the store, and from an image', async () => {
  await story(16 * 1024);
  const copy = join(folder, 'copy');
  await cp(data, copy, { recursive: true });
  for (const from of ['copy', 'image.raw']) {
    const ids = Buffer.alloc(64 * 32);
    for (let i = 0; i < 64; i++) ids.set(hashChunk(image.subarray(i * 16384, (i + 1) * 16384)), i * 32);
    await flipStored(ids);
    const server = await serving(data);
    const result = (await restOf(server).job('/repairs', { path: from })) as Repaired;
    expect(result.repairedNodes).toBeGreaterThan(0);
    if (from === 'copy') expect(result.report.disks).toEqual([]);
    await server.close();
    await rm(data, { recursive: true });
    if (from === 'copy') await cp(copy, data, { recursive: true });
  }
});
