import { once } from 'node:events';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeSparse, SPARSE_MEDIA_TYPE, SPARSE_PROTOCOL } from '@pando/common';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseRange } from './range.ts';
import { harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
const SIZE = 3 * 1024 * 1024 + 512;
const bytes = Buffer.alloc(SIZE);
bytes.fill('abcdefg', 4096, 12_288);
bytes.fill('x', SIZE - 512);

beforeEach(async () => {
  at = await harness();
  await at.fleet.createVm({ name: 'web 1', disks: [{ name: 'disk0', sizeBytes: SIZE }] });
  bytes.copy([...at.fleet.vms.values()][0]!.disks.get('disk0')!);
  await at.fleet.createBackup('web 1', { name: 'b' });
});
afterEach(() => at.close());

const VM = '/api/v1/vms/web%201/disks/disk0';
const BACKUP = '/api/v1/backups/web%201@b/disks/disk0';
const clients = (): number => [...at.fleet.vms.values()][0]!.clients.size;

test.each([VM, BACKUP])('%s/content is the disk', async (url) => {
  const answer = await at.app.inject(`${url}/content`);
  expect(answer.statusCode).toBe(200);
  expect(answer.headers).toMatchObject({
    'content-type': 'application/octet-stream',
    'content-length': String(SIZE),
    'accept-ranges': 'bytes',
  });
  expect(answer.rawPayload.equals(bytes)).toBe(true);
  expect(clients()).toBe(0);
});

test('a HEAD tells the size and sends nothing', async () => {
  const answer = await at.app.inject({ method: 'HEAD', url: `${BACKUP}/content` });
  expect(answer).toMatchObject({ statusCode: 200, body: '' });
  expect(answer.headers['content-length']).toBe(String(SIZE));
  expect(answer.headers.etag).toMatch(/^".*\/disk0"$/);
});

test('a disk of a backup says what it hashes to, in every form; a disk of a VM changes', async () => {
  const { root } = await at.fleet.diskRoot('web 1@b', 'disk0');
  for (const headers of [{}, { range: 'bytes=0-1' }, { accept: SPARSE_MEDIA_TYPE }]) {
    const answer = await at.app.inject({ url: `${BACKUP}/content`, headers });
    expect(answer.headers).toMatchObject({ 'pando-root': root, 'pando-chunk-bytes': '4096' });
  }
  const head = await at.app.inject({ method: 'HEAD', url: `${BACKUP}/content` });
  expect(head.headers['pando-root']).toBe(root);
  expect((await at.app.inject(`${VM}/content`)).headers['pando-root']).toBeUndefined();
});

test.each([
  ['bytes=4096-4102', 4096, 4103],
  [`bytes=${SIZE - 5}-`, SIZE - 5, SIZE],
  ['bytes=-5', SIZE - 5, SIZE],
  ['bytes=0-99999999', 0, SIZE],
  ['bytes=1048575-1048576', 1_048_575, 1_048_577],
])('the range %s is answered with it', async (range, start, end) => {
  const answer = await at.app.inject({ url: `${VM}/content`, headers: { range } });
  expect(answer.statusCode).toBe(206);
  expect(answer.headers['content-range']).toBe(`bytes ${start}-${end - 1}/${SIZE}`);
  expect(answer.rawPayload.equals(bytes.subarray(start, end))).toBe(true);
});

test('a range past the end is 416, with the size', async () => {
  const answer = await at.app.inject({ url: `${VM}/content`, headers: { range: `bytes=${SIZE}-` } });
  expect(answer.statusCode).toBe(416);
  expect(answer.headers['content-range']).toBe(`bytes */${SIZE}`);
  expect(answer.json()).toMatchObject({ status: 416, code: 'range-invalid' });
  expect(clients()).toBe(0);
});

test('If-Range is honoured', async () => {
  const tag = (await at.app.inject({ method: 'HEAD', url: `${BACKUP}/content` })).headers.etag as string;
  for (const [ifRange, status] of [
    [tag, 206],
    ['"other"', 200],
  ] as const) {
    const answer = await at.app.inject({
      url: `${BACKUP}/content`,
      headers: { 'range': 'bytes=0-0', 'if-range': ifRange },
    });
    expect(answer.statusCode).toBe(status);
  }
});

test.each(['bytes', 'bytes=', 'bytes=-', 'bytes=5-4', 'bytes=a-b', 'items=0-1', 'bytes=0-1,3-4', undefined])(
  'the range header %j is ignored',
  (header) => {
    expect(parseRange(header, 100)).toBeUndefined();
  },
);

test('nothing of an empty range exists', () => {
  expect(parseRange('bytes=-0', 100)).toBe('unsatisfiable');
  expect(parseRange('bytes=0-', 0)).toBe('unsatisfiable');
});

test('the sparse form carries what is stored and nothing else', async () => {
  const answer = await at.app.inject({ url: `${BACKUP}/content`, headers: { accept: SPARSE_MEDIA_TYPE } });
  expect(answer.headers['content-type']).toBe(SPARSE_MEDIA_TYPE);
  expect(answer.rawPayload.byteLength).toBe(8192 + 512 + 3 * 12);
  const parts: Buffer[] = [];
  async function* stream() {
    yield await Promise.resolve(answer.rawPayload);
  }
  for await (const part of decodeSparse(stream()))
    parts.push(part instanceof Uint8Array ? Buffer.from(part) : Buffer.alloc(part.holeBytes));
  expect(Buffer.concat(parts).equals(bytes)).toBe(true);
});

test('the map tells data from holes, page by page', async () => {
  const extents = [
    { offset: 0, length: 4096, hole: true },
    { offset: 4096, length: 8192, hole: false },
    { offset: 12_288, length: SIZE - 512 - 12_288, hole: true },
    { offset: SIZE - 512, length: 512, hole: false },
  ];
  expect((await at.app.inject(`${VM}/map`)).json()).toEqual({ sizeBytes: SIZE, extents });
  const first = (await at.app.inject(`${BACKUP}/map?limit=3`)).json<{ nextCursor: string }>();
  expect(first).toEqual({ sizeBytes: SIZE, extents: extents.slice(0, 3), nextCursor: String(SIZE - 512) });
  expect((await at.app.inject(`${BACKUP}/map?limit=3&cursor=${first.nextCursor}`)).json()).toEqual({
    sizeBytes: SIZE,
    extents: extents.slice(3),
  });
  expect((await at.app.inject(`${BACKUP}/map?cursor=x`)).json()).toMatchObject({ code: 'cursor-invalid' });
  expect(clients()).toBe(0);
});

test('an unknown VM, backup or disk is missing', async () => {
  for (const [url, code] of [
    ['/api/v1/vms/nobody/disks/disk0/content', 'vm-missing'],
    ['/api/v1/vms/web%201/disks/disk9/content', 'disk-missing'],
    ['/api/v1/backups/nothing/disks/disk0/map', 'backup-missing'],
    ['/api/v1/backups/web%201@b/disks/disk9/content', 'disk-missing'],
  ] as const) {
    const answer = await at.app.inject(url);
    expect(answer.json()).toMatchObject({ status: 404, code });
  }
});

interface Tunnel {
  readonly answer: http.IncomingMessage;
  readonly connection: Duplex;
  readonly head: Buffer;
}

async function tunnel(port: number, path: string): Promise<Tunnel> {
  const headers = { accept: SPARSE_MEDIA_TYPE, connection: 'Upgrade', upgrade: SPARSE_PROTOCOL };
  const request = http.get({ port, host: '127.0.0.1', path, headers });
  return new Promise((resolve, reject) => {
    request.on('upgrade', (answer, connection, head) => resolve({ answer, connection, head }));
    request.on('response', () => reject(new Error('no tunnel'))).on('error', reject);
  });
}

test('a client that asks for it gets the sparse form past HTTP, and the end of the connection', async () => {
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = at.app.server.address() as AddressInfo;
  // Longer than all buffers together, with a short end.
  const random = seededRandom(runSeed());
  const dense = Buffer.alloc(5 * 1024 * 1024 + 512);
  fillRandom(random, dense);
  await at.fleet.createVm({ name: 'dense', disks: [{ name: 'disk0', sizeBytes: dense.byteLength }] });
  dense.copy([...at.fleet.vms.values()].find(({ name }) => name === 'dense')!.disks.get('disk0')!);
  for (const [url, disk] of [
    [BACKUP, bytes],
    ['/api/v1/vms/dense/disks/disk0', dense],
  ] as const) {
    const { answer, connection, head } = await tunnel(port, `${url}/content`);
    expect(answer).toMatchObject({
      statusCode: 101,
      headers: { 'pando-disk-size': String(disk.byteLength) },
    });
    const { root } = await at.fleet.diskRoot('web 1@b', 'disk0');
    expect(answer.headers['pando-root']).toBe(url === BACKUP ? root : undefined);
    const parts: Buffer[] = [];
    async function* stream() {
      yield head;
      for await (const piece of connection) yield piece as Buffer;
    }
    for await (const part of decodeSparse(stream()))
      parts.push(part instanceof Uint8Array ? Buffer.from(part) : Buffer.alloc(part.holeBytes));
    expect(Buffer.concat(parts).equals(disk)).toBe(true);
    expect(clients()).toBe(0);
  }
  await expect(tunnel(port, '/api/v1/vms/nobody/disks/disk0/content')).rejects.toThrow('no tunnel');
});

test('the disk is free when all of a download is there, in whichever form', async () => {
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = at.app.server.address() as AddressInfo;
  const upgrade = { connection: 'Upgrade', upgrade: SPARSE_PROTOCOL };
  for (const headers of [{}, { range: 'bytes=0-9' }, { accept: SPARSE_MEDIA_TYPE }, upgrade]) {
    let detach!: () => void;
    const gate = new Promise<void>((resolve) => (detach = resolve));
    at.fleet.beforeDetach = () => gate;
    const accept = 'upgrade' in headers ? { accept: SPARSE_MEDIA_TYPE } : {};
    const request = http.get({
      ...{ port, host: '127.0.0.1', path: `${VM}/content` },
      headers: { ...accept, ...headers },
    });
    let ended = false;
    const end = new Promise<Readable>((resolve, reject) =>
      request
        .on('response', resolve)
        .on('upgrade', (_answer, connection: Duplex) => resolve(connection))
        .on('error', reject),
    ).then(async (stream) => {
      await once(stream.resume(), 'end');
      ended = true;
    });
    await until(() => clients() === 1);
    await sleep(50);
    expect([ended, clients()]).toEqual([false, 1]);
    detach();
    await end;
    expect(clients()).toBe(0);
  }
});

test('past HTTP too a download that breaks off is cut, and lets go of the disk', async () => {
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = at.app.server.address() as AddressInfo;
  const data = Buffer.alloc(32 * 1024 * 1024, 1);
  await at.fleet.createVm({ name: 'big', disks: [{ name: 'disk0', sizeBytes: data.byteLength }] });
  const big = [...at.fleet.vms.values()].find(({ name }) => name === 'big')!;
  data.copy(big.disks.get('disk0')!);
  for (const end of ['leave', 'revoke'] as const) {
    const { connection, head } = await tunnel(port, '/api/v1/vms/big/disks/disk0/content');
    expect(big.clients.size).toBe(1);
    let received = head.byteLength;
    connection.on('data', (piece: Buffer) => (received += piece.byteLength)).on('error', () => undefined);
    const closed = new Promise((resolve) => connection.on('close', resolve));
    if (end === 'leave') connection.destroy();
    else {
      connection.pause();
      for (const client of big.clients) client.abort();
      connection.resume();
    }
    await closed;
    expect(received).toBeLessThan(data.byteLength);
    await until(() => big.clients.size === 0);
  }
});

test('a download ends when the disk is taken away or the client leaves, and lets go of the disk', async () => {
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = at.app.server.address() as AddressInfo;
  await at.fleet.createVm({ name: 'big', disks: [{ name: 'disk0', sizeBytes: 64 * 1024 * 1024 }] });
  const big = [...at.fleet.vms.values()].find(({ name }) => name === 'big')!;
  for (const end of ['leave', 'revoke'] as const) {
    const request = http.get({ port, host: '127.0.0.1', path: '/api/v1/vms/big/disks/disk0/content' });
    const response = await new Promise<http.IncomingMessage>((resolve, reject) =>
      request.on('response', resolve).on('error', reject),
    );
    expect(big.clients.size).toBe(1);
    const broken = new Promise((resolve) => response.on('error', resolve).on('close', resolve));
    if (end === 'leave') response.destroy();
    else {
      for (const client of big.clients) client.abort();
      response.resume();
    }
    await broken;
    expect(response.complete).toBe(false);
    await until(() => big.clients.size === 0);
  }
});
