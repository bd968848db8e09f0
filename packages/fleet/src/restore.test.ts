import { PandoError } from '@pando/common';
import { beforeEach, describe, expect, test } from 'vitest';
import { makeFixture, oneDisk, type Fixture } from './testing/fixture.ts';

let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
});

async function write(exportName: string, byte: number): Promise<void> {
  const disk = await f.fleet.attach(exportName);
  await disk.write(0, new Uint8Array(10).fill(byte));
  await disk.close();
}
async function read(exportName: string): Promise<number> {
  const disk = await f.fleet.attach(exportName);
  const bytes = new Uint8Array(1);
  await disk.read(0, 1, bytes, 0);
  await disk.close();
  return bytes[0]!;
}
/** The VM's disks as if it had been given others: there is no request for that yet, and records may hold it. */
async function giveDisks(vm: string, from: string): Promise<void> {
  const [to, source] = [await f.fleet.getVm(vm), await f.fleet.getVm(from)];
  const [a, b] = (await f.catalog.getMany('vm', [to.id, source.id])) as { disks: unknown[] }[];
  await f.catalog.commit([
    { type: 'put', table: 'vm', key: to.id, value: { ...a, disks: b!.disks } },
    { type: 'put', table: 'vm', key: source.id, value: { ...b, disks: a!.disks } },
  ]);
}

describe('restore as a new VM', () => {
  test('makes a VM of the backup’s lineage, whose VM may be gone', async () => {
    const vm = await f.fleet.createVm(oneDisk('web'));
    await write('web', 1);
    await f.fleet.createBackup('web', { name: 'x' });
    await write('web', 2);
    await f.fleet.deleteVm('web');
    const restored = await f.fleet.restoreBackup('web@x', { as: 'web-b' });
    expect(restored).toMatchObject({ name: 'web-b', lineage: vm.id, disks: vm.disks });
    expect(await read('web-b')).toBe(1);
    await write('web-b', 3);
    expect(await read('web@x')).toBe(1);
  });

  test('the name is checked like any other', async () => {
    await f.fleet.createVm(oneDisk('web'));
    await f.fleet.createBackup('web', { name: 'x' });
    await expect(f.fleet.restoreBackup('web@x', { as: 'web' })).rejects.toMatchObject({ code: 'name-taken' });
    await expect(f.fleet.restoreBackup('web@x', { as: '' })).rejects.toMatchObject({ code: 'name-invalid' });
  });
});

describe('restore in place', () => {
  test('gives the VM the contents and sizes of the backup in one commit, and its disks stay', async () => {
    await f.fleet.createVm(oneDisk('web', 8192));
    await write('web', 1);
    await f.fleet.createBackup('web', { name: 'x' });
    await write('web', 2);
    await f.fleet.resizeDisk('web', 'disk0', 65536);
    const disks = await f.disks();
    const commits = f.catalog.commits;
    const vm = await f.fleet.restoreBackup('web@x');
    expect(f.catalog.commits).toBe(commits + 1);
    expect(await f.disks()).toEqual(disks);
    expect(vm.disks).toEqual([{ name: 'disk0', sizeBytes: 8192 }]);
    expect(await f.fleet.getVm('web')).toEqual(vm);
    expect(await read('web')).toBe(1);
    await write('web', 4);
    expect(await read('web@x')).toBe(1);
  });

  test('when the VM is gone it says to restore as a new one', async () => {
    await f.fleet.createVm(oneDisk('web'));
    await f.fleet.createBackup('web', { name: 'x' });
    await f.fleet.deleteVm('web');
    await f.fleet.createVm(oneDisk('web')); // another one of that name is not the VM
    const problem = { code: 'vm-missing', message: expect.stringMatching(/--as/) as string };
    await expect(f.fleet.restoreBackup('web@x')).rejects.toMatchObject(problem);
  });

  test('a VM with other disks gets those of the backup, and its old ones go', async () => {
    await f.fleet.createVm({
      name: 'web',
      disks: [
        { name: 'root', sizeBytes: 512 },
        { name: 'data', sizeBytes: 1024 },
      ],
    });
    await write('web/root', 1);
    await f.fleet.createBackup('web', { name: 'x' });
    await f.fleet.createVm({
      name: 'other',
      disks: [
        { name: 'root', sizeBytes: 512 },
        { name: 'swap', sizeBytes: 512 },
      ],
    });
    await giveDisks('web', 'other');
    await f.fleet.deleteVm('other');
    expect(await f.disks()).toHaveLength(4);
    const vm = await f.fleet.restoreBackup('web@x');
    expect(vm.disks.map((disk) => disk.name)).toEqual(['root', 'data']);
    expect(await read('web/root')).toBe(1);
    expect(await f.disks()).toHaveLength(4);
    expect(await f.catalog.list('disk-removal')).toEqual([]);
  });

  test('old disks that could not be removed are removed when the fleet is opened the next time', async () => {
    await f.fleet.createVm(oneDisk('web'));
    await f.fleet.createBackup('web', { name: 'x' });
    await f.fleet.createVm({ name: 'other', disks: [{ name: 'swap', sizeBytes: 512 }] });
    await giveDisks('web', 'other');
    let commits = 0;
    f.catalog.beforeCommit = () =>
      ++commits > 1 ? Promise.reject(new PandoError('store-full', 'full')) : Promise.resolve();
    expect((await f.fleet.restoreBackup('web@x')).disks.map((disk) => disk.name)).toEqual(['disk0']);
    expect(await f.disks()).toHaveLength(4);
    await f.fleet.close();
    const full = await f.restart();
    await full.close();
    expect(await f.disks()).toHaveLength(4);
    f.catalog.beforeCommit = undefined;
    await f.restart();
    expect(await f.disks()).toHaveLength(3);
    expect(await f.catalog.list('disk-removal')).toEqual([]);
  });
});
