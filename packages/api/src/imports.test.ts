import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import {
  encodeSparse,
  frameHeader,
  idsFrameHeader,
  SPARSE_IDS_MEDIA_TYPE,
  SPARSE_MEDIA_TYPE,
  type DiskPart,
} from '@pando/common';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Job } from './schemas/index.ts';
import { harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
let folder: string;
let port: number;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-api-'));
  await mkdir(join(folder, 'images'));
  at = await harness({
    importDirectory: join(folder, 'images'),
    limits: { uploadPauseMs: 300, lingerMs: 300 },
  });
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  port = (at.app.server.address() as AddressInfo).port;
});
afterEach(async () => {
  await at.close();
  await rm(folder, { recursive: true });
});

const RAW = 'application/octet-stream';

interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: {
    code?: string;
    jobId?: string;
    result?: { vm: { id: string }; readBytes: number };
    id?: string;
    detail?: string;
  };
}

function open(
  path: string,
  headers: http.OutgoingHttpHeaders,
): { request: http.ClientRequest; answer: Promise<Answer> } {
  const request = http.request({
    port,
    host: '127.0.0.1',
    method: 'POST',
    path: `/api/v1/imports${path}`,
    headers,
  });
  const answer = new Promise<Answer>((resolve, reject) => {
    request.on('error', reject);
    request.on('response', (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          body: JSON.parse(Buffer.concat(parts).toString()) as Answer['body'],
        }),
      );
    });
  });
  answer.catch(() => undefined);
  return { request, answer };
}

async function upload(path: string, body: Buffer, headers: http.OutgoingHttpHeaders = {}): Promise<Answer> {
  const { request, answer } = open(path, {
    'content-type': RAW,
    'content-length': body.byteLength,
    ...headers,
  });
  request.end(body);
  return answer;
}

const job = async (id: string): Promise<Job> => (await at.app.inject(`/api/v1/jobs/${id}`)).json();
const lastJob = (): Job => at.jobs.list({ limit: 1 }).items[0]!;
const bytesOf = (name: string): Buffer =>
  [...at.fleet.vms.values()]
    .find((vm) => vm.name === name)!
    .disks.values()
    .next().value!;

