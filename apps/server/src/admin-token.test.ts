import { Tokens } from '@pando/access';
import { MemoryCatalog } from '@pando/catalog';
import { systemClock, systemRandom } from '@pando/common';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ensureAdminToken, offerAdminToken, resetAdminToken } from './admin-token.ts';

let folder: string;
let data: string;
let tokens: Tokens;
const logger = pino({ level: 'silent' });
const before = process.env['XDG_CONFIG_HOME'];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-token-'));
  process.env['XDG_CONFIG_HOME'] = join(folder, 'config');
  data = await mkdtemp(join(folder, 'data-'));
  tokens = await Tokens.open({ catalog: new MemoryCatalog(), clock: systemClock, random: systemRandom });
  await ensureAdminToken(tokens, data);
});
afterEach(async () => {
  if (before === undefined) delete process.env['XDG_CONFIG_HOME'];
  else process.env['XDG_CONFIG_HOME'] = before;
  await tokens.close();
  await rm(folder, { recursive: true });
});

const offer = (port: number, directory = data) =>
  offerAdminToken(tokens, directory, `http://127.0.0.1:${port}`, logger);
const copies = (): Promise<string[]> => readdir(join(folder, 'config/pando/tokens'));
const copyAt = (port: number): string => join(folder, 'config/pando/tokens', `127.0.0.1_${port}`);

test('a copy of the token is there as long as the server runs', async () => {
  const withdraw = await offer(1);
  expect(await readFile(copyAt(1))).toEqual(await readFile(join(data, 'admin-token')));
  await withdraw();
  expect(await copies()).toEqual([]);
  expect(await readdir(data)).toEqual(['admin-token']);
});

test('the copy that a killed server has left is taken away by the next one, wherever that listens', async () => {
  await offer(1);
  const withdraw = await offer(2);
  expect(await copies()).toEqual(['127.0.0.1_2']);
  await withdraw();
  expect(await copies()).toEqual([]);
  // Also when its token is another one by now, or none.
  await offer(1);
  await resetAdminToken(tokens, data);
  await offer(2);
  expect(await copies()).toEqual(['127.0.0.1_2']);
  await writeFile(join(data, 'admin-token'), 'nonsense');
  await offer(3);
  expect(await copies()).toEqual([]);
});

test('what somebody else has put there stays: of a login, and of a server over the original of a copied directory', async () => {
  await offer(1);
  const { text } = await tokens.create({ name: 'mine', role: 'viewer' });
  await writeFile(copyAt(1), text);
  await offer(2);
  expect(await copies()).toEqual(['127.0.0.1_1', '127.0.0.1_2']);
  const copied = join(folder, 'copied');
  await cp(data, copied, { recursive: true });
  await offer(3, copied);
  expect(await copies()).toEqual(['127.0.0.1_1', '127.0.0.1_2', '127.0.0.1_3']);
});
