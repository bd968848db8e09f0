import { TiB } from '@pando/common';
import { beforeEach, describe, expect, test } from 'vitest';
import { MiB, makeFixture, oneDisk, type Fixture } from './testing/fixture.ts';

let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
});

const names = async (request?: Parameters<Fixture['fleet']['listVms']>[0]): Promise<string[]> =>
  (await f.fleet.listVms(request)).items.map((vm) => vm.name);

async function write(exportName: string, offset: number, byte: number): Promise<void> {
  const disk = await f.fleet.attach(exportName);
  await disk.write(offset, new Uint8Array(100).fill(byte));
  await disk.close();
}
async function read(exportName: string, offset: number): Promise<number> {
  const disk = await f.fleet.attach(exportName);
  const bytes = new Uint8Array(100);
  await disk.read(offset, 100, bytes, 0);
  await disk.close();
  return bytes[0]!;
}

describe('createVm', () => {
  test('makes a VM with empty disks that is found by name and by id', async () => {
    const disks = [
      { name: 'root', sizeBytes: 512 },
      { name: 'data', sizeBytes: 64 * TiB },
    ];
    const vm = await f.fleet.createVm({ name: 'web', disks });
    expect(vm).toMatchObject({
      name: 'web',
      lineage: vm.id,
      createdAt: '2026-11-20T10:00:00.000Z',
      disks,
      attachedClients: 0,
    });
    expect(await f.fleet.getVm('web')).toEqual(vm);
    expect(await f.fleet.getVm(vm.id)).toEqual(vm);
    expect(f.catalog.commits).toBe(1);
  });

  test('a name that is taken is refused and nothing is made', async () => {
    await f.fleet.createVm(oneDisk('web'));
    await expect(f.fleet.createVm(oneDisk('web'))).rejects.toMatchObject({ code: 'name-taken' });
    expect(await f.disks()).toHaveLength(1);
  });

  test('a name in another Unicode form is the same name', async () => {
    const vm = await f.fleet.createVm(oneDisk('a\u0308'));
    expect(vm.name).toBe('ä');
    await expect(f.fleet.createVm(oneDisk('ä'))).rejects.toMatchObject({ code: 'name-taken' });
    expect((await f.fleet.getVm('a\u0308')).id).toBe(vm.id);
  });

  test.each([
    ['no disks', { name: 'x', disks: [] }, 'request-invalid'],
    [
      '65 disks',
      { name: 'x', disks: Array.from({ length: 65 }, (_, i) => ({ name: `d${i}`, sizeBytes: 512 })) },
      'request-invalid',
    ],
    [
      'two disks of one name',
      {
        name: 'x',
        disks: [
          { name: 'a', sizeBytes: 512 },
          { name: 'a', sizeBytes: 512 },
        ],
      },
      'request-invalid',
    ],
    ['a bad disk name', { name: 'x', disks: [{ name: 'a/b', sizeBytes: 512 }] }, 'name-invalid'],
    ['a bad name', { name: 'x@y', disks: [{ name: 'a', sizeBytes: 512 }] }, 'name-invalid'],
    ['a bad size', { name: 'x', disks: [{ name: 'a', sizeBytes: 513 }] }, 'size-invalid'],
  ])('%s is refused', async (_, request, code) => {
    await expect(f.fleet.createVm(request)).rejects.toMatchObject({ code });
    expect(await f.disks()).toEqual([]);
    expect(await names()).toEqual([]);
  });

  test('after a commit that failed the name is free', async () => {
    f.catalog.beforeCommit = () => Promise.reject(new Error('full'));
    await expect(f.fleet.createVm(oneDisk('web'))).rejects.toThrow('full');
    f.catalog.beforeCommit = undefined;
    await f.fleet.createVm(oneDisk('web'));
    expect(await names()).toEqual(['web']);
  });

  test.each(['nobody', '', 'a/b', 'x'.repeat(10_000), '\ud800', '0192f0c1-7b2a-7def-8123-456789abcdef'])(
    '%j is no VM',
    async (ref) => {
      await expect(f.fleet.getVm(ref)).rejects.toMatchObject({ code: 'vm-missing' });
      await expect(f.fleet.deleteVm(ref)).rejects.toMatchObject({ code: 'vm-missing' });
      await expect(f.fleet.createBackup(ref)).rejects.toMatchObject({ code: 'vm-missing' });
    },
  );

  test('an id wins over a name that looks like it', async () => {
    const first = await f.fleet.createVm(oneDisk('first'));
    const second = await f.fleet.createVm(oneDisk(first.id));
    expect((await f.fleet.getVm(first.id)).name).toBe('first');
    await f.fleet.deleteVm('first');
    expect((await f.fleet.getVm(first.id)).id).toBe(second.id);
  });
});

