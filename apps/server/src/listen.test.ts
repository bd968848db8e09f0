import dns from 'node:dns';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { runOptions } from './options.ts';
import { serve } from './serve.ts';

test('REST listens at one address of localhost: another would be a server that no limit is set for', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-serve-'));
  const both = ['127.0.0.1', '127.0.0.2'].map((address) => ({ address, family: 4 }));
  const spy = vi.spyOn(dns, 'lookup').mockImplementation((...given: unknown[]) => {
    const told = given.at(-1) as (error: null, ...found: unknown[]) => void;
    const { all = false } = (typeof given[1] === 'object' ? given[1] : {}) as { all?: boolean };
    const found = given[0] === 'localhost' ? both : [{ address: given[0], family: 4 }];
    if (all) told(null, found);
    else told(null, found[0]!.address, 4);
  });
  const options = runOptions({ data: join(folder, 'data'), http: 'localhost:0', nbd: '127.0.0.1:0' });
  const serving = await serve(options).finally(() => spy.mockRestore());
  const reached = (host: string): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect(Number(new URL(serving.addresses.http).port), host);
      socket.on('error', () => resolve(false)).on('connect', () => resolve(true));
      socket.on('connect', () => socket.destroy());
    });
  try {
    expect([await reached('127.0.0.1'), await reached('127.0.0.2')]).toEqual([true, false]);
  } finally {
    await serving.close();
    await rm(folder, { recursive: true });
  }
});
