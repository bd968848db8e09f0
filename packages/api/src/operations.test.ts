import { afterEach, expect, test } from 'vitest';
import { HttpCounts, type ReadyCheck, type SpaceHistorySource } from './index.ts';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
afterEach(() => at.close());

test('ready says what is wrong: a warning is none of its business to refuse, a failed check is', async () => {
  let checks: ReadyCheck[] = [];
  at = await harness({ ready: () => Promise.resolve(checks) });
  const ask = async (url: string): Promise<unknown[]> => {
    const { statusCode, json } = await at.app.inject(url);
    return [statusCode, json()];
  };
  for (const url of ['/ready', '/api/v1/ready']) {
    // The one that is open to all leaves out the details.
    const seen = () => (url === '/ready' ? checks.map(({ name, status }) => ({ name, status })) : checks);
    checks = [{ name: 'store', status: 'ok' }];
    expect(await ask(url)).toEqual([200, { ready: true, checks: seen() }]);
    checks = [{ name: 'disk', status: 'warning', detail: '1M free' }];
    expect(await ask(url)).toEqual([200, { ready: true, checks: seen() }]);
    checks = [...checks, { name: 'store', status: 'failed', detail: 'full' }];
    expect(await ask(url)).toEqual([url === '/ready' ? 503 : 200, { ready: false, checks: seen() }]);
  }
  // Whoever may not see more learns which they are.
  expect(await ask('/health')).toMatchObject([200, { status: 'ok', problems: ['disk', 'store'] }]);
});

test('the history of space comes in the finest grain that goes back so far, page by page', async () => {
  const asked: Parameters<SpaceHistorySource['list']>[0][] = [];
  const counts = { storedBytes: 5, segmentBytes: 1, indexBytes: 1, logBytes: 1, catalogBytes: 2 };
  at = await harness({
    history: {
      list: (request) => {
        asked.push(request);
        return Promise.resolve({ items: [{ at: 0, ...counts }], next: 7 });
      },
    },
  });
  const get = async (query: string): Promise<unknown> =>
    (await at.app.inject(`/api/v1/report/space/history${query}`)).json();
  expect(await get('?limit=1')).toEqual({
    ...{ grain: '1h', nextCursor: '7' },
    items: [{ at: '1970-01-01T00:00:00.000Z', ...counts }],
  });
  expect(asked[0]).toMatchObject({ grain: '1h', limit: 1 });
  const ago = (hours: number): string => new Date(Date.now() - hours * 3_600_000).toISOString();
  expect(await get(`?since=${ago(2)}`)).toMatchObject({ grain: '5m' });
  expect(await get(`?since=${ago(24 * 60)}`)).toMatchObject({ grain: '1d' });
  expect(await get(`?since=${ago(2)}&grain=1d&cursor=7`)).toMatchObject({ grain: '1d' });
  expect(asked.at(-1)).toMatchObject({ grain: '1d', after: 7 });
  expect(await get('?cursor=x')).toMatchObject({ code: 'cursor-invalid' });
  for (const query of ['?since=x', '?grain=2h'])
    expect(await get(query)).toMatchObject({ code: 'request-invalid' });
});

test('requests are counted by route, not by what stands in it', async () => {
  const httpCounts = new HttpCounts();
  at = await harness({ httpCounts });
  for (const url of ['/api/v1/vms/a', '/api/v1/vms/b', '/api/v1/nonsense', '/else', '/health'])
    await at.app.inject(url);
  await at.app.inject({ method: 'PROPFIND', url: '/x' });
  const found = httpCounts.all().map(({ method, route, status, times }) => {
    const count = times.counts.counts.reduce((sum, one) => sum + one, 0);
    return `${method} ${route} ${status} ${count}`;
  });
  expect(found.sort()).toEqual(['GET /api/v1/vms/:vm 4xx 2', 'GET /health 2xx 1', 'any none 4xx 3']);
});
