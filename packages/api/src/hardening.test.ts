/** What REST does against too much, too slow, and browsers that are led astray. */
import { systemClock } from '@pando/common';
import { connect } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { HttpCounts } from './http-counts.ts';
import { requestWindows } from './request-windows.ts';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
afterEach(() => at.close());

/** The time goes by only when a test says so. */
let now = 0;
const clock = { ...systemClock, monotonic: () => now };
const WRONG = `pando_aaaaaaaaaa_${'a'.repeat(52)}`;

async function open(limits: object, counts = new HttpCounts()): Promise<HttpCounts> {
  now = 1_000;
  at = await harness({ strict: true, clock, limits, httpCounts: counts });
  return counts;
}

async function ask(token?: string, url = '/api/v1/vms', from = '192.0.2.1') {
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const { statusCode, headers, body } = await at.app.inject({
    url,
    headers: authorization,
    remoteAddress: from,
  });
  const { code } = JSON.parse(body) as { code?: string };
  return { status: statusCode, code, retryAfter: headers['retry-after'], type: headers['content-type'] };
}
const statuses = async (count: number, ...how: Parameters<typeof ask>) => {
  const found: number[] = [];
  for (let i = 0; i < count; i++) found.push((await ask(...how)).status);
  return found;
};
const times = (count: number, status: number): number[] => Array<number>(count).fill(status);

describe('requests beyond the limit', () => {
  test('with one token are told to wait, and go on when the window is over; others are not held up', async () => {
    const counts = await open({ tokenRequests: 1 });
    const { text } = await at.tokens.create({ name: 'busy', role: 'viewer' });
    const { text: other } = await at.tokens.create({ name: 'other', role: 'viewer' });
    expect(await statuses(10, text)).toEqual(times(10, 200));
    now += 4_500;
    expect(await ask(text)).toEqual({
      ...{ status: 429, code: 'rate-limited', retryAfter: '6' },
      type: 'application/problem+json',
    });
    expect((await ask(text, '/api/v1/vms', '192.0.2.2')).status).toBe(429);
    expect((await ask(other)).status).toBe(200);
    now += 5_500;
    expect((await ask(text)).status).toBe(200);
    expect(Object.fromEntries(counts.refusals())).toEqual({ 'token': 2, 'address': 0, 'wrong-token': 0 });
  });

  test('count when they fail, also before their scope, body or route is looked at', async () => {
    await open({ tokenRequests: 1 });
    const { text } = await at.tokens.create({ name: 'busy', role: 'viewer', scope: { vms: ['a*'] } });
    expect(await statuses(9, text, '/api/v1/vms/b')).toEqual(times(9, 404));
    expect(await statuses(2, text, '/api/v1/nothing')).toEqual([404, 429]);
  });

  test('are told of once, in an event that names the token', async () => {
    await open({ tokenRequests: 1 });
    const { text } = await at.tokens.create({ name: 'busy', role: 'viewer' });
    await statuses(13, text);
    const { items } = await at.events.list({ kinds: ['requests-limited'], limit: 10 });
    expect(items).toMatchObject([{ kind: 'requests-limited', subject: 'busy' }]);
  });

  test('without a token are counted by address, those of one IPv6 network together; health and readiness are not', async () => {
    await open({ addressRequests: 1 });
    expect(await statuses(11, undefined)).toEqual([...times(10, 401), 429]);
    expect((await ask(undefined, '/openapi.json')).status).toBe(429);
    expect((await ask(undefined, '/openapi.json', '192.0.2.2')).status).toBe(200);
    expect(await statuses(15, undefined, '/health')).toEqual(times(15, 200));
    expect((await ask(undefined, '/ready')).status).toBe(200);
    expect(await statuses(10, undefined, '/openapi.json', '2001:db8::1')).toEqual(times(10, 200));
    expect((await ask(undefined, '/openapi.json', '2001:db8::2')).status).toBe(429);
    expect((await ask(undefined, '/openapi.json', '::ffff:192.0.2.1')).status).toBe(429);
  });

  test('are let through when there is no limit', async () => {
    await open({ tokenRequests: 0, addressRequests: 0, wrongTokens: 0 });
    const { text } = await at.tokens.create({ name: 'busy', role: 'viewer' });
    expect(await statuses(30, text)).toEqual(times(30, 200));
    expect(await statuses(100, WRONG)).toEqual(times(100, 401));
  });
});

describe('wrong tokens', () => {
  test('are told to wait after so many from one address; a good one from there passes all the same', async () => {
    const counts = await open({ wrongTokens: 5 });
    const { text } = await at.tokens.create({ name: 'good', role: 'viewer' });
    expect(await statuses(6, WRONG)).toEqual([...times(5, 401), 429]);
    expect(await ask(WRONG)).toMatchObject({ code: 'rate-limited', retryAfter: '60' });
    expect((await ask(text)).status).toBe(200);
    expect((await ask(undefined)).status).toBe(401);
    expect((await ask(WRONG, '/api/v1/vms', '192.0.2.2')).status).toBe(401);
    now += 60_000;
    expect((await ask(WRONG)).status).toBe(401);
    expect(counts.wrongTokens).toBe(9);
    const { items } = await at.events.list({ kinds: ['wrong-tokens'], limit: 10 });
    expect(items).toMatchObject([{ severity: 'warning', subject: '192.0.2.1' }]);
  });

  test('a token that has expired is one', async () => {
    await open({ wrongTokens: 1 });
    const { text } = await at.tokens.create({ name: 'old', role: 'viewer', expiresAt: Date.now() + 20 });
    while ((await ask(text)).status === 200) await new Promise((resolve) => setTimeout(resolve, 5));
    expect((await ask(text)).status).toBe(429);
  });
});

