/**
 * A store of which something was written by a newer Pando is refused, with a sentence that says what to do, and nothing in
 * it is changed. store.json alone would do; every other place that carries a version is held to it as well.
 */
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { openLevelCatalog, type Catalog } from '@pando/catalog';
import { ERROR_CODES } from '@pando/common';
import { NbdClient } from '@pando/nbd/client';
import {
  openStoreSource,
  rebuildIndex,
  repairOffline,
  serve,
  verifyOffline,
  type Serving,
} from '@pando/server';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pando } from '../cli/pando.ts';
import { importVm } from '../support/disks.ts';
import { restOf } from '../support/rest.ts';
import { goldenImage } from './story.ts';

const NEWER = 99;

let folder: string;
let data: string;
const servers: Serving[] = [];

async function serving(dataDirectory = data): Promise<Serving> {
  const address = { host: '127.0.0.1', port: 0 };
  const server = await serve({ dataDirectory, http: address, nbd: address, gcEveryMs: 0, verifyEveryMs: 0 });
  servers.push(server);
  return server;
}

/** A store as a killed server leaves it: one segment sealed, one open, writes in the log. */
async function killed(): Promise<void> {
  const first = join(folder, 'first');
  let server = await serving(first);
  await importVm(server, 'golden', goldenImage(1));
  await restOf(server).must('POST', '/vms/golden/backups', { name: 'monday' });
  await server.close();
  server = await serving(first);
  await importVm(server, 'other', goldenImage(2));
  const { port } = new URL(server.addresses.nbd);
  const client = await NbdClient.connect({ host: '127.0.0.1', port: Number(port) }, { exportName: 'golden' });
  await client.write(0, Buffer.alloc(4096, 7));
  await client.flush();
  await client.close();
  await cp(first, data, { recursive: true });
  await server.close();
}

/** Every file of the directory, with its bytes hashed. */
async function hashed(): Promise<string[]> {
  const lines: string[] = [];
  for (const name of (await readdir(data, { recursive: true })).sort()) {
    const path = join(data, name);
    if (!(await stat(path)).isFile()) continue;
    lines.push(
      `${name} ${createHash('sha256')
        .update(await readFile(path))
        .digest('hex')}`,
    );
  }
  return lines;
}

async function filesOf(part: string): Promise<string[]> {
  return (await readdir(join(data, part))).sort().map((name) => join(data, part, name));
}

/** A segment or log whose header says a later version. */
async function makeNewer(
  path: string,
  crcAt: number,
  change?: (bytes: Buffer, crc: number) => void,
): Promise<void> {
  const bytes = await readFile(path);
  bytes.writeUInt32LE(NEWER, 8);
  const crc = crc32(bytes.subarray(0, crcAt));
  bytes.writeUInt32LE(crc, crcAt);
  change?.(bytes, crc);
  await writeFile(path, bytes);
}

const newLog = (path: string): Promise<void> => makeNewer(path, 60);
/** All CRCs of a segment start from that of its header. */
const newSegment = (path: string): Promise<void> =>
  makeNewer(path, 44, (bytes, seed) => {
    const trailer = bytes.byteLength - 40;
    if (bytes.toString('latin1', trailer, trailer + 8) !== 'PANDOEND') return;
    const footer = bytes.readUInt32LE(trailer + 16);
    bytes.writeUInt32LE(crc32(bytes.subarray(footer, trailer), seed), trailer + 28);
    bytes.writeUInt32LE(crc32(bytes.subarray(trailer, trailer + 36), seed), trailer + 36);
  });

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-newer-'));
  data = join(folder, 'data');
  await killed();
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await rm(folder, { recursive: true, force: true });
});

