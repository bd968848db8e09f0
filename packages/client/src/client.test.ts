import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { Client } from './client.ts';
import { readText } from './transport.ts';

interface Asked {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

interface Reply {
  readonly status?: number;
  readonly json?: unknown;
  readonly text?: string;
}

let close: () => void = () => undefined;
afterEach(() => close());

/** A client of a server that answers so, and what it was asked. */
async function client(answer: (asked: Asked) => Reply): Promise<{ pando: Client; asked: Asked[] }> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    void readText(request).then((body) => {
      const one = { method: request.method!, url: request.url!, headers: request.headers, body };
      asked.push(one);
      const { status = 200, json, text = json === undefined ? '' : JSON.stringify(json) } = answer(one);
      response.writeHead(status).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, resolve));
  close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { pando: new Client({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }), asked };
}

test('parameters go where the document says, encoded; what is undefined is left out', async () => {
  const { pando, asked } = await client(() => ({ status: 201, json: { items: [] } }));
  await pando.call('cloneVm', {
    'vm': 'a/b ä',
    'body': { name: 'x', count: undefined, tags: ['t'] },
    'idempotency-key': 'once',
  });
  await pando.call('listBackups', { vm: 'web&x', policy: undefined, label: 'a=b' });
  await pando.call('whoami');
  await pando.call('testWebhook', { id: 'h' });
  expect(asked).toMatchObject([
    {
      method: 'POST',
      url: '/api/v1/vms/a%2Fb%20%C3%A4/clone',
      headers: { 'content-type': 'application/json', 'idempotency-key': 'once' },
      body: '{"name":"x","tags":["t"]}',
    },
    { method: 'GET', url: '/api/v1/backups?vm=web%26x&label=a%3Db', body: '' },
    { method: 'GET', url: '/api/v1/whoami' },
    { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' },
  ]);
  expect(asked[1]!.headers).not.toHaveProperty('content-type');
});

test('who has no types is told of a parameter that is missing, or that there is not', async () => {
  const { pando } = await client(() => ({}));
  await expect(pando.call('getVm', { vm: '' })).rejects.toThrow('getVm: vm is missing');
  await expect(pando.call('getVm', { vm: 'a', force: true } as never)).rejects.toThrow(
    'has no parameter force',
  );
});

test('an answer without a body is undefined', async () => {
  const { pando } = await client(() => ({ status: 204 }));
  await expect(pando.call('deleteVm', { vm: 'web', force: true })).resolves.toBeUndefined();
});

/** Numbers from 0 to 4, two a page. */
function pageFrom(cursor: string | null): Reply {
  const from = Number(cursor ?? 0);
  const items = [0, 1, 2, 3, 4].slice(from, from + 2);
  return { json: { items, total: 5, ...(from + 2 < 5 ? { nextCursor: String(from + 2) } : {}) } };
}

test('lists are read page by page, with the cursor in the query', async () => {
  const { pando, asked } = await client(({ url }) =>
    pageFrom(new URL(url, 'http://x').searchParams.get('cursor')),
  );
  expect(await pando.all('listVms', { prefix: 'w' })).toEqual([0, 1, 2, 3, 4]);
  expect(asked.map(({ url }) => url)).toEqual([
    '/api/v1/vms?limit=1000&prefix=w',
    '/api/v1/vms?cursor=2&limit=1000&prefix=w',
    '/api/v1/vms?cursor=4&limit=1000&prefix=w',
  ]);
  expect(await pando.whole('reportHolders', { of: 'web' })).toEqual({ items: [0, 1, 2, 3, 4], total: 5 });
  asked.length = 0;
  expect(await pando.first(3, 'listEvents')).toEqual([0, 1, 2]);
  expect(asked.map(({ url }) => url)).toEqual(['/api/v1/events?limit=3', '/api/v1/events?cursor=2&limit=3']);
});

test('and with the cursor in the body where the operation has it there', async () => {
  const { pando, asked } = await client(({ body }) =>
    pageFrom((JSON.parse(body) as { cursor?: string }).cursor ?? null),
  );
  expect(await pando.all('reportReclaim', { body: { owners: ['web'] } })).toEqual([0, 1, 2, 3, 4]);
  expect(asked.map(({ body }) => JSON.parse(body) as unknown)).toEqual([
    { owners: ['web'] },
    { owners: ['web'], cursor: '2' },
    { owners: ['web'], cursor: '4' },
  ]);
});

const job = (state: string, more: object = {}): object => ({
  id: 'j1',
  kind: 'gc',
  state,
  createdAt: '',
  ...more,
});
const events = (...jobs: object[]): string =>
  ['event: other\ndata: {}\n\n', ...jobs.map((one) => `event: job\ndata: ${JSON.stringify(one)}\n\n`)].join(
    ': beat\n\n',
  );

test('a job is begun and followed to its result', async () => {
  const { pando, asked } = await client(({ method }) =>
    method === 'POST'
      ? { status: 202, json: job('queued') }
      : { text: events(job('running'), job('done', { result: { freedBytes: 7 } })) },
  );
  expect(await pando.run('collectGarbage', { body: {} })).toEqual({ freedBytes: 7 });
  expect(asked.map(({ url }) => url)).toEqual(['/api/v1/gc', '/api/v1/jobs/j1/events']);
});

test('what was done at once has no job', async () => {
  const { pando } = await client(() => ({ status: 201, json: { name: 'web2' } }));
  expect(await pando.run('restoreBackup', { backup: 'web@a', body: { as: 'web2' } })).toEqual({
    name: 'web2',
  });
});

test('a job that fails is refused with its error, one that nobody tells the end of is an error too', async () => {
  let ended = events(job('failed', { error: { code: 'store-full', detail: 'full', remedy: '' } }));
  const { pando } = await client(({ method }) =>
    method === 'POST' ? { status: 202, json: job('queued') } : { text: ended },
  );
  await expect(pando.run('verify', { body: {} })).rejects.toMatchObject({
    problem: { code: 'store-full', status: 0 },
  });
  ended = events(job('running'));
  await expect(pando.run('verify', { body: {} })).rejects.toMatchObject({ code: 'server-unreachable' });
});

test('bytes come as they are, text as it is', async () => {
  const { pando, asked } = await client(() => ({ text: 'up 1\n' }));
  const { bytes } = await pando.bytes('apiMetrics');
  expect(bytes.toString()).toBe('up 1\n');
  expect(await readText(await pando.open('apiHealth'))).toBe('up 1\n');
  expect(asked.map(({ headers }) => headers.accept)).toEqual(['text/plain', 'application/json']);
});

test('an upload says what it is, and has its parameters in the query', async () => {
  const { pando, asked } = await client(() => ({ status: 201, json: { jobId: 'j', result: { root: 'r' } } }));
  const body = (async function* () {
    yield Buffer.from('abc');
  })();
  const { result } = await pando.upload('importVm', 'application/octet-stream', {
    ...{ name: 'web', tag: ['a', 'b'], sizeBytes: undefined },
    body,
  });
  expect(result).toEqual({ root: 'r' });
  expect(asked).toMatchObject([
    {
      url: '/api/v1/imports?name=web&tag=a&tag=b',
      headers: { 'content-type': 'application/octet-stream' },
      body: 'abc',
    },
  ]);
});

/** For the compiler: never called. */
export function mistakes(pando: Client): unknown[] {
  return [
    // @ts-expect-error the VM is missing
    pando.call('getVm'),
    // @ts-expect-error it takes no such parameter
    pando.call('getVm', { vm: 'web', force: true }),
    // @ts-expect-error a VM needs a name
    pando.call('createVm', { body: { name: undefined, disks: [] } }),
    // @ts-expect-error no such role
    pando.call('createToken', { body: { name: 'x', role: 'king' } }),
    // @ts-expect-error it is no list
    pando.all('getVm', { vm: 'web' }),
    // @ts-expect-error it is a job
    pando.call('verify', { body: {} }),
    // @ts-expect-error no such media type
    pando.upload('repair', 'application/vnd.pando.sparse-ids', { body: (async function* () {})() }),
  ];
}
