import { PandoError } from '@pando/common';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness();
});
afterEach(() => at.close());

const json = { 'content-type': 'application/json' };

async function call(
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
  url: string,
  body?: unknown,
  headers: Record<string, string> = {},
) {
  const response = await at.app.inject({
    method,
    url: url.startsWith('/api') || url.startsWith('/health') ? url : `/api/v1${url}`,
    headers: { ...(method === 'POST' || method === 'PATCH' ? json : {}), ...headers },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  });
  const type = response.headers['content-type'] ?? '';
  return {
    status: response.statusCode,
    body: type.includes('json') ? response.json<Record<string, unknown>>() : response.body,
    headers: response.headers,
  };
}

function expectProblem(
  answer: Awaited<ReturnType<typeof call>>,
  status: number,
  code: string,
  detail?: RegExp,
): void {
  expect(answer.status).toBe(status);
  expect(answer.headers['content-type']).toMatch(/^application\/problem\+json/);
  expect(answer.body).toEqual({
    type: `urn:pando:problem:${code}`,
    title: expect.stringMatching(/^[A-Z]/) as string,
    status,
    detail: detail === undefined ? (expect.any(String) as string) : (expect.stringMatching(detail) as string),
    code,
    instance: expect.stringMatching(/^urn:pando:request:/) as string,
    remedy: expect.any(String) as string,
  });
}

const disk = { name: 'disk0', sizeBytes: 8192 };
const create = (name: string) => call('POST', '/vms', { name, disks: [disk] });