test('askers that came longest ago are forgotten first, so that their number has a bound', async () => {
  await open({});
  const windows = new (requestWindows(clock, 2))({});
  const count = (asker: string): number => {
    let found = 0;
    windows.incr(asker, (_error, result) => (found = result!.current), 1_000, 0);
    return found;
  };
  expect(['a', 'b', 'a', 'c', 'a', 'b'].map(count)).toEqual([1, 1, 2, 1, 3, 1]);
});

describe('a body that does not come', () => {
  test.each<[string, string, string, string, (string | null)?, string?]>([
    ['to a route that wants none', 'GET', '/health', ''],
    ['without a token', 'POST', '/api/v1/vms', ''],
    ['to an upload, without a token', 'POST', '/api/v1/imports?name=a', ''],
    ['to no route', 'POST', '/api/v1/nothing', 'token'],
    ['of JSON', 'POST', '/api/v1/vms', 'token'],
    ['of a media type that is refused', 'POST', '/api/v1/vms', 'token', 'text/plain'],
    ['of no media type', 'POST', '/api/v1/vms', 'token', null],
    ['for another host', 'POST', '/api/v1/vms', 'token', 'application/json', 'elsewhere'],
  ])(
    '%s: the connection is closed',
    async (_what, method, url, who, type = 'application/json', host = 'localhost') => {
      await open({ bodyMs: 100, lingerMs: 60_000 });
      const { text } = await at.tokens.create({ name: 'a', role: 'admin' });
      await at.app.listen({ host: '127.0.0.1', port: 0 });
      const { port } = at.app.server.address() as AddressInfo;
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => undefined).resume();
      const lines = [
        ...[`${method} ${url} HTTP/1.1`, `Host: ${host}`, 'Content-Length: 1000'],
        ...(type === null ? [] : [`Content-Type: ${type}`]),
        ...(who === '' ? [] : [`Authorization: Bearer ${text}`]),
      ];
      socket.write(`${lines.join('\r\n')}\r\n\r\n{`);
      await new Promise((resolve) => socket.once('close', resolve));
    },
  );
});

test('two Host headers are refused, whichever comes first', async () => {
  await open({});
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = at.app.server.address() as AddressInfo;
  const statusOf = async (hosts: readonly string[]): Promise<string> => {
    const socket = connect(port, '127.0.0.1');
    const lines = ['GET /health HTTP/1.1', ...hosts.map((host) => `Host: ${host}`), 'Connection: close'];
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    let answer = '';
    for await (const data of socket) answer += String(data);
    return answer.slice(9, 12);
  };
  expect(await statusOf(['localhost'])).toBe('200');
  expect(await statusOf(['localhost', 'elsewhere'])).toBe('400');
  expect(await statusOf(['localhost', 'localhost'])).toBe('400');
});

describe('headers', () => {
  const STRICT = "default-src 'none';base-uri 'none';form-action 'none';frame-ancestors 'none'";

  test('of every answer, errors included, let a browser do nothing with it', async () => {
    await open({});
    for (const [url, status] of [
      ['/health', 200],
      ['/openapi.json', 200],
      ['/api/v1/vms', 401],
      ['/nothing', 401],
    ] as const) {
      const { headers, statusCode } = await at.app.inject(url);
      expect(statusCode).toBe(status);
      expect(headers).toMatchObject({
        'content-security-policy': STRICT,
        'x-content-type-options': 'nosniff',
        'x-frame-options': 'DENY',
        'referrer-policy': 'no-referrer',
        'cross-origin-resource-policy': 'same-origin',
      });
      expect(headers).not.toHaveProperty('strict-transport-security');
      expect(headers).not.toHaveProperty('access-control-allow-origin');
    }
  });

  test('the page of the API may load all of what it is made of, and nothing else', async () => {
    await open({ addressRequests: 0 });
    const page = await at.app.inject('/docs/');
    const policy = Object.fromEntries(
      (page.headers['content-security-policy'] as string)
        .split(';')
        .filter((part) => part.trim() !== '')
        .map((part) => {
          const [name, ...sources] = part.trim().split(/\s+/);
          return [name!, sources];
        }),
    );
    expect(policy['default-src']).toEqual(["'none'"]);
    const parts = [...page.body.matchAll(/<(script|link|img|style|iframe)\b([^>]*)>([^<]*)/g)];
    expect(parts.length).toBeGreaterThan(4);
    const sheets: string[] = [];
    for (const [, tag, attributes, inside] of parts) {
      const kind = tag === 'link' ? (attributes!.includes('stylesheet') ? 'style' : 'img') : tag!;
      expect(policy[`${kind}-src`]).toContain("'self'");
      expect(inside!.trim()).toBe('');
      const file = new URL(/(?:src|href)="([^"]+)"/.exec(attributes!)![1]!, 'http://localhost/docs/');
      expect(file.host).toBe('localhost');
      const { statusCode, body } = await at.app.inject(file.pathname);
      expect([file.pathname, statusCode]).toEqual([file.pathname, 200]);
      if (kind === 'style') sheets.push(body);
    }
    expect(page.body).not.toMatch(/\son\w+=|\sstyle=/);
    const pictures = sheets.flatMap((sheet) => [...sheet.matchAll(/url\(["']?([^"')]{1,5})/g)]);
    expect(pictures.length).toBeGreaterThan(0);
    for (const [, begin] of pictures) expect(begin).toBe('data:');
    expect(sheets.join('')).not.toMatch(/@import|@font-face/);
    expect(policy['img-src']).toContain('data:');
    // What the page asks for: the document, and whatever is tried.
    expect(policy['connect-src']).toEqual(["'self'"]);
    expect((await at.app.inject('/docs/json')).statusCode).toBe(200);
  });
});