describe('cloneVm', () => {
  test('makes one VM of the given name, which shares lineage and nothing else', async () => {
    await f.fleet.createVm(oneDisk('golden'));
    await write('golden', 5000, 1);
    const [clone, ...others] = await f.fleet.cloneVm('golden', { name: 'web' });
    expect(others).toEqual([]);
    const golden = await f.fleet.getVm('golden');
    expect(clone).toMatchObject({ name: 'web', lineage: golden.id, disks: golden.disks });
    await write('golden', 5000, 2);
    expect(await read('web', 5000)).toBe(1);
    await write('web', 5000, 3);
    expect(await read('golden', 5000)).toBe(2);
  });

  test('a count makes name-1 to name-N in one commit, in this order', async () => {
    await f.fleet.createVm(oneDisk('golden'));
    const before = f.catalog.commits;
    const clones = await f.fleet.cloneVm('golden', { name: 'web', count: 1000 });
    expect(f.catalog.commits).toBe(before + 1);
    expect(clones.map((vm) => vm.name)).toEqual(Array.from({ length: 1000 }, (_, i) => `web-${i + 1}`));
    expect(await names({ limit: 1000 })).toEqual(['golden', ...clones.map((vm) => vm.name)].slice(0, 1000));
    expect((await f.fleet.cloneVm('web-1', { name: 'one', count: 1 }))[0]!.name).toBe('one-1');
  });

  test('all clones or none: one taken name refuses them all', async () => {
    await f.fleet.createVm(oneDisk('golden'));
    await f.fleet.createVm(oneDisk('web-57'));
    await expect(f.fleet.cloneVm('golden', { name: 'web', count: 100 })).rejects.toMatchObject({
      code: 'name-taken',
    });
    expect(await names()).toEqual(['golden', 'web-57']);
    expect(await f.disks()).toHaveLength(2);
  });

  test.each([0, -1, 1.5, 10_001, NaN])('a count of %d is refused', async (count) => {
    await f.fleet.createVm(oneDisk('golden'));
    await expect(f.fleet.cloneVm('golden', { name: 'web', count })).rejects.toMatchObject({
      code: 'request-invalid',
    });
  });

  test('a name that is too long with its number is refused', async () => {
    await f.fleet.createVm(oneDisk('golden'));
    const name = 'x'.repeat(254);
    await expect(f.fleet.cloneVm('golden', { name, count: 2 })).rejects.toMatchObject({
      code: 'name-invalid',
    });
    await f.fleet.cloneVm('golden', { name });
  });

  test('clones live on without their source', async () => {
    await f.fleet.createVm(oneDisk('golden'));
    await write('golden', 0, 9);
    await f.fleet.cloneVm('golden', { name: 'web' });
    await f.fleet.deleteVm('golden');
    expect(await read('web', 0)).toBe(9);
  });
});