describe('a later version', () => {
  it.each([
    [
      'of store.json',
      async () => {
        const path = join(data, 'store.json');
        const { crc: _, ...store } = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
        await writeFile(path, JSON.stringify({ ...store, format: NEWER }));
      },
    ],
    ['of the newest segment', async () => newSegment((await filesOf('segments')).at(-1)!)],
    ['of the log', async () => newLog((await filesOf('log')).findLast((file) => file.endsWith('.log'))!)],
  ])('%s is refused to the server and to every tool, and not a byte is changed', async (_what, change) => {
    await change();
    const before = await hashed();
    await expect(serving()).rejects.toMatchObject({ code: 'store-newer' });
    const source = { parts: () => Promise.reject(new Error('it is read')) as never };
    for (const tool of [verifyOffline, rebuildIndex, (path: string) => repairOffline(path, source)])
      await expect(tool(data)).rejects.toMatchObject({ code: 'store-newer' });
    expect(await hashed()).toEqual(before);
    const ran = await pando(['verify', '--data', data]);
    expect(ran.status).toBe(1);
    expect(ran.stderr).toMatch(new RegExp(`version ${NEWER}|format ${NEWER}`));
    expect(ran.stderr).toContain('(store-newer)');
    expect(ran.stderr).toContain(ERROR_CODES['store-newer'].remedy);
    expect(await hashed()).toEqual(before);
  });

  it('of an older segment is refused, and no segment and no log is changed', async () => {
    await newSegment((await filesOf('segments'))[0]!);
    const kept = async (): Promise<string[]> =>
      (await hashed()).filter((line) => /^(segments|log|store\.json)/.test(line));
    const before = await kept();
    expect(before.length).toBeGreaterThan(3);
    // Below the checkpoint, and above it: without an index, everything is.
    await expect(serving()).rejects.toMatchObject({ code: 'store-newer' });
    expect(await kept()).toEqual(before);
    await rm(join(data, 'index'), { recursive: true });
    await expect(serving()).rejects.toMatchObject({ code: 'store-newer' });
    expect(await kept()).toEqual(before);
    await expect(openStoreSource(data)).rejects.toMatchObject({ code: 'store-newer' });
  });

  it('of the layout of the catalog is refused, and what is in it stays', async () => {
    const catalog = await openLevelCatalog(join(data, 'catalog'));
    const vms = await catalog.list('vm');
    await catalog.commit([{ type: 'put', table: 'catalog-meta', key: 'layout', value: { version: NEWER } }]);
    await catalog.close();
    await expect(serving()).rejects.toMatchObject({
      code: 'store-newer',
      message: expect.stringContaining(String(NEWER)) as string,
    });
    await expect(verifyOffline(data)).rejects.toMatchObject({ code: 'store-newer' });
    await expect(openLevelCatalog(join(data, 'catalog'))).rejects.toMatchObject({ code: 'store-newer' });
    expect(vms).toHaveLength(2);
  });

  it.each([
    ['vm', ['/vms', '/report/space']],
    ['backup', ['/backups', '/report/space']],
    ['vm-name', ['/vms/golden']],
    ['backup-name', ['/backups/golden@monday']],
    ['disk', ['/vms/golden/disks/disk0/map', '/backups/golden@monday/disks/disk0/map']],
    ['volume', []],
    ['verification', ['/verify/last']],
  ])('of a record in table %s is refused to whoever needs it, and stays as it is', async (table, paths) => {
    if (table === 'verification') await verifyOffline(data);
    const newer = async (catalog: Catalog): Promise<void> => {
      const entries = await catalog.list(table, { limit: 100 });
      expect(entries.length).toBeGreaterThan(0);
      await catalog.commit(
        entries.map(({ key, value }) => ({
          ...({ type: 'put', table, key } as const),
          value: { ...(value as object), version: NEWER, of: 'the future' },
        })),
      );
    };
    const inCatalog = async <T>(action: (catalog: Catalog) => Promise<T>): Promise<T> => {
      const catalog = await openLevelCatalog(join(data, 'catalog'));
      try {
        return await action(catalog);
      } finally {
        await catalog.close();
      }
    };
    await inCatalog(newer);
    const before = await inCatalog((catalog) => catalog.list(table, { limit: 100 }));
    let refused = 0;
    const server = await serving().catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'store-newer' });
      refused++;
    });
    if (server !== undefined) {
      const rest = restOf(server);
      for (const path of paths) {
        const { body, status } = await rest.call('GET', path);
        if (status === 200) continue;
        expect(body, path).toMatchObject({ code: 'store-newer', remedy: ERROR_CODES['store-newer'].remedy });
        refused++;
      }
      await server.close();
    }
    expect(refused).toBeGreaterThan(0);
    expect(await inCatalog((catalog) => catalog.list(table, { limit: 100 }))).toEqual(before);
  });
});
