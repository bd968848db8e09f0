/** Stores of every format version open for ever; and what no store is, is told so. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pando } from '../cli/pando.ts';
import { connect, mustVerify } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import {
  contentsOf,
  GOLDEN_FORMATS,
  goldenContents,
  goldenImage,
  goldenStore,
  KEYED,
  PLAIN,
} from './story.ts';
import type { GoldenContents } from './story.ts';

const MAIN = fileURLToPath(new URL('../../apps/server/src/main.ts', import.meta.url));
/** How a zstd frame begins. */
const ZSTD_MAGIC = Buffer.from('28b52ffd', 'hex');

let folder: string;
let data: string;
let contents: GoldenContents;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-golden-'));
  data = join(folder, 'data');
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function serving(action: (server: TestServer) => Promise<void>): Promise<void> {
  const server = await TestServer.start({ dataDirectory: data });
  try {
    await action(server);
  } finally {
    await server.close();
  }
}

async function copyOf(format: number): Promise<void> {
  contents = JSON.parse(await readFile(goldenContents(format), 'utf8')) as GoldenContents;
  await cp(goldenStore(format), data, { recursive: true });
}

describe.each(GOLDEN_FORMATS)('the golden store of format %i', (format) => {
  beforeEach(() => copyOf(format));

  it('has VMs, backups, disks and bytes as they were written, before and after a restart', async () => {
    expect(contents.vms.length + contents.backups.length).toBeGreaterThan(4);
    await serving(async (server) => {
      expect(await contentsOf(server)).toEqual(contents);
      await mustVerify(server);
      // Now the log is destaged: the same bytes come from the tree.
      expect(await server.stop()).toBe(0);
      await server.restart();
      expect(await contentsOf(server)).toEqual(contents);
      await server.rest.job('/gc');
      await mustVerify(server);
      expect(await contentsOf(server)).toEqual(contents);
    });
  });

  // Those of the plain one of today are what all other tests do.
  if (format !== PLAIN.format)
    it('takes writes, clones and backups as if it were of today', async () => {
      await serving(async (server) => {
        await server.rest.must('POST', '/vms/web-2/clone', { name: 'web-3' });
        const client = await connect(server, 'web-3/disk0');
        await client.write(512, Buffer.alloc(4096, 7));
        await client.close();
        await server.rest.must('POST', '/vms/web-3/backups', { name: 'b' });
        await server.rest.must('DELETE', '/vms/web-3');
        await server.rest.must('DELETE', '/backups/web-3@b');
        await server.rest.job('/gc');
        expect(await contentsOf(server)).toEqual(contents);
      });
    });

  it('has writes in its log that are not in the tree, and runs of both codecs', async () => {
    const logs = await readdir(join(data, 'log'));
    let bytes = 0;
    for (const name of logs) bytes += (await readFile(join(data, 'log', name))).length;
    expect(bytes).toBeGreaterThan(8192);
    const segments = await readdir(join(data, 'segments'));
    const stored = await Promise.all(segments.map((name) => readFile(join(data, 'segments', name))));
    const noise = goldenImage(1).subarray(0, 4096);
    expect(stored.some((segment) => segment.includes(noise))).toBe(true);
    expect(stored.some((segment) => segment.includes(ZSTD_MAGIC))).toBe(true);
  });
});

describe('the golden store of today', () => {
  it('reads the same after its index was lost and made anew', async () => {
    await copyOf(PLAIN.format);
    await rm(join(data, 'index'), { recursive: true });
    const ran = await pando(['verify', '--rebuild-index', '--data', data, '--json']);
    expect(ran, ran.stderr).toMatchObject({ status: 0 });
    expect(ran.json()).toMatchObject({ damaged: [] });
    await serving(async (server) => {
      expect(await contentsOf(server)).toEqual(contents);
      await mustVerify(server);
    });
  });

  it('whose ids are keyed reads the same when a server finds index and store.json gone and makes them anew by itself', async () => {
    await copyOf(KEYED.format);
    const path = join(data, 'store.json');
    const {
      createdAt: _at,
      crc: _crc,
      ...said
    } = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
    expect(said['hashKey']).toMatch(/^[0-9a-f]{64}$/);
    await rm(path);
    await rm(join(data, 'index'), { recursive: true });
    await serving(async (server) => {
      expect(await contentsOf(server)).toEqual(contents);
      await mustVerify(server);
    });
    expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject(said);
  });
});

describe('a data directory that cannot be served', () => {
  beforeEach(() => copyOf(PLAIN.format));

  /** The server's exit status and what it says on standard error. */
  async function refused(path: string): Promise<{ status: number | null; message: string }> {
    const child = spawn(
      process.execPath,
      [MAIN, '--data', path, '--http', '127.0.0.1:0', '--nbd', '127.0.0.1:0'],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    let message = '';
    child.stderr.on('data', (part: Buffer) => (message += part.toString()));
    const [status] = (await once(child, 'close')) as [number | null];
    return { status, message };
  }

  it('of a newer format is refused with store-newer, and nothing in it is touched', async () => {
    const path = join(data, 'store.json');
    const store = JSON.parse(await readFile(path, 'utf8')) as { format: number };
    await writeFile(path, JSON.stringify({ ...store, format: KEYED.format + 1, crc: undefined }));
    const before = await readdir(data, { recursive: true });
    const { status, message } = await refused(data);
    expect(status).toBe(1);
    expect(message).toMatch(/format 4.*\(store-newer\)/);
    expect(await readdir(data, { recursive: true })).toEqual(before);
  });

  it('of something else is refused with store-foreign, and nothing is written into it', async () => {
    const other = join(folder, 'photos');
    await mkdir(other);
    await writeFile(join(other, 'holiday.jpg'), 'x');
    expect(await refused(other)).toMatchObject({
      status: 1,
      message: expect.stringMatching(/holiday\.jpg.*\(store-foreign\)/) as string,
    });
    expect(await readdir(other)).toEqual(['holiday.jpg']);
    await writeFile(join(other, 'store.json'), '{"program":"shop","format":1}');
    expect(await refused(other)).toMatchObject({
      status: 1,
      message: expect.stringContaining('(store-foreign)') as string,
    });
    expect((await readdir(other)).sort()).toEqual(['holiday.jpg', 'store.json']);
  });

  it('that another process serves is refused with store-locked, also to tools', async () => {
    await serving(async (server) => {
      expect(await refused(data)).toMatchObject({
        status: 1,
        message: expect.stringContaining('(store-locked)') as string,
      });
      const ran = await pando(['verify', '--rebuild-index', '--data', data]);
      expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining('(store-locked)') as string });
      expect(await contentsOf(server)).toEqual(contents);
    });
  });
});