describe('renameVm', () => {
  test('moves the name and frees the old one', async () => {
    const vm = await f.fleet.createVm(oneDisk('old'));
    expect((await f.fleet.renameVm('old', 'new')).name).toBe('new');
    expect((await f.fleet.getVm('new')).id).toBe(vm.id);
    await expect(f.fleet.getVm('old')).rejects.toMatchObject({ code: 'vm-missing' });
    await f.fleet.createVm(oneDisk('old'));
  });

  test('to its own name does nothing, to one that is taken is refused', async () => {
    await f.fleet.createVm(oneDisk('a'));
    await f.fleet.createVm(oneDisk('b'));
    const before = f.catalog.commits;
    await f.fleet.renameVm('a', 'a');
    expect(f.catalog.commits).toBe(before);
    await expect(f.fleet.renameVm('a', 'b')).rejects.toMatchObject({ code: 'name-taken' });
    await expect(f.fleet.renameVm('a', '/')).rejects.toMatchObject({ code: 'name-invalid' });
    expect(await names({ namePrefix: 'a' })).toEqual(['a']);
  });

  test('two renames to one name: one is done', async () => {
    await f.fleet.createVm(oneDisk('a'));
    await f.fleet.createVm(oneDisk('b'));
    const results = await Promise.allSettled([f.fleet.renameVm('a', 'c'), f.fleet.renameVm('b', 'c')]);
    expect(results.map((result) => result.status).sort()).toEqual(['fulfilled', 'rejected']);
  });
});

describe('resizeDisk', () => {
  test('grows, also while a client is attached, and keeps what is there', async () => {
    await f.fleet.createVm(oneDisk('web'));
    await write('web', 0, 1);
    const client = await f.fleet.attach('web');
    const vm = await f.fleet.resizeDisk('web', 'disk0', 2 * MiB);
    expect(vm.disks).toEqual([{ name: 'disk0', sizeBytes: 2 * MiB }]);
    expect(await f.fleet.getVm('web')).toEqual(vm);
    await client.close();
    expect((await f.fleet.attach('web')).size).toBe(2 * MiB);
    expect(await read('web', 0)).toBe(1);
  });

  test('shrinks only when it is told to, and zeros come back when it grows again', async () => {
    await f.fleet.createVm(oneDisk('web'));
    await write('web', MiB - 100, 1);
    await expect(f.fleet.resizeDisk('web', 'disk0', 512)).rejects.toMatchObject({ code: 'shrink-refused' });
    await f.fleet.resizeDisk('web', 'disk0', 512, { shrink: true });
    await f.fleet.resizeDisk('web', 'disk0', MiB);
    expect(await read('web', MiB - 100)).toBe(0);
  });

  test('shrinking under a client is refused, or with force throws it out', async () => {
    await f.fleet.createVm(oneDisk('web'));
    const client = await f.fleet.attach('web');
    client.revoked.addEventListener('abort', () => void client.close());
    await expect(f.fleet.resizeDisk('web', 'disk0', 512, { shrink: true })).rejects.toMatchObject({
      code: 'vm-attached',
    });
    expect(client.revoked.aborted).toBe(false);
    await f.fleet.resizeDisk('web', 'disk0', 512, { shrink: true, force: true });
    expect(client.revoked.aborted).toBe(true);
  });

  test('the same size does nothing; a wrong size and a wrong disk are refused', async () => {
    await f.fleet.createVm(oneDisk('web'));
    const before = f.catalog.commits;
    await f.fleet.resizeDisk('web', 'disk0', MiB);
    expect(f.catalog.commits).toBe(before);
    await expect(f.fleet.resizeDisk('web', 'disk0', 1000)).rejects.toMatchObject({ code: 'size-invalid' });
    await expect(f.fleet.resizeDisk('web', 'disk1', 1024)).rejects.toMatchObject({ code: 'disk-missing' });
  });
});

describe('deleteVm', () => {
  test('removes the VM with its disks and frees the name; again it is missing', async () => {
    const vm = await f.fleet.createVm(oneDisk('web'));
    await f.fleet.deleteVm('web');
    expect(await f.disks()).toEqual([]);
    await expect(f.fleet.deleteVm('web')).rejects.toMatchObject({ code: 'vm-missing' });
    await expect(f.fleet.deleteVm(vm.id)).rejects.toMatchObject({ code: 'vm-missing' });
    expect((await f.fleet.createVm(oneDisk('web'))).id).not.toBe(vm.id);
  });

  test('a deletion that failed leaves all as it was', async () => {
    const vm = await f.fleet.createVm(oneDisk('web'));
    f.catalog.beforeCommit = () => Promise.reject(new Error('full'));
    await expect(f.fleet.deleteVm('web')).rejects.toThrow('full');
    f.catalog.beforeCommit = undefined;
    expect(await f.fleet.getVm('web')).toEqual(vm);
    await f.fleet.deleteVm('web');
  });
});

