/** Over real volumes: while writes wait for their destage nobody knows, and nothing is destaged to find out. */
import { expect, test } from 'vitest';
import { makeFixture, oneDisk, useRealRooms } from './testing/fixture.ts';

useRealRooms();

test('a backup with writes that are not in the tree yet is compared once they are', async () => {
  const f = await makeFixture();
  await f.fleet.createVm(oneDisk('web'));
  const write = async (byte: number): Promise<void> => {
    const disk = await f.fleet.attach('web/disk0');
    await disk.write(0, new Uint8Array(512).fill(byte));
    await disk.close();
  };
  const unchanged = async (name: string): Promise<boolean | undefined> =>
    (await f.fleet.getBackup(`web@${name}`)).unchanged;
  await write(1);
  await f.fleet.createBackup('web', { name: 'a' });
  await write(1);
  await f.fleet.createBackup('web', { name: 'b' });
  await f.fleet.tend();
  expect([await unchanged('a'), await unchanged('b')]).toEqual([false, undefined]);
  expect(f.rooms.volumes.stats.destagedBytes).toBe(0);
  await f.rooms.volumes.settleAll();
  await f.fleet.tend();
  expect(await unchanged('b')).toBe(true);
  await write(2);
  await f.rooms.volumes.settleAll();
  await f.fleet.createBackup('web', { name: 'c' });
  await f.fleet.tend();
  expect(await unchanged('c')).toBe(false);
  await f.fleet.close();
});
