import { beforeEach, describe, expect, test } from 'vitest';
import { makeFixture, oneDisk, type Fixture } from './testing/fixture.ts';

let f: Fixture;
beforeEach(async () => {
  f = await makeFixture({ detachWaitMs: 5000, attachmentsMax: 5 });
  await f.fleet.createVm(oneDisk('web'));
  await f.fleet.createVm({
    name: 'db',
    disks: [
      { name: 'root', sizeBytes: 512 },
      { name: 'data', sizeBytes: 1024 },
    ],
  });
});

const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe('attach', () => {
  test('finds VM, disk, backup by names and ids', async () => {
    const vm = await f.fleet.getVm('web');
    const backup = await f.fleet.createBackup('web', { name: 'x' });
    const writable = ['web', 'web/disk0', vm.id, `${vm.id}/disk0`];
    const readOnly = [
      'web@x',
      'web@x/disk0',
      backup.id,
      `${backup.id}/disk0`,
      `web@${backup.id}/disk0`,
      `${vm.id}@x`,
    ];
    for (const name of [...writable, ...readOnly]) {
      const attachment = await f.fleet.attach(name);
      expect(attachment.readOnly).toBe(readOnly.includes(name));
      expect(attachment.exportName).toBe(attachment.readOnly ? 'web@x/disk0' : 'web/disk0');
      expect(attachment).toMatchObject({ size: vm.disks[0]!.sizeBytes, blockBytes: 4096 });
      await attachment.close();
    }
    expect((await f.fleet.attach('db/data')).size).toBe(1024);
  });

  test('takes an id of a backup for that backup, whatever VMs are called', async () => {
    const { id } = await f.fleet.createBackup('web', { name: 'x' });
    await f.fleet.createVm(oneDisk(id));
    for (const name of [id, `${id}/disk0`]) {
      const attachment = await f.fleet.attach(name);
      expect(attachment).toMatchObject({ exportName: 'web@x/disk0', readOnly: true });
      await attachment.close();
    }
    await f.fleet.deleteBackup(id);
    const attachment = await f.fleet.attach(id);
    expect(attachment).toMatchObject({ exportName: `${id}/disk0`, readOnly: false });
    await attachment.close();
  });

  test.each([
    ['nope', 'vm-missing'],
    ['nope/disk0', 'vm-missing'],
    ['', 'vm-missing'],
    ['/', 'vm-missing'],
    ['0192f0c1-7b2a-7def-8123-456789abcdef', 'vm-missing'],
    ['web/disk1', 'disk-missing'],
    ['web/', 'disk-missing'],
    ['web/disk0/x', 'disk-missing'],
    ['db', 'disk-missing'],
    ['web@x', 'backup-missing'],
    ['web@x/disk0', 'backup-missing'],
    ['nope@x', 'backup-missing'],
    ['@', 'backup-missing'],
    ['x'.repeat(4096), 'vm-missing'],
  ])('%j is %s', async (name, code) => {
    await expect(f.fleet.attach(name)).rejects.toMatchObject({ code });
  });

  test('clients are counted by VM, also several of one disk, which see each other’s writes', async () => {
    const clients = await Promise.all([
      f.fleet.attach('web'),
      f.fleet.attach('web'),
      f.fleet.attach('db/root'),
    ]);
    await clients[0].write(100, new Uint8Array([7]));
    const byte = new Uint8Array(1);
    await clients[1].read(100, 1, byte, 0);
    expect(byte[0]).toBe(7);
    expect((await f.fleet.getVm('web')).attachedClients).toBe(2);
    expect((await f.fleet.listVms()).items.map((vm) => vm.attachedClients)).toEqual([2, 1]);
    await clients[0].close();
    await clients[0].close();
    expect((await f.fleet.getVm('web')).attachedClients).toBe(1);
  });

  test('more than attachmentsMax clients are refused', async () => {
    const clients = await Promise.all([1, 2, 3, 4, 5].map(() => f.fleet.attach('web')));
    await expect(f.fleet.attach('web')).rejects.toMatchObject({ code: 'too-busy' });
    await clients[0]!.close();
    await expect(f.fleet.attach('web/nope')).rejects.toMatchObject({ code: 'disk-missing' });
    await f.fleet.attach('web');
  });

  test('everything a device can do goes to the disk', async () => {
    const client = await f.fleet.attach('web');
    await client.write(0, new Uint8Array(8192).fill(1));
    await client.zero(0, 4096);
    await client.flush();
    await client.prefetch(0, 8192);
    expect(await client.allocation(0, 12_288, 10)).toEqual({
      lengths: [4096, 4096, 4096],
      holes: [true, false, true],
    });
    const holes: number[] = [];
    await client.read(0, 8192, new Uint8Array(8192), 0, holes);
    expect(holes).toEqual([0, 4096]);
  });
});

