import type { Role, Scope } from '@pando/access';
import { PandoError } from '@pando/common';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness({ strict: true });
});
afterEach(() => at.close());

let named = 0;
const make = async (role: Role, scope?: Scope): Promise<string> =>
  (await at.tokens.create({ name: `t${++named}`, role, ...(scope === undefined ? {} : { scope }) })).text;

async function call(token: string | undefined, method: string, url: string, body?: unknown, headers = {}) {
  const response = await at.app.inject({
    method: method as 'GET',
    url: url.startsWith('/') ? `/api/v1${url}` : `/${url}`,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(method === 'GET' || method === 'DELETE'
        ? {}
        : { 'content-type': body instanceof Buffer ? 'application/octet-stream' : 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { payload: body instanceof Buffer ? body : JSON.stringify(body) }),
  });
  const isJson = response.body !== '' && /json/.test(response.headers['content-type'] as string);
  const answer = isJson ? response.json<Record<string, unknown>>() : {};
  return { status: response.statusCode, body: answer, code: answer['code'], headers: response.headers };
}

const vm = (name: string, tags: string[] = []) => ({
  name,
  tags,
  disks: [{ name: 'disk0', sizeBytes: 4096 }],
});
const names = (answer: { body: Record<string, unknown> }): string[] =>
  (answer.body['items'] as { name: string }[]).map(({ name }) => name);

describe('without a token that is good', () => {
  test('nothing answers but health, readiness, the OpenAPI document and its page', async () => {
    const { paths } = (await at.app.inject('/openapi.json')).json<{ paths: Record<string, object> }>();
    let asked = 0;
    for (const [path, methods] of Object.entries(paths)) {
      for (const method of Object.keys(methods)) {
        const url = path.replaceAll(/\{\w+\}/g, 'x').slice(1);
        const { status, code, headers } = await call(undefined, method.toUpperCase(), url);
        if (path.endsWith('/health') || path === '/ready') expect(status).toBe(200);
        else {
          expect({ path, method, status }).toEqual({ path, method, status: 401 });
          if (method !== 'head') expect(code).toBe('unauthenticated');
          expect(headers['www-authenticate']).toBe('Bearer realm="pando"');
          asked++;
        }
      }
    }
    expect(asked).toBeGreaterThan(30);
    expect((await at.app.inject('/docs/')).statusCode).toBe(200);
  });

  test('nobody learns which routes there are', async () => {
    expect(await call(undefined, 'GET', '/nothing')).toMatchObject({ status: 401 });
    expect(await call(await make('viewer'), 'GET', '/nothing')).toMatchObject({ status: 404 });
  });

  test.each([
    ['of nobody', 'Bearer pando_aaaaaaaaaa_' + 'a'.repeat(52)],
    ['of another scheme', 'Basic YTpi'],
    ['that is empty', 'Bearer '],
    ['with more behind it', 'Bearer a b'],
  ])('one %s is none, and is not repeated', async (_what, authorization) => {
    const { status, body } = await call(undefined, 'GET', '/vms', undefined, { authorization });
    expect(status).toBe(401);
    expect(JSON.stringify(body)).not.toContain('aaaa');
  });
});

describe('roles', () => {
  test('a viewer looks and does nothing, and reads no disk', async () => {
    await call(await make('operator'), 'POST', '/vms', vm('web'));
    const viewer = await make('viewer');
    for (const path of ['/vms', '/vms/web', '/jobs', '/report/space', '/vms/web/disks/disk0/map', 'metrics'])
      expect(await call(viewer, 'GET', path), path).toMatchObject({ status: 200 });
    for (const [method, path] of [
      ['POST', '/vms'],
      ['DELETE', '/vms/web'],
      ['POST', '/gc'],
      ['GET', '/vms/web/disks/disk0/content'],
      ['POST', '/chunks/lookup'],
      ['GET', '/tokens'],
    ] as const)
      expect(await call(viewer, method, path), path).toMatchObject({ status: 403, code: 'forbidden' });
    expect(at.fleet.vms.size).toBe(1);
  });

  test('an operator works, and leaves tokens alone', async () => {
    const operator = await make('operator');
    expect(await call(operator, 'POST', '/vms', vm('web'))).toMatchObject({ status: 201 });
    expect(await call(operator, 'POST', '/gc', {})).toMatchObject({ status: 202 });
    expect(await call(operator, 'POST', '/tokens', { name: 'x', role: 'admin' })).toMatchObject({
      status: 403,
    });
    expect(await call(operator, 'GET', '/whoami')).toMatchObject({ status: 200, body: { role: 'operator' } });
  });
});

describe('tokens', () => {
  test('are made, used, listed, shown and revoked', async () => {
    const admin = await make('admin');
    const made = await call(admin, 'POST', '/tokens', {
      ...{ name: 'ci', role: 'operator', scope: { tags: ['ci'] }, expiresAt: '2099-01-01T00:00:00Z' },
    });
    expect(made).toMatchObject({ status: 201, headers: { 'cache-control': 'no-store' } });
    const { token, ...shown } = made.body as { token: string; id: string };
    expect(made.headers['location']).toBe(`/api/v1/tokens/${shown.id}`);
    const me = {
      name: 'ci',
      role: 'operator',
      scope: { tags: ['ci'] },
      expiresAt: '2099-01-01T00:00:00.000Z',
    };
    expect((await call(token, 'GET', '/whoami')).body).toEqual({ ...me, tokenId: shown.id });
    const listed = await call(admin, 'GET', '/tokens');
    expect(listed.body['items']).toEqual([
      expect.objectContaining({ ...me, expired: false, lastUsedFrom: '127.0.0.1' }),
      expect.objectContaining({ role: 'admin' }),
    ]);
    expect(JSON.stringify(listed.body)).not.toContain(token.slice(-52));
    expect((await call(admin, 'GET', '/tokens/ci')).body).toMatchObject({ id: shown.id });
    expect(await call(admin, 'DELETE', '/tokens/ci')).toMatchObject({ status: 204 });
    expect(await call(token, 'GET', '/whoami')).toMatchObject({ status: 401 });
    expect(await call(admin, 'DELETE', '/tokens/ci')).toMatchObject({ status: 404, code: 'token-missing' });
  });

  test('with an expiry that is no time are refused', async () => {
    const admin = await make('admin');
    for (const expiresAt of ['tomorrow', '2099', '2099-13-01T00:00:00Z', '2001-01-01T00:00:00Z'])
      expect(await call(admin, 'POST', '/tokens', { name: 'x', role: 'viewer', expiresAt })).toMatchObject({
        status: 400,
      });
  });

  test('that are revoked cut off what is under way with them, and nothing else', async () => {
    await at.app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = at.app.server.address() as AddressInfo;
    let end = (): void => undefined;
    const { job } = at.jobs.start(
      { kind: 'gc' },
      () => new Promise<never>((resolve) => (end = () => resolve({} as never))),
    );
    const follow = async (token: string) => {
      const headers = { authorization: `Bearer ${token}` };
      const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
        http
          .get({ port, host: '127.0.0.1', path: `/api/v1/jobs/${job.id}/events`, headers }, resolve)
          .on('error', reject);
      });
      const state = { ended: false, cut: false };
      response
        .on('error', () => (state.cut = true))
        .on('end', () => (state.ended = true))
        .resume();
      return state;
    };
    const [doomed, other] = [await make('viewer'), await make('viewer')];
    const [first, second] = [await follow(doomed), await follow(other)];
    await at.tokens.revoke(doomed.split('_')[1]!);
    await until(() => first.cut);
    expect(second).toEqual({ ended: false, cut: false });
    end();
    await until(() => second.ended);
  });

  test('downloads past HTTP want one too', async () => {
    await at.fleet.createVm(vm('web'));
    await at.app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = at.app.server.address() as AddressInfo;
    const ask = (token?: string): Promise<number> =>
      new Promise((resolve, reject) => {
        const request = http.request({
          ...{ port, host: '127.0.0.1', path: '/api/v1/vms/web/disks/disk0/content' },
          headers: {
            ...{ connection: 'Upgrade', upgrade: 'pando-sparse', accept: 'application/vnd.pando.sparse' },
            ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          },
        });
        request.on('upgrade', ({ statusCode }, socket) => {
          socket.destroy();
          resolve(statusCode!);
        });
        request.on('response', (response) => {
          response.resume();
          resolve(response.statusCode!);
        });
        request.on('error', reject).end();
      });
    expect(await ask()).toBe(401);
    expect(await ask(await make('operator', { vms: ['db'] }))).toBe(404);
    expect(await ask(await make('operator', { vms: ['web'] }))).toBe(101);
  });
});

