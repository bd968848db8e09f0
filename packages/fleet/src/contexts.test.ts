/** Contexts of attachments: what has changed, how old it is, which root; and what they hold open. */
import { PandoError } from '@pando/common';
import { beforeEach, describe, expect, test } from 'vitest';
import { Attachments } from './attachments.ts';
import { FLEET_LIMITS } from './limits.ts';
import { MiB, TestClock, makeFixture, oneDisk, type Fixture } from './testing/fixture.ts';
import type { Attachment, DiskContext } from './types.ts';

const CHUNK = 4096;
const DEPTH = 'qemu:allocation-depth';
const BITMAP = 'qemu:dirty-bitmap:';
const ROOT = 'x-pando:root';

let f: Fixture;
let client: Attachment;
beforeEach(async () => {
  f = await makeFixture({ detachWaitMs: 5000, attachmentContextsMax: 20 });
  await f.fleet.createVm(oneDisk('web'));
  await f.fleet.createVm({
    name: 'db',
    disks: [
      { name: 'root', sizeBytes: 10 * CHUNK },
      { name: 'data', sizeBytes: 20 * CHUNK },
    ],
  });
  client = await f.fleet.attach('web');
});

const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
};

async function write(to: Attachment, chunk: number, byte: number, chunks = 1): Promise<void> {
  await to.write(chunk * CHUNK, new Uint8Array(chunks * CHUNK).fill(byte));
}

async function open(name: string, from = client): Promise<DiskContext> {
  const context = await from.openContext(name);
  if (context === undefined) throw new Error(`no context ${name}`);
  expect(context.name).toBe(name);
  return context;
}

/** Chunks with a flag that is not 0, as `chunk:flag`. */
async function flagged(context: DiskContext, bytes = MiB): Promise<string> {
  const { lengths, flags } = await context.describe(0, bytes, 10_000);
  const found: string[] = [];
  let at = 0;
  for (const [i, length] of lengths.entries()) {
    for (let chunk = at; chunk < at + length; chunk += CHUNK)
      if (flags[i] !== 0) found.push(`${chunk / CHUNK}:${flags[i]}`);
    at += length;
  }
  expect(at).toBe(bytes);
  return found.join(' ');
}

describe('what contexts say', () => {
  test('the depth, and what has changed since each of several backups', async () => {
    const depth = await open(DEPTH);
    await write(client, 1, 1, 3);
    expect(await flagged(depth)).toBe('1:1 2:1 3:1');
    await f.fleet.createBackup('web', { name: 'monday' });
    expect(await flagged(depth)).toBe('1:2 2:2 3:2');
    await write(client, 2, 2);
    await f.fleet.createBackup('web', { name: 'tuesday' });
    await write(client, 1, 1); // what it held already
    await client.zero(3 * CHUNK, CHUNK);
    await write(client, 7, 7);
    const [monday, tuesday] = [await open(`${BITMAP}monday`), await open(`${BITMAP}tuesday`)];
    for (const settled of [false, true]) {
      if (settled) await f.rooms.volumes.settleAll();
      expect(await flagged(depth)).toBe('1:2 2:2 7:1');
      expect(await flagged(monday)).toBe('2:1 3:1 7:1');
      expect(await flagged(tuesday)).toBe('3:1 7:1');
      expect(await flagged(await open(`${BITMAP}web@tuesday`))).toBe('3:1 7:1');
    }
    expect(await tuesday.describe(3 * CHUNK + 5, 4 * CHUNK, 1)).toEqual({ lengths: [CHUNK - 5], flags: [1] });
    expect(monday.comparedWith).toBe('web@monday/disk0');
    expect(depth.comparedWith).toBeUndefined();
  });

  test('a backup that is attached is compared with others of its VM, a clone with those of any VM', async () => {
    await write(client, 1, 1);
    await f.fleet.createBackup('web', { name: 'monday' });
    await write(client, 2, 2);
    await f.fleet.createBackup('web', { name: 'tuesday' });
    await f.fleet.cloneVm('web', { name: 'copy' });
    const tuesday = await f.fleet.attach('web@tuesday');
    expect(await flagged(await open(DEPTH, tuesday))).toBe('1:2 2:2');
    expect(await flagged(await open(`${BITMAP}monday`, tuesday))).toBe('2:1');
    expect(await flagged(await open(`${BITMAP}tuesday`, tuesday))).toBe('');
    const copy = await f.fleet.attach('copy');
    await write(copy, 9, 9);
    expect(await flagged(await open(DEPTH, copy))).toBe('1:2 2:2 9:1');
    expect(await copy.openContext(`${BITMAP}monday`)).toBeUndefined();
    expect(await flagged(await open(`${BITMAP}web@monday`, copy))).toBe('2:1 9:1');
    await client.close();
    await f.fleet.deleteVm('web');
    expect(await flagged(await open(`${BITMAP}monday`, tuesday))).toBe('2:1');
    expect(await flagged(await open(`${BITMAP}web@monday`, copy))).toBe('2:1 9:1');
  });

  test('what is not in the root yet, by its name as long as it is that root', async () => {
    const [name] = await client.contextNames(`${ROOT}:`, 10);
    expect(name).toMatch(/^x-pando:root:[0-9a-f]{64}$/);
    const [pending, named] = [await open(ROOT), await open(name!)];
    expect(await flagged(named)).toBe('');
    await write(client, 4, 4);
    expect(await flagged(pending)).toBe('4:1');
    expect(await flagged(named)).toBe('4:1');
    await f.rooms.volumes.settleAll();
    const [now] = await client.contextNames(`${ROOT}:`, 10);
    if (now === name) return; // rooms that never destage
    expect(await flagged(pending)).toBe('');
    expect(await flagged(await open(now!))).toBe('');
    expect(await named.describe(CHUNK, 5 * CHUNK, 1)).toEqual({ lengths: [5 * CHUNK], flags: [1] });
    expect(await client.openContext(name!)).toBeUndefined();
  });

  test('after a restore all is old, and nothing differs from that backup', async () => {
    await write(client, 1, 1);
    await f.fleet.createBackup('web', { name: 'monday' });
    await write(client, 2, 2);
    await client.close();
    await f.fleet.restoreBackup('web@monday');
    client = await f.fleet.attach('web');
    expect(await flagged(await open(DEPTH))).toBe('1:2');
    expect(await flagged(await open(`${BITMAP}monday`))).toBe('');
    await write(client, 3, 3);
    expect(await flagged(await open(DEPTH))).toBe('1:2 3:1');
  });
});

