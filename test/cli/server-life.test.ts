/** How a server ends, comes back, and what it makes of those who do not speak its language. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import * as http from 'node:http';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdClient } from '@pando/nbd/client';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { itWithTools } from '../support/tools.ts';
import { COMMAND, pando } from './pando.ts';

let server: TestServer;
beforeEach(async () => {
  server = await TestServer.start();
});
afterEach(() => server.close());

const until = async (check: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 20));
};

const jobs = async (): Promise<{ id: string; subject?: string; state: string }[]> =>
  ((await server.rest.must('GET', '/jobs')) as { items: { id: string; subject?: string; state: string }[] })
    .items;

/** Prints the datagrams that come to a socket. Their sender waits until the descriptor that it sends along is closed: for a line on its input. */
const LISTEN = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('listening')
while True:
    data, fds, _, _ = socket.recv_fds(s, 4096, 4)
    print(data.decode())
    if fds: sys.stdin.readline()
    for fd in fds: os.close(fd)
`;

function port(): number {
  return Number(new URL(server.url).port);
}

/** An upload that never ends by itself. */
function endlessUpload(name: string): { request: http.ClientRequest; answer: Promise<number> } {
  const request = http.request({
    port: port(),
    host: '127.0.0.1',
    method: 'POST',
    path: `/api/v1/imports?name=${name}`,
    headers: { 'content-type': 'application/octet-stream', ...server.authorization },
  });
  const answer = new Promise<number>((resolve) => {
    request.on('response', (response) => {
      response.resume();
      resolve(response.statusCode!);
    });
    request.on('error', () => resolve(0));
  });
  request.write(Buffer.alloc(2 << 20, 'z'));
  return { request, answer };
}

itWithTools(
  ['systemd-notify', 'python3'],
  'a service manager is told when it is up, may ask for a reload at once, and is told when it stops',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'pando-notify-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const socket = join(folder, 'notify');
    const listener = spawn('python3', ['-u', '-c', LISTEN, socket], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void listener.kill());
    let heard = '';
    listener.stdout.on('data', (data: Buffer) => (heard += data.toString()));
    await until(() => heard.includes('listening'));
    const managed = await TestServer.start({ env: { NOTIFY_SOCKET: socket } });
    onTestFinished(() => managed.close());
    await until(() => heard.includes('READY=1'));
    process.kill(managed.pid!, 'SIGHUP');
    await until(() => managed.log.includes('read certificates, keys and access rules of NBD again'));
    expect(heard).not.toContain('STOPPING=1');
    // For both times.
    listener.stdin.write('\n\n');
    await managed.stop();
    expect(heard).toContain('STOPPING=1');
  },
);

test('it stops in order while an upload, a download, followers and NBD clients are busy, and keeps what was acknowledged', async () => {
  await server.rest.must('POST', '/vms', { name: 'web', disks: [{ name: 'disk0', sizeBytes: 1 << 30 }] });
  const disk = await NbdClient.connect({ host: '127.0.0.1', port: server.nbdPort }, { exportName: 'web' });
  await disk.write(4096, Buffer.from('acknowledged'));

  const { request, answer } = endlessUpload('half');
  await until(async () =>
    (await jobs()).some(({ subject, state }) => subject === 'half' && state === 'running'),
  );
  const { id } = (await jobs()).find(({ subject }) => subject === 'half')!;
  const follower = await server.fetch(`/api/v1/jobs/${id}/events`);
  const followed = follower.text().catch(() => 'cut');
  const download = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const url = `${server.url}/api/v1/vms/web/disks/disk0/content`;
    http.get(url, { headers: server.authorization }, resolve).on('error', reject);
  });
  const cut = once(download, 'close').catch(() => undefined);
  download.on('error', () => undefined);

  expect(await server.stop()).toBe(0);
  expect([0, 503]).toContain(await answer);
  expect(await followed).toMatch(/"state":"cancelled"|cut/);
  download.resume();
  await cut;
  await disk.close().catch(() => undefined);
  request.destroy();

  await server.restart();
  const vms = (await server.rest.must('GET', '/vms')) as { items: { name: string }[] };
  expect(vms.items.map(({ name }) => name)).toEqual(['web']);
  const again = await NbdClient.connect({ host: '127.0.0.1', port: server.nbdPort }, { exportName: 'web' });
  const read = Buffer.alloc(12);
  await again.read(4096, 12, read, 0);
  expect(read.toString()).toBe('acknowledged');
  await again.close();
});

test('killed, it comes back with everything that was acknowledged', async () => {
  const made = await server.rest.must('POST', '/vms', {
    name: 'web',
    disks: [{ name: 'disk0', sizeBytes: 1 << 20 }],
  });
  await server.rest.must('POST', '/vms/web/backups', { name: 'b' });
  await server.kill();
  await server.restart();
  expect(await server.rest.must('GET', '/vms/web')).toEqual(made);
  expect(await server.rest.must('GET', '/backups/web@b')).toMatchObject({ name: 'b' });
});

test('a second signal ends it at once', async () => {
  const { request, answer } = endlessUpload('half');
  await until(async () => (await jobs()).length === 1);
  const ended = server.stop();
  process.kill(server.pid!, 'SIGINT');
  expect([0, 130]).toContain(await ended);
  await answer;
  request.destroy();
  await server.restart();
});

test('what the network sends does not take it down', async () => {
  const send = (bytes: Buffer | string): Promise<string> =>
    new Promise((resolve) => {
      const socket = net.connect(port(), '127.0.0.1');
      let text = '';
      socket.on('data', (data) => (text += data.toString()));
      socket.on('error', () => undefined);
      socket.on('close', () => resolve(text));
      socket.end(bytes);
    });
  const bearer = `Authorization: ${server.authorization.authorization}\r\n`;
  const noise = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919 + 13) % 256));
  expect(await send(noise)).toMatch(
    /^HTTP\/1\.1 400 [\s\S]*application\/problem\+json[\s\S]*"code":"request-invalid"/,
  );
  expect(await send('GET / HTTP/1.1\r\n\r\n')).toMatch(/^HTTP\/1\.1 400/);
  expect(await send('GET /api/v1/vms HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n')).toMatch(
    /^HTTP\/1\.1 421[\s\S]*host-refused/,
  );
  expect(await send(`GET /${'a'.repeat(100_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`)).toMatch(
    /^HTTP\/1\.1 4\d\d/,
  );
  expect(
    await send(
      `POST /api/v1/vms HTTP/1.1\r\nHost: localhost\r\n${bearer}Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{`,
    ),
  ).toMatch(/^HTTP\/1\.1 413[\s\S]*body-too-large/);
  expect(
    await send(
      `POST /api/v1/imports?name=a HTTP/1.1\r\nHost: localhost\r\n${bearer}Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\nZZZ`,
    ),
  ).toMatch(/^(HTTP\/1\.1 [45]\d\d[\s\S]*)?$/);
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  expect(
    await send(
      `POST /api/v1/vms HTTP/1.1\r\nHost: localhost\r\n${bearer}Content-Type: application/json\r\nConnection: close\r\nContent-Length: ${deep.length}\r\n\r\n${deep}`,
    ),
  ).toMatch(/^HTTP\/1\.1 400/);
  expect(await server.rest.must('GET', '/health')).toMatchObject({ status: 'ok' });
  expect(server.log).not.toMatch(/"level":(50|60)/);
});

test('`pando serve --json` tells where it listens, and ends well', async () => {
  const child = spawn(
    process.execPath,
    [
      COMMAND,
      'serve',
      '--data',
      `${server.dataDirectory}-2`,
      '--http',
      '127.0.0.1:0',
      '--nbd',
      '[::1]:0',
      '--json',
      '--log-level',
      'silent',
    ],
    { env: { ...process.env, XDG_CONFIG_HOME: `${server.dataDirectory}-config` } },
  );
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const ready = JSON.parse(line.toString()) as Record<string, string>;
  expect(ready).toMatchObject({
    http: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) as string,
    nbd: expect.stringMatching(/^nbd:\/\/\[::1\]:\d+$/) as string,
  });
  // Its token lies where its own configuration does.
  const env = { XDG_CONFIG_HOME: `${server.dataDirectory}-config` };
  expect(await pando(['vm', 'ls'], { url: ready['http']!, env })).toMatchObject({
    status: 0,
    stdout: 'No VMs.\n',
  });
  const closed = once(child, 'close');
  child.kill('SIGINT');
  expect(await closed).toEqual([0, null]);
});