describe('VMs', () => {
  test('are created, shown by id and by name, and listed', async () => {
    const created = await create('web');
    expect(created.status).toBe(201);
    const vm = created.body as { id: string };
    expect(created.headers.location).toBe(`/api/v1/vms/${vm.id}`);
    expect(vm).toMatchObject({ name: 'web', disks: [disk], attachedClients: 0 });
    expect((await call('GET', '/vms/web')).body).toEqual(vm);
    expect((await call('GET', `/vms/${vm.id}`)).body).toEqual(vm);
    expect((await call('GET', '/vms')).body).toEqual({ items: [vm] });
  });

  test('may have names that need percent-encoding, of any length that is allowed', async () => {
    const name = '%ü '.repeat(63);
    await create(name);
    expect((await call('GET', `/vms/${encodeURIComponent(name)}`)).body).toMatchObject({ name });
    const backup = await call('POST', `/vms/${encodeURIComponent(name)}/backups`, { name });
    expect(backup.status).toBe(201);
    expect((await call('GET', `/backups/${encodeURIComponent(`${name}@${name}`)}`)).body).toEqual(
      backup.body,
    );
  });

  test('are listed page by page', async () => {
    for (const name of ['c', 'a', 'b', 'x-1']) await create(name);
    const first = (await call('GET', '/vms?limit=3')).body as {
      items: { name: string }[];
      nextCursor: string;
    };
    expect(first.items.map(({ name }) => name)).toEqual(['a', 'b', 'c']);
    const second = (await call('GET', `/vms?limit=3&cursor=${first.nextCursor}`)).body as typeof first;
    expect(second.items.map(({ name }) => name)).toEqual(['x-1']);
    expect(second).not.toHaveProperty('nextCursor');
    expect(((await call('GET', '/vms?prefix=x-')).body as typeof first).items).toHaveLength(1);
    expectProblem(await call('GET', '/vms?cursor=nonsense'), 400, 'cursor-invalid');
  });

  test.each(['limit=0', 'limit=1001', 'limit=x', 'limit=1.5', 'unknown=1'])(
    'are not listed with %s',
    async (query) => {
      expectProblem(
        await call('GET', `/vms?${query}`),
        400,
        'request-invalid',
        new RegExp(query.split('=')[0]!),
      );
    },
  );

  test('are renamed and resized', async () => {
    await create('web');
    expect((await call('PATCH', '/vms/web', { name: 'www' })).body).toMatchObject({ name: 'www' });
    const grown = await call('PATCH', '/vms/www', { disk: { name: 'disk0', sizeBytes: 16_384 } });
    expect(grown.body).toMatchObject({ disks: [{ name: 'disk0', sizeBytes: 16_384 }] });
    expectProblem(await call('PATCH', '/vms/www', { disk }), 400, 'shrink-refused');
    expect((await call('PATCH', '/vms/www', { disk: { ...disk, shrink: true } })).body).toMatchObject({
      disks: [disk],
    });
    expectProblem(await call('PATCH', '/vms/www', {}), 400, 'request-invalid');
    expectProblem(await call('PATCH', '/vms/www', { name: 'x', disk }), 400, 'request-invalid');
    expectProblem(await call('PATCH', '/vms/www', { disk: { ...disk, name: 'disk9' } }), 404, 'disk-missing');
  });

  test('are cloned once, or many times at once', async () => {
    await create('golden');
    const one = await call('POST', '/vms/golden/clone', { name: 'copy' });
    expect(one.status).toBe(201);
    expect((one.body as { items: { name: string }[] }).items.map(({ name }) => name)).toEqual(['copy']);
    const many = await call('POST', '/vms/golden/clone', { name: 'web', count: 3 });
    expect((many.body as { items: { name: string }[] }).items.map(({ name }) => name)).toEqual([
      'web-1',
      'web-2',
      'web-3',
    ]);
    expectProblem(await call('POST', '/vms/golden/clone', { name: 'web', count: 3 }), 409, 'name-taken');
    expectProblem(
      await call('POST', '/vms/golden/clone', { name: 'web', count: 0 }),
      400,
      'request-invalid',
      /count/,
    );
    expectProblem(
      await call('POST', '/vms/golden/clone', { name: 'web', count: 10_001 }),
      400,
      'request-invalid',
      /count/,
    );
    expectProblem(await call('POST', '/vms/nobody/clone', { name: 'web' }), 404, 'vm-missing');
  });

  test('are deleted, by force when a client is attached', async () => {
    await create('web');
    const attachment = await at.fleet.attach('web/disk0');
    expectProblem(await call('DELETE', '/vms/web'), 409, 'vm-attached');
    const deleted = await call('DELETE', '/vms/web?force=true');
    expect(deleted).toMatchObject({ status: 204, body: '' });
    expect(attachment.revoked.aborted).toBe(true);
    expectProblem(await call('DELETE', '/vms/web'), 404, 'vm-missing');
  });

  test.each([
    ['no name', { disks: [disk] }, 'request-invalid', /name/],
    ['a name that is no string', { name: 5, disks: [disk] }, 'request-invalid', /body\.name/],
    ['no disks', { name: 'x', disks: [] }, 'request-invalid', /body\.disks/],
    [
      'a size in words',
      { name: 'x', disks: [{ name: 'd', sizeBytes: '8192' }] },
      'request-invalid',
      /body\.disks\.0\.sizeBytes/,
    ],
    [
      'a negative size',
      { name: 'x', disks: [{ name: 'd', sizeBytes: -512 }] },
      'request-invalid',
      /sizeBytes/,
    ],
    ['a field too many', { name: 'x', disks: [disk], colour: 'red' }, 'request-invalid', /colour/],
    ['an empty name', { name: '', disks: [disk] }, 'name-invalid', /./],
    ['a slash', { name: 'a/b', disks: [disk] }, 'name-invalid', /./],
    [
      'a size of no whole sectors',
      { name: 'x', disks: [{ name: 'd', sizeBytes: 1000 }] },
      'size-invalid',
      /./,
    ],
  ])('are not created with %s', async (_what, body, code, detail) => {
    expectProblem(await call('POST', '/vms', body), 400, code, detail);
  });
});

