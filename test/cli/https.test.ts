/** A server in this process, by HTTPS and on a Unix socket, and the command that talks to it. */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { AUTHORITY, SERVER_CERTIFICATE, SERVER_KEY } from '@pando/nbd/testing';
import { serve, type Serving } from '@pando/server';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { tokenOfServing } from '../support/tokens.ts';
import { pando } from './pando.ts';

let folder: string;
let server: Serving;
let url: string;
let token: string;
const socket = (): string => join(folder, 'rest.sock');
const ca = (): Record<string, string> => ({ PANDO_CA: join(folder, 'ca.pem') });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-https-'));
  await writeFile(join(folder, 'ca.pem'), AUTHORITY);
  await writeFile(join(folder, 'cert.pem'), SERVER_CERTIFICATE);
  await writeFile(join(folder, 'key.pem'), SERVER_KEY, { mode: 0o600 });
  const local = { host: '127.0.0.1', port: 0 };
  server = await serve({
    ...{
      dataDirectory: join(folder, 'data'),
      http: local,
      nbd: local,
      httpSocket: socket(),
      httpSocketMode: 0o600,
    },
    tlsFiles: { certificate: join(folder, 'cert.pem'), key: join(folder, 'key.pem') },
  });
  url = server.addresses.http;
  token = tokenOfServing(server);
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

test('the command speaks HTTPS with whom it can trust: uploads and downloads past HTTP too', async () => {
  expect(url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
  const stranger = await pando(['vm', 'ls'], { url, token });
  expect(stranger).toMatchObject({ status: 1, stderr: expect.stringContaining('(tls-failed)') as string });
  const image = join(folder, 'disk.raw');
  const bytes = Buffer.alloc(3 << 20, 'a disk ');
  await writeFile(image, bytes);
  const imported = await pando(['vm', 'import', image, '--name', 'web'], { url, token, env: ca() });
  expect(imported, imported.stderr).toMatchObject({ status: 0 });
  const out = join(folder, 'out.raw');
  const exported = await pando(['vm', 'export', 'web', out], { url, token, env: ca() });
  expect(exported, exported.stderr).toMatchObject({ status: 0 });
  expect((await readFile(out)).equals(bytes)).toBe(true);
});

test('the Unix socket needs no token, and is for whom its permissions let in', async () => {
  expect((await stat(socket())).mode & 0o777).toBe(0o600);
  const me = await pando(['whoami', '--json'], { url: `unix:${socket()}` });
  expect(me, me.stderr).toMatchObject({ status: 0 });
  expect(me.json()).toEqual({ name: 'socket', role: 'admin' });
  const out = join(folder, 'again.raw');
  const exported = await pando(['vm', 'export', 'web', out], { url: `http+unix://${encodeURI(socket())}` });
  expect(exported, exported.stderr).toMatchObject({ status: 0 });
  expect((await stat(out)).size).toBe(3 << 20);
  const none = await pando(['whoami'], { url: `unix:${join(folder, 'none.sock')}` });
  expect(none.stderr).toContain('(server-unreachable)');
  expect((await pando(['login', `unix:${socket()}`])).stderr).toContain('takes no token');
});

test('whoever is connected by HTTPS is nobody without a token, and new certificates are taken up when told', async () => {
  const ask = (path: string): Promise<{ status: number; serial: string }> =>
    new Promise((resolve, reject) => {
      https
        .get(url + path, { ca: AUTHORITY, agent: false }, (response) => {
          const { serialNumber } = (response.socket as unknown as TLSSocket).getPeerCertificate();
          // Browsers are to come back by HTTPS.
          expect(response.headers['strict-transport-security']).toBe('max-age=2592000');
          response.resume();
          response.on('end', () => resolve({ status: response.statusCode!, serial: serialNumber }));
        })
        .on('error', reject);
    });
  const before = await ask('/api/v1/vms');
  expect(before.status).toBe(401);
  await writeFile(join(folder, 'key.pem'), 'broken');
  await server.reload();
  expect(await ask('/health')).toEqual({ status: 200, serial: before.serial });
  await writeFile(join(folder, 'key.pem'), SERVER_KEY);
  await server.reload();
  expect(await ask('/health')).toEqual({ status: 200, serial: before.serial });
});
