import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsOptions } from 'node:tls';
import { systemClock, type Clock } from '@pando/common';
import { CLIENT_CERTIFICATE, CLIENT_KEY, SERVER_CERTIFICATE, SERVER_KEY } from '@pando/nbd/testing';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkHttpExposure, readHttpTls, reloadHttpTls, watchFiles } from './http-security.ts';
import { runOptions, type RunOptions } from './options.ts';

let folder: string;
let lines: string[];
const logger = pino({ level: 'info' }, { write: (line) => lines.push(line) });
const path = (name: string): string => join(folder, name);
const options = (values: Record<string, string | boolean> = {}): RunOptions =>
  runOptions({ 'tls-cert': path('cert.pem'), 'tls-key': path('key.pem'), ...values });

beforeEach(async () => {
  lines = [];
  folder = await mkdtemp(join(tmpdir(), 'pando-https-'));
  await writeFile(path('cert.pem'), SERVER_CERTIFICATE);
  await writeFile(path('key.pem'), SERVER_KEY, { mode: 0o600 });
});
afterEach(() => rm(folder, { recursive: true }));

const refused = (code: string): unknown => expect.objectContaining({ code });

test('REST listens beyond this machine only with TLS, or when told that it is meant', () => {
  const check = (values: Record<string, string | boolean>) => () => checkHttpExposure(runOptions(values));
  for (const http of ['0.0.0.0:1', '[::]:1', '192.0.2.1:1', 'store.example:1']) {
    expect(check({ http })).toThrow(refused('http-exposed'));
    expect(check({ http, 'insecure-http': true })).not.toThrow();
    expect(check({ http, 'tls-cert': 'a', 'tls-key': 'b' })).not.toThrow();
  }
  for (const http of ['127.0.0.1:1', 'localhost:1', '[::1]:1']) expect(check({ http })).not.toThrow();
  expect(() => runOptions({ 'tls-cert': 'a' })).toThrow('go together');
  expect(runOptions({ 'http-socket': '/x', 'http-socket-mode': '660' })).toMatchObject({
    ...{ httpSocket: '/x', httpSocketMode: 0o660 },
  });
});

test('files that do not fit are refused at the start, and change nothing later', async () => {
  expect(await readHttpTls(options(), systemClock, logger)).toMatchObject({ cert: SERVER_CERTIFICATE });
  const contexts: TlsOptions[] = [];
  const server = { setSecureContext: (given: TlsOptions) => contexts.push(given) };
  await writeFile(path('key.pem'), CLIENT_KEY);
  await expect(readHttpTls(options(), systemClock, logger)).rejects.toEqual(refused('tls-key-mismatch'));
  await reloadHttpTls(options(), server, systemClock, logger);
  await rm(path('key.pem'));
  await reloadHttpTls(options(), server, systemClock, logger);
  expect(contexts).toEqual([]);
  expect(lines.join()).toMatch(/tls-key-mismatch.*server-file-unreadable/s);
  await writeFile(path('cert.pem'), CLIENT_CERTIFICATE);
  await writeFile(path('key.pem'), CLIENT_KEY);
  await reloadHttpTls(options(), server, systemClock, logger);
  expect(contexts).toMatchObject([{ cert: CLIENT_CERTIFICATE }]);
});

test('files that change are read again once they stand still, however they are replaced', async () => {
  const stop = new AbortController();
  let reloads = 0;
  // What happens between looks; undefined: nothing.
  const steps: [happens: (() => Promise<void>) | undefined, reloads: number][] = [
    [undefined, 0],
    [() => writeFile(path('cert.pem'), `${SERVER_CERTIFICATE}\n`), 0],
    [() => writeFile(path('key.pem'), `${SERVER_KEY}\n`), 0],
    [undefined, 0],
    [undefined, 1],
    [undefined, 1],
    [() => rm(path('key.pem')), 1],
    [undefined, 1],
    [() => writeFile(path('new.pem'), SERVER_KEY), 2],
    [() => rename(path('new.pem'), path('key.pem')), 2],
    [undefined, 2],
    [undefined, 3],
  ];
  const seen: number[] = [];
  const clock: Clock = {
    ...systemClock,
    sleep: async () => {
      const step = steps[seen.length];
      if (step === undefined) stop.abort();
      stop.signal.throwIfAborted();
      seen.push(reloads);
      await step![0]?.();
    },
  };
  await watchFiles([path('cert.pem'), path('key.pem')], clock, stop.signal, () => {
    reloads++;
    return Promise.resolve();
  });
  expect(seen).toEqual(steps.map(([, expected]) => expected));
});
