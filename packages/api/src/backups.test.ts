/** What is said about backups, over HTTP. */
import { PandoError } from '@pando/common';
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
// One for all tests: building it costs more than all that they do.
beforeAll(async () => {
  at = await harness();
});
beforeEach(async () => {
  at.fleet.vms.clear();
  at.fleet.backups.clear();
  await call('POST', '/vms', { name: 'web', disks: [{ name: 'disk0', sizeBytes: 8192 }] });
});
afterAll(() => at.close());

async function call(method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, payload?: object) {
  const response = await at.app.inject({ method, url: `/api/v1${url}`, ...(payload ? { payload } : {}) });
  const { statusCode: status, body } = response;
  return { status, body: (body === '' ? {} : JSON.parse(body)) as Record<string, unknown> };
}

const LATER = '2027-01-01T00:00:00.000Z';

test('a backup is taken with a note, labels, a lock and a date, and shows them', async () => {
  const said = { note: 'before', labels: { ticket: '17' }, lockedUntil: LATER, expiresAt: LATER };
  const taken = await call('POST', '/vms/web/backups', { name: 'a', ...said });
  expect(taken).toMatchObject({ status: 201, body: said });
  expect((await call('GET', '/backups/web@a')).body).toEqual(taken.body);
  expect(await call('DELETE', '/backups/web@a')).toMatchObject({
    status: 409,
    body: { code: 'backup-locked' },
  });
});

test('of a guest at rest no backup is kept when what is said about it is refused', async () => {
  const quiet = await harness({
    quiesce: async (_guest, action) => {
      const taken = await action();
      quiet.fleet.failNext = new PandoError('request-invalid', 'lockedUntil is in the past');
      return taken;
    },
  });
  onTestFinished(() => quiet.close());
  const post = (url: string, payload: object) => quiet.app.inject({ method: 'POST', url, payload });
  await post('/api/v1/vms', { name: 'web', disks: [{ name: 'disk0', sizeBytes: 8192 }] });
  const said = { quiesce: 'qemu-ga:/agent', lockedUntil: '2020-01-01T00:00:00Z' };
  expect((await post('/api/v1/vms/web/backups', said)).statusCode).toBe(400);
  expect(quiet.fleet.backups.size).toBe(0);
});

test('a change leaves what it does not name, takes away what is null, and never shortens a lock', async () => {
  await call('POST', '/vms/web/backups', { name: 'a', note: 'n', labels: { k: 'v' } });
  const changed = await call('PATCH', '/backups/web@a', { name: 'b', note: null, expiresAt: 'never' });
  expect(changed).toMatchObject({
    status: 200,
    body: { name: 'b', labels: { k: 'v' }, expiresAt: 'never' },
  });
  expect(changed.body).not.toHaveProperty('note');
  expect((await call('PATCH', '/backups/web@b', { lockedUntil: LATER })).status).toBe(200);
  for (const lockedUntil of [null, '2026-12-01T00:00:00+01:00']) {
    const { status, body } = await call('PATCH', '/backups/web@b', { lockedUntil });
    expect([status, body['code']]).toEqual([409, 'backup-locked']);
  }
  for (const wrong of [
    {},
    { lockedUntil: 'soon' },
    { expiresAt: '2026-02' },
    { labels: { k: 1 } },
    { x: 1 },
  ]) {
    const { status, body } = await call('PATCH', '/backups/web@b', wrong);
    expect([status, body['code']], JSON.stringify(wrong)).toEqual([400, 'request-invalid']);
  }
});

test('a list goes by label', async () => {
  await call('POST', '/vms/web/backups', { name: 'a', labels: { k: 'x=y z' } });
  await call('POST', '/vms/web/backups', { name: 'b', labels: { k: 'x' } });
  const { body } = await call('GET', `/backups?label=${encodeURIComponent('k=x=y z')}`);
  expect((body['items'] as { name: string }[]).map(({ name }) => name)).toEqual(['a']);
  expect((await call('GET', '/backups?label=k')).status).toBe(400);
});

test('one disk of a backup is restored, in place or as a new VM', async () => {
  const disks = [
    { name: 'root', sizeBytes: 4096 },
    { name: 'data', sizeBytes: 8192 },
  ];
  await call('POST', '/vms', { name: 'db', disks });
  await call('POST', '/vms/db/backups', { name: 'a' });
  const copied = await call('POST', '/backups/db@a/restore', { as: 'copy', disk: 'data' });
  expect(copied).toMatchObject({ status: 201, body: { disks: [disks[1]] } });
  expect(await call('POST', '/backups/db@a/restore', { disk: 'data' })).toMatchObject({
    status: 200,
    body: { disks },
  });
  expect((await call('POST', '/backups/db@a/restore', { disk: 'tmp' })).body['code']).toBe('disk-missing');
});
