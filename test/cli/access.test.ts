import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { pando } from './pando.ts';

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-access-'));
  server = await TestServer.start({ env: { XDG_CONFIG_HOME: join(folder, 'owner') } });
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

/** The command of another user, or of the one who has started the server: with no token but what it finds. */
const as = (who: string, args: string[], more: { input?: Buffer; env?: Record<string, string> } = {}) =>
  pando(args, {
    ...{ url: server.url, token: '', ...more },
    env: { XDG_CONFIG_HOME: join(folder, who), ...more.env },
  });

test('who has started the server needs no more; others are told what they lack, and log in with a token they are given', async () => {
  expect(await as('owner', ['vm', 'create', 'web', '--disk', '1M'])).toMatchObject({ status: 0 });
  const refused = await as('guest', ['vm', 'ls', '--json']);
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain('"code":"unauthenticated"');

  const made = await as('owner', [
    'token',
    'create',
    'guest',
    '--role',
    'operator',
    '--tag',
    'guest',
    '--expires',
    '1d',
  ]);
  expect(made).toMatchObject({ status: 0, stderr: '' });
  const token = made.stdout.trim();
  const wrong = await as('guest', ['login', server.url], { input: Buffer.from(`${token}x\n`) });
  expect(wrong).toMatchObject({ status: 1, stdout: '' });
  expect(wrong.stderr).not.toContain(token.slice(20));
  expect(await as('guest', ['login', server.url], { input: Buffer.from(`${token}\n`) })).toMatchObject({
    ...{ status: 0, stdout: `Logged in to ${server.url} as guest (operator).\n` },
  });
  const [kept] = await readdir(join(folder, 'guest', 'pando', 'tokens'));
  expect((await stat(join(folder, 'guest', 'pando', 'tokens', kept!))).mode & 0o777).toBe(0o600);

  expect((await as('guest', ['whoami', '--json'])).json()).toMatchObject({
    ...{ name: 'guest', role: 'operator', scope: { tags: ['guest'] } },
  });
  expect((await as('guest', ['vm', 'ls', '--json'])).json()).toEqual({ items: [] });
  // For such a token no chunk comes by its id.
  const image = join(folder, 'disk.raw');
  await writeFile(image, Buffer.alloc(1 << 20, 'image'));
  const imported = (...args: string[]) =>
    as('guest', ['vm', 'import', image, '--name', 'own', '--json', ...args]);
  expect((await imported()).stderr).toContain('scope-exceeded');
  expect((await imported('--tag', 'guest')).json()).toMatchObject({ vm: { name: 'own', tags: ['guest'] } });

  const listed = await as('owner', ['token', 'ls']);
  expect(listed.stdout).toMatch(/^guest +operator +tag guest +\d{4}-.* from 127\.0\.0\.1/m);
  expect(await as('owner', ['token', 'rm', 'guest'])).toMatchObject({ status: 0 });
  expect((await as('guest', ['vm', 'ls'])).stderr).toContain('(unauthenticated)');
  expect(await as('owner', ['token', 'rm', 'admin'])).toMatchObject({ status: 1 });
});

test('a token comes from the environment or a file that it names, before what is kept', async () => {
  const file = join(server.dataDirectory, 'admin-token');
  expect(await as('guest', ['whoami'], { env: { PANDO_TOKEN_FILE: file } })).toMatchObject({ status: 0 });
  expect(await as('guest', ['whoami'], { env: { PANDO_TOKEN: server.token } })).toMatchObject({ status: 0 });
  const broken = await as('owner', ['whoami'], { env: { PANDO_TOKEN: 'a\nb: c' } });
  expect(broken).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('PANDO_TOKEN holds is no token') as string,
  });
  const missing = await as('owner', ['whoami'], { env: { PANDO_TOKEN_FILE: join(folder, 'nowhere') } });
  expect(missing.stderr).toContain('server-file-unreadable');
});

test('the token is kept for its owner only, printed once, in no log, and taken away when the server stops', async () => {
  expect((await stat(join(server.dataDirectory, 'admin-token'))).mode & 0o777).toBe(0o600);
  expect(server.log.split(server.token)).toHaveLength(2);
  const kept = join(folder, 'owner', 'pando', 'tokens');
  expect(await readdir(kept)).toHaveLength(1);
  const seen = await as('owner', ['audit', 'ls', '--operation', 'revokeToken']);
  expect(seen.stdout).toMatch(/ admin +127\.0\.0\.1 +revokeToken +guest +done\n/);
  const lost = server.token;
  expect(await server.stop()).toBe(0);
  expect(await readdir(kept)).toEqual([]);

  const checked = await pando(['audit', 'verify', '--data', server.dataDirectory]);
  expect(checked).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/each follows the one before\.\n$/) as string,
  });
  const [day] = await readdir(join(server.dataDirectory, 'audit'));
  const trail = join(server.dataDirectory, 'audit', day!);
  await writeFile(trail, (await readFile(trail, 'utf8')).replace(/.+\n$/, ''));
  const cut = await pando(['audit', 'verify', '--data', server.dataDirectory]);
  expect(cut).toMatchObject({ status: 1, stdout: expect.stringContaining('is missing') as string });

  const reset = await pando(['token', 'reset', '--data', server.dataDirectory, '--json']);
  expect(reset.json()).toEqual({ name: 'admin-2', file: join(server.dataDirectory, 'admin-token') });
  expect(server.token).not.toBe(lost);
  await server.restart();
  expect(await server.fetch('/api/v1/events?kind=audit-cut').then((answer) => answer.text())).toContain(
    'audit-cut',
  );
  expect(server.log.split(lost)).toHaveLength(2);
  expect(server.log).not.toContain(server.token);
  expect((await as('owner', ['whoami', '--json'])).json()).toMatchObject({ name: 'admin-2', role: 'admin' });
  expect((await server.rest.must('GET', '/tokens')) as object).toMatchObject({
    items: [{ name: 'admin', lastUsedFrom: '127.0.0.1' }, { name: 'admin-2' }],
  });
});
