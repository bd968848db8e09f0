import { afterEach, beforeEach, expect, test } from 'vitest';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness();
});
afterEach(() => at.close());

const call = async (method: 'GET' | 'PUT', path: string, body?: object) => {
  const { statusCode, json } = await at.app.inject({
    ...{ method, url: `/api/v1${path}` },
    ...(body === undefined ? {} : { payload: body }),
  });
  return { status: statusCode, body: json<Record<string, unknown>>() };
};

async function write(): Promise<string> {
  const { id } = await at.fleet.createVm({ name: 'web', disks: [{ name: 'disk0', sizeBytes: 1 << 20 }] });
  at.vmOfDisk.set(7, id);
  at.activity.destaged(7, {
    ...{ chunks: 10, zeroChunks: 1, knownChunks: 4, newBytes: 20_480, storedBytes: 9000, rawBytes: 4096 },
  });
  return id;
}

test('what a VM has written is listed in buckets of the grain that is asked for', async () => {
  const id = await write();
  const amounts = {
    writtenBytes: 40_960,
    zeroBytes: 4096,
    knownBytes: 16_384,
    newBytes: 20_480,
    storedBytes: 9000,
    rawBytes: 4096,
  };
  for (const [grain, seconds] of [
    ['5m', 300],
    ['1h', 3600],
    ['1d', 86_400],
  ] as const) {
    const { status, body } = await call('GET', `/vms/web/activity?grain=${grain}&limit=1`);
    expect({ status, body }).toEqual({
      status: 200,
      body: { items: [{ start: expect.any(String) as string, seconds, ...amounts }] },
    });
    expect(Date.parse((body['items'] as { start: string }[])[0]!.start) % (seconds * 1000)).toBe(0);
  }
  expect((await call('GET', `/vms/${id}/activity`)).body['items']).toMatchObject([{ seconds: 3600 }]);
  expect((await call('GET', '/vms/web/activity?cursor=1000')).body).toEqual({ items: [] });
});

test('the tripwire says what it knows, and takes a sensitivity', async () => {
  await write();
  const { status, body } = await call('GET', '/vms/web/tripwire');
  expect({ status, body }).toMatchObject({
    status: 200,
    body: { sensitivity: 'normal', state: 'learning', usualShare: 0, hourLimitBytes: 2 ** 30 },
  });
  expect(Date.parse(body['readyAt'] as string)).toBeGreaterThan(Date.now());
  expect((await call('PUT', '/vms/web/tripwire', { sensitivity: 'high' })).body).toMatchObject({
    sensitivity: 'high',
    dayLimitBytes: 2 ** 28,
  });
  expect((await call('GET', '/vms/web/tripwire')).body['sensitivity']).toBe('high');
});

test.each([
  ['GET', '/vms/none/activity', undefined, 404, 'vm-missing'],
  ['GET', '/vms/web/activity?grain=1w', undefined, 400, 'request-invalid'],
  ['GET', '/vms/web/activity?limit=1001', undefined, 400, 'request-invalid'],
  ['GET', '/vms/web/activity?cursor=yesterday', undefined, 400, 'cursor-invalid'],
  ['GET', '/vms/none/tripwire', undefined, 404, 'vm-missing'],
  ['PUT', '/vms/none/tripwire', { sensitivity: 'low' }, 404, 'vm-missing'],
  ['PUT', '/vms/web/tripwire', { sensitivity: 'medium' }, 400, 'request-invalid'],
  ['PUT', '/vms/web/tripwire', {}, 400, 'request-invalid'],
] as const)('%s %s %j is %i', async (method, path, body, status, code) => {
  await write();
  expect(await call(method, path, body)).toMatchObject({ status, body: { code } });
});
