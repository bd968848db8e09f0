import { beforeEach, describe, expect, test } from 'vitest';
import { makeFixture, oneDisk, type Fixture } from './testing/fixture.ts';

let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
});

const names = async (request?: Parameters<Fixture['fleet']['listBackups']>[0]): Promise<string[]> =>
  (await f.fleet.listBackups(request)).items.map((backup) => `${backup.vmName}@${backup.name}`);

describe('createBackup', () => {
  test('takes all disks at one instant, in one fork and one commit', async () => {
    const disks = [
      { name: 'root', sizeBytes: 1024 },
      { name: 'data', sizeBytes: 4096 * 3 + 512 },
    ];
    const vm = await f.fleet.createVm({ name: 'web', disks });
    const commits = f.catalog.commits;
    const backup = await f.fleet.createBackup('web', { name: 'before' });
    expect(f.catalog.commits).toBe(commits + 1);
    expect(backup).toMatchObject({ name: 'before', vmId: vm.id, vmName: 'web', lineage: vm.lineage, disks });
    expect(await f.fleet.getBackup('web@before')).toEqual(backup);
    expect(await f.fleet.getBackup(backup.id)).toEqual(backup);
    expect(await f.fleet.getBackup(`${vm.id}@before`)).toEqual(backup);
    expect(await f.fleet.getBackup(`web@${backup.id}`)).toEqual(backup);
    const mounted = await f.fleet.attach('web@before/data');
    expect(mounted).toMatchObject({ readOnly: true, size: 4096 * 3 + 512, exportName: 'web@before/data' });
    expect(() => mounted.write(0, new Uint8Array(1))).toThrow(expect.objectContaining({ code: 'read-only' }));
  });

  test('names itself by the second, and gets a number and then its id when that is taken', async () => {
    await f.fleet.createVm(oneDisk('web'));
    const backups = await Promise.all(Array.from({ length: 12 }, () => f.fleet.createBackup('web')));
    const made = backups.map((backup) => backup.name);
    expect(new Set(made).size).toBe(12);
    const time = '2026-11-20T10-00-00Z';
    expect(made).toEqual(expect.arrayContaining([time, `${time}-2`, `${time}-9`]));
    expect(made.filter((name) => name.length > time.length + 2)).toHaveLength(3);
    f.clock.advance(1000);
    expect((await f.fleet.createBackup('web')).name).toBe('2026-11-20T10-00-01Z');
  });

  test('a name that is taken on this VM is refused; on another VM it is free', async () => {
    await f.fleet.createVm(oneDisk('a'));
    await f.fleet.createVm(oneDisk('b'));
    const results = await Promise.allSettled([1, 2, 3].map(() => f.fleet.createBackup('a', { name: 'x' })));
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
    await expect(f.fleet.createBackup('a', { name: 'x' })).rejects.toMatchObject({ code: 'name-taken' });
    await f.fleet.createBackup('b', { name: 'x' });
    await expect(f.fleet.createBackup('a', { name: 'x@y' })).rejects.toMatchObject({ code: 'name-invalid' });
    expect(await f.disks()).toHaveLength(4);
  });

  test('the name is free again after a backup that failed', async () => {
    await f.fleet.createVm(oneDisk('a'));
    f.catalog.beforeCommit = () => Promise.reject(new Error('full'));
    await expect(f.fleet.createBackup('a', { name: 'x' })).rejects.toThrow('full');
    f.catalog.beforeCommit = undefined;
    await f.fleet.createBackup('a', { name: 'x' });
  });
});

describe('listBackups', () => {
  test('is newest first, of all VMs or one, page by page', async () => {
    for (const vm of ['a', 'b']) await f.fleet.createVm(oneDisk(vm));
    for (let i = 0; i < 6; i++) await f.fleet.createBackup(i % 2 === 0 ? 'a' : 'b', { name: String(i) });
    expect(await names()).toEqual(['b@5', 'a@4', 'b@3', 'a@2', 'b@1', 'a@0']);
    const first = await f.fleet.listBackups({ vm: 'a', limit: 1 });
    expect(first.items.map((backup) => backup.name)).toEqual(['4']);
    await f.fleet.createBackup('a', { name: 'later' });
    await f.fleet.deleteBackup('a@4');
    expect(await names({ vm: 'a', cursor: first.nextCursor! })).toEqual(['a@2', 'a@0']);
    const page = await f.fleet.listBackups({ limit: 4 });
    await f.fleet.deleteBackup('b@1');
    expect(await names({ cursor: page.nextCursor! })).toEqual(['a@0']);
  });

  test('of a VM that never was: missing; of one that is gone: by name and id while it has backups', async () => {
    const vm = await f.fleet.createVm(oneDisk('a'));
    await f.fleet.createBackup('a', { name: 'x' });
    await f.fleet.deleteVm('a');
    expect(await names({ vm: 'a' })).toEqual(['a@x']);
    expect(await names({ vm: vm.id })).toEqual(['a@x']);
    await f.fleet.deleteBackup('a@x');
    for (const ref of ['a', vm.id, '', '\ud800', 'x'.repeat(5000)]) {
      await expect(f.fleet.listBackups({ vm: ref })).rejects.toMatchObject({ code: 'vm-missing' });
    }
    expect(await f.catalog.list('vm-gone')).toEqual([]);
    expect(await f.catalog.list('vm-gone-name')).toEqual([]);
  });
});

