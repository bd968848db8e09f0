import { afterEach, beforeEach, expect, test } from 'vitest';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness();
  await at.fleet.createVm({ name: 'web', disks: [{ name: 'disk0', sizeBytes: 8192 }] });
  await at.fleet.createBackup('web', { name: 'mon' });
});
afterEach(() => at.close());

const get = async (url: string) => {
  const answer = await at.app.inject(`/api/v1${url}`);
  return { status: answer.statusCode, type: answer.headers['content-type'], body: answer.body };
};

test('two disks are compared by the names that exports have', async () => {
  const { status, body } = await get('/diff?a=web&b=web%40mon&grainBytes=8192&limit=5');
  expect(status).toBe(200);
  expect(JSON.parse(body)).toMatchObject({
    a: { name: 'web', disk: 'disk0' },
    b: { name: 'web@mon' },
    changedBytes: 8192,
  });
  for (const wrong of [
    '/diff?a=web',
    '/diff?b=web',
    '/diff?a=web&b=web&grainBytes=x',
    '/diff?a=web&b=web&c=1',
  ])
    expect((await get(wrong)).status, wrong).toBe(400);
  expect((await get('/diff?a=web&b=nobody')).status).toBe(404);
});

test('roots are asked of a VM or of a backup', async () => {
  expect(JSON.parse((await get('/vms/web/roots')).body)).toMatchObject({
    kind: 'vm',
    name: 'web',
    items: [{ disk: 'disk0', root: 'a'.repeat(64), sizeBytes: 8192, height: 1 }],
  });
  expect(JSON.parse((await get('/backups/web%40mon/roots')).body)).toMatchObject({ kind: 'backup' });
  expect((await get('/vms/nobody/roots')).status).toBe(404);
  expect((await get('/backups/web%40tue/roots')).status).toBe(404);
});

test('a proof comes as bytes, of a range that must be given and lie in the disk', async () => {
  const proof = await get('/backups/web%40mon/disks/disk0/proof?offset=512&length=1024');
  expect(proof).toMatchObject({
    status: 200,
    type: 'application/vnd.pando.proof',
    body: 'web@mon/disk0 512+1024',
  });
  for (const query of ['', '?offset=0', '?length=1', '?offset=-1&length=1', '?offset=0&length=1.5'])
    expect((await get(`/backups/web%40mon/disks/disk0/proof${query}`)).status, query).toBe(400);
  expect((await get('/backups/web%40mon/disks/disk0/proof?offset=8192&length=1')).status).toBe(400);
});

test('a token with a scope compares what is in its scope, and learns of nothing else', async () => {
  const strict = await harness({ strict: true });
  try {
    for (const name of ['ci-1', 'ci-2', 'db'])
      await strict.fleet.createVm({ name, disks: [{ name: 'disk0', sizeBytes: 8192 }] });
    for (const name of ['ci-1', 'db']) await strict.fleet.createBackup(name, { name: 'mon' });
    const { text } = await strict.tokens.create({ name: 'ci', role: 'viewer', scope: { vms: ['ci-*'] } });
    const status = async (url: string): Promise<number> =>
      (await strict.app.inject({ url: `/api/v1${url}`, headers: { authorization: `Bearer ${text}` } }))
        .statusCode;
    expect(await status('/diff?a=ci-1&b=ci-2')).toBe(200);
    expect(await status('/diff?a=ci-1%40mon&b=ci-2')).toBe(200);
    for (const other of ['db', 'db%40mon', 'nobody', 'nobody%40mon']) {
      expect(await status(`/diff?a=ci-1&b=${other}`), other).toBe(404);
      expect(await status(`/diff?a=${other}&b=ci-1`), other).toBe(404);
    }
    expect(await status('/vms/ci-1/roots')).toBe(200);
    expect(await status('/vms/db/roots')).toBe(404);
    expect(await status('/report/accounts')).toBe(403);
    expect(await status('/backups/ci-1%40mon/disks/disk0/proof?offset=0&length=1')).toBe(403);
  } finally {
    await strict.close();
  }
});