describe('an upload', () => {
  test('becomes a VM and a job that is done', async () => {
    const body = Buffer.alloc(1_000_448, 3);
    const answer = await upload('?name=golden&disk=root', body);
    expect(answer.status).toBe(201);
    expect(answer.headers.location).toBe(`/api/v1/vms/${answer.body.result!.vm.id}`);
    expect(answer.body.result).toMatchObject({
      readBytes: 1_000_448,
      vm: { name: 'golden', disks: [{ name: 'root', sizeBytes: 1_000_448 }] },
    });
    expect(bytesOf('golden').equals(body)).toBe(true);
    expect(await job(answer.body.jobId!)).toMatchObject({
      kind: 'import',
      subject: 'golden',
      state: 'done',
      progress: { done: 1_000_448, all: 1_000_448 },
      result: { readBytes: 1_000_448 },
    });
  });

  test('may be chunked, with or without its size', async () => {
    for (const query of ['?name=a', '?name=b&sizeBytes=2048']) {
      const { request, answer } = open(query, { 'content-type': RAW });
      request.write(Buffer.alloc(1024, 1));
      request.end(Buffer.alloc(1024, 2));
      expect((await answer).status).toBe(201);
    }
  });

  test('is refused when it is longer than was said, and interrupted when shorter', async () => {
    for (const [sizeBytes, status, code] of [
      [1024, 400, 'size-invalid'],
      [4096, 503, 'import-interrupted'],
    ] as const) {
      const { request, answer } = open(`?name=a&sizeBytes=${sizeBytes}`, { 'content-type': RAW });
      request.end(Buffer.alloc(2048));
      expect(await answer).toMatchObject({ status, body: { code } });
    }
    expect(at.fleet.vms.size).toBe(0);
  });

  test('may be a sparse stream, in which holes cost nothing', async () => {
    const parts: DiskPart[] = [{ holeBytes: 1_000_000 }, Buffer.from('hello'), { holeBytes: 48_571 }];
    const { request, answer } = open('?name=sparse&sizeBytes=1048576', { 'content-type': SPARSE_MEDIA_TYPE });
    Readable.from(encodeSparse(Readable.from(parts))).pipe(request);
    expect((await answer).body.result).toMatchObject({
      readBytes: 5,
      vm: { disks: [{ sizeBytes: 1_048_576 }] },
    });
    expect(bytesOf('sparse').subarray(1_000_000, 1_000_005).toString()).toBe('hello');
    const wrong = await upload('?name=wrong', Buffer.alloc(500, 0xff), { 'content-type': SPARSE_MEDIA_TYPE });
    expect(wrong).toMatchObject({ status: 400, body: { code: 'stream-invalid' } });
  });

  test('may bring chunks by their ids, after asking which are stored', async () => {
    const id = Buffer.alloc(32, 9);
    at.fleet.chunks.set(id.toString('hex'), Buffer.alloc(4096, 'x'));
    const asked = await at.app.inject({
      method: 'POST',
      url: '/api/v1/chunks/lookup',
      headers: { 'content-type': RAW },
      payload: Buffer.concat([Buffer.alloc(32, 1), id, Buffer.alloc(32)]),
    });
    expect(asked).toMatchObject({ statusCode: 200, rawPayload: Buffer.from([0, 1, 1]) });
    expect(asked.headers).toMatchObject({ 'content-type': RAW, 'pando-chunk-bytes': '4096' });
    const odd = { method: 'POST', url: '/api/v1/chunks/lookup', headers: { 'content-type': RAW } } as const;
    expect((await at.app.inject({ ...odd, payload: Buffer.alloc(33) })).statusCode).toBe(400);
    expect((await at.app.inject({ ...odd, payload: Buffer.alloc(4097 * 32) })).statusCode).toBe(413);
    expect((await at.app.inject({ ...odd, payload: '{}', headers: {} })).statusCode).toBe(415);

    const stream = (ids: Buffer): Buffer =>
      Buffer.concat([
        idsFrameHeader(4096, 1),
        ids,
        frameHeader(16_384, 2),
        Buffer.from('hi'),
        frameHeader(20_480, 0),
      ]);
    const headers = { 'content-type': SPARSE_IDS_MEDIA_TYPE };
    expect((await upload('?name=ids&sizeBytes=20480', stream(id), headers)).status).toBe(201);
    const disk = Buffer.alloc(20_480);
    disk.fill('x', 4096, 8192).write('hi', 16_384);
    expect(bytesOf('ids').equals(disk)).toBe(true);
    expect(await upload('?name=small&sizeBytes=4608', stream(id), headers)).toMatchObject({ status: 400 });
    const unknown = await upload('?name=unknown', stream(Buffer.alloc(32, 1)), headers);
    expect(unknown).toMatchObject({ status: 409, body: { code: 'chunk-unknown' } });
    at.fleet.isKeyed = true;
    const keyed = await upload('?name=keyed', stream(id), headers);
    expect(keyed).toMatchObject({ status: 409, body: { code: 'ids-keyed' } });
    at.fleet.isKeyed = false;
    // Only where it is said to be such a stream.
    const sparse = await upload('?name=sparse', stream(id), { 'content-type': SPARSE_MEDIA_TYPE });
    expect(sparse).toMatchObject({ status: 400, body: { code: 'stream-invalid' } });
  });

  test('that breaks off leaves a failed job and nothing else', async () => {
    const { request, answer } = open('?name=half', { 'content-type': RAW, 'content-length': 1 << 20 });
    request.write(Buffer.alloc(100_000));
    await until(() => at.fleet.heldBytes > 0);
    request.destroy();
    await expect(answer).rejects.toThrow();
    await until(() => lastJob().state !== 'running');
    expect(lastJob()).toMatchObject({ state: 'failed', error: { code: 'import-interrupted' } });
    expect(at.fleet.vms.size).toBe(0);
  });

  test('that stalls is given up', async () => {
    const { request, answer } = open('?name=half', { 'content-type': RAW, 'content-length': 1 << 20 });
    request.write(Buffer.alloc(1000));
    await answer.catch(() => undefined);
    await until(() => lastJob().state !== 'running');
    expect(lastJob()).toMatchObject({ state: 'failed', error: { code: 'import-interrupted' } });
    expect(at.internalErrors).toEqual([]);
  });

  test('waits for a busy engine: what it does not take stays with the sender, however long', async () => {
    let open_ = (): void => undefined;
    const gate = new Promise<void>((resolve) => (open_ = resolve));
    at.fleet.gate = () => gate;
    const total = 64 * 1024 * 1024;
    const { request, answer } = open('?name=slow', { 'content-type': RAW, 'content-length': total });
    const piece = Buffer.alloc(1 << 20);
    let sent = 0;
    const pump = (): void => {
      while (sent < total) {
        sent += piece.byteLength;
        if (!request.write(piece) && sent < total) {
          request.once('drain', pump);
          return;
        }
      }
      request.end();
    };
    pump();
    await until(() => at.fleet.heldBytes > 0);
    // Longer than the longest pause that a client may make: the wait is not the client's.
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(at.fleet.heldBytes).toBeLessThan(1 << 20);
    expect(sent).toBeLessThan(total / 2);
    at.fleet.gate = undefined;
    open_();
    expect((await answer).status).toBe(201);
  });

  test('is cancelled as a job', async () => {
    const { request, answer } = open('?name=half', { 'content-type': RAW, 'content-length': 1 << 20 });
    request.on('error', () => undefined);
    request.write(Buffer.alloc(1000));
    await until(() => at.fleet.heldBytes > 0);
    const cancelled = await at.app.inject({ method: 'DELETE', url: `/api/v1/jobs/${lastJob().id}` });
    expect(cancelled.statusCode).toBe(200);
    expect(await answer).toMatchObject({ status: 503, body: { code: 'cancelled' } });
    expect(lastJob().state).toBe('cancelled');
  });

  test('with a wrong name is refused while it is sent, and the client gets to read why', async () => {
    await upload('?name=taken', Buffer.alloc(512));
    for (const [query, code] of [
      ['?name=taken', 'name-taken'],
      ['?name=a%2Fb', 'name-invalid'],
      ['', 'request-invalid'],
      ['?name=a&sizeBytes=5', 'size-invalid'],
    ] as const) {
      const { request, answer } = open(query, { 'content-type': RAW, 'transfer-encoding': 'chunked' });
      request.on('error', () => undefined);
      const feed = setInterval(() => request.write(Buffer.alloc(65_536)), 5);
      expect((await answer).body.code).toBe(code);
      clearInterval(feed);
      request.destroy();
    }
  });

  test('that asks first (Expect: 100-continue) is invited only when nothing is wrong with its name', async () => {
    await upload('?name=taken', Buffer.alloc(512));
    for (const [name, invited] of [
      ['taken', false],
      ['free', true],
    ] as const) {
      const { request, answer } = open(`?name=${name}`, {
        'content-type': RAW,
        'content-length': 512,
        'expect': '100-continue',
      });
      let continued = false;
      request.on('continue', () => {
        continued = true;
        request.end(Buffer.alloc(512));
      });
      request.flushHeaders();
      expect((await answer).status).toBe(invited ? 201 : 409);
      expect(continued).toBe(invited);
      request.destroy();
    }
  });

  test('is not read again when its Idempotency-Key has an answer', async () => {
    const headers = { 'idempotency-key': 'one' };
    const first = await upload('?name=a', Buffer.alloc(1024), headers);
    const second = await upload('?name=a', Buffer.alloc(1024), headers);
    expect(second.body).toEqual(first.body);
    expect(second.headers['idempotency-replayed']).toBe('true');
    expect(at.jobs.list({ limit: 10 }).items).toHaveLength(1);
  });

  test('of another media type is refused', async () => {
    expect(await upload('?name=a', Buffer.from('x'), { 'content-type': 'image/png' })).toMatchObject({
      status: 415,
      body: { code: 'media-type-unsupported' },
    });
  });
});

