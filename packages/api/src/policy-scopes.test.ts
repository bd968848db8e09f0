/** What tokens with a scope see of policies, and may do with them. */
import type { Role, Scope } from '@pando/access';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
let admin: string;
/** By tag; by name, with a pattern. */
let shop: string;
let viewer: string;
let web: string;

async function call(token: string, method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, body?: object) {
  const response = await at.app.inject({
    method,
    url: `/api/v1${url}`,
    headers: { authorization: `Bearer ${token}` },
    ...(body === undefined ? {} : { payload: body }),
  });
  const answer = (response.body === '' ? {} : JSON.parse(response.body)) as Record<string, unknown>;
  return { status: response.statusCode, body: answer, code: answer['code'] };
}
/** Of all pages: some are empty. */
async function items(token: string, url: string, key = 'name'): Promise<unknown[]> {
  const found: unknown[] = [];
  let cursor = '';
  do {
    const { body } = await call(token, 'GET', `${url}?limit=2${cursor}`);
    found.push(...(body['items'] as Record<string, unknown>[]).map((item) => item[key]));
    cursor =
      body['nextCursor'] === undefined ? '' : `&cursor=${encodeURIComponent(body['nextCursor'] as string)}`;
  } while (cursor !== '');
  return found;
}

beforeAll(async () => {
  at = await harness({ strict: true });
  const make = async (name: string, role: Role, scope?: Scope): Promise<string> =>
    (await at.tokens.create({ name, role, ...(scope === undefined ? {} : { scope }) })).text;
  admin = await make('admin', 'admin');
  shop = await make('shop', 'operator', { tags: ['shop'] });
  viewer = await make('viewer', 'viewer', { tags: ['shop'] });
  web = await make('web', 'operator', { vms: ['web-*', 'own'] });
  for (const [name, ...tags] of [
    ['till', 'shop', 'prod'],
    ['stock', 'shop'],
    ['web-1', 'prod'],
    ['web-10'],
    ['own-not', 'prod'],
    ['secret', 'prod'],
  ] as const) {
    const disks = [{ name: 'disk0', sizeBytes: 4096 }];
    expect((await call(admin, 'POST', '/vms', { name, tags, disks })).status).toBe(201);
  }
  const schedule = { timeZone: 'UTC', at: ['02:00'] };
  const rules = [{ name: 'daily', schedule, retention: { keepDaily: 7 } }];
  for (const [name, targets] of [
    ['of-prod', { tags: ['prod'] }],
    ['of-shop', { tags: ['shop', 'other'] }],
    ['of-stock', { vms: ['stock', 'secret'] }],
    ['of-nobody', { tags: ['nobody'] }],
    ['of-secret', { vms: ['secret'] }],
  ] as const) {
    await call(admin, 'POST', '/policies', { name, rules });
    expect((await call(admin, 'POST', `/policies/${name}/assign`, targets)).status).toBe(200);
  }
});
afterAll(() => at.close());

test('there are those that one of its VMs is under, or that one of its tags assigns; the rest does not exist', async () => {
  expect(await items(admin, '/policies')).toHaveLength(5);
  expect(await items(viewer, '/policies')).toEqual(['of-prod', 'of-shop', 'of-stock']);
  expect(await items(web, '/policies')).toEqual(['of-prod']);
  expect(await items(viewer, '/policy-runs', 'policy')).toEqual(['of-prod', 'of-shop', 'of-stock']);
  for (const url of ['', '/vms', '/failures'])
    expect(await call(web, 'GET', `/policies/of-shop${url}`)).toMatchObject({
      status: 404,
      code: 'policy-missing',
    });
  expect(await call(web, 'POST', '/policies/of-shop/run', { vm: 'web-1' })).toMatchObject({ status: 404 });
});

test('of a policy only the own VMs and tags are shown, and no numbers of others', async () => {
  expect(await items(viewer, '/policies/of-prod/vms')).toEqual(['till']);
  expect(await items(web, '/policies/of-prod/vms')).toEqual(['web-1']);
  expect(await items(viewer, '/policies/of-stock/vms')).toEqual(['stock']);
  await call(admin, 'POST', '/policies/of-shop/run', {});
  while (await at.policies.tick());
  const quiesce = 'qemu-ga:/run/agents/{vm}.sock';
  await call(admin, 'PATCH', '/policies/of-shop', { quiesce });
  const all = await call(admin, 'GET', '/policies/of-shop');
  expect(all.body).toMatchObject({ tags: ['other', 'shop'], rules: [{ lastRun: { backups: 2 } }] });
  const seen = await call(viewer, 'GET', '/policies/of-shop');
  expect(seen.body['tags']).toEqual(['shop']);
  expect(seen.body['rules']).toMatchObject([{ name: 'daily', nextRunAt: expect.any(String) as string }]);
  expect(all.body['quiesce']).toBe(quiesce);
  expect(JSON.stringify(seen.body)).not.toMatch(/lastRun|running|quiesce/);
});

test('failures are those of its own VMs', async () => {
  const create = at.fleet.createBackup.bind(at.fleet);
  at.fleet.createBackup = () => Promise.reject(new Error('broken'));
  await call(admin, 'POST', '/policies/of-prod/run', {});
  while (await at.policies.tick());
  at.fleet.createBackup = create;
  expect(await items(admin, '/policies/of-prod/failures', 'vmName')).toHaveLength(4);
  expect(await items(viewer, '/policies/of-prod/failures', 'vmName')).toEqual(['till']);
});