describe('backups', () => {
  test('are verified before they are restored when asked: a job with its progress, its VM or its damage', async () => {
    await call('POST', '/vms', { name: 'v', disks: [{ name: 'disk0', sizeBytes: 4096 }] });
    await at.fleet.createBackup('v', { name: 'b' });
    const answer = await call('POST', '/backups/v@b/restore', { as: 'copy', verify: true });
    const { id } = answer.body as { id: string };
    expect(answer).toMatchObject({ status: 202, headers: { location: `/api/v1/jobs/${id}` } });
    await until(() => at.jobs.get(id).state === 'done');
    expect((await call('GET', `/jobs/${id}`)).body).toMatchObject({
      kind: 'restore',
      subject: 'v@b',
      progress: { phase: 'verifying', done: 1, all: 2 },
      result: { name: 'copy' },
    });
    at.fleet.failNext = new PandoError('chunk-corrupt', 'disk0 bytes 0 to 4095');
    const damaged = (await call('POST', '/backups/v@b/restore', { verify: true })).body as { id: string };
    await until(() => at.jobs.get(damaged.id).state === 'failed');
    expect((await call('GET', `/jobs/${damaged.id}`)).body).toMatchObject({
      error: { code: 'chunk-corrupt', detail: 'disk0 bytes 0 to 4095' },
    });
  });

  test('are taken, shown by id and as vm@name, listed, restored and deleted', async () => {
    const vm = (await create('web')).body;
    const taken = await call('POST', '/vms/web/backups', { name: 'monday' });
    expect(taken.status).toBe(201);
    const backup = taken.body as { id: string };
    expect(taken.headers.location).toBe(`/api/v1/backups/${backup.id}`);
    expect(backup).toMatchObject({ name: 'monday', vmName: 'web', disks: [disk] });
    expect((await call('GET', '/backups/web@monday')).body).toEqual(backup);
    expect((await call('GET', `/backups/${backup.id}`)).body).toEqual(backup);
    expect((await call('GET', '/backups?vm=web')).body).toEqual({ items: [backup] });

    const copy = await call('POST', '/backups/web@monday/restore', { as: 'web-b' });
    expect(copy.status).toBe(201);
    expect(copy.body).toMatchObject({ name: 'web-b' });
    const inPlace = await call('POST', '/backups/web@monday/restore', {});
    expect(inPlace).toMatchObject({ status: 200, body: vm });
    await at.fleet.attach('web/disk0');
    expectProblem(await call('POST', '/backups/web@monday/restore', {}), 409, 'vm-attached');
    expect((await call('POST', '/backups/web@monday/restore', { force: true })).status).toBe(200);

    expect((await call('DELETE', '/backups/web@monday')).status).toBe(204);
    expectProblem(await call('GET', '/backups/web@monday'), 404, 'backup-missing');
  });

  test('get a name when none is given, also without a body', async () => {
    await create('web');
    expect((await call('POST', '/vms/web/backups')).status).toBe(201);
    expect((await call('POST', '/vms/web/backups', {})).status).toBe(201);
    expectProblem(await call('POST', '/vms/nobody/backups', {}), 404, 'vm-missing');
    expectProblem(await call('GET', '/backups?vm=nobody'), 404, 'vm-missing');
  });
});

describe('an Idempotency-Key', () => {
  const key = { 'idempotency-key': 'k1' };
  const body = { name: 'web', disks: [disk] };

  test('gets the first answer again', async () => {
    const first = await call('POST', '/vms', body, key);
    const second = await call('POST', '/vms', body, key);
    expect(second.status).toBe(201);
    expect(second.body).toEqual(first.body);
    expect(second.headers.location).toBe(first.headers.location);
    expect(second.headers['idempotency-replayed']).toBe('true');
    expect(at.fleet.vms.size).toBe(1);
  });

  test('is shared by requests in flight', async () => {
    const both = await Promise.all([call('POST', '/vms', body, key), call('POST', '/vms', body, key)]);
    expect(both.map(({ status }) => status)).toEqual([201, 201]);
    expect(both[0].body).toEqual(both[1].body);
  });

  test('refuses another request', async () => {
    await call('POST', '/vms', body, key);
    expectProblem(await call('POST', '/vms', { ...body, name: 'other' }, key), 409, 'idempotency-conflict');
    expectProblem(await call('POST', '/vms/web/backups', {}, key), 409, 'idempotency-conflict');
  });

  test('does not keep errors', async () => {
    at.fleet.failNext = new PandoError('store-full', 'full');
    expectProblem(await call('POST', '/vms', body, key), 507, 'store-full');
    expect((await call('POST', '/vms', body, key)).status).toBe(201);
  });

  test('is forgotten when there are too many, oldest first', async () => {
    await at.close();
    at = await harness({ limits: { idempotencyKeys: 2 } });
    for (const name of ['a', 'b', 'c'])
      await call('POST', '/vms', { ...body, name }, { 'idempotency-key': name });
    expect((await call('POST', '/vms', { ...body, name: 'c' }, { 'idempotency-key': 'c' })).status).toBe(201);
    expectProblem(
      await call('POST', '/vms', { ...body, name: 'a' }, { 'idempotency-key': 'a' }),
      409,
      'name-taken',
    );
  });

  test('has a bounded length', async () => {
    expectProblem(
      await call('POST', '/vms', body, { 'idempotency-key': 'x'.repeat(256) }),
      400,
      'request-invalid',
      /idempotency-key/,
    );
  });
});

