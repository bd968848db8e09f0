/** Damage to the mirror of the catalog, which no disk refers to: what finds it in a server has it written anew. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MemoryCatalog } from '@pando/catalog';
import { findAnchors, restoreCatalog, type FoundAnchor } from '@pando/catalog-mirror';
import { DirectorySegmentStorage, MemoryChunkIndex, openChunkStore } from '@pando/chunk-store';
import { nodeFileSystem } from '@pando/common';
import { serve, type Serving } from '@pando/server';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Rest, restOf } from '../support/rest.ts';

let folder: string;
let data: string;
let server: Serving | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-mirror-'));
  data = join(folder, 'data');
});
afterEach(async () => {
  await server?.close();
  await rm(folder, { recursive: true });
});

async function start(): Promise<Rest> {
  const address = { host: '127.0.0.1', port: 0 };
  const quiet = { gcEveryMs: 0, verifyEveryMs: 0 };
  server = await serve({ dataDirectory: data, http: address, nbd: address, ...quiet });
  return restOf(server);
}

async function stop(): Promise<void> {
  await server!.close();
  server = undefined;
}

/** The newest mirror in the segments, and the VMs that it knows; undefined when it cannot be read. */
async function newest(): Promise<{ anchor: FoundAnchor; vms: number | undefined }> {
  const { storeId: name, chunkBytes } = JSON.parse(await readFile(join(data, 'store.json'), 'utf8')) as {
    storeId: string;
    chunkBytes: number;
  };
  const storeId = Uint8Array.from(Buffer.from(name.replaceAll('-', ''), 'hex'));
  const storage = new DirectorySegmentStorage(nodeFileSystem, join(data, 'segments'));
  const store = await openChunkStore({ storage, index: new MemoryChunkIndex(), storeId, chunkBytes });
  try {
    const [anchor] = await findAnchors(store, storeId);
    const catalog = new MemoryCatalog();
    const isWhole = await restoreCatalog(store, anchor!, catalog, anchor!.epoch + 1).then(
      () => true,
      () => false,
    );
    return { anchor: anchor!, vms: isWhole ? (await catalog.list('vm')).length : undefined };
  } finally {
    await store.close();
  }
}

/** Damages the run that holds the root of a mirror: its ids stand in the header of the run, which comes first. */
async function damage({ root }: FoundAnchor): Promise<void> {
  for (const name of await readdir(join(data, 'segments'))) {
    const file = join(data, 'segments', name);
    const bytes = await readFile(file);
    const at = bytes.indexOf(root.id);
    if (at < 0) continue;
    bytes[at]! ^= 1;
    await writeFile(file, bytes);
    return;
  }
  throw new Error('the root is in no segment');
}

it('is named by a verification, after which the whole of it is written anew', async () => {
  const rest = await start();
  await rest.must('POST', '/vms', { name: 'web', disks: [{ name: 'disk0', sizeBytes: 4096 }] });
  await stop();
  const { anchor, vms } = await newest();
  expect(vms).toBe(1);
  await damage(anchor);
  expect((await newest()).vms).toBeUndefined();

  const report = (await (await start()).job('/verify')) as { damaged: unknown[]; disks: unknown[] };
  expect(report.damaged).not.toEqual([]);
  expect(report.disks).toEqual([]);
  await stop(); // mirrors what is to be mirrored
  const after = await newest();
  expect(after.vms).toBe(1);
  expect(after.anchor.epoch).toBeGreaterThan(anchor.epoch);
});