describe('a file on the server', () => {
  const byPath = async (body: object): Promise<Answer> =>
    upload('', Buffer.from(JSON.stringify(body)), { 'content-type': 'application/json' });

  test('is imported as a job', async () => {
    await writeFile(join(folder, 'images/disk.raw'), Buffer.alloc(4096, 9));
    await symlink('disk.raw', join(folder, 'images/link'));
    for (const [index, path] of [
      'disk.raw',
      './disk.raw',
      'link',
      join(folder, 'images/disk.raw'),
    ].entries()) {
      const answer = await byPath({ name: `vm${index}`, path, disk: 'd' });
      expect(answer.status).toBe(202);
      expect(answer.headers.location).toBe(`/api/v1/jobs/${answer.body.id!}`);
      await until(async () => (await job(answer.body.id!)).state === 'done');
      expect(bytesOf(`vm${index}`).equals(Buffer.alloc(4096, 9))).toBe(true);
    }
  });

  test('outside the import directory is refused, however it is named', async () => {
    await writeFile(join(folder, 'secret'), Buffer.alloc(512));
    await symlink('../secret', join(folder, 'images/link'));
    await symlink('..', join(folder, 'images/up'));
    await mkdir(join(folder, 'images-2'));
    await writeFile(join(folder, 'images-2/disk'), Buffer.alloc(512));
    for (const path of [
      '../secret',
      'link',
      'up/secret',
      join(folder, 'secret'),
      '/etc/passwd',
      '/etc/missing',
      '../images-2/disk',
      '../missing',
      'a\0b',
    ]) {
      expect(await byPath({ name: 'a', path })).toMatchObject({
        status: 400,
        body: { code: 'import-path-refused' },
      });
    }
  });

  test('that is no regular file is refused', async () => {
    await mkdir(join(folder, 'images/sub'));
    for (const path of ['sub', 'missing']) {
      expect(await byPath({ name: 'a', path })).toMatchObject({
        status: 400,
        body: { code: 'import-not-a-file' },
      });
    }
    expect(await byPath({ name: 'a', path: '.' })).toMatchObject({ status: 400 });
    expect(await byPath({ name: 'a', path: '' })).toMatchObject({
      status: 400,
      body: { code: 'request-invalid' },
    });
    expect(await byPath({ path: 'x' })).toMatchObject({ status: 400, body: { code: 'request-invalid' } });
  });

  test('fails as a job when the fleet says no', async () => {
    await writeFile(join(folder, 'images/odd'), Buffer.alloc(1000));
    const answer = await byPath({ name: 'a', path: 'odd' });
    expect(answer.status).toBe(202);
    await until(async () => (await job(answer.body.id!)).state === 'failed');
    expect(await job(answer.body.id!)).toMatchObject({
      error: { code: 'size-invalid', remedy: expect.stringContaining('512') as string },
    });
  });

  test('cannot be imported when the server has no import directory', async () => {
    const other = await harness();
    const answer = await other.app.inject({
      method: 'POST',
      url: '/api/v1/imports',
      headers: { 'content-type': 'application/json' },
      payload: { name: 'a', path: 'x' },
    });
    expect(answer.json()).toMatchObject({ status: 400, code: 'import-path-refused' });
    await other.close();
  });
});

