/** Repairs over REST: files and directories of the import directory, and uploads, read or not. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeSparse, PandoError, SPARSE_MEDIA_TYPE, type DiskPart } from '@pando/common';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RepairSource } from './context.ts';
import type { Job, RepairReport } from './schemas/index.ts';
import { harness, REPAIR_REPORT, until, type Harness } from './testing/harness.ts';

let at: Harness;
let folder: string;
let url: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-api-'));
  await mkdir(join(folder, 'images'));
  at = await harness({ importDirectory: join(folder, 'images'), limits: { lingerMs: 300 } });
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  url = `http://127.0.0.1:${(at.app.server.address() as AddressInfo).port}/api/v1/repairs`;
});
afterEach(async () => {
  await at.close();
  await rm(folder, { recursive: true });
});

const post = (type: string, body: NonNullable<RequestInit['body']>, query = ''): Promise<Response> =>
  fetch(url + query, { method: 'POST', headers: { 'content-type': type }, body });
const postPath = (body: object): Promise<Response> => post('application/json', JSON.stringify(body));

/** What the engine was given, read to its end. */
function reading(): { read: Buffer[]; sources: RepairSource[] } {
  const given: { read: Buffer[]; sources: RepairSource[] } = { read: [], sources: [] };
  at.engine.repair = async ({ signal, onProgress }, source) => {
    given.sources.push(source);
    const parts: Buffer[] = [];
    for await (const part of source.parts(signal!))
      parts.push(part instanceof Uint8Array ? Buffer.from(part) : Buffer.alloc(part.holeBytes));
    onProgress?.({ phase: 'source', done: 1 });
    given.read.push(Buffer.concat(parts));
    return REPAIR_REPORT;
  };
  return given;
}

async function ended(answer: Response): Promise<Job> {
  expect(answer.status).toBe(202);
  const { id } = (await answer.json()) as Job;
  await until(() => ['done', 'failed'].includes(at.jobs.get(id).state));
  return at.jobs.get(id);
}

test('an image in the import directory is a job, and closed after it', async () => {
  const given = reading();
  await writeFile(join(folder, 'images', 'a.raw'), 'some bytes');
  const job = await ended(await postPath({ path: 'a.raw', format: 'raw' }));
  expect(job).toMatchObject({ kind: 'repair', subject: 'a.raw', state: 'done', result: REPAIR_REPORT });
  expect(given.read.map(String)).toEqual(['some bytes']);
  expect(given.sources[0]!.sizeBytes).toBe(10);
  expect(given.sources[0]!.isOnce).toBeUndefined();
});

test('a directory in it is a store', async () => {
  const given = reading();
  await mkdir(join(folder, 'images', 'copy'));
  const opened: string[] = [];
  let closed = 0;
  at.engine.openStoreSource = (path) => {
    opened.push(path);
    return Promise.resolve({
      sizeBytes: 3,
      async *parts() {
        yield await Promise.resolve(Buffer.from('abc'));
      },
      close: () => {
        closed++;
        return Promise.resolve();
      },
    });
  };
  expect((await ended(await postPath({ path: 'copy' }))).state).toBe('done');
  expect(opened).toEqual([join(folder, 'images', 'copy')]);
  expect(given.read.map(String)).toEqual(['abc']);
  await until(() => closed === 1);

  await mkdir(join(folder, 'elsewhere', 'segments'), { recursive: true });
  await symlink(join(folder, 'elsewhere', 'segments'), join(folder, 'images', 'copy', 'segments'));
  await symlink(join(folder, 'elsewhere'), join(folder, 'images', 'link'));
  for (const path of ['copy', 'link', '..', join(folder, 'elsewhere')]) {
    expect(await (await postPath({ path })).json()).toMatchObject({ code: 'import-path-refused' });
  }
  expect(opened).toHaveLength(1);
});

test('an upload is answered when it has been looked through, raw or sparse', async () => {
  const given = reading();
  const raw = await post('application/octet-stream', 'raw bytes');
  expect(raw.status).toBe(200);
  expect(await raw.json()).toEqual({ jobId: expect.any(String) as string, result: REPAIR_REPORT });
  const parts = async function* (): AsyncGenerator<DiskPart> {
    yield await Promise.resolve(Buffer.from('ab'));
    yield { holeBytes: 2 };
  };
  const stream: Buffer[] = [];
  for await (const piece of encodeSparse(parts())) stream.push(Buffer.from(piece));
  expect((await post(SPARSE_MEDIA_TYPE, new Uint8Array(Buffer.concat(stream)), '?sizeBytes=4')).status).toBe(
    200,
  );
  expect(given.read.map(String)).toEqual(['raw bytes', 'ab\0\0']);
  expect(given.sources.map(({ isOnce, sizeBytes }) => [isOnce, sizeBytes])).toEqual([
    [true, 9],
    [true, 4],
  ]);
  expect((await post(SPARSE_MEDIA_TYPE, new Uint8Array(Buffer.concat(stream)), '?sizeBytes=5')).status).toBe(
    503,
  );
});

test('an upload that nobody needs is answered without being read, however long it is', async () => {
  at.engine.repair = () => Promise.resolve({ ...REPAIR_REPORT, readBytes: 0 });
  const body = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) });
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/octet-stream' },
    body,
    duplex: 'half',
  });
  expect(((await answer.json()) as { result: RepairReport }).result.readBytes).toBe(0);
});

test('fails as its source does, waits for the lane of the store, and needs an import directory for paths', async () => {
  const gc = Promise.withResolvers<never>();
  at.engine.gc = () => gc.promise;
  void fetch(url.replace('repairs', 'gc'), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  });
  await until(() => at.jobs.list({ limit: 1 }).items[0]?.state === 'running');
  at.engine.repair = () => Promise.reject(new PandoError('source-failed', 'EIO'));
  await writeFile(join(folder, 'images', 'a.raw'), 'some bytes');
  const answer = await postPath({ path: 'a.raw' });
  const { id } = (await answer.json()) as Job;
  expect(at.jobs.get(id).state).toBe('queued');
  gc.reject(new PandoError('cancelled', 'enough'));
  await until(() => at.jobs.get(id).state === 'failed');
  expect(at.jobs.get(id).error).toMatchObject({ code: 'source-failed' });

  expect(await (await postPath({ path: 'missing.raw' })).json()).toMatchObject({ code: 'import-not-a-file' });
  const bare = await harness();
  const refused = await bare.app.inject({
    method: 'POST',
    url: '/api/v1/repairs',
    payload: { path: 'a.raw' },
  });
  expect(refused.json()).toMatchObject({ code: 'import-path-refused' });
  await bare.close();
});