describe('requests that are wrong as such', () => {
  test('get a problem document: unknown route, wrong JSON, wrong media type, too large a body, a bad escape', async () => {
    expectProblem(await call('GET', '/nothing'), 404, 'route-missing');
    expectProblem(
      await call('POST', '/vms', undefined, { 'content-type': 'text/plain' }),
      415,
      'media-type-unsupported',
    );
    const raw = (payload: string, headers: Record<string, string> = json) =>
      at.app.inject({ method: 'POST', url: '/api/v1/vms', headers, payload });
    expect((await raw('{')).json()).toMatchObject({ status: 400, code: 'request-invalid' });
    expect((await raw('{"__proto__": {}, "name": "x"}')).json()).toMatchObject({
      status: 400,
      code: 'request-invalid',
    });
    expect(
      (await raw('name=x', { 'content-type': 'application/x-www-form-urlencoded' })).json(),
    ).toMatchObject({ status: 415 });
    expect((await raw(JSON.stringify({ name: 'x'.repeat(70_000), disks: [disk] }))).json()).toMatchObject({
      status: 413,
      code: 'body-too-large',
    });
    expectProblem(await call('GET', '/vms/%zz'), 400, 'request-invalid');
    expectProblem(await call('GET', `/vms/${'x'.repeat(5000)}`), 400, 'request-invalid');
  });

  test('need a media type to change anything', async () => {
    const bare = await at.app.inject({ method: 'POST', url: '/api/v1/gc' });
    expect(bare.json()).toMatchObject({ status: 415, code: 'media-type-unsupported' });
  });

  test.each([
    ['localhost', true],
    ['localhost:7400', true],
    ['127.0.0.1:7400', true],
    ['[::1]:7400', true],
    ['192.168.1.5', true],
    ['pando.example:80', true],
    ['PANDO.example', true],
    ['evil.example', false],
    ['127.0.0.1.evil.example', false],
    ['localhost.evil.example:7400', false],
    ['a b', false],
  ])('with the host %j are served: %s', async (host, served) => {
    await at.close();
    at = await harness({ hostNames: ['pando.example'] });
    const answer = await call('GET', '/vms', undefined, { host });
    if (served) expect(answer.status).toBe(200);
    else expectProblem(answer, 421, 'host-refused');
  });

  test('that find a bug learn nothing about it', async () => {
    at.fleet.failNext = new Error('password is 1234');
    const answer = await call('GET', '/vms');
    expectProblem(answer, 500, 'internal');
    expect(JSON.stringify(answer.body)).not.toContain('1234');
  });

  test.each([
    ['store-full', 507],
    ['store-failed', 503],
    ['too-busy', 503],
    ['chunk-corrupt', 500],
    ['name-taken', 409],
  ] as const)('of the kind %s have status %d', async (code, status) => {
    at.fleet.failNext = new PandoError(code, 'so it is');
    expectProblem(await call('GET', '/vms'), status, code, /so it is/);
  });
});

test('health tells the state of the store', async () => {
  expect((await call('GET', '/health')).body).toMatchObject({
    status: 'ok',
    store: 'ready',
    version: '1.2.3',
    uptimeSeconds: expect.any(Number) as number,
  });
  at.engine.store = () => 'full';
  expect(await call('GET', '/api/v1/health')).toMatchObject({
    status: 200,
    body: { status: 'degraded', store: 'full' },
  });
  at.engine.store = () => 'failed';
  expect(await call('GET', '/health')).toMatchObject({ status: 503, body: { status: 'failed' } });
});

test('space is reported for the store and for each owner', async () => {
  await create('web');
  await call('POST', '/vms/web/backups', {});
  expect((await call('GET', '/report/space')).body).toMatchObject({
    logicalBytes: 8192,
    vms: 1,
    backups: 1,
    ratios: { total: 1 },
  });
  const owners = (await call('GET', '/report/space/owners?limit=1')).body as {
    items: unknown[];
    nextCursor: string;
  };
  expect(owners.items).toEqual([expect.objectContaining({ kind: 'vm', name: 'web', exclusiveBytes: 8192 })]);
  expect((await call('GET', `/report/space/owners?cursor=${owners.nextCursor}`)).body).toMatchObject({
    items: [{ kind: 'backup' }],
  });
  expect((await call('GET', '/report/space/owners?kind=backup')).body).toMatchObject({
    items: [{ kind: 'backup' }],
  });
  expectProblem(await call('GET', '/report/space/owners?kind=cat'), 400, 'request-invalid', /kind/);
});