describe('names', () => {
  test('are listed with backups of the VM newest first, by prefix, and no more than asked for', async () => {
    const root = `${ROOT}:${'0'.repeat(64)}`;
    for (const name of ['monday', 'tuesday', 'morning']) await f.fleet.createBackup('web', { name });
    await f.fleet.createBackup('db', { name: 'other' });
    const bitmaps = ['morning', 'tuesday', 'monday'].map((name) => BITMAP + name);
    const all = [DEPTH, ROOT, root, ...bitmaps];
    expect(await client.contextNames('', 100)).toEqual(all);
    for (let limit = 0; limit <= all.length; limit++)
      expect(await client.contextNames('', limit)).toEqual(all.slice(0, limit));
    expect(await client.contextNames('qemu:', 100)).toEqual([DEPTH, ...bitmaps]);
    expect(await client.contextNames(BITMAP, 2)).toEqual(bitmaps.slice(0, 2));
    expect(await client.contextNames(`${BITMAP}mo`, 9)).toEqual([bitmaps[0], bitmaps[2]]);
    expect(await client.contextNames(`${BITMAP}monday`, 9)).toEqual([bitmaps[2]]);
    expect(await client.contextNames('x-pando:', 9)).toEqual([ROOT, root]);
    for (const prefix of [
      'base:',
      'x',
      `${BITMAP}z`,
      `${BITMAP}web@`,
      `${BITMAP}\u0000`,
      `${BITMAP}\ud800`,
      `${BITMAP}${'a'.repeat(9999)}`,
    ])
      expect(await client.contextNames(prefix, 9)).toEqual(prefix === 'x' ? [ROOT, root] : []);
    for (const name of all) await open(name);
    await f.fleet.renameVm('web', 'www');
    expect(await client.contextNames('', 100)).toEqual(all);
  });

  test('more backups than one read brings are listed, without those that have no such disk', async () => {
    const data = await f.fleet.attach('db/data');
    for (let i = 0; i < 300; i++) await f.fleet.createBackup('db', { name: `b${i}` });
    const names = await data.contextNames(BITMAP, 1000);
    expect(names).toHaveLength(300);
    expect(names[0]).toBe(`${BITMAP}b299`);
    expect(names.at(-1)).toBe(`${BITMAP}b0`);
    expect(await data.contextNames(BITMAP, 257)).toEqual(names.slice(0, 257));
    const read = f.catalog.reads;
    await data.contextNames(BITMAP, 10);
    expect(f.catalog.reads - read).toBeLessThanOrEqual(2);
  });

  test('a backup is found by name, id, VM and disk', async () => {
    const web = await f.fleet.createBackup('web', { name: 'x' });
    const db = await f.fleet.createBackup('db', { name: 'x' });
    const data = await f.fleet.attach('db/data');
    await write(data, 3, 1);
    await f.fleet.createBackup('db', { name: 'y' });
    const compared = async (name: string, from: Attachment): Promise<string | undefined> => {
      const context = await from.openContext(BITMAP + name);
      const found = context?.comparedWith;
      await context?.close();
      return found;
    };
    for (const name of [
      'x',
      web.id,
      `web@${web.id}`,
      'web@x',
      `${web.vmId}@x`,
      'x/disk0',
      'web@x/disk0',
      `${web.id}/disk0`,
    ])
      expect(await compared(name, client)).toBe('web@x/disk0');
    for (const name of ['x', 'db@x', db.id, 'x/data']) expect(await compared(name, data)).toBe('db@x/data');
    expect(await compared('x/root', data)).toBe('db@x/root');
    // Its only disk; of several, none of the same name.
    expect(await compared('web@x', data)).toBe('web@x/disk0');
    expect(await compared('db@x', client)).toBeUndefined();
    expect(await compared('db@x/root', client)).toBe('db@x/root');
    expect(await flagged(await open(`${BITMAP}x/root`, data), 20 * CHUNK)).toBe('3:1');
  });

  test.each([
    '',
    'qemu:',
    'base:allocation',
    'qemu:allocation-depth ',
    'qemu:allocation-depth:',
    BITMAP,
    `${BITMAP}nope`,
    `${BITMAP}x/`,
    `${BITMAP}x/nope`,
    `${BITMAP}x/disk0/disk0`,
    `${BITMAP}/disk0`,
    `${BITMAP}@`,
    `${BITMAP}@x`,
    `${BITMAP}web@`,
    `${BITMAP}web`,
    `${BITMAP}nope@x`,
    `${BITMAP}web@x@x`,
    `${BITMAP}\u0000`,
    `${BITMAP}web@\u0000`,
    `${BITMAP}\ud800`,
    `${BITMAP}x/\ud800`,
    `${BITMAP}..`,
    `${BITMAP}0192f0c1-7b2a-7def-8123-456789abcdef`,
    BITMAP + 'a'.repeat(5000),
    `${BITMAP}x/${'a'.repeat(5000)}`,
    `${ROOT}:`,
    `${ROOT}:0`,
    `${ROOT}:${'1'.repeat(64)}`,
    `${ROOT}:${'0'.repeat(64)}0`,
    `${ROOT}s`,
    '__proto__',
  ])('%j is none', async (name) => {
    await f.fleet.createBackup('web', { name: 'x' });
    expect(await client.openContext(name)).toBeUndefined();
  });

  test('damage is no missing name', async () => {
    const { id } = await f.fleet.createBackup('web', { name: 'x' });
    const damaged = new PandoError('catalog-corrupt', 'as the test wanted');
    f.catalog.get = () => Promise.reject(damaged);
    await expect(client.openContext(`${BITMAP}x`)).rejects.toBe(damaged);
    await expect(client.openContext(BITMAP + id)).rejects.toBe(damaged);
  });
});

