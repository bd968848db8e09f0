import { createHmac } from 'node:crypto';
import { MemoryCatalog } from '@pando/catalog';
import { PandoError } from '@pando/common';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { EventLog } from './log.ts';
import { ManualClock, START_MS } from './testing/manual-clock.ts';
import { Webhooks, WEBHOOK_LIMITS, type Send } from './webhooks.ts';

type Request = Parameters<Send>[0];

let catalog: MemoryCatalog;
let clock: ManualClock;
let log: EventLog;
let webhooks: Webhooks;
let sent: Request[];
/** Status, or error, of the answers to come; the last one stays. */
let answers: (number | Error)[];
let random: () => number;

const open = async (): Promise<void> => {
  log = await EventLog.open({ catalog, clock });
  webhooks = await Webhooks.open({
    ...{ catalog, log, clock },
    random: { fill: (target) => void fillRandom(random, target) },
    onEvent: log.raise,
    send: (request) => {
      sent.push(request);
      const answer = answers.length > 1 ? answers.shift()! : answers[0]!;
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve({ status: answer });
    },
  });
};
const close = async (): Promise<void> => {
  await webhooks.close();
  await log.close();
};
beforeEach(async () => {
  catalog = new MemoryCatalog();
  clock = new ManualClock();
  random = seededRandom(1);
  sent = [];
  answers = [204];
  await open();
});
afterEach(close);

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const until = async (check: () => boolean): Promise<void> => {
  while (!check()) await turn();
};
const URL_GOOD = 'https://example.net/hook';
const types = (): unknown[] => sent.map(({ body }) => (JSON.parse(body) as { type: string }).type);

test('an event is sent as the specification says, with a signature by the secret that only its maker was told', async () => {
  const { webhook, secret } = await webhooks.create({ url: URL_GOOD });
  expect(webhook).toEqual({
    id: expect.stringMatching(/^[0-9a-f]{16}$/) as string,
    url: URL_GOOD,
    createdAt: START_MS,
    isGone: false,
  });
  expect(JSON.stringify(webhooks.list())).not.toContain(secret);
  clock.advance(1500);
  log.raise({ kind: 'store-full', text: 'no room', subject: 'web', data: { freeBytes: 1 } });
  await until(() => sent.length === 1);
  const [{ url, headers, body }] = sent as [Request];
  expect(url).toBe(URL_GOOD);
  expect(JSON.parse(body)).toEqual({
    type: 'store-full',
    timestamp: '2026-11-20T10:00:01.500Z',
    data: { id: START_MS + 1500, severity: 'error', text: 'no room', subject: 'web', data: { freeBytes: 1 } },
  });
  expect(headers['webhook-id']).toBe(`pando_${START_MS + 1500}`);
  expect(headers['webhook-timestamp']).toBe(String(START_MS / 1000 + 1));
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  expect(key).toHaveLength(32);
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  expect(headers['webhook-signature']).toBe(
    `v1,${createHmac('sha256', key).update(signed).digest('base64')}`,
  );
});

test('only what is asked for is sent: kinds, and how bad', async () => {
  await webhooks.create({ url: `${URL_GOOD}/a`, kinds: ['store-ready'] });
  await webhooks.create({ url: `${URL_GOOD}/b`, severity: 'error' });
  for (const kind of ['store-full', 'store-ready', 'mirror-behind'] as const) log.raise({ kind, text: kind });
  await until(() => sent.length === 2);
  await turn();
  expect(sent.map(({ url }) => url.at(-1)).sort()).toEqual(['a', 'b']);
  expect(types().sort()).toEqual(['store-full', 'store-ready']);
});

test('what is not taken is sent again with the same id, later and later, also over restarts; nothing is left out or sent twice', async () => {
  answers = [500, new Error('refused'), 301, 200];
  const { webhook } = await webhooks.create({ url: URL_GOOD });
  log.raise({ kind: 'store-full', text: 'first' });
  log.raise({ kind: 'store-ready', text: 'second' });
  for (const [tries, pause] of WEBHOOK_LIMITS.retryMs.slice(0, 2).entries()) {
    await until(() => webhooks.get(webhook.id).failing?.tries === tries + 1 && clock.sleepers === 1);
    clock.advance(pause - 1);
    await turn();
    expect(sent).toHaveLength(tries + 1);
    clock.advance(1);
  }
  await until(() => webhooks.get(webhook.id).failing?.tries === 3);
  expect(webhooks.get(webhook.id).failing).toEqual({ since: START_MS, tries: 3, problem: 'it answered 301' });
  await close();
  await open();
  await until(() => sent.length === 5);
  expect(types()).toEqual(['store-full', 'store-full', 'store-full', 'store-full', 'store-ready']);
  expect(new Set(sent.slice(0, 4).map(({ headers }) => headers['webhook-id'])).size).toBe(1);
  await until(() => webhooks.get(webhook.id).deliveredAt !== undefined);
  await turn();
  await close();
  await open();
  log.raise({ kind: 'store-full', text: 'third' });
  await until(() => sent.length === 6);
  expect(JSON.parse(sent[5]!.body)).toMatchObject({ data: { text: 'third' } });
});

