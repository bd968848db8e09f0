import { afterEach, beforeEach, expect, test } from 'vitest';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness();
  for (const name of ['web-1', 'db']) {
    await at.fleet.createVm({ name, disks: [{ name: 'disk0', sizeBytes: 8192 }] });
  }
  await at.fleet.createBackup('web-1', { name: 'mon' });
});
afterEach(() => at.close());

const get = async (url: string) => {
  const answer = await at.app.inject(url);
  return { status: answer.statusCode, body: answer.json<Record<string, unknown>>() };
};
const post = async (url: string, payload: object) => {
  const answer = await at.app.inject({ method: 'POST', url, payload });
  return { status: answer.statusCode, body: answer.json<Record<string, unknown>>() };
};

test('accounts come with lines and totals, by VM unless asked otherwise', async () => {
  const { status, body } = await get('/api/v1/report/accounts');
  expect(status).toBe(200);
  expect(body).toMatchObject({ by: 'vm', totals: { storedBytes: 16_384 } });
  expect(body['items']).toHaveLength(2);
  expect((await get('/api/v1/report/accounts?by=tag')).body).toMatchObject({ by: 'tag' });
  expect(await get('/api/v1/report/accounts?by=colour')).toMatchObject({
    status: 400,
    body: { code: 'request-invalid' },
  });
});

test('holders are asked of a VM or a backup by name', async () => {
  expect(await get('/api/v1/report/holders?of=web-1%40mon')).toMatchObject({
    status: 200,
    body: { owner: { kind: 'backup', name: 'web-1@mon' }, holders: 0, items: [] },
  });
  expect(await get('/api/v1/report/holders?of=nobody')).toMatchObject({ status: 404 });
  expect(await get('/api/v1/report/holders')).toMatchObject({ status: 400 });
});

test('what deleting frees is asked with a body that says who is meant', async () => {
  expect(await post('/api/v1/report/reclaim', { owners: ['web-1', 'web-1@mon'] })).toMatchObject({
    status: 200,
    body: { vms: 1, backups: 1, freedBytes: 16_384 },
  });
  expect(await post('/api/v1/report/reclaim', {})).toMatchObject({ status: 400 });
  expect(await post('/api/v1/report/reclaim', { owner: 'web-1' })).toMatchObject({ status: 400 });
});

test('a plan takes backups, and VMs when it may', async () => {
  expect(await post('/api/v1/report/reclaim/plan', { bytes: 10_000 })).toMatchObject({
    status: 200,
    body: { backups: 1, vms: 0, isEnough: false, freedBytes: 8192 },
  });
  expect(await post('/api/v1/report/reclaim/plan', { bytes: 10_000, includeVms: true })).toMatchObject({
    status: 200,
    body: { isEnough: true },
  });
  expect(await post('/api/v1/report/reclaim/plan', { bytes: 0 })).toMatchObject({ status: 400 });
});