describe('a scope', () => {
  let mine: string;
  let admin: string;
  beforeEach(async () => {
    admin = await make('admin');
    mine = await make('operator', { vms: ['web-*'], tags: ['team-a'] });
    for (const one of [vm('web-1'), vm('tagged', ['team-a', 'x']), vm('other', ['team-b'])])
      expect(await call(admin, 'POST', '/vms', one)).toMatchObject({ status: 201 });
    for (const name of ['web-1', 'tagged', 'other'])
      await call(admin, 'POST', `/vms/${name}/backups`, { name: 'b' });
  });

  test('leaves out of lists what is not in it', async () => {
    expect(names(await call(mine, 'GET', '/vms')).sort()).toEqual(['tagged', 'web-1']);
    expect(names(await call(mine, 'GET', '/vms?tag=x'))).toEqual(['tagged']);
    expect(names(await call(mine, 'GET', '/vms?prefix=o'))).toEqual([]);
    const backups = (await call(mine, 'GET', '/backups')).body['items'] as { vmName: string }[];
    expect(backups.map(({ vmName }) => vmName).sort()).toEqual(['tagged', 'web-1']);
    expect((await call(mine, 'GET', '/backups?vm=tagged')).body['items']).toHaveLength(1);
  });

  test('says by no page how much it leaves out, and by no cursor what', async () => {
    for (const name of ['other-2', 'other-3', 'web-2', 'web-3', 'web-4']) {
      await call(admin, 'POST', '/vms', vm(name, ['team-b']));
      await call(admin, 'POST', `/vms/${name}/backups`, { name: 'b', labels: { kind: 'day' } });
    }
    // Nothing that is listed is in the scope: as if there were nothing.
    for (const path of ['/vms?prefix=other&limit=1', '/backups?vm=tagged&limit=1', '/vms?tag=x&limit=1'])
      expect((await call(mine, 'GET', path)).body, path).not.toHaveProperty('nextCursor');
    expect((await call(mine, 'GET', '/vms?prefix=other&limit=1')).body['items']).toEqual([]);
    // Nor is a page the last but one because of what follows.
    expect((await call(mine, 'GET', '/vms?prefix=web-4&limit=1')).body).not.toHaveProperty('nextCursor');
    for (const [path, count] of [
      ['/vms', 5],
      ['/vms?tag=team-b', 3],
      ['/backups', 5],
      ['/backups?label=kind%3Dday', 3],
    ] as const) {
      let cursor = '';
      let pages = 0;
      const found = new Set<unknown>();
      do {
        const { status, body } = await call(
          mine,
          'GET',
          `${path}${path.includes('?') ? '&' : '?'}limit=2${cursor}`,
        );
        expect(status).toBe(200);
        for (const { id } of body['items'] as { id: string }[]) found.add(id);
        pages++;
        const next = body['nextCursor'] as string | undefined;
        if (next !== undefined)
          expect(Buffer.from(next, 'base64url').toString()).not.toMatch(/vms|backups|other|web|[0-9a-f]{8}-/);
        cursor = next === undefined ? '' : `&cursor=${next}`;
      } while (cursor !== '');
      expect({ path, found: found.size, pages }).toEqual({ path, found: count, pages: Math.ceil(count / 2) });
    }
    // One of its own making would name where to go on.
    const own = (await call(admin, 'GET', '/vms?limit=2')).body['nextCursor'] as string;
    for (const cursor of [own, 'x', own.repeat(3)])
      expect(await call(mine, 'GET', `/vms?limit=2&cursor=${cursor}`)).toMatchObject({
        code: 'cursor-invalid',
      });
  });

  test('hides what is not in it: the answer is that of what does not exist', async () => {
    const { id } = (await call(admin, 'GET', '/vms/other')).body as { id: string };
    const backup = (await call(admin, 'GET', '/backups/other@b')).body as { id: string };
    const same = async (method: string, path: (name: string) => string, hidden: string, body?: unknown) => {
      const seen = await call(mine, method, path(hidden), body);
      const missing = await call(mine, method, path('nobody'), body);
      expect(seen.status).toBe(404);
      const plain = (text: unknown, name: string) => String(text).replace(name, '…');
      expect(plain(seen.body['detail'], hidden)).toBe(plain(missing.body['detail'], 'nobody'));
      expect(seen.code).toBe(missing.code);
    };
    for (const hidden of ['other', id]) {
      await same('GET', (name) => `/vms/${name}`, hidden);
      await same('DELETE', (name) => `/vms/${name}`, hidden);
      await same('PATCH', (name) => `/vms/${name}`, hidden, { name: 'web-9' });
      await same('POST', (name) => `/vms/${name}/clone`, hidden, { name: 'web-9' });
      await same('POST', (name) => `/vms/${name}/backups`, hidden, {});
      await same('GET', (name) => `/vms/${name}/disks/disk0/content`, hidden);
      await same('GET', (name) => `/backups?vm=${name}`, hidden);
    }
    for (const hidden of ['other@b', backup.id]) {
      await same('GET', (name) => `/backups/${name}`, hidden);
      await same('DELETE', (name) => `/backups/${name}`, hidden);
      await same('POST', (name) => `/backups/${name}/restore`, hidden, { as: 'web-9' });
      await same('POST', (name) => `/imports?name=n&since=${name}`, hidden, Buffer.alloc(4096));
    }
    expect(at.fleet.vms.size).toBe(3);
    expect(at.fleet.backups.size).toBe(3);
  });

  test('holds the backups of a VM that is gone, by what they remember of it', async () => {
    for (const name of ['web-1', 'other']) await call(admin, 'DELETE', `/vms/${name}`);
    expect(await call(mine, 'GET', '/backups/web-1@b')).toMatchObject({ status: 200 });
    expect(await call(mine, 'GET', '/backups/other@b')).toMatchObject({ status: 404 });
    // Nor does it help to call a VM by the id of the one that is gone.
    const gone = [...at.fleet.backups.values()].find(({ vmName }) => vmName === 'other')!;
    await call(mine, 'POST', '/vms', vm(gone.vmId, ['team-a']));
    expect(await call(mine, 'GET', `/backups/${gone.id}`)).toMatchObject({ status: 404 });
    expect((await call(mine, 'GET', '/backups')).body['items']).toHaveLength(2);
  });

  test('follows a VM that is renamed: its backups are those of the VM as it is called now', async () => {
    const { id } = (await call(admin, 'GET', '/backups/other@b')).body as { id: string };
    await call(admin, 'PATCH', '/vms/other', { name: 'web-2' });
    expect(await call(mine, 'GET', `/backups/${id}`)).toMatchObject({
      status: 200,
      body: { vmName: 'other' },
    });
  });

  test('takes in what is made: by name or by tag, all of it', async () => {
    const wrong = { status: 403, code: 'scope-exceeded' };
    expect(await call(mine, 'POST', '/vms', vm('new'))).toMatchObject(wrong);
    expect(await call(mine, 'POST', '/vms', vm('web-2'))).toMatchObject({ status: 201 });
    expect(await call(mine, 'POST', '/vms', vm('new', ['team-a']))).toMatchObject({ status: 201 });
    const clone = (body: object) => call(mine, 'POST', '/vms/tagged/clone', body);
    expect(await clone({ name: 'copy' })).toMatchObject(wrong);
    expect(await clone({ name: 'copy', tags: ['team-b'] })).toMatchObject(wrong);
    expect(await clone({ name: 'copy', count: 2, tags: ['team-a'] })).toMatchObject({ status: 201 });
    expect(await clone({ name: 'web', count: 2 })).toMatchObject({ status: 409, code: 'name-taken' });
    const restore = (body: object) => call(mine, 'POST', '/backups/tagged@b/restore', body);
    expect(await restore({ as: 'old' })).toMatchObject(wrong);
    expect(await restore({ as: 'old', tags: ['team-a'] })).toMatchObject({ status: 201 });
    expect(await restore({})).toMatchObject({ status: 200 });
  });

  test('is not left by a new name or other tags', async () => {
    const change = (name: string, body: object) => call(mine, 'PATCH', `/vms/${name}`, body);
    const wrong = { status: 403, code: 'scope-exceeded' };
    expect(await change('web-1', { name: 'mine' })).toMatchObject(wrong);
    expect(await change('web-1', { name: 'web-7' })).toMatchObject({ status: 200 });
    expect(await change('tagged', { tags: ['x'] })).toMatchObject(wrong);
    expect(await change('tagged', { tags: ['team-a'] })).toMatchObject({ status: 200 });
    expect(await change('tagged', { name: 'any' })).toMatchObject({ status: 200 });
  });

  test('keeps from all that is about the store as a whole, and from chunks by their ids', async () => {
    const wrong = { status: 403, code: 'scope-exceeded' };
    for (const [method, path] of [
      ['POST', '/gc'],
      ['POST', '/verify'],
      ['POST', '/repairs'],
      ['GET', '/verify/last'],
      ['GET', '/report/space'],
      ['GET', '/report/space/owners'],
      ['POST', '/chunks/lookup'],
      ['GET', 'metrics'],
    ] as const)
      expect(await call(mine, method, path), path).toMatchObject(wrong);
    const upload = (type: string, query: string) =>
      call(mine, 'POST', `/imports?${query}`, Buffer.alloc(4096, 'x'), { 'content-type': type });
    expect(await upload('application/vnd.pando.sparse-ids', 'name=web-3')).toMatchObject(wrong);
    expect(await call(mine, 'POST', '/imports', { name: 'web-3', path: 'x.raw' })).toMatchObject(wrong);
    const raw = 'application/octet-stream';
    expect(await upload(raw, 'name=mine')).toMatchObject(wrong);
    expect(await upload(raw, 'name=web-3')).toMatchObject({ status: 201 });
    expect(await upload(raw, 'name=mine&tag=team-a&tag=x')).toMatchObject({
      ...{ status: 201, body: { result: { vm: { name: 'mine', tags: ['team-a', 'x'] } } } },
    });
    expect(await upload(raw, 'name=c&since=tagged@b')).toMatchObject({ status: 201 });
  });

  test('shows the jobs that its own token has started', async () => {
    await call(admin, 'POST', '/gc', {});
    const answer = await call(mine, 'POST', '/backups/web-1@b/restore', { as: 'web-5', verify: true });
    const own = (answer.body as { id: string }).id;
    const all = (await call(admin, 'GET', '/jobs')).body['items'] as { id: string }[];
    expect(all).toHaveLength(2);
    expect(
      ((await call(mine, 'GET', '/jobs')).body['items'] as { id: string }[]).map(({ id }) => id),
    ).toEqual([own]);
    const others = all.find(({ id }) => id !== own)!.id;
    for (const [method, path] of [
      ['GET', `/jobs/${others}`],
      ['DELETE', `/jobs/${others}`],
      ['GET', `/jobs/${others}/events`],
    ] as const)
      expect(await call(mine, method, path)).toMatchObject({ status: 404, code: 'job-missing' });
    expect(await call(mine, 'GET', `/jobs/${own}`)).toMatchObject({ status: 200 });
  });
});

