/** Over real volumes: what backups hold that later ones do not have. */
import { expect, test } from 'vitest';
import { makeFixture, useRealRooms, type Fixture } from './testing/fixture.ts';

useRealRooms();

const HOUR_MS = 60 * 60_000;

async function write(f: Fixture, chunks: number, fill: (chunk: number) => number): Promise<void> {
  const disk = await f.fleet.attach('web/disk0');
  for (let i = 0; i < chunks; i++) await disk.write(i * 4096, new Uint8Array(4096).fill(fill(i)));
  await disk.close();
}

test('what was overwritten counts, what is new or was written with what it held does not', async () => {
  const f = await makeFixture();
  await f.fleet.createVm({ name: 'web', disks: [{ name: 'disk0', sizeBytes: 2 ** 20 }] });
  expect(await f.fleet.changeHistory('web')).toEqual({ logicalBytes: 2 ** 20, samples: [], storedRatio: 1 });
  await write(f, 10, () => 1);
  await f.fleet.createBackup('web');
  f.clock.advance(HOUR_MS);
  // Three change, seven stay what they are, and ten come new.
  await write(f, 20, (i) => (i < 3 ? 2 : 1));
  await f.fleet.createBackup('web');
  expect((await f.fleet.changeHistory('web')).samples).toEqual([]);
  await f.rooms.volumes.settleAll();
  const one = await f.fleet.changeHistory('web');
  expect(one.samples).toEqual([{ gapMs: HOUR_MS, bytes: 3 * 4096 }]);
  expect(one.storedRatio).toBeGreaterThan(0);
  expect(one.storedRatio).toBeLessThan(0.1);
  f.clock.advance(2 * HOUR_MS);
  await write(f, 20, () => 3);
  await f.fleet.createBackup('web');
  await f.rooms.volumes.settleAll();
  expect((await f.fleet.changeHistory('web')).samples).toEqual([
    { gapMs: 2 * HOUR_MS, bytes: 20 * 4096 },
    { gapMs: 3 * HOUR_MS, bytes: 10 * 4096 },
  ]);
  await f.fleet.close();
});
