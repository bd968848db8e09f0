import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness({ limits: { followers: 1, heartbeatMs: 20 } });
});
afterEach(() => at.close());

const get = async (path: string): Promise<{ statusCode: number; body: Record<string, unknown> }> => {
  const { statusCode, json } = await at.app.inject(`/api/v1${path}`);
  return { statusCode, body: json() };
};
const raise = (text: string, subject?: string): void =>
  at.events.raise({ kind: 'job-failed', text, ...(subject === undefined ? {} : { subject }) });

test('events are listed newest first, page by page, by what they are about', async () => {
  at.events.raise({ kind: 'store-full', text: 'full', data: { freeBytes: 1 } });
  for (const text of ['a', 'b', 'c']) raise(text, `vm-${text}`);
  const from = at.events.newestId;
  await until(() => at.events.newestId > from);
  const first = await get('/events?limit=3');
  expect(first).toMatchObject({ statusCode: 200 });
  const { items, nextCursor } = first.body as { items: { text: string; at: string }[]; nextCursor: string };
  expect(items.map(({ text }) => text)).toEqual(['c', 'b', 'a']);
  expect(Date.parse(items[0]!.at)).toBeGreaterThan(0);
  expect((await get(`/events?limit=3&cursor=${nextCursor}`)).body).toEqual({
    items: [expect.objectContaining({ kind: 'store-full', severity: 'error', data: { freeBytes: 1 } })],
  });
  const of = async (query: string): Promise<unknown[]> =>
    (await get(`/events?${query}`)).body['items'] as unknown[];
  expect(await of('kind=store-full')).toHaveLength(1);
  expect(await of('subject=vm-b')).toMatchObject([{ text: 'b', subject: 'vm-b' }]);
  expect(await of('severity=warning')).toHaveLength(4);
  expect(await of('severity=error')).toHaveLength(1);
  expect(await of('since=2026-01-01T00:00:00Z')).toHaveLength(4);
  expect(await of(`since=${new Date(Date.now() + 60_000).toISOString()}`)).toHaveLength(0);
  expect((await get('/events?cursor=x')).body).toMatchObject({ status: 400, code: 'cursor-invalid' });
  for (const query of ['since=yesterday', 'severity=bad', 'limit=0', 'kinds=x'])
    expect((await get(`/events?${query}`)).body, query).toMatchObject({
      status: 400,
      code: 'request-invalid',
    });
});

test('a stream goes on after the event that its reader has, keeps the line warm, and lets go when the server stops', async () => {
  raise('before');
  await until(() => at.events.newestId > 0);
  const seen = at.events.newestId;
  raise('missed');
  await at.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = at.app.server.address() as AddressInfo;
  const follow = (id: string): Promise<Response> =>
    fetch(`http://127.0.0.1:${port}/api/v1/events/stream?kind=job-failed`, {
      headers: { 'last-event-id': id },
    });
  expect(await (await follow('x')).json()).toMatchObject({ code: 'request-invalid' });
  const answer = await follow(String(seen));
  expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/);
  expect(await (await follow('0')).json()).toMatchObject({ code: 'too-busy' });
  let text = '';
  const reading = (async () => {
    const decoder = new TextDecoder();
    for await (const bytes of answer.body!) text += decoder.decode(bytes as Uint8Array, { stream: true });
  })();
  await until(() => text.includes('missed') && text.includes(': still here'));
  at.events.raise({ kind: 'store-ready', text: 'not asked for' });
  raise('next');
  await until(() => text.includes('next'));
  expect(text).not.toMatch(/before|not asked for/);
  expect(text).toMatch(
    new RegExp(
      `^: this is the beginning\\n\\nid: ${seen + 1}|^: this is the beginning\\n\\nid: \\d{13}\\nevent: event\\ndata: \\{`,
    ),
  );
  await at.app.close();
  await reading;
});

test('webhooks are made, shown without their secret, tried, and deleted', async () => {
  const post = (url: string, body: object = {}) =>
    at.app.inject({
      method: 'POST',
      url: `/api/v1${url}`,
      headers: { 'content-type': 'application/json' },
      payload: body,
    });
  const made = await post('/webhooks', { url: 'https://example.net/', kinds: ['store-full'] });
  expect(made.statusCode).toBe(201);
  const { webhook, secret } = made.json<{ webhook: { id: string }; secret: string }>();
  expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
  expect(made.headers['location']).toBe(`/api/v1/webhooks/${webhook.id}`);
  const shown = await get(`/webhooks/${webhook.id}`);
  expect(shown.body).toEqual(webhook);
  expect((await get('/webhooks')).body).toEqual({ items: [webhook] });
  expect((await post(`/webhooks/${webhook.id}/test`)).json()).toEqual({ taken: true, status: 204 });
  expect(at.sent[0]).toMatchObject({ url: 'https://example.net/' });
  at.events.raise({ kind: 'store-full', text: 'x' });
  await until(async () => 'deliveredAt' in (await get(`/webhooks/${webhook.id}`)).body);
  expect((await post('/webhooks', { url: 'http://example.net/' })).json()).toMatchObject({
    status: 400,
    code: 'webhook-invalid',
  });
  const remove = () => at.app.inject({ method: 'DELETE', url: `/api/v1/webhooks/${webhook.id}` });
  expect((await remove()).statusCode).toBe(204);
  expect((await remove()).json()).toMatchObject({ status: 404, code: 'webhook-missing' });
});