describe('what contexts hold', () => {
  test('a backup that is compared with is not deleted, until the context or the client is closed', async () => {
    const backup = await f.fleet.createBackup('web', { name: 'x' });
    const disks = await f.disks();
    for (const close of [(it: DiskContext) => it.close(), () => client.close()]) {
      const [first, second] = [await open(`${BITMAP}x`), await open(`${BITMAP}x`)];
      await expect(f.fleet.deleteBackup('web@x')).rejects.toMatchObject({ code: 'disk-in-use' });
      await first.close();
      await first.close();
      await expect(first.describe(0, 1, 1)).rejects.toMatchObject({ code: 'shutting-down' });
      await expect(f.fleet.deleteBackup('web@x')).rejects.toMatchObject({ code: 'disk-in-use' });
      expect(await flagged(second)).toBe('');
      await Promise.all([close(second), close(second)]);
      expect(f.rooms.volumes.isOpen(disks.at(-1)!)).toBe(false);
    }
    await f.fleet.deleteBackup(backup.id);
    expect((await f.fleet.getVm('web')).attachedClients).toBe(0);
    client = await f.fleet.attach('web');
    expect(await client.openContext(`${BITMAP}x`)).toBeUndefined();
  });

  test('a backup deleted while it is opened is either held or none', async () => {
    let held = 0;
    for (let round = 0; round < 30; round++) {
      await f.fleet.createBackup('web', { name: 'x' });
      const opening = async (): Promise<DiskContext | undefined> => {
        for (let turn = 4 * round; turn > 0; turn--) await Promise.resolve();
        return client.openContext(`${BITMAP}x`);
      };
      const deleting = f.fleet.deleteBackup('web@x').then(
        () => true,
        (error: unknown) => {
          expect(error).toMatchObject({ code: 'disk-in-use' });
          return false;
        },
      );
      const [context, deleted] = await Promise.all([opening(), deleting]);
      expect(context === undefined).toBe(deleted);
      if (context === undefined) continue;
      held++;
      expect(await flagged(context)).toBe('');
      await context.close();
      await f.fleet.deleteBackup('web@x');
    }
    expect(await f.disks()).toHaveLength(3);
    expect(held).toBeGreaterThan(0);
    expect(held).toBeLessThan(30);
  });

  test('more than attachmentContextsMax are refused; those that are closed make room', async () => {
    const contexts = await Promise.all(Array.from({ length: 20 }, () => open(DEPTH)));
    await expect(client.openContext(DEPTH)).rejects.toMatchObject({ code: 'too-busy' });
    await contexts[3]!.close();
    await open(DEPTH);
  });

  test('nothing is opened on an attachment that is closed or thrown out, and what is being opened is closed', async () => {
    await f.fleet.createBackup('web', { name: 'x' });
    const opening = client.openContext(`${BITMAP}x`);
    const closing = client.close();
    await expect(opening).rejects.toMatchObject({ code: 'shutting-down' });
    await closing;
    await expect(client.openContext(DEPTH)).rejects.toMatchObject({ code: 'shutting-down' });
    await f.fleet.deleteBackup('web@x');

    client = await f.fleet.attach('web');
    const deleting = f.fleet.deleteVm('web', { force: true });
    await turns();
    await expect(client.openContext(DEPTH)).rejects.toMatchObject({ code: 'disk-in-use' });
    await client.close();
    await deleting;
  });

  test('closing the fleet ends clients and what they compare with', async () => {
    await f.fleet.createBackup('web', { name: 'x' });
    const disks = await f.disks();
    const context = await open(`${BITMAP}x`);
    client.revoked.addEventListener('abort', () => void context.close().then(() => client.close()));
    await f.fleet.close();
    for (const disk of disks) expect(f.rooms.volumes.isOpen(disk)).toBe(false);
  });

  test('who takes a backup away throws out the client that compares with it, and waits for it', async () => {
    const clock = new TestClock();
    const attachments = new Attachments(clock, { ...FLEET_LIMITS, detachWaitMs: 5000 });
    const { volumes } = f.rooms;
    const [, disk, other] = await f.disks();
    const attachment = await attachments.add(
      'vm',
      'vm/disk',
      {
        names: () => Promise.resolve([]),
        open: async (name, volume, refer) => {
          const reference = await refer('backup', () => volumes.open(other!));
          return {
            name,
            describe: (...range) => volume.differences(reference.volume, ...range),
            close: () => reference.close(),
          };
        },
      },
      () => volumes.open(disk!),
    );
    const reason = new PandoError('disk-in-use', 'the backup is being deleted');
    const disconnected = async (): Promise<() => boolean> => {
      let done = false;
      void attachments.disconnect('backup', reason).then(() => (done = true));
      await turns();
      return () => done;
    };
    const context = await open('one', attachment);
    expect([attachments.count('vm'), attachments.count('backup')]).toEqual([1, 1]);
    const done = await disconnected();
    expect(attachment.revoked.reason).toBe(reason);
    expect(done()).toBe(false);
    expect(await flagged(context, CHUNK)).toBe('');
    // It does not go: the backup's disk is taken from it, its own is not.
    clock.advance(5000);
    await turns();
    expect(done()).toBe(true);
    await expect(context.describe(0, CHUNK, 1)).rejects.toMatchObject({ code: 'shutting-down' });
    expect([attachments.count('vm'), attachments.count('backup')]).toEqual([1, 0]);
    expect(volumes.isOpen(other!)).toBe(false);
    await context.close();
    await attachment.close();
    expect(attachments.count('vm')).toBe(0);
    expect(volumes.isOpen(disk!)).toBe(false);
  });
});