describe('listVms', () => {
  test('is in order of creation, page by page, whatever is made and deleted meanwhile', async () => {
    await f.fleet.createVm(oneDisk('seed'));
    await f.fleet.cloneVm('seed', { name: 'z', count: 9 });
    const first = await f.fleet.listVms({ limit: 4 });
    expect(first.items.map((vm) => vm.name)).toEqual(['seed', 'z-1', 'z-2', 'z-3']);
    await f.fleet.deleteVm('z-1');
    await f.fleet.deleteVm('z-3'); // the one that the cursor names
    await f.fleet.deleteVm('z-5');
    await f.fleet.createVm(oneDisk('a'));
    await f.fleet.renameVm('z-4', 'renamed');
    const second = await f.fleet.listVms({ limit: 4, cursor: first.nextCursor! });
    expect(second.items.map((vm) => vm.name)).toEqual(['renamed', 'z-6', 'z-7', 'z-8']);
    const third = await f.fleet.listVms({ limit: 4, cursor: second.nextCursor! });
    expect(third.items.map((vm) => vm.name)).toEqual(['z-9', 'a']);
    expect(third.nextCursor).toBeUndefined();
  });

  test('a page that is full and last has no cursor', async () => {
    await f.fleet.createVm(oneDisk('a'));
    expect((await f.fleet.listVms({ limit: 1 })).nextCursor).toBeUndefined();
    expect(await f.fleet.listVms({ limit: 1, namePrefix: 'b' })).toEqual({ items: [] });
  });

  test('by prefix it is in order of names', async () => {
    for (const name of ['web-2', 'db', 'web-10', 'web-1', 'we', 'ähre'])
      await f.fleet.createVm(oneDisk(name));
    expect(await names({ namePrefix: 'web' })).toEqual(['web-1', 'web-10', 'web-2']);
    expect(await names({ namePrefix: 'a\u0308' })).toEqual(['ähre']);
    expect(await names({ namePrefix: '@' })).toEqual([]);
    expect(await names({ namePrefix: '\ud800' })).toEqual([]);
    const page = await f.fleet.listVms({ namePrefix: 'web', limit: 2 });
    await f.fleet.deleteVm('web-10');
    expect(await names({ namePrefix: 'web', limit: 2, cursor: page.nextCursor! })).toEqual(['web-2']);
  });

  test.each([0, -1, 1001, 1.5, NaN])('a limit of %d is refused', async (limit) => {
    await expect(f.fleet.listVms({ limit })).rejects.toMatchObject({ code: 'request-invalid' });
  });

  test('a cursor of another list, or of nobody, is refused', async () => {
    for (const name of ['web-1', 'web-2']) await f.fleet.createVm(oneDisk(name));
    const { nextCursor } = await f.fleet.listVms({ limit: 1 });
    await expect(f.fleet.listBackups({ cursor: nextCursor! })).rejects.toMatchObject({
      code: 'cursor-invalid',
    });
    await expect(f.fleet.listVms({ cursor: nextCursor!, namePrefix: 'web' })).rejects.toMatchObject({
      code: 'cursor-invalid',
    });
    const forged = [
      '',
      'x',
      'null',
      '[1]',
      '[1,"vms",5]',
      '[1,"vms","\\u0000"]',
      '[1,"vms","\\ud800"]',
      '{}',
    ];
    for (const text of [...forged, 'x'.repeat(100_000)]) {
      const cursor = text === 'x' ? text : Buffer.from(text).toString('base64url');
      await expect(f.fleet.listVms({ cursor })).rejects.toMatchObject({ code: 'cursor-invalid' });
    }
  });
});