describe('backups without their VM', () => {
  test('vm@backup keeps working after the VM is deleted, until a new VM of that name has such a backup', async () => {
    await f.fleet.createVm(oneDisk('web'));
    const first = await f.fleet.createBackup('web', { name: 'x' });
    const other = await f.fleet.createBackup('web', { name: 'y' });
    await f.fleet.deleteVm('web');
    expect((await f.fleet.getBackup('web@x')).id).toBe(first.id);
    await f.fleet.createVm(oneDisk('web'));
    expect((await f.fleet.getBackup('web@x')).id).toBe(first.id);
    const second = await f.fleet.createBackup('web', { name: 'x' });
    expect((await f.fleet.getBackup('web@x')).id).toBe(second.id);
    expect((await f.fleet.getBackup('web@y')).id).toBe(other.id);
    expect((await f.fleet.getBackup(first.id)).id).toBe(first.id);
    expect((await f.fleet.getBackup(`${first.vmId}@x`)).id).toBe(first.id);
    await f.fleet.deleteVm('web');
    expect((await f.fleet.getBackup('web@x')).id).toBe(second.id);
    await f.fleet.deleteBackup('web@x');
    expect((await f.fleet.getBackup('web@x')).id).toBe(first.id);
  });

  test('a renamed VM’s backups are found by its name, by its last name, and by the one they were taken under', async () => {
    await f.fleet.createVm(oneDisk('old'));
    const backup = await f.fleet.createBackup('old', { name: 'x' });
    await f.fleet.renameVm('old', 'new');
    for (const ref of ['new@x', 'old@x']) expect((await f.fleet.getBackup(ref)).id).toBe(backup.id);
    await f.fleet.deleteVm('new');
    for (const ref of ['new@x', 'old@x']) expect((await f.fleet.getBackup(ref)).id).toBe(backup.id);
    expect((await f.fleet.getBackup('old@x')).vmName).toBe('old');
  });

  test('the last two backups of a VM that is gone, deleted at once, leave nothing behind', async () => {
    await f.fleet.createVm(oneDisk('web'));
    for (const name of ['x', 'y']) await f.fleet.createBackup('web', { name });
    await f.fleet.deleteVm('web');
    await Promise.all([f.fleet.deleteBackup('web@x'), f.fleet.deleteBackup('web@y')]);
    for (const table of [
      'vm',
      'vm-name',
      'backup',
      'vm-backup',
      'backup-name',
      'backup-label',
      'vm-gone',
      'vm-gone-name',
      'disk',
    ]) {
      expect(await f.catalog.list(table)).toEqual([]);
    }
    expect(await f.disks()).toEqual([]);
  });

  test.each(['web', 'web@', '@x', 'web@nope', 'web@x@y', 'nope@x', '', '\ud800@x', `${'x'.repeat(9000)}@x`])(
    '%j is no backup',
    async (ref) => {
      await f.fleet.createVm(oneDisk('web'));
      await f.fleet.createBackup('web', { name: 'x' });
      await expect(f.fleet.getBackup(ref)).rejects.toMatchObject({ code: 'backup-missing' });
      await expect(f.fleet.deleteBackup(ref)).rejects.toMatchObject({ code: 'backup-missing' });
      await expect(f.fleet.restoreBackup(ref, { as: 'y' })).rejects.toMatchObject({ code: 'backup-missing' });
    },
  );
});

describe('deleteBackup', () => {
  test('is refused while a client reads it, and done when it has gone', async () => {
    await f.fleet.createVm(oneDisk('web'));
    await f.fleet.createBackup('web', { name: 'x' });
    const mounted = await f.fleet.attach('web@x');
    expect((await f.fleet.getVm('web')).attachedClients).toBe(0);
    await expect(f.fleet.deleteBackup('web@x')).rejects.toMatchObject({ code: 'disk-in-use' });
    await mounted.close();
    await f.fleet.deleteBackup('web@x');
    await expect(f.fleet.deleteBackup('web@x')).rejects.toMatchObject({ code: 'backup-missing' });
    expect(await f.disks()).toHaveLength(1);
  });
});
