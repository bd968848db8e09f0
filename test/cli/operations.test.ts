/** What whoever runs a server types: configuration, events, webhooks, top, a bundle for those who help, completion. */
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { createVm, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools } from '../support/tools.ts';
import { pando, type Ran } from './pando.ts';

let server: TestServer;
let folder: string;
let receiver: Server;
const received: string[] = [];
const PLANTED = 'hooktoken4711';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-operations-'));
  server = await TestServer.start({ args: ['--gc-every', '0', '--verify-every', '0'] });
  receiver = createServer((request, response) => {
    request.setEncoding('utf8').on('data', (text: string) => received.push(text));
    request.on('end', () => response.writeHead(204).end());
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  await server.close();
  receiver.closeAllConnections();
  receiver.close();
  await rm(folder, { recursive: true });
});

async function run(...args: string[]): Promise<Ran> {
  const ran = await pando(args, { url: server.url });
  expect(ran, ran.stderr).toMatchObject({ status: 0 });
  return ran;
}

test('config check names each mistake with its place and fails; config show says where values come from', async () => {
  const file = join(folder, 'pando.toml');
  await writeFile(file, 'gc-every = 30\nverify-rat = 5\n');
  const wrong = await pando(['config', 'check', file]);
  expect(wrong).toMatchObject({
    status: 1,
    stdout: `${file}:2:1: verify-rat: there is no such option: did you mean verify-rate?\n`,
  });
  expect((await pando(['config', 'check', file, '--json'])).json()).toEqual({
    file,
    mistakes: [expect.objectContaining({ place: { file, line: 2, column: 1 }, key: 'verify-rat' })],
  });
  const served = await pando(['serve', '--config', file, '--data', join(folder, 'none')]);
  expect(served.status).toBe(1);
  expect(served.stderr).toContain('(config-invalid)');
  await writeFile(file, 'gc-every = 30\n');
  expect((await run('config', 'check', file)).stdout).toBe(`${file}: good.\n`);
  const { settings } = (await run('config', 'show', file, '--json')).json<{ settings: { name: string }[] }>();
  expect(settings.find(({ name }) => name === 'gc-every')).toMatchObject({ value: '30', from: 'file' });
  expect((await run('config', 'show', file)).stdout).toMatch(/^gc-every +30 +\/.*pando\.toml:1$/m);
});

test('events are listed and sent on, and nothing that is secret comes into a bundle', async () => {
  await createVm(server, 'web', MiB);
  expect((await run('events')).stdout).toMatch(/server-started/);
  const { port } = receiver.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}/${PLANTED}`;
  expect(await pando(['webhook', 'add', url], { url: server.url })).toMatchObject({ status: 1 });
  const { webhook, secret } = (await run('webhook', 'add', url, '--insecure', '--json')).json<{
    webhook: { id: string };
    secret: string;
  }>();
  expect((await run('webhook', 'test', webhook.id)).stdout).toBe('Taken.\n');
  expect(JSON.parse(received[0]!)).toMatchObject({ type: 'webhook-test' });
  expect((await run('webhook', 'ls')).stdout).toContain(url);

  const file = join(folder, 'bundle.tar.gz');
  const { parts } = (await run('support-bundle', file, '--json')).json<{ parts: string[] }>();
  expect(parts.filter((name) => name.endsWith('.error.txt'))).toEqual([]);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(await pando(['support-bundle', file], { url: server.url })).toMatchObject({ status: 1 });
  const unpacked = spawnSync('tar', ['-xzOf', file], { encoding: 'utf8' });
  expect(unpacked.status, unpacked.stderr).toBe(0);
  const listed = spawnSync('tar', ['-tzf', file], { encoding: 'utf8' }).stdout.trim().split('\n');
  expect(listed).toEqual(parts.map((name) => `pando-support/${name}`));
  for (const expected of [
    'server-started',
    'pando_nbd_connections',
    '"storedBytes"',
    `127.0.0.1:${port}`,
    '"ready":true',
  ])
    expect(unpacked.stdout, expected).toContain(expected);
  for (const planted of [secret, secret.slice(6), PLANTED, server.token])
    expect(unpacked.stdout).not.toContain(planted);

  const unheard = ['webhook', 'add', 'http://127.0.0.1:9/', '--insecure', '--json'];
  const other = (await run(...unheard)).json<{ webhook: { id: string } }>().webhook.id;
  const tried = await pando(['webhook', 'test', other], { url: server.url });
  expect(tried).toMatchObject({ status: 1, stdout: expect.stringMatching(/^Not taken: /) as string });

  await run('webhook', 'rm', webhook.id, other);
  expect((await run('webhook', 'ls')).stdout).toBe('No webhooks.\n');
});

test('ready waits for a server that starts, and not for ever', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-ready-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const socket = join(folder, 'http.sock');
  const url = `unix:${socket}`;
  const inVain = await pando(['ready', '--wait', '0.1'], { url });
  expect(inVain).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('server-unreachable') as string,
  });
  const waiting = pando(['ready', '--wait', '60'], { url });
  const starting = await TestServer.start({ args: ['--http-socket', socket] });
  onTestFinished(() => starting.close());
  expect((await waiting).stdout).toMatch(/^store +ok$/m);
});

test('ready, top and history say how it is', async () => {
  expect((await run('ready')).stdout).toMatch(/^store +ok$/m);
  const figures = (await run('top', '--once', '--interval', '1', '--json')).json<{
    seconds: number;
    commands: { command: string }[];
    residentBytes: number;
    problems: string[];
  }>();
  expect(figures.seconds).toBeGreaterThan(0.5);
  expect(figures.commands.map(({ command }) => command)).toContain('flush');
  expect(figures.residentBytes).toBeGreaterThan(MiB);
  expect(figures.problems).toEqual([]);
  expect((await run('report', 'history')).stdout).toMatch(/on disk, 1 samples/);
});

itWithTools(['bash'], 'completion knows the commands, and is a script that its shell takes', async () => {
  const script = join(folder, 'completion.bash');
  await writeFile(script, (await run('completion', 'bash')).stdout);
  expect(spawnSync('bash', ['-n', script]).status).toBe(0);
  expect(await readFile(script, 'utf8')).toContain('pando');
  const words = (await run('complete', '--', 'webhook', '')).stdout;
  for (const word of ['add', 'ls', 'rm', 'test']) expect(words).toMatch(new RegExp(`^${word}\\b`, 'm'));
  expect((await run('complete', '--', 'events', '--sev')).stdout).toContain('--severity');
  await createVm(server, 'completed', MiB);
  await run('backup', 'create', 'completed', '--name', 'once');
  expect((await run('complete', '--', 'vm', 'show', 'comp')).stdout).toMatch(/^completed\b/m);
  expect((await run('complete', '--', 'vm', 'export', 'completed@')).stdout).toMatch(/^completed@once\b/m);
  expect((await run('complete', '--', 'backup', 'show', 'com')).stdout).toMatch(/^completed@once\b/m);
  const alone = await pando(['complete', '--', 'vm', 'show', ''], { url: 'http://127.0.0.1:1' });
  expect(alone).toMatchObject({ status: 0, stderr: '' });
  for (const shell of ['zsh', 'fish']) expect((await run('completion', shell)).stdout).toContain('pando');
  expect((await pando(['completion', 'tcsh'])).status).toBe(2);
});
