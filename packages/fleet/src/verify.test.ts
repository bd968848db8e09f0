/** Restores of damaged backups, with a store whose chunks a test can take away or falsify. */
import { fillRandom, seededRandom } from '@pando/common/testing';
import { expect, test } from 'vitest';
import { FakeStore } from './testing/fake-store.ts';
import { makeFixture, MiB, sourceOf, type Fixture } from './testing/fixture.ts';

/** A backup of 2 MiB whose chunks are all different. */
async function withBackup(): Promise<{ f: Fixture; chunks: Map<string, Uint8Array>; bytes: Uint8Array }> {
  const f = await makeFixture();
  const bytes = fillRandom(seededRandom(5), new Uint8Array(2 * MiB));
  await f.fleet.importVm({ name: 'web', source: sourceOf([bytes]) });
  await f.fleet.createBackup('web', { name: 'a' });
  expect(f.store).toBeInstanceOf(FakeStore);
  return { f, chunks: f.store.chunks.chunks, bytes };
}

const keyOf = (chunks: Map<string, Uint8Array>, bytes: Uint8Array): string =>
  [...chunks].find(([, chunk]) => Buffer.compare(chunk, bytes) === 0)![0];

test.each([
  ['is gone', (chunks: Map<string, Uint8Array>, key: string) => chunks.delete(key)],
  ['holds other bytes', (chunks: Map<string, Uint8Array>, key: string) => chunks.get(key)!.fill(1)],
])('a restore with a chunk that %s is refused by naming disk and range', async (_what, damage) => {
  const { f, chunks, bytes } = await withBackup();
  for (const chunk of [3, 4, 300])
    damage(chunks, keyOf(chunks, bytes.subarray(chunk * 4096, (chunk + 1) * 4096)));
  const restoring = f.fleet.restoreBackup('web@a', { as: 'copy', verify: true });
  await expect(restoring).rejects.toMatchObject({
    code: 'chunk-corrupt',
    message: 'backup web@a is damaged: disk0 bytes 12288 to 20479, disk0 bytes 1228800 to 1232895',
  });
  await expect(f.fleet.getVm('copy')).rejects.toMatchObject({ code: 'vm-missing' });
  await expect(f.fleet.restoreBackup('web@a', { verify: true })).rejects.toMatchObject({
    code: 'chunk-corrupt',
  });
  // Who has nothing else may still want what is left.
  await f.fleet.restoreBackup('web@a', { as: 'copy' });
});

test('a node that is gone is damage to all that lies below it', async () => {
  const { f, chunks } = await withBackup();
  const { root } = await f.fleet.diskRoot('web@a', 'disk0');
  const top = chunks.get(root)!;
  chunks.delete(Buffer.from(top.subarray(32, 64)).toString('hex'));
  await expect(f.fleet.restoreBackup('web@a', { as: 'copy', verify: true })).rejects.toMatchObject({
    message: `backup web@a is damaged: disk0 bytes ${MiB / 2} to ${MiB - 1}`,
  });
  chunks.delete(root);
  await expect(f.fleet.restoreBackup('web@a', { as: 'copy', verify: true })).rejects.toMatchObject({
    message: `backup web@a is damaged: disk0 bytes 0 to ${2 * MiB - 1}`,
  });
});

test('an import since a backup whose tree is damaged makes no backup', async () => {
  const { f, chunks, bytes } = await withBackup();
  const { root } = await f.fleet.diskRoot('web@a', 'disk0');
  chunks.delete(root);
  const changed = bytes.slice();
  changed[0]! ^= 1;
  const disks = await f.disks();
  await expect(
    f.fleet.importBackup({ since: 'web@a', name: 'b', source: sourceOf([changed]) }),
  ).rejects.toMatchObject({ code: 'chunk-missing' });
  expect(await f.disks()).toEqual(disks);
  expect((await f.fleet.listBackups()).items).toHaveLength(1);
});
