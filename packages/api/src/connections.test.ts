/** What one client may take of the connections. */
import { systemClock } from '@pando/common';
import http from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
let port: number;
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await at.close();
});

/** The time goes by only when a test says so. */
let now = 0;
const clock = { ...systemClock, monotonic: () => now };
const PAUSE_MS = 80;

async function open(limits: object): Promise<void> {
  at = await harness({ clock, limits });
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  ({ port } = at.app.server.address() as AddressInfo);
}

async function dial(): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  sockets.push(socket);
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

const status = (socket: Socket): Promise<number | undefined> =>
  new Promise((resolve) => {
    socket.once('data', (data: Buffer) => resolve(Number(/^HTTP\/1.1 (\d+)/.exec(data.toString())?.[1])));
    socket.once('close', () => resolve(undefined));
    socket.write('GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n');
  });

test('one address has so many; one more is closed, until one of them has gone', async () => {
  await open({ connectionsOfAddress: 2 });
  const [first, second] = [await dial(), await dial()];
  expect([await status(first), await status(second)]).toEqual([200, 200]);
  expect(await status(await dial())).toBeUndefined();
  expect(await status(first)).toBe(200);
  first.destroy();
  await until(async () => (await status(await dial())) === 200);
});

test('0 takes that limit away', async () => {
  await open({ connectionsOfAddress: 0 });
  for (let i = 0; i < 5; i++) expect(await status(await dial())).toBe(200);
});

describe('a client that takes nothing of what it is sent', () => {
  test.each([
    ['a download', {}],
    ['a sparse one', { accept: 'application/vnd.pando.sparse' }],
    [
      'one past HTTP',
      { accept: 'application/vnd.pando.sparse', connection: 'Upgrade', upgrade: 'pando-sparse' },
    ],
  ])('is cut off in time, in %s, and lets go of the disk', async (_what, headers) => {
    await open({ readerPauseMs: PAUSE_MS });
    await at.fleet.createVm({ name: 'big', disks: [{ name: 'disk0', sizeBytes: 64 * 1024 * 1024 }] });
    const { clients, disks } = [...at.fleet.vms.values()][0]!;
    disks.get('disk0')!.fill(1);
    const socket = await dial();
    socket.pause();
    const lines = Object.entries({ host: 'localhost', ...headers }).map(
      ([name, value]) => `${name}: ${value}`,
    );
    socket.write(`GET /api/v1/vms/big/disks/disk0/content HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
    await until(() => clients.size === 1);
    // Only time that has gone by counts, and it goes by here.
    await until(() => {
      now += PAUSE_MS / 4;
      return clients.size === 0;
    });
  });

  test('because nothing is sent is left alone', async () => {
    await open({ readerPauseMs: PAUSE_MS, heartbeatMs: 5 });
    const response = await new Promise<http.IncomingMessage>((resolve, reject) =>
      http.get({ port, host: '127.0.0.1', path: '/api/v1/events/stream' }, resolve).on('error', reject),
    );
    let comments = 0;
    let ended = false;
    response.on('data', () => {
      comments++;
      now += 3 * PAUSE_MS;
    });
    response.on('close', () => (ended = true));
    const before = comments;
    await until(() => comments > before + 50 || ended);
    expect(ended).toBe(false);
    response.destroy();
  });
});

test('one token follows a part of what may be followed, and leaves the rest to others', async () => {
  at = await harness({ strict: true, limits: { followers: 4, followersOfOne: 2 } });
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  ({ port } = at.app.server.address() as AddressInfo);
  const one = (await at.tokens.create({ name: 'one', role: 'viewer' })).text;
  const other = (await at.tokens.create({ name: 'other', role: 'viewer' })).text;
  const follow = (token: string): Promise<http.IncomingMessage> =>
    new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}` };
      http
        .get({ port, host: '127.0.0.1', path: '/api/v1/events/stream', headers }, resolve)
        .on('error', reject);
    });
  const streams = [await follow(one), await follow(one), await follow(one), await follow(other)];
  expect(streams.map(({ statusCode }) => statusCode)).toEqual([200, 200, 503, 200]);
  streams[0]!.destroy();
  await until(async () => {
    const again = await follow(one);
    streams.push(again);
    return again.statusCode === 200;
  });
  for (const stream of streams) stream.destroy();
});
