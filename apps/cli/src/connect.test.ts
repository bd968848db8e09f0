import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { defaultAddress } from './connect.ts';

test('without an address it is the socket of the package, where that can be opened and no token is given', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-connect-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const socket = join(folder, 'http.sock');
  const loopback = 'http://127.0.0.1:7400';
  expect(defaultAddress({}, socket)).toBe(loopback);
  await writeFile(socket, '');
  expect(defaultAddress({}, socket)).toBe(`unix:${socket}`);
  expect(defaultAddress({ PANDO_TOKEN: '', PANDO_TOKEN_FILE: '' }, socket)).toBe(`unix:${socket}`);
  expect(defaultAddress({ PANDO_TOKEN: 'pando_x' }, socket)).toBe(loopback);
  expect(defaultAddress({ PANDO_TOKEN_FILE: 'x' }, socket)).toBe(loopback);
});