describe('an import since a backup', () => {
  test('becomes the next backup of the VM', async () => {
    await upload('?name=web', Buffer.alloc(8192, 1));
    const first = await at.fleet.createBackup('web', { name: 'monday' });
    const answer = await upload('?since=web%40monday&name=tuesday', Buffer.alloc(8192, 2));
    const { backup } = answer.body.result as unknown as { backup: { id: string } };
    expect(answer).toMatchObject({
      status: 201,
      headers: { location: `/api/v1/backups/${backup.id}` },
      body: {
        result: {
          changedBytes: 8192,
          sizeBytes: 8192,
          chunkBytes: 4096,
          root: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
          backup: { name: 'tuesday', vmName: 'web', lineage: first.lineage },
        },
      },
    });
    expect(await job(answer.body.jobId!)).toMatchObject({
      kind: 'import',
      subject: 'web@monday',
      result: { changedBytes: 8192 },
    });
    expect(await upload('?since=web%40never', Buffer.alloc(512))).toMatchObject({
      status: 404,
      body: { code: 'backup-missing' },
    });
  });

  test('may come from a file on the server, named by its disk', async () => {
    await upload('?name=web&disk=root', Buffer.alloc(8192, 1));
    await at.fleet.createBackup('web', { name: 'monday' });
    await writeFile(join(folder, 'images/new.raw'), Buffer.alloc(4096, 9));
    const { request, answer } = open('', { 'content-type': 'application/json' });
    request.end(JSON.stringify({ path: 'new.raw', since: 'web@monday', disk: 'root', verify: true }));
    const { id } = (await answer).body;
    await until(() => at.jobs.get(id!).state === 'done');
    expect(await job(id!)).toMatchObject({
      result: { backup: { disks: [{ name: 'root', sizeBytes: 4096 }] }, changedBytes: 4096 },
    });
  });
});
