import { MemoryCatalog } from '@pando/catalog';
import { PandoError, systemClock } from '@pando/common';
import type { Job } from '@pando/api';
import type { Backup } from '@pando/fleet';
import { SERVER_CERTIFICATE } from '@pando/nbd/testing';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { eventOfCertificate, eventOfJob, Operations } from './operations.ts';

const logger = pino({ level: 'silent' });
const until = async (check: () => Promise<boolean>): Promise<void> => {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 5));
};

test('what happens before the log is open is told when it is; a state is told once, when it changes; so is a mirror that is behind', async () => {
  let now = 0;
  const wakes: (() => void)[] = [];
  const clock = {
    now: () => now,
    monotonic: () => now,
    sleep: (_ms: number, signal?: AbortSignal) =>
      new Promise<void>((resolve, reject) => {
        wakes.push(resolve);
        signal?.addEventListener('abort', () => reject(signal.reason as Error));
      }),
  };
  let state: 'ready' | 'full' | 'failed' = 'ready';
  const operations = new Operations({ clock, logger, certificates: [] });
  const trouble = new PandoError('store-full', 'no room');
  operations.mirrorTrouble(trouble);
  operations.mirrorTrouble(trouble);
  expect(operations.isMirrorBehind).toBe(true);
  await operations.open(new MemoryCatalog(), () => state);
  operations.mirrorTrouble(undefined);
  const turn = async (): Promise<void> => {
    now += 1000;
    for (const wake of wakes.splice(0)) wake();
    await new Promise((resolve) => setImmediate(resolve));
  };
  for (const next of ['ready', 'full', 'full', 'ready', 'failed', 'failed'] as const) {
    state = next;
    await turn();
  }
  const kinds = async (): Promise<string[]> =>
    (await operations.events.list({ limit: 100 })).items.map(({ kind }) => kind).reverse();
  const expected = ['mirror-behind', 'mirror-restored', 'store-full', 'store-ready', 'store-failed'];
  await until(async () => (await kinds()).length === expected.length);
  expect(await kinds()).toEqual(expected);
  expect(operations.isMirrorBehind).toBe(false);
  await operations.close();
});

const job = (kind: Job['kind'], more: Partial<Job>): Job => ({
  ...{ id: '1', kind, state: 'failed', createdAt: '' },
  ...more,
});

test('a job that ended badly is told, but for what was asked for wrongly; a verification when it found damage', () => {
  const error = { code: 'source-failed', detail: 'it broke', remedy: '' };
  expect(eventOfJob(job('import', { error, subject: 'web' }))).toEqual({
    kind: 'job-failed',
    text: 'A job (import) failed: it broke (source-failed).',
    subject: 'web',
    data: { job: '1', kind: 'import' },
  });
  expect(eventOfJob(job('gc', { error }))).toMatchObject({ kind: 'gc-failed' });
  expect(eventOfJob(job('import', { error: { ...error, code: 'image-damaged' } }))).toBeUndefined();
  expect(eventOfJob(job('import', { error, state: 'cancelled' }))).toBeUndefined();
  const report = {
    ...{ quick: false, chunks: 0, bytes: 0, nodes: 0, checkedDisks: 0, missingChunks: 0, damaged: [] },
    ...{ moreDamaged: 0, disks: [], moreDisks: 0, isComplete: true },
  };
  expect(eventOfJob(job('verify', { state: 'done', result: report }))).toBeUndefined();
  const damaged = [{ file: 'segments/1', offset: 0, problem: 'CRC' }];
  expect(
    eventOfJob(job('verify', { state: 'done', result: { ...report, damaged, moreDamaged: 4 } })),
  ).toMatchObject({
    kind: 'damage-found',
    data: { places: 5, disks: 0 },
  });
});

