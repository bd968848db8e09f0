/** Policies over HTTP; what they do is tested where they are. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
// One for all tests: building it costs more than all that they do.
beforeAll(async () => {
  at = await harness();
  for (const name of ['web', 'db']) {
    await call('POST', '/vms', { name, disks: [{ name: 'disk0', sizeBytes: 4096 }], tags: ['prod'] });
  }
});
afterAll(() => at.close());

async function call(method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, payload?: object) {
  const response = await at.app.inject({ method, url: `/api/v1${url}`, ...(payload ? { payload } : {}) });
  const { statusCode: status, body } = response;
  return { status, body: (body === '' ? {} : JSON.parse(body)) as Record<string, unknown> };
}

const schedule = { timeZone: 'Europe/Berlin', at: ['02:00'] };
const rules = [{ name: 'daily', schedule, retention: { keepDaily: 7, keepWeekly: 4 } }];
const names = ({ body }: { body: Record<string, unknown> }, key = 'name'): unknown[] =>
  (body['items'] as Record<string, unknown>[]).map((item) => item[key]);

test('a policy is created, shown, listed, changed and deleted', async () => {
  const created = await call('POST', '/policies', { name: 'nightly', note: 'n', rules, tags: ['prod'] });
  expect(created).toMatchObject({
    status: 201,
    body: { name: 'nightly', tags: ['prod'], isSuspended: false },
  });
  expect(created.body['rules']).toEqual([{ ...rules[0], nextRunAt: expect.any(String) as string }]);
  expect((await call('GET', '/policies/nightly')).body).toEqual(created.body);
  expect(names(await call('GET', '/policies'))).toContain('nightly');
  expect((await call('PATCH', '/policies/nightly', { name: 'n2', note: '' })).body).toMatchObject({
    name: 'n2',
  });
  expect((await call('DELETE', '/policies/n2')).status).toBe(204);
  expect(await call('GET', '/policies/n2')).toMatchObject({ status: 404, body: { code: 'policy-missing' } });
});

test('VMs are assigned, listed, and get their backups when it runs', async () => {
  await call('POST', '/policies', { name: 'nightly', rules });
  expect((await call('POST', '/policies/nightly/assign', { vms: ['web'], tags: ['prod'] })).status).toBe(200);
  expect(names(await call('GET', '/policies/nightly/vms'))).toEqual(['web']);
  expect((await call('GET', '/vms/db/policies')).body).toMatchObject({
    items: [{ name: 'nightly', tag: 'prod', isSuspended: false }],
  });
  await call('POST', '/policies/nightly/suspend', { vm: 'db' });
  expect((await call('POST', '/policies/nightly/run', {})).status).toBe(200);
  while (await at.policies.tick());
  const taken = await call('GET', '/backups?policy=nightly');
  expect(names(taken, 'vmName')).toEqual(['web']);
  expect((taken.body['items'] as object[])[0]).toMatchObject({ policy: { name: 'nightly', rule: 'daily' } });
  expect((await call('GET', '/policies/nightly/failures')).body).toEqual({ items: [] });
  expect(names(await call('GET', '/policy-runs'), 'policy')).toEqual(['nightly']);
  await call('POST', '/policies/nightly/unassign', { vms: ['web'] });
  expect((await call('POST', '/policies/nightly/suspend', {})).body).toMatchObject({ isSuspended: true });
  expect(await call('POST', '/policies/nightly/run', {})).toMatchObject({
    status: 409,
    body: { code: 'policy-busy' },
  });
  expect((await call('POST', '/policies/nightly/resume', {})).body).toMatchObject({ isSuspended: false });
  await call('DELETE', '/policies/nightly');
});

test('the impact of a policy is told before there is one, and of VMs without backups no bytes', async () => {
  const body = { rules: [{ schedule, retention: { keepLast: 3 } }], tags: ['prod'], horizonDays: 10 };
  const { items } = (await call('POST', '/policy-impact', body)).body as { items: object[] };
  expect(items).toHaveLength(2);
  for (const item of items) {
    expect(item).toMatchObject({ created: 10, expired: 7, now: { backups: 0 }, steady: { backups: 3 } });
  }
  expect(items.map((item) => (item as { then: object }).then)).toEqual([{ backups: 3 }, { backups: 3 }]);
  expect((await call('POST', '/policy-impact', {})).body['code']).toBe('request-invalid');
});

test('refuses policies that are none', async () => {
  const wrongs: [string, object][] = [
    ['a schedule without times', { name: 'p', rules: [{ schedule: { timeZone: 'UTC' }, retention: {} }] }],
    [
      'a zone that is none',
      { name: 'p', rules: [{ schedule: { ...schedule, timeZone: 'Mars/One' }, retention: {} }] },
    ],
    [
      'a weekday that is none',
      { name: 'p', rules: [{ schedule: { ...schedule, weekdays: ['x'] }, retention: {} }] },
    ],
    ['a retention that is none', { name: 'p', rules: [{ schedule, retention: { keepDaily: -1 } }] }],
    ['what nobody knows', { name: 'p', rules, x: 1 }],
    ['no rules', { name: 'p', rules: [] }],
  ];
  for (const [what, wrong] of wrongs) {
    const { status, body } = await call('POST', '/policies', wrong);
    expect([status, body['code']], what).toEqual([400, 'request-invalid']);
  }
});

test('refuses to list backups of a policy that never was', async () => {
  expect((await call('GET', '/backups?policy=nobody')).status).toBe(404);
});
