/** Policies and what is said about backups, typed command by command, against a real server. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { pando, type Ran } from './pando.ts';

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
  await done('vm', 'create', 'web', '--disk', '1M', '--disk', 'data=1M', '--tag', 'prod');
});
afterAll(() => server.close());

async function done(...args: string[]): Promise<Ran> {
  const ran = await pando(args, { url: server.url });
  expect(ran, `pando ${args.join(' ')}\n${ran.stderr}`).toMatchObject({ status: 0, stderr: '' });
  return ran;
}

test('a backup is named, noted, labelled, dated and locked, and one disk of it restored', async () => {
  await done('backup', 'create', 'web', '--name', 'a', '--note', 'n', '--label', 'k=v', '--expires', '30d');
  await done('backup', 'rename', 'web@a', 'b');
  await done('backup', 'set', 'web@b', '--label', 'x=y', '--no-expires');
  await done('backup', 'lock', 'web@b', '2d');
  const [listed] = (await done('backup', 'ls', '--label', 'x=y', '--json')).json<{ items: object[] }>().items;
  expect(listed).toMatchObject({ name: 'b', note: 'n', labels: { x: 'y' } });
  expect(listed).not.toHaveProperty('expiresAt');
  expect(await pando(['backup', 'rm', 'web@b'], { url: server.url })).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('backup-locked') as string,
  });
  expect((await done('backup', 'ls', 'web')).stdout).toMatch(/web@b .* hand +never +20\d\d-/);
  const copied = await done('backup', 'restore', 'web@b', '--as', 'copy', '--disk', 'data', '--json');
  expect(copied.json<{ disks: object[] }>().disks).toHaveLength(1);
});

test('a policy takes a backup of the VMs that carry its tag, and says when the next comes', async () => {
  const flags = ['--every', '1d', '--at', '02:00', '--tz', 'Europe/Berlin', '--keep-daily', '7'];
  const dry = await done('policy', 'create', 'nightly', ...flags, '--tag', 'prod', '--dry-run');
  expect(dry.stdout).toMatch(/web +30 +23 /);
  const created = await done('policy', 'create', 'nightly', ...flags, '--tag', 'prod');
  expect(created.stdout).toContain('daily, at 02:00, Europe/Berlin');
  expect(created.stdout).toContain('7 daily, at least 1');
  await done('policy', 'set-rule', 'nightly', 'often', '--every', '15m', '--from', '08:00', '--to', '18:00');
  expect((await done('policy', 'vms', 'nightly')).stdout).toMatch(/web +tag prod +active/);
  expect((await done('policy', 'impact', 'nightly', '--horizon', '1')).stdout).toMatch(/^VM +TAKEN +EXPIRED/);
  await done('policy', 'run', 'nightly', '--rule', 'main');
  let ended = false;
  while (!ended) {
    const { rules } = (await done('policy', 'show', 'nightly', '--json')).json<{
      rules: { lastRun?: object }[];
    }>();
    ended = rules[0]!.lastRun !== undefined;
  }
  expect((await done('backup', 'ls', '--policy', 'nightly')).stdout).toMatch(/web@.* nightly +by policy/);
  expect((await done('policy', 'due')).stdout.split('\n')[1]).toMatch(/nightly/);
  await done('policy', 'rm-rule', 'nightly', 'often');
  expect((await done('policy', 'run', 'nightly', '--vm', 'web')).stdout).toContain('taken for web');
  expect((await done('policy', 'suspend', 'nightly')).stdout).toContain('suspended');
  expect((await done('policy', 'ls')).stdout).toMatch(/nightly +1 +suspended/);
  await done('policy', 'resume', 'nightly');
  expect((await done('policy', 'ls', '--vm', 'web')).stdout).toMatch(/nightly +tag prod +active/);
  expect((await done('policy', 'set', 'nightly', '--note', 'why')).stdout).toContain('why');
  await done('policy', 'rm', 'nightly');
  const wrong = await pando(['policy', 'create', 'p', '--every', 'day'], { url: server.url });
  expect(wrong).toMatchObject({ status: 2, stderr: expect.stringContaining('--every') as string });
});