test('an event that is never taken is passed over in the end, which is an event itself, and not for that webhook', async () => {
  answers = [503];
  const { webhook } = await webhooks.create({ url: `${URL_GOOD}?token=hidden` });
  log.raise({ kind: 'store-full', text: 'first' });
  for (const [i, pause] of WEBHOOK_LIMITS.retryMs.entries()) {
    await until(() => webhooks.get(webhook.id).failing?.tries === i + 1 && clock.sleepers === 1);
    if (pause === WEBHOOK_LIMITS.retryMs.at(-1)) answers = [503, 200];
    clock.advance(pause);
  }
  await until(() => log.newestId > START_MS);
  log.raise({ kind: 'store-ready', text: 'next' });
  await until(() => types().at(-1) === 'store-ready');
  expect(sent).toHaveLength(WEBHOOK_LIMITS.retryMs.length + 2);
  const { items } = await log.list({ limit: 10, kinds: ['webhook-failed'] });
  expect(items).toMatchObject([
    { subject: webhook.id, text: expect.stringMatching(/tried 10 times at example.net/) as string },
  ]);
  expect(JSON.stringify(items)).not.toContain('hidden');
});

test('a receiver that says 410 is sent nothing any more', async () => {
  answers = [410];
  const { webhook } = await webhooks.create({ url: URL_GOOD });
  log.raise({ kind: 'store-full', text: 'first' });
  await until(() => webhooks.get(webhook.id).isGone);
  await close();
  await open();
  log.raise({ kind: 'store-ready', text: 'second' });
  for (let i = 0; i < 5; i++) await turn();
  expect(sent).toHaveLength(1);
  expect(webhooks.get(webhook.id).isGone).toBe(true);
});

test('a test says at once what came of it, and a removed webhook is gone for good', async () => {
  answers = [
    200,
    404,
    Object.assign(new TypeError('fetch failed'), { cause: new Error('connect ECONNREFUSED') }),
  ];
  const { webhook } = await webhooks.create({ url: 'http://localhost:1/', insecure: true });
  expect(await webhooks.test(webhook.id)).toEqual({ taken: true, status: 200 });
  expect(await webhooks.test(webhook.id)).toEqual({ taken: false, status: 404, problem: 'it answered 404' });
  expect(await webhooks.test(webhook.id)).toEqual({ taken: false, problem: 'connect ECONNREFUSED' });
  expect(types()[0]).toBe('webhook-test');
  await webhooks.remove(webhook.id);
  expect(await catalog.list('webhook')).toEqual([]);
  expect(await catalog.list('webhook-place')).toEqual([]);
  for (const call of [webhooks.test(webhook.id), webhooks.remove(webhook.id)])
    await expect(call).rejects.toMatchObject({ code: 'webhook-missing' });
});

test('a webhook that cannot be removed goes on where it was', async () => {
  const { webhook } = await webhooks.create({ url: URL_GOOD });
  log.raise({ kind: 'store-full', text: 'no room' });
  await until(() => sent.length === 1);
  const commit = catalog.commit.bind(catalog);
  catalog.commit = () => Promise.reject(new PandoError('store-full', 'no room'));
  await expect(webhooks.remove(webhook.id)).rejects.toMatchObject({ code: 'store-full' });
  catalog.commit = commit;
  expect(webhooks.get(webhook.id)).toMatchObject({ url: URL_GOOD });
  log.raise({ kind: 'store-failed', text: 'no disk' });
  await until(() => sent.length > 1);
  expect(types()).toEqual(['store-full', 'store-failed']);
  await webhooks.remove(webhook.id);
  expect(webhooks.list()).toEqual([]);
});

test.each([
  'http://example.net/',
  'ftp://example.net/',
  'example.net',
  '',
  'https://user:pass@example.net/',
  `https://example.net/${'x'.repeat(2000)}`,
])('%s is no URL of a webhook', async (url) => {
  await expect(webhooks.create({ url })).rejects.toMatchObject({ code: 'webhook-invalid' });
});

test('there are so many webhooks, and no more, also when they are made at the same time', async () => {
  const made = await Promise.allSettled(
    Array.from({ length: WEBHOOK_LIMITS.webhooks + 3 }, () => webhooks.create({ url: URL_GOOD })),
  );
  expect(made.filter(({ status }) => status === 'fulfilled')).toHaveLength(WEBHOOK_LIMITS.webhooks);
  expect(webhooks.list()).toHaveLength(WEBHOOK_LIMITS.webhooks);
});
