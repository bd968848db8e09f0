import { PandoError } from '@pando/common';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
let admin: string;
beforeEach(async () => {
  at = await harness({ strict: true });
  admin = (await at.tokens.create({ name: 'root', role: 'admin' })).text;
});
afterEach(() => at.close());

async function call(method: string, url: string, body?: unknown, token = admin) {
  const response = await at.app.inject({
    method: method as 'GET',
    url: `/api/v1${url}`,
    headers: {
      authorization: `Bearer ${token}`,
      ...(method === 'POST' || method === 'PATCH' ? { 'content-type': 'application/json' } : {}),
    },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  });
  return { status: response.statusCode, text: response.body };
}
type Line = Record<string, unknown>;
const trail = async (query = ''): Promise<Line[]> =>
  (JSON.parse((await call('GET', `/audit${query}`)).text) as { items: Line[] }).items;
const disks = [{ name: 'disk0', sizeBytes: 4096 }];

test('secrets that stand where a name belongs are not written down', async () => {
  const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLTSw';
  expect(await call('DELETE', `/tokens/${admin}`)).toMatchObject({ status: 404 });
  await call('POST', '/vms', { name: 'web', tags: [admin, secret], disks });
  await call('GET', `/vms?prefix=${admin}`, undefined, 'nonsense');
  await until(async () => (await trail()).length === 5);
  const written = JSON.stringify(await trail());
  expect(written).toContain(`pando_${admin.split('_')[1]}_…`);
  expect(written).toContain('whsec_…');
  for (const text of [admin.split('_')[2]!, secret.slice(6)]) expect(written).not.toContain(text);
});

test('a change of what is not in the scope of a token is written down, though it is answered as what does not exist', async () => {
  await call('POST', '/vms', { name: 'secret', disks });
  const { text } = await at.tokens.create({ name: 'scoped', role: 'operator', scope: { vms: ['web'] } });
  expect(await call('DELETE', '/vms/secret', undefined, text)).toMatchObject({ status: 404 });
  expect(await call('GET', '/vms/secret', undefined, text)).toMatchObject({ status: 404 });
  await until(async () => (await trail('?actor=scoped')).length > 0);
  expect(await trail('?actor=scoped')).toMatchObject([
    { kind: 'refusal', operation: 'deleteVm', subjects: ['secret'], status: 404, code: 'vm-missing' },
  ]);
});

test('every change is in the audit trail, with its outcome; what only reads is not', async () => {
  expect(await call('POST', '/vms', { name: 'web', disks })).toMatchObject({ status: 201 });
  expect(await call('POST', '/vms', { name: 'web', disks })).toMatchObject({ status: 409 });
  expect(await call('POST', '/vms/web/clone', { name: 'copy', count: 2 })).toMatchObject({ status: 201 });
  expect(await call('DELETE', '/vms/web?force=true')).toMatchObject({ status: 204 });
  await call('GET', '/vms');
  await call('POST', '/report/reclaim', { prefix: 'x' });
  await until(async () => (await trail()).length === 8);
  const [deleted, asked, cloned, , failed] = await trail();
  const who = { actor: { name: 'root', tokenId: admin.split('_')[1] }, from: '127.0.0.1' };
  expect(deleted).toMatchObject({
    kind: 'outcome',
    operation: 'deleteVm',
    subjects: ['web'],
    status: 204,
    ...who,
  });
  expect(asked).toMatchObject({
    kind: 'change',
    request: deleted!['request'],
    asked: { query: { force: true } },
    ...who,
  });
  expect(cloned).toMatchObject({ operation: 'cloneVm', subjects: ['web', 'copy'], status: 201 });
  expect(failed).toMatchObject({ operation: 'createVm', status: 409, code: 'name-taken' });
  expect(await trail('?subject=copy&operation=cloneVm&actor=root')).toHaveLength(2);
  expect(await trail('?until=2020-01-01T00:00:00Z')).toEqual([]);
  expect(await call('GET', '/audit?since=soon')).toMatchObject({ status: 400 });
});

test('it says what a path named and which VM that was, and what was not let through', async () => {
  await call('POST', '/vms', { name: 'web', disks });
  const { id } = JSON.parse((await call('GET', '/vms/web')).text) as { id: string };
  const { text } = await at.tokens.create({ name: 'mine', role: 'operator', scope: { vms: ['web'] } });
  await call('DELETE', '/vms/web', undefined, text);
  const viewer = (await at.tokens.create({ name: 'eyes', role: 'viewer' })).text;
  await call('POST', '/gc', {}, viewer);
  await call('GET', '/vms', undefined, 'nonsense');
  await until(async () => (await trail('?actor=mine')).length === 2);
  expect((await trail('?actor=mine'))[0]).toMatchObject({ subjects: ['web', id] });
  expect(await trail('?actor=eyes')).toMatchObject([
    { kind: 'refusal', operation: 'collectGarbage', status: 403, code: 'forbidden' },
  ]);
  const nobody = (await trail()).find(({ actor }) => actor === undefined);
  expect(nobody).toMatchObject({ kind: 'refusal', operation: 'listVms', status: 401, from: '127.0.0.1' });
});

test('no secret gets into it', async () => {
  const made = await call('POST', '/tokens', { name: 'x', role: 'viewer' });
  const { token } = JSON.parse(made.text) as { token: string };
  await call('POST', '/webhooks', { url: 'https://user:pass@example.org/hook?key=swordfish' });
  await until(async () => (await trail()).length === 4);
  const all = JSON.stringify(await trail());
  expect(all).toContain('createToken');
  expect(all).toContain('createWebhook');
  for (const secret of [token.split('_')[2]!, admin.split('_')[2]!, 'user:pass', 'swordfish'])
    expect(all).not.toContain(secret);
});

test('only an admin reads it', async () => {
  const { text } = await at.tokens.create({ name: 'op', role: 'operator' });
  expect(await call('GET', '/audit', undefined, text)).toMatchObject({ status: 403 });
});

test('while it cannot be written changes are refused before they begin, but for those that make room', async () => {
  const failure = new PandoError('audit-unavailable', 'full');
  let failing = false;
  await at.close();
  const begun: string[] = [];
  at = await harness({
    audit: {
      begin: ({ operation }) => {
        begun.push(operation);
        return failing ? Promise.reject(failure) : Promise.resolve();
      },
      end: () => undefined,
      refuse: () => undefined,
      list: () => Promise.resolve({ items: [] }),
      get failure() {
        return failing && begun.length > 1 ? failure : undefined;
      },
    },
  });
  expect(await call('POST', '/vms', { name: 'web', disks }, '')).toMatchObject({ status: 201 });
  failing = true;
  // The one that finds out has been done, and is not acknowledged.
  const first = await call('POST', '/vms', { name: 'late', disks }, '');
  expect(first).toMatchObject({ status: 503, text: expect.stringContaining('may have been done') as string });
  expect(at.fleet.vms.size).toBe(2);
  expect(await call('POST', '/vms', { name: 'later', disks }, '')).toMatchObject({ status: 503 });
  expect(at.fleet.vms.size).toBe(2);
  expect(await call('GET', '/vms', undefined, '')).toMatchObject({ status: 200 });
  expect(await call('DELETE', '/vms/web', undefined, '')).toMatchObject({ status: 204 });
  expect(at.fleet.vms.size).toBe(1);
  expect(await call('POST', '/gc', {}, '')).toMatchObject({ status: 202 });
});
