/** Every route of a real server, good and broken requests, from a seed: no 500, no hang, and the server lives. */
import { runSeed } from '@pando/common/testing';
import { expect, onTestFinished, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { fuzzApi } from './fuzzer.ts';

const EACH = Number(process.env['PANDO_API_FUZZ'] ?? 15);

test('no request makes the server answer 500, hang or die', { timeout: 600_000 }, async () => {
  const seed = runSeed();
  console.log(`PANDO_SEED=${seed}`);
  const server = await TestServer.start({ args: ['--log-level', 'warn', '--file-appliances', '0'] });
  onTestFinished(() => server.close());
  const { rest } = server;
  await rest.must('POST', '/vms', {
    name: 'web',
    disks: [{ name: 'disk0', sizeBytes: 2 ** 20 }],
    tags: ['a'],
  });
  await rest.must('POST', '/vms/web/backups', { name: 'first' });
  for (const name of ['nightly', 'hourly', 'p1', 'p2', 'p3', 'p4']) {
    const schedule = { timeZone: 'Europe/Berlin', everyMinutes: 60 };
    await rest.must('POST', '/policies', {
      name,
      rules: [{ schedule, retention: { keepLast: 3 } }],
      tags: ['a'],
    });
  }
  const pid = server.pid;
  const own = Object.values((await rest.must('GET', '/whoami')) as object).filter(
    (value) => typeof value === 'string',
  );
  const { requests, statuses, failures } = await fuzzApi(
    {
      url: server.url,
      authorization: server.authorization,
      spared: (method, path) =>
        method !== 'GET' && own.some((name) => path.includes(`/tokens/${encodeURIComponent(name)}`)),
    },
    seed,
    EACH,
  );
  const summary = [...statuses].map(
    ([id, counts]) => `${id}: ${[...counts].map(([status, n]) => `${status}×${n}`).join(' ')}`,
  );
  console.log(`${requests} requests\n${summary.join('\n')}`);
  // One of each: what fails a thousand times would hide the rest.
  const each = new Map(failures.map((failure) => [`${failure.operation}: ${failure.problem}`, failure]));
  expect([...each]).toEqual([]);
  expect(server.pid).toBe(pid);
  expect(await rest.must('GET', '/health')).toMatchObject({ status: 'ok' });
  expect(server.log).not.toMatch(/unexpected error|"level":[56]0/);
  // A fuzzer whom nobody lets in finds nothing.
  const answered = [...statuses.values()].filter((counts) =>
    [...counts.keys()].some((status) => status < 300),
  );
  expect(answered.length / statuses.size).toBeGreaterThan(0.6);
});
