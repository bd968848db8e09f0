/** What a VM writes, as a real server counts and keeps it, and the command shows it. */
import { NbdClient } from '@pando/nbd/client';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { pando, type Ran } from './pando.ts';

const MiB = 2 ** 20;

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({
    args: ['--gc-every', '0', '--verify-every', '0', '--tripwire-lock', '7'],
  });
});
afterAll(() => server.close());

async function done(...args: string[]): Promise<Ran> {
  const ran = await pando(args, { url: server.url });
  expect(ran, `pando ${args.join(' ')}\n${ran.stderr}`).toMatchObject({ status: 0, stderr: '' });
  return ran;
}

interface Activity {
  readonly items: readonly Record<string, number>[];
}

test('what a guest wrote is counted by what came of it, and is there after a restart', async () => {
  await done('vm', 'create', 'web', '--disk', '64M');
  expect((await done('vm', 'activity', 'web')).stdout).toBe('Nothing written.\n');
  const client = await NbdClient.connect(
    { host: '127.0.0.1', port: server.nbdPort },
    { exportName: 'web/disk0' },
  );
  const noise = Buffer.alloc(MiB);
  fillRandom(seededRandom(1), noise);
  await client.write(0, noise);
  const lines = Array.from({ length: MiB / 64 }, (_, i) => `${i} a line as programs write them`.padEnd(63));
  await client.write(8 * MiB, Buffer.from(`${lines.join('\n')}\n`));
  await client.close();

  let total: Record<string, number> = {};
  while ((total['writtenBytes'] ?? 0) < 2 * MiB) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const { items } = (await done('vm', 'activity', 'web', '--grain', '1d', '--json')).json<Activity>();
    total = items[0] ?? {};
  }
  expect(total).toMatchObject({ writtenBytes: 2 * MiB, newBytes: 2 * MiB, rawBytes: MiB, seconds: 86_400 });
  expect(total['storedBytes']).toBeLessThan(1.5 * MiB);

  await server.stop();
  await server.restart();
  const { stdout } = await done('vm', 'activity', 'web', '--grain', '1d');
  const [head, day] = stdout.split('\n');
  expect(head).toMatch(/^FROM +WRITTEN +KNOWN +NEW +STORED +RAW$/);
  expect(day).toMatch(/^\S+ \S+ +2\.0 MiB +0 B +2\.0 MiB +1\.\d MiB +50 % +#{24}$/);
  const metrics = await (await server.fetch('/metrics')).text();
  expect(metrics).toContain('\npando_tripwire_trips_total 0\n');
  expect(metrics).toContain('\npando_activity_uncounted_bytes_total 0\n');
});

test('the tripwire is asked, and told how sensitive it is to be', async () => {
  expect((await done('vm', 'tripwire', 'web')).stdout).toMatch(
    /^state +learning: .+; ready \S+ \S+\nsensitivity +normal\nusually raw +0 % of what is new\ntrips at +1\.0 GiB raw in an hour, 1\.0 GiB in a day\n$/,
  );
  const set = await done('vm', 'tripwire', 'web', '--sensitivity', 'off', '--json');
  expect(set.json()).toMatchObject({ sensitivity: 'off', state: 'off' });
  expect((await pando(['vm', 'tripwire', 'web', '--sensitivity', 'x'], { url: server.url })).status).toBe(2);
  expect((await pando(['vm', 'activity', 'none'], { url: server.url })).status).toBe(1);
});