test('a run and a rest are for one VM of its own', async () => {
  const taken = async (vm: string) => (await at.fleet.listBackups({ vm })).items.length;
  const before = [await taken('web-1'), await taken('secret')];
  const run = await call(web, 'POST', '/policies/of-prod/run', { vm: 'web-1', rule: 'daily' });
  expect(run).toMatchObject({ status: 200, body: { name: 'of-prod', tags: [] } });
  expect([await taken('web-1'), await taken('secret')]).toEqual([before[0]! + 1, before[1]]);
  for (const verb of ['run', 'suspend', 'resume']) {
    const url = `/policies/of-prod/${verb}`;
    expect(await call(web, 'POST', url, {})).toMatchObject({ status: 403, code: 'scope-exceeded' });
    expect(await call(web, 'POST', url, { vm: 'secret' })).toMatchObject({ status: 404, code: 'vm-missing' });
    expect(await call(viewer, 'POST', url, { vm: 'till' })).toMatchObject({ status: 403, code: 'forbidden' });
  }
  expect((await call(web, 'POST', '/policies/of-prod/run', { vm: 'web-10' })).code).toBe('request-invalid');
  expect((await call(web, 'POST', '/policies/of-prod/suspend', { vm: 'web-1' })).status).toBe(200);
  expect((await call(web, 'POST', '/policies/of-prod/run', { vm: 'web-1' })).code).toBe('policy-busy');
  expect(await at.policies.ofVm('web-1')).toMatchObject([{ name: 'of-prod', isSuspended: true }]);
  expect((await call(web, 'POST', '/policies/of-prod/resume', { vm: 'web-1' })).status).toBe(200);
});

test('it assigns its own VMs and tags, to policies that it has', async () => {
  const assign = (token: string, policy: string, targets: object, verb = 'assign') =>
    call(token, 'POST', `/policies/${policy}/${verb}`, targets);
  expect(await assign(web, 'of-prod', { vms: ['web-10', 'secret'] })).toMatchObject({
    ...{ status: 404, code: 'vm-missing' },
  });
  expect(await items(web, '/policies/of-prod/vms')).toEqual(['web-1']);
  expect((await assign(web, 'of-prod', { vms: ['web-10'] })).status).toBe(200);
  expect(await items(web, '/policies/of-prod/vms')).toEqual(['web-10', 'web-1']);
  expect((await assign(web, 'of-prod', { vms: ['web-10'] }, 'unassign')).status).toBe(200);
  for (const verb of ['assign', 'unassign'])
    expect((await assign(shop, 'of-prod', { tags: ['prod'] }, verb)).code).toBe('scope-exceeded');
  expect((await assign(shop, 'of-stock', { tags: ['shop'] })).body).toMatchObject({ tags: ['shop'] });
  expect((await assign(shop, 'of-stock', { tags: ['shop'] }, 'unassign')).status).toBe(200);
  expect((await assign(shop, 'of-nobody', { vms: ['till'] })).status).toBe(404);
});

test('what policies are is for whoever has no scope', async () => {
  expect((await call(shop, 'POST', '/policies', { name: 'mine', rules: [] })).code).toBe('scope-exceeded');
  expect((await call(shop, 'PATCH', '/policies/of-shop', { note: 'x' })).code).toBe('scope-exceeded');
  expect((await call(shop, 'DELETE', '/policies/of-shop')).code).toBe('scope-exceeded');
});

test('an impact is asked of its own VMs', async () => {
  const ask = (body: object) => call(viewer, 'POST', '/policy-impact', { policy: 'of-prod', ...body });
  expect((await ask({})).code).toBe('scope-exceeded');
  expect((await ask({ vms: ['secret'] })).code).toBe('vm-missing');
  expect((await ask({ tags: ['prod'] })).code).toBe('scope-exceeded');
  expect((await ask({ policy: 'of-secret', vms: ['till'] })).code).toBe('policy-missing');
  expect((await ask({ vms: ['till'] })).body['items']).toMatchObject([{ vm: { name: 'till' } }]);
  expect((await ask({ tags: ['shop'] })).body['items']).toHaveLength(2);
});

test('neither does a page tell how many there are that it leaves out, nor a name whether there is such a policy', async () => {
  for (const [url, count] of [
    ['/policies', 1],
    ['/policy-runs', 1],
    ['/policies/of-prod/vms', 1],
  ] as const) {
    const { body } = await call(web, 'GET', `${url}?limit=1`);
    expect(body['items'], url).toHaveLength(count);
    expect(body, url).not.toHaveProperty('nextCursor');
  }
  const [hidden, missing] = [
    await call(web, 'GET', '/backups?policy=of-secret'),
    await call(web, 'GET', '/backups?policy=of-nowhere'),
  ];
  for (const answer of [hidden, missing])
    expect(answer).toMatchObject({ status: 404, code: 'policy-missing' });
  expect(await call(web, 'GET', '/backups?policy=of-prod')).toMatchObject({ status: 200 });
});
