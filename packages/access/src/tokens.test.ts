import { MemoryCatalog, type CatalogOperation } from '@pando/catalog';
import { PandoError, type Clock } from '@pando/common';
import { seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Tokens, TOKENS_MAX } from './tokens.ts';

class HandClock implements Clock {
  time = Date.UTC(2026, 10, 20, 10);
  #wake: (() => void) | undefined;
  now(): number {
    return this.time;
  }
  monotonic(): number {
    return this.time;
  }
  sleep(_ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#wake = resolve;
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  }
  async pass(ms: number): Promise<void> {
    this.time += ms;
    this.#wake?.();
    for (let i = 0; i < 20; i++) await Promise.resolve();
  }
}

class WatchedCatalog extends MemoryCatalog {
  readonly committed: CatalogOperation[][] = [];
  failNext: Error | undefined;
  override async commit(operations: readonly CatalogOperation[]): Promise<void> {
    const error = this.failNext;
    this.failNext = undefined;
    if (error !== undefined) throw error;
    this.committed.push([...operations]);
    await super.commit(operations);
  }
}

let clock: HandClock;
let catalog: WatchedCatalog;
let tokens: Tokens;
const random = seededRandom(7);
const open = (): Promise<Tokens> =>
  Tokens.open({ catalog, clock, random: { fill: (target) => fill(target) } });
const fill = (target: Uint8Array): void => {
  for (let i = 0; i < target.length; i++) target[i] = Math.floor(random() * 256);
};

beforeEach(async () => {
  clock = new HandClock();
  catalog = new WatchedCatalog();
  tokens = await open();
});
afterEach(() => tokens.close());

const refused = (code: string): unknown => expect.objectContaining({ code });