test('a backup that has expired is in the audit trail, by the policy that took it or by its own date', () => {
  const operations = new Operations({ clock: systemClock, logger, certificates: [] });
  const lines: unknown[] = [];
  const backup: Backup = {
    ...{ id: 'id-1', name: 'a', vmId: 'v', vmName: 'web', lineage: 'v', createdAt: '', disks: [], tags: [] },
    ...{ consistency: 'crash' as const, labels: {}, unchanged: false },
  };
  operations.noteExpiry(backup);
  operations.writeTo({ end: (...line) => lines.push(line) });
  operations.noteExpiry(backup);
  operations.noteExpiry({ ...backup, policy: { id: 'p', name: 'nightly', rule: 'r', dueAt: '' } });
  const line = (name: string) => [
    { request: '', operation: 'expireBackup', actor: { name }, subjects: ['web@a', 'web', 'id-1'] },
    { status: 204 },
  ];
  expect(lines).toEqual([line('expiry'), line('policy nightly')]);
});

test('a certificate that was renewed is not told of any more once it is looked at again, and one that was told of is not again', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-operations-'));
  const certificate = join(folder, 'cert.pem');
  await writeFile(certificate, SERVER_CERTIFICATE);
  const endsAt = Date.parse(new X509Certificate(SERVER_CERTIFICATE).validTo);
  const operations = new Operations({
    ...{ clock: { ...systemClock, now: () => endsAt - 1000 }, logger, certificates: [certificate] },
  });
  await operations.open(new MemoryCatalog(), () => 'ready');
  const told = async (): Promise<number> => (await operations.events.list({ limit: 10 })).items.length;
  await until(async () => (await told()) === 1);
  await operations.lookAtCertificates();
  expect(operations.expiringCertificates).toHaveLength(1);
  await rm(certificate);
  await operations.lookAtCertificates();
  expect(operations.expiringCertificates).toEqual([]);
  expect(await told()).toBe(1);
  await operations.close();
  await rm(folder, { recursive: true });
});

test('a certificate is told of when it ends within two weeks', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-operations-'));
  const certificate = join(folder, 'cert.pem');
  await writeFile(certificate, SERVER_CERTIFICATE);
  const endsAt = Date.parse(new X509Certificate(SERVER_CERTIFICATE).validTo);
  const day = 24 * 60 * 60_000;
  expect(await eventOfCertificate(certificate, endsAt - 15 * day)).toBeUndefined();
  expect(await eventOfCertificate(certificate, endsAt - 13 * day)).toMatchObject({
    kind: 'certificate-expiring',
    subject: certificate,
    text: expect.stringContaining(' ends at ') as string,
  });
  expect(await eventOfCertificate(certificate, endsAt + 1)).toMatchObject({
    text: expect.stringContaining(' ended at ') as string,
  });
  expect(await eventOfCertificate(join(folder, 'none'), endsAt)).toBeUndefined();
  await rm(folder, { recursive: true });
});

test('a webhook of a real server gets what is said with its signature, redirects are not followed, and long answers not read', async () => {
  const got: { path: string | undefined; headers: IncomingHttpHeaders; body: string }[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (text: string) => (body += text));
    request.on('end', () => {
      got.push({ path: request.url, headers: request.headers, body });
      if (request.url === '/moved') response.writeHead(302, { location: '/hook' }).end();
      else response.writeHead(200).write('x'.repeat(100_000)); // and it never ends
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const operations = new Operations({ clock: systemClock, logger, certificates: [] });
  await operations.open(new MemoryCatalog(), () => 'ready');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const moved = await operations.webhooks.create({ url: `${url}/moved`, insecure: true, kinds: ['none'] });
  expect(await operations.webhooks.test(moved.webhook.id)).toMatchObject({ taken: false, status: 302 });
  const { webhook } = await operations.webhooks.create({ url: `${url}/hook`, insecure: true });
  operations.raise({ kind: 'store-full', text: 'no room' });
  await until(() => Promise.resolve(operations.webhooks.get(webhook.id).deliveredAt !== undefined));
  expect(got.map(({ path }) => path)).toEqual(['/moved', '/hook']);
  expect(got[1]!.headers['webhook-signature']).toMatch(/^v1,/);
  expect(JSON.parse(got[1]!.body)).toMatchObject({ type: 'store-full', data: { text: 'no room' } });
  await operations.close();
  server.closeAllConnections();
  server.close();
});