describe('operations that need the VM to themselves', () => {
  const operations = {
    delete: (force: boolean) => f.fleet.deleteVm('web', { force }),
    restore: (force: boolean) => f.fleet.restoreBackup('web@x', { force }),
    shrink: (force: boolean) => f.fleet.resizeDisk('web', 'disk0', 512, { shrink: true, force }),
  };

  test.each(Object.keys(operations) as (keyof typeof operations)[])(
    '%s: refused while attached, forced it waits for the clients to go',
    async (name) => {
      await f.fleet.createBackup('web', { name: 'x' });
      const clients = await Promise.all([f.fleet.attach('web'), f.fleet.attach('web')]);
      await expect(operations[name](false)).rejects.toMatchObject({ code: 'vm-attached' });
      expect(clients.map((client) => client.revoked.aborted)).toEqual([false, false]);
      let done = false;
      const operation = operations[name](true).then(() => (done = true));
      await turns();
      expect(clients.map((client) => client.revoked.aborted)).toEqual([true, true]);
      expect(clients[0].revoked.reason).toMatchObject({ code: 'disk-in-use' });
      // A new client waits until it is over.
      const late = f.fleet.attach('web').then(
        (client) => client.exportName,
        (error: unknown) => error,
      );
      await clients[0].close();
      await turns();
      expect(done).toBe(false);
      await clients[1].close();
      await operation;
      if (name === 'delete') expect(await late).toMatchObject({ code: 'vm-missing' });
      else expect(await late).toBe('web/disk0');
    },
  );

  test.each(['web', 'web@x'])(
    'a client of %s that is leaving is waited for, and is no reason to refuse',
    async (name) => {
      await f.fleet.createBackup('web', { name: 'x' });
      const remove = (): Promise<void> =>
        name === 'web' ? f.fleet.deleteVm('web') : f.fleet.deleteBackup('web@x');
      const code = name === 'web' ? 'vm-attached' : 'disk-in-use';
      const [leaving, staying] = [await f.fleet.attach(name), await f.fleet.attach(name)];
      leaving.leave();
      // Somebody stays: nobody is waited for.
      await expect(remove()).rejects.toMatchObject({ code });
      staying.leave();
      let done = false;
      const removed = remove().then(() => (done = true));
      await turns();
      await staying.close();
      await turns();
      expect([done, leaving.revoked.aborted]).toEqual([false, false]);
      await leaving.close();
      await removed;
    },
  );

  test('a client whose disk is being closed is leaving', async () => {
    const client = await f.fleet.attach('web');
    const closed = client.close();
    await f.fleet.deleteVm('web');
    await closed;
  });

  test('a client that says that it leaves and does not is waited for no longer than detachWaitMs', async () => {
    const client = await f.fleet.attach('web');
    client.leave();
    const removed = f.fleet.deleteVm('web').catch((error: unknown) => error);
    await turns();
    f.clock.advance(5000);
    expect(await removed).toMatchObject({ code: 'vm-attached' });
    await client.close();
    await f.fleet.deleteVm('web');
  });

  test('a client that does not go is closed after detachWaitMs', async () => {
    const client = await f.fleet.attach('web');
    let done = false;
    const operation = f.fleet.deleteVm('web', { force: true }).then(() => (done = true));
    await turns();
    f.clock.advance(4999);
    await turns();
    expect(done).toBe(false);
    f.clock.advance(1);
    await operation;
    await client.close();
    await expect(f.fleet.getVm('web')).rejects.toMatchObject({ code: 'vm-missing' });
  });

  test('backups and clones are taken while clients are attached', async () => {
    const client = await f.fleet.attach('web');
    await client.write(0, new Uint8Array([1]));
    await f.fleet.createBackup('web', { name: 'x' });
    await client.write(0, new Uint8Array([2]));
    const byte = new Uint8Array(1);
    await (await f.fleet.attach('web@x')).read(0, 1, byte, 0);
    expect(byte[0]).toBe(1);
    await f.fleet.cloneVm('web', { name: 'clone' });
    expect(client.revoked.aborted).toBe(false);
  });
});

describe('listExports', () => {
  test('names VMs in order of creation, then backups, newest first, and each can be attached', async () => {
    for (const name of ['x', 'y']) await f.fleet.createBackup('db', { name });
    const all = ['web/disk0', 'db/root', 'db/data', 'db@y/root', 'db@y/data', 'db@x/root', 'db@x/data'];
    for (let limit = 0; limit <= 8; limit++)
      expect(await f.fleet.listExports(limit)).toEqual(all.slice(0, limit));
    for (const name of all) {
      const attachment = await f.fleet.attach(name);
      expect(attachment.exportName).toBe(name);
      await attachment.close();
    }
  });

  test('pages through more VMs than one read brings', async () => {
    await f.fleet.cloneVm('web', { name: 'many', count: 600 });
    const names = await f.fleet.listExports(10_000);
    expect(names).toHaveLength(603);
    expect(names.at(-1)).toBe('many-600/disk0');
  });
});

describe('close', () => {
  test('throws clients out, refuses what comes after, and can be called twice', async () => {
    const client = await f.fleet.attach('web');
    client.revoked.addEventListener('abort', () => void client.close());
    await Promise.all([f.fleet.close(), f.fleet.close()]);
    expect(client.revoked.reason).toMatchObject({ code: 'shutting-down' });
    await expect(f.fleet.attach('web')).rejects.toMatchObject({ code: 'shutting-down' });
    await expect(f.fleet.createVm(oneDisk('x'))).rejects.toMatchObject({ code: 'shutting-down' });
    await expect(f.fleet.listVms()).rejects.toMatchObject({ code: 'shutting-down' });
  });

  test('waits for operations under way', async () => {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    f.catalog.beforeCommit = () => promise;
    const made = f.fleet.createVm(oneDisk('late'));
    await turns();
    let closed = false;
    const closing = f.fleet.close().then(() => (closed = true));
    await turns();
    expect(closed).toBe(false);
    resolve(undefined);
    expect((await made).name).toBe('late');
    await closing;
  });
});