describe('a token', () => {
  test('is good as it was told, from its creation on, over a restart, until it is revoked', async () => {
    const { text, token } = await tokens.create({ name: 'ci', role: 'operator', scope: { tags: ['ci'] } });
    expect(text).toMatch(/^pando_[a-z2-9]{10}_[a-z2-9]{52}$/);
    expect(tokens.authenticate(text, '10.0.0.1')).toEqual({
      ...{ tokenId: token.id, name: 'ci', role: 'operator', scope: { tags: ['ci'] } },
    });
    await tokens.close();
    tokens = await open();
    expect(tokens.authenticate(text, '10.0.0.1').name).toBe('ci');
    expect(tokens.get('ci')).toEqual(tokens.get(token.id));
    await tokens.revoke('ci');
    expect(() => tokens.authenticate(text, '10.0.0.1')).toThrow(refused('unauthenticated'));
    expect(() => tokens.get('ci')).toThrow(refused('token-missing'));
  });

  test('is nowhere in the catalog', async () => {
    const { text } = await tokens.create({ name: 'a', role: 'admin' });
    const secret = text.split('_')[2]!;
    const stored = JSON.stringify(catalog.committed, (_key, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : value,
    );
    expect(stored).toContain('"name":"a"');
    expect(stored).not.toContain(secret);
  });

  test.each([
    ['of another secret', (text: string) => `${text.slice(0, -1)}${text.endsWith('a') ? 'b' : 'a'}`],
    ['of another id', (text: string) => text.replace(/_.{10}_/, '_aaaaaaaaaa_')],
    ['that is longer', (text: string) => `${text}a`],
    ['that is empty', () => ''],
    ['that is no token', () => 'constructor'],
  ])('%s is nobody’s', async (_what, change) => {
    const { text } = await tokens.create({ name: 'a', role: 'admin' });
    expect(() => tokens.authenticate(change(text), '')).toThrow(refused('unauthenticated'));
    expect(() => tokens.authenticate(undefined, '')).toThrow(refused('unauthenticated'));
    expect(tokens.isValid(text)).toBe(true);
  });

  test('ends when it expires, and is shown as expired', async () => {
    const { text } = await tokens.create({ name: 'a', role: 'viewer', expiresAt: clock.time + 1000 });
    await clock.pass(999);
    expect(tokens.authenticate(text, '').role).toBe('viewer');
    await clock.pass(1);
    expect(() => tokens.authenticate(text, '')).toThrow('has expired');
    expect(tokens.get('a')).toMatchObject({ expired: true, expiresAt: '2026-11-20T10:00:01.000Z' });
  });

  test('is not good before it is stored, nor when it cannot be stored', async () => {
    let told = '';
    catalog.failNext = new PandoError('store-full', 'full');
    const creation = tokens.create({ name: 'a', role: 'admin' }, async (text) => {
      told = text;
      expect(tokens.isValid(text)).toBe(false);
    });
    await expect(creation).rejects.toEqual(refused('store-full'));
    expect(tokens.isValid(told)).toBe(false);
    expect(tokens.count).toBe(0);
  });

  test.each([
    ['without a name', { name: '', role: 'viewer' }, 'name-invalid'],
    ['with a slash in its name', { name: 'a/b', role: 'viewer' }, 'name-invalid'],
    ['that has expired', { name: 'a', role: 'viewer', expiresAt: 1 }, 'request-invalid'],
    ['of an admin with a scope', { name: 'a', role: 'admin', scope: { tags: ['x'] } }, 'request-invalid'],
    ['with an empty scope', { name: 'a', role: 'viewer', scope: {} }, 'request-invalid'],
  ] as const)('%s is not made', async (_what, request, code) => {
    await expect(tokens.create(request)).rejects.toEqual(refused(code));
  });
});

test('two at once cannot have one name', async () => {
  const both = await Promise.allSettled([
    tokens.create({ name: 'a', role: 'viewer' }),
    tokens.create({ name: 'a', role: 'admin' }),
  ]);
  expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  expect(tokens.get('a').role).toBe('viewer');
});

test('the last admin that has not expired stays, also when two are revoked at once', async () => {
  await tokens.create({ name: 'a', role: 'admin' });
  await tokens.create({ name: 'b', role: 'admin' });
  await tokens.create({ name: 'soon', role: 'admin', expiresAt: clock.time + 1000 });
  await clock.pass(1000);
  const both = await Promise.allSettled([tokens.revoke('a'), tokens.revoke('b')]);
  expect(both).toEqual([
    expect.objectContaining({ status: 'fulfilled' }),
    { status: 'rejected', reason: refused('last-admin') },
  ]);
  await tokens.revoke('soon');
});

test('watchers hear of each that is revoked', async () => {
  const heard: string[] = [];
  tokens.onEnd((id) => heard.push(id));
  const { token } = await tokens.create({ name: 'a', role: 'viewer' });
  await tokens.revoke('a');
  expect(heard).toEqual([token.id]);
});

test('lists go by name, page by page', async () => {
  for (const name of ['c', 'a', 'b']) await tokens.create({ name, role: 'viewer' });
  const first = tokens.list({ limit: 2 });
  expect(first.items.map(({ name }) => name)).toEqual(['a', 'b']);
  const second = tokens.list({ limit: 2, cursor: first.nextCursor! });
  expect(second.items.map(({ name }) => name)).toEqual(['c']);
  expect(second).not.toHaveProperty('nextCursor');
  expect(() => tokens.list({ cursor: 'nonsense' })).toThrow(refused('cursor-invalid'));
});

test('there are so many at most, and those that have expired make room', async () => {
  await tokens.create({ name: 'old', role: 'viewer', expiresAt: clock.time + 1000 });
  for (let i = 1; i < TOKENS_MAX; i++) await tokens.create({ name: `t${i}`, role: 'viewer' });
  await expect(tokens.create({ name: 'more', role: 'viewer' })).rejects.toEqual(refused('too-busy'));
  await clock.pass(1000);
  await tokens.create({ name: 'more', role: 'viewer' });
  expect(tokens.count).toBe(TOKENS_MAX);
  expect(() => tokens.get('old')).toThrow(refused('token-missing'));
});

test('who asks is told of tokens that end: when they are revoked, and within a minute of their expiry, once', async () => {
  const ended: string[] = [];
  tokens.onEnd((id) => ended.push(id));
  const make = async (name: string, more: object = {}): Promise<string> =>
    (await tokens.create({ name, role: 'viewer', ...more })).token.id;
  const stays = await make('stays');
  const revoked = await make('revoked');
  const expires = await make('expires', { expiresAt: clock.time + 30_000 });
  await tokens.revoke('revoked');
  expect(ended).toEqual([revoked]);
  await clock.pass(29_000);
  expect(ended).toEqual([revoked]);
  for (let i = 0; i < 3; i++) await clock.pass(60_000);
  expect(ended).toEqual([revoked, expires]);
  expect(tokens.get(stays).expired).toBe(false);
});

describe('the last use', () => {
  const uses = () => catalog.committed.flat().filter(({ table }) => table === '~token-use').length;

  test('is shown at once, and written every ten minutes at most, and at the end', async () => {
    const { text } = await tokens.create({ name: 'a', role: 'viewer' });
    expect(tokens.get('a')).not.toHaveProperty('lastUsedAt');
    tokens.authenticate(text, '10.0.0.1');
    expect(tokens.get('a')).toMatchObject({
      lastUsedAt: '2026-11-20T10:00:00.000Z',
      lastUsedFrom: '10.0.0.1',
    });
    expect(uses()).toBe(0);
    await clock.pass(60_000);
    expect(uses()).toBe(1);
    for (let minute = 0; minute < 9; minute++) {
      tokens.authenticate(text, '10.0.0.2');
      await clock.pass(60_000);
    }
    expect(uses()).toBe(1);
    tokens.authenticate(text, '10.0.0.3');
    await clock.pass(60_000);
    expect(uses()).toBe(2);
    tokens.authenticate(text, '10.0.0.4');
    await tokens.close();
    expect(uses()).toBe(3);
    tokens = await open();
    expect(tokens.get('a')).toMatchObject({
      lastUsedAt: '2026-11-20T10:11:00.000Z',
      lastUsedFrom: '10.0.0.4',
    });
  });

  test('that cannot be written is written later', async () => {
    const { text } = await tokens.create({ name: 'a', role: 'viewer' });
    tokens.authenticate(text, '10.0.0.1');
    catalog.failNext = new PandoError('store-full', 'full');
    await clock.pass(60_000);
    expect(uses()).toBe(0);
    await clock.pass(60_000);
    expect(uses()).toBe(1);
  });
});
