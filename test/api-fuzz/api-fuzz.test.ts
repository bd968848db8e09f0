/** Every route of a real server, good and broken requests, from a seed: no 500, no hang, and the server lives. */
import { runSeed } from '@pando/common/testing';
import { expect, onTestFinished, test } from 'vitest';
import { fuzzApi } from './fuzzer.ts';
import { makeWorld } from './world.ts';

const EACH = Number(process.env['PANDO_API_FUZZ'] ?? 15);

test('no request makes the server answer 500, hang or die', { timeout: 1_200_000 }, async () => {
  const seed = runSeed();
  console.log(`PANDO_SEED=${seed}`);
  const { server, actors, spared, known, close } = await makeWorld(seed);
  onTestFinished(close);
  const pid = server.pid;
  const { requests, statuses, codes, seenPairs, listedPairs, failures } = await fuzzApi(
    {
      ...{ url: server.url, actors, known },
      spared: (method, path) =>
        method === 'DELETE' && spared.some((name) => path.includes(`/tokens/${encodeURIComponent(name)}`)),
    },
    seed,
    EACH,
  );
  const summary = [...statuses].map(([id, counts]) => {
    const numbers = [...counts].map(([status, n]) => `${status}×${n}`).join(' ');
    return `${id}: ${numbers} ${[...(codes.get(id) ?? [])].join(' ')}`;
  });
  console.log(`${requests} requests\n${summary.join('\n')}`);
  console.log(`${seenPairs} of the ${listedPairs} codes that operations list were answered`);
  // One of each: what fails a thousand times would hide the rest.
  const each = new Map(failures.map((failure) => [`${failure.operation}: ${failure.problem}`, failure]));
  expect([...each]).toEqual([]);
  expect(server.pid).toBe(pid);
  expect(await server.rest.must('GET', '/health')).toMatchObject({ status: 'ok' });
  expect(server.log).not.toMatch(/unexpected error|"level":[56]0/);
  // A fuzzer whom nobody lets in finds nothing.
  const answered = [...statuses.values()].filter((counts) =>
    [...counts.keys()].some((status) => status < 300),
  );
  expect(answered.length / statuses.size).toBeGreaterThan(0.8);
});