test('an Idempotency-Key is its token’s own', async () => {
  const key = { 'idempotency-key': 'k' };
  const [first, second] = [await make('operator'), await make('operator')];
  expect(await call(first, 'POST', '/vms', vm('web'), key)).toMatchObject({ status: 201 });
  expect(await call(second, 'POST', '/vms', vm('web'), key)).toMatchObject({
    status: 409,
    code: 'name-taken',
  });
  const again = await call(first, 'POST', '/vms', vm('web'), key);
  expect(again).toMatchObject({ status: 201, headers: { 'idempotency-replayed': 'true' } });
});

test('whoever comes through a socket that is trusted is an admin', async () => {
  await at.close();
  at = await harness({ strict: true, isTrusted: () => true });
  expect((await call(undefined, 'GET', '/whoami')).body).toEqual({ name: 'socket', role: 'admin' });
});

test('a server does not start with a route that does not say what it needs', async () => {
  await at.close();
  at = await harness();
  at.app.get('/unsaid', () => 'x');
  await expect(at.app.ready()).rejects.toThrow('GET /unsaid');
  at = await harness();
});

test('no token gets into an error', async () => {
  const token = await make('viewer');
  at.fleet.failNext = new PandoError('store-full', 'full');
  const { body } = await call(token, 'GET', '/vms');
  expect(JSON.stringify(body)).not.toContain(token.split('_')[2]);
});