describe('what requests cost', () => {
  test('reads of the catalog do not grow with the number of VMs', async () => {
    await f.fleet.createVm(oneDisk('golden'));
    const cost = async (): Promise<number> => {
      const before = f.catalog.reads;
      await f.fleet.createVm(oneDisk('x'));
      await f.fleet.createBackup('x', { name: 'b' });
      await f.fleet.getBackup('x@b');
      await f.fleet.renameVm('x', 'y');
      await f.fleet.cloneVm('y', { name: 'x' });
      await f.fleet.restoreBackup('y@b', { as: 'z' });
      await f.fleet.listVms({ limit: 10 });
      await f.fleet.listBackups({ vm: 'y' });
      for (const name of ['x', 'y', 'z']) await f.fleet.deleteVm(name);
      await f.fleet.getBackup('y@b');
      await f.fleet.deleteBackup('y@b');
      return f.catalog.reads - before;
    };
    const few = await cost();
    await f.fleet.cloneVm('golden', { name: 'many', count: 500 });
    for (let i = 0; i < 50; i++) await f.fleet.createBackup(`many-${i + 1}`);
    expect(await cost()).toBe(few);
  });
});

describe('tags', () => {
  const tagged = async (tag: string, limit?: number): Promise<string[]> => {
    const names: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await f.fleet.listVms({
        tag,
        ...(limit === undefined ? {} : { limit }),
        ...(cursor === undefined ? {} : { cursor }),
      });
      names.push(...page.items.map((vm) => vm.name));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return names;
  };

  test('group VMs, and lists by tag come in pages', async () => {
    for (const name of ['a', 'b', 'c'])
      await f.fleet.createVm({ ...oneDisk(name), tags: ['web', 'prod', 'web'] });
    await f.fleet.createVm({ ...oneDisk('d'), tags: ['web-2'] });
    expect((await f.fleet.getVm('a')).tags).toEqual(['prod', 'web']);
    expect(await tagged('web', 1)).toEqual(['a', 'b', 'c']);
    expect(await tagged('web-2')).toEqual(['d']);
    expect(await tagged('we')).toEqual([]);
  });

  test('are replaced as a whole, and go with the VM; a rename keeps them', async () => {
    await f.fleet.createVm({ ...oneDisk('a'), tags: ['old', 'both'] });
    expect((await f.fleet.setTags('a', ['both', 'new'])).tags).toEqual(['both', 'new']);
    await f.fleet.renameVm('a', 'b');
    expect(await Promise.all(['old', 'both', 'new'].map((tag) => tagged(tag)))).toEqual([[], ['b'], ['b']]);
    await f.fleet.setTags('b', []);
    expect((await f.fleet.getVm('b')).tags).toEqual([]);
    await f.fleet.setTags('b', ['last']);
    await f.fleet.deleteVm('b');
    expect(await f.catalog.list('vm-tag')).toEqual([]);
  });

  test('are those that a clone or a restored VM is given; a backup remembers those of its VM', async () => {
    await f.fleet.createVm({ ...oneDisk('a'), tags: ['team'] });
    const [clone] = await f.fleet.cloneVm('a', { name: 'b' });
    expect(clone!.tags).toEqual([]);
    expect((await f.fleet.cloneVm('a', { name: 'c', count: 2, tags: ['ci'] }))[1]!.tags).toEqual(['ci']);
    const backup = await f.fleet.createBackup('a', { name: 'x' });
    await f.fleet.setTags('a', ['other']);
    expect((await f.fleet.getBackup(backup.id)).tags).toEqual(['team']);
    expect((await f.fleet.restoreBackup('a@x', { as: 'd', tags: ['ci'] })).tags).toEqual(['ci']);
    expect(await tagged('ci')).toEqual(['c-1', 'c-2', 'd']);
  });

  test('are names, and not too many', async () => {
    const vm = oneDisk('a');
    await expect(f.fleet.createVm({ ...vm, tags: ['a/b'] })).rejects.toMatchObject({ code: 'name-invalid' });
    const many = Array.from({ length: 33 }, (_, i) => `t${i}`);
    await expect(f.fleet.createVm({ ...vm, tags: many })).rejects.toMatchObject({ code: 'request-invalid' });
    expect((await f.fleet.listVms()).items).toEqual([]);
  });
});
