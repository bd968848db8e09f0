/** @pando/client against the routes: the example of docs/api.md, and every operation. */
import { readFileSync } from 'node:fs';
import { expect, onTestFinished, test, vi } from 'vitest';
import { OPERATIONS } from '../../packages/client/src/generated/operations.ts';
import { requestOf, type Operation } from '../../packages/client/src/request.ts';
import { harness } from '../../packages/api/src/testing/harness.ts';

const read = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');

test('the example of docs/api.md is a program that does what it says', async () => {
  const [, code] = /```ts\n([^`]*(?:`[^`]+`[^`]*)*)```/.exec(read('../../docs/api.md'))!;
  expect(code).toBe(read('./client-example.ts'));
  const api = await harness();
  onTestFinished(() => api.close());
  vi.stubEnv('PANDO_URL', await api.app.listen({ host: '127.0.0.1', port: 0 }));
  onTestFinished(() => void vi.unstubAllEnvs());
  const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
  onTestFinished(() => log.mockRestore());
  await import('./client-example.ts');
  expect(log.mock.calls).toEqual([['web-2@monday'], ['freed 8192 bytes'], ['vm-missing']]);
});

test('every operation of the client is a route of the server', async () => {
  const api = await harness();
  onTestFinished(() => api.close());
  for (const [id, { path, method }] of Object.entries<Operation>(OPERATIONS)) {
    const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => [name!, 'a/b'] as const);
    const asked = requestOf(id as keyof typeof OPERATIONS, Object.fromEntries(names));
    const pattern = path.replaceAll(/\{(\w+)\}/g, ':$1');
    expect(api.app.hasRoute({ method, url: pattern }), id).toBe(true);
    expect(asked, id).toEqual({ method, path: path.replaceAll(/\{\w+\}/g, 'a%2Fb'), headers: {} });
  }
});
