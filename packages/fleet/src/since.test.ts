/** Imports as backups, verification, and roots: over real rooms in memory. */
import { PandoError } from '@pando/common';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { beforeEach, describe, expect, test } from 'vitest';
import { makeFixture, MiB, oneDisk, sourceOf, useRealRooms, type Fixture } from './testing/fixture.ts';
import type { ImportProgress, ImportSource } from './types.ts';

useRealRooms();

let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
});

const seed = runSeed();
const random = seededRandom(seed);
const bytesOf = (length: number): Uint8Array => fillRandom(random, new Uint8Array(length));
const source = (bytes: Uint8Array): ImportSource => sourceOf([bytes], { sizeBytes: bytes.byteLength });

/** A source that holds something else each time it is read. */
function changing(...readings: readonly Uint8Array[]): ImportSource {
  let reading = 0;
  return {
    async *parts() {
      yield await Promise.resolve(readings[Math.min(reading++, readings.length - 1)]!);
    },
  };
}

async function contents(exportName: string): Promise<Uint8Array> {
  const disk = await f.fleet.attach(exportName);
  const bytes = new Uint8Array(disk.size);
  await disk.read(0, disk.size, bytes, 0);
  await disk.close();
  return bytes;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** 1 % of the chunks, one here and one there, get other bytes. */
function changeSome(bytes: Uint8Array): { changed: Uint8Array; chunks: number } {
  const changed = bytes.slice();
  let chunks = 0;
  for (let at = 7 * 4096; at < changed.byteLength; at += 100 * 4096) {
    fillRandom(random, changed.subarray(at, at + 4096));
    chunks++;
  }
  return { changed, chunks };
}

describe('an import since a backup', () => {
  test('stores what changed and is the next backup of the VM', async () => {
    const bytes = bytesOf(8 * MiB);
    const { vm } = await f.fleet.importVm({ name: 'web', source: source(bytes) });
    const monday = await f.fleet.createBackup('web', { name: 'monday' });
    f.clock.advance(1000);
    const { changed, chunks } = changeSome(bytes);
    const result = await f.fleet.importBackup({
      since: 'web@monday',
      name: 'tuesday',
      source: source(changed),
    });
    expect(result).toMatchObject({
      changedBytes: chunks * 4096,
      sizeBytes: 8 * MiB,
      backup: {
        name: 'tuesday',
        vmId: vm.id,
        vmName: 'web',
        lineage: vm.lineage,
        disks: [{ name: 'disk0', sizeBytes: 8 * MiB }],
      },
    });
    expect(Date.parse(result.backup.createdAt)).toBeGreaterThan(Date.parse(monday.createdAt));
    // Changed chunks and the nodes above them, nothing else.
    expect(result.newBytes).toBeLessThan(chunks * 4096 + (16 + 3) * 4096);
    expect((await f.fleet.listBackups({ vm: 'web' })).items.map(({ name }) => name)).toEqual([
      'tuesday',
      'monday',
    ]);
    expect(same(await contents('web@tuesday'), changed)).toBe(true);
    expect(same(await contents('web@monday'), bytes)).toBe(true);
    await f.fleet.restoreBackup('web@tuesday');
    expect(same(await contents('web'), changed)).toBe(true);
    const { items } = await f.fleet.ownerSpaces({ kind: 'backup' });
    expect(items).toHaveLength(2);
    // Three disks: of the VM and of two backups; the one that the import needed for a moment is gone.
    expect(await f.disks()).toHaveLength(3);
    expect(await f.catalog.list('disk-removal')).toEqual([]);
    const disk = await f.fleet.attach('web@tuesday');
    expect(disk.readOnly).toBe(true);
    await disk.close();
  });

  test('may have another size, and be made again when nothing has changed', async () => {
    const bytes = bytesOf(MiB);
    await f.fleet.importVm({ name: 'web', source: source(bytes) });
    await f.fleet.createBackup('web', { name: 'a' });
    const grown = new Uint8Array(MiB + 512);
    grown.set(bytes);
    grown.fill(1, MiB);
    const bigger = await f.fleet.importBackup({ since: 'web@a', name: 'b', source: source(grown) });
    expect(bigger).toMatchObject({ changedBytes: 512, backup: { disks: [{ sizeBytes: MiB + 512 }] } });
    const smaller = await f.fleet.importBackup({
      since: 'web@b',
      name: 'c',
      source: source(bytes.subarray(0, 4096)),
    });
    expect(smaller.changedBytes).toBe(MiB + 512 - 4096);
    const equal = await f.fleet.importBackup({ since: 'web@a', source: source(bytes) });
    expect(equal).toMatchObject({ changedBytes: 0, newBytes: 0, storedBytes: 0 });
    expect(equal.root).toBe((await f.fleet.diskRoot('web@a', 'disk0')).root);
    await f.fleet.restoreBackup('web@b');
    expect(same(await contents('web'), grown)).toBe(true);
  });

  test('replaces one disk of several; the others are as they were', async () => {
    await f.fleet.createVm({
      name: 'db',
      disks: [
        { name: 'root', sizeBytes: MiB },
        { name: 'data', sizeBytes: 2 * MiB },
      ],
    });
    const disk = await f.fleet.attach('db/root');
    await disk.write(0, bytesOf(5000));
    await disk.close();
    await f.fleet.createBackup('db', { name: 'a' });
    const root = await contents('db@a/root');
    const bytes = bytesOf(2 * MiB);
    await expect(f.fleet.importBackup({ since: 'db@a', source: source(bytes) })).rejects.toMatchObject({
      code: 'disk-missing',
    });
    const { backup } = await f.fleet.importBackup({ since: 'db@a', diskName: 'data', source: source(bytes) });
    expect(backup.disks.map(({ name }) => name)).toEqual(['root', 'data']);
    expect(same(await contents(`${backup.id}/root`), root)).toBe(true);
    expect(same(await contents(`${backup.id}/data`), bytes)).toBe(true);
    await f.fleet.deleteBackup('db@a');
    expect(same(await contents(`${backup.id}/root`), root)).toBe(true);
  });

  test('goes on when the VM is gone, and its backup is found by the name of the VM', async () => {
    const bytes = bytesOf(MiB);
    await f.fleet.importVm({ name: 'web', source: source(bytes) });
    await f.fleet.createBackup('web', { name: 'a' });
    await f.fleet.deleteVm('web');
    const { changed } = changeSome(bytes);
    await f.fleet.importBackup({ since: 'web@a', name: 'b', source: source(changed) });
    await f.fleet.deleteBackup('web@a');
    expect((await f.fleet.listBackups({ vm: 'web' })).items.map(({ name }) => name)).toEqual(['b']);
    await f.fleet.restoreBackup('web@b', { as: 'again' });
    expect(same(await contents('again'), changed)).toBe(true);
  });

  test('keeps its backup from being deleted until it ends', async () => {
    await f.fleet.importVm({ name: 'web', source: source(bytesOf(MiB)) });
    await f.fleet.createBackup('web', { name: 'a' });
    let refusal: unknown;
    await f.fleet.importBackup({
      since: 'web@a',
      name: 'b',
      source: {
        async *parts() {
          yield new Uint8Array(4096);
          refusal = await f.fleet.deleteBackup('web@a').catch((error: unknown) => error);
        },
      },
    });
    expect(refusal).toMatchObject({ code: 'disk-in-use' });
    await f.fleet.deleteBackup('web@a');
  });

  test('that fails leaves nothing, and its name is free', async () => {
    const bytes = bytesOf(MiB);
    await f.fleet.importVm({ name: 'web', source: source(bytes) });
    await f.fleet.createBackup('web', { name: 'a' });
    const disks = await f.disks();
    const stop = new AbortController();
    const cases: [Promise<unknown>, string][] = [
      [f.fleet.importBackup({ since: 'web@none', source: source(bytes) }), 'backup-missing'],
      [f.fleet.importBackup({ since: 'web@a', name: 'a', source: source(bytes) }), 'name-taken'],
      [
        f.fleet.importBackup({ since: 'web@a', name: 'b', diskName: 'x', source: source(bytes) }),
        'disk-missing',
      ],
      [
        f.fleet.importBackup({ since: 'web@a', name: 'c', source: source(bytes.subarray(1)) }),
        'size-invalid',
      ],
      [
        f.fleet.importBackup({
          since: 'web@a',
          name: 'd',
          source: sourceOf([bytes], { fail: new Error('gone') }),
        }),
        'import-interrupted',
      ],
      [
        f.fleet.importBackup({
          since: 'web@a',
          name: 'e',
          source: changing(bytes, bytesOf(MiB)),
          verify: true,
        }),
        'verify-failed',
      ],
      [
        f.fleet.importBackup(
          {
            since: 'web@a',
            name: 'f',
            source: {
              async *parts() {
                yield await Promise.resolve(bytes);
                stop.abort();
              },
            },
          },
          { signal: stop.signal },
        ),
        'cancelled',
      ],
    ];
    for (const [running, code] of cases) await expect(running).rejects.toMatchObject({ code });
    // The commit of the backup itself fails: also the disk for a moment goes.
    let commits = 0;
    f.catalog.beforeCommit = () =>
      ++commits === 2 ? Promise.reject(new PandoError('store-full', 'no room')) : Promise.resolve();
    await expect(
      f.fleet.importBackup({ since: 'web@a', name: 'g', source: source(bytes) }),
    ).rejects.toMatchObject({
      code: 'store-full',
    });
    f.catalog.beforeCommit = undefined;
    expect(await f.disks()).toEqual(disks);
    expect(await f.catalog.list('disk-removal')).toEqual([]);
    expect((await f.fleet.listBackups()).items).toHaveLength(1);
    for (const name of 'bcdefg') await f.fleet.importBackup({ since: 'web@a', name, source: source(bytes) });
  });

  test('that was cut off between its two steps leaves nothing once the fleet is open again', async () => {
    const bytes = bytesOf(MiB);
    await f.fleet.importVm({ name: 'web', source: source(bytes) });
    await f.fleet.createBackup('web', { name: 'a' });
    const disks = await f.disks();
    let commits = 0;
    // From the second commit on nothing reaches the catalog any more, as when the process dies.
    f.catalog.beforeCommit = () =>
      ++commits >= 2 ? Promise.reject(new PandoError('store-failed', 'dead')) : Promise.resolve();
    await expect(f.fleet.importBackup({ since: 'web@a', source: source(bytes) })).rejects.toThrow();
    f.catalog.beforeCommit = undefined;
    expect(await f.disks()).toHaveLength(disks.length + 1);
    await f.restart();
    expect(await f.disks()).toEqual(disks);
  });
});

describe('verification', () => {
  test('of an import passes a source that reads the same twice, with its progress', async () => {
    const bytes = bytesOf(3 * MiB + 512);
    const told: ImportProgress[] = [];
    const onProgress = (progress: ImportProgress): void => void told.push(progress);
    const request = { name: 'web', source: source(bytes), verify: true };
    const result = await f.fleet.importVm(request, { onProgress });
    const allBytes = bytes.byteLength;
    expect(told.at(-1)).toEqual({ phase: 'verifying', doneBytes: allBytes, allBytes });
    await f.fleet.createBackup('web', { name: 'a' });
    expect(await f.fleet.diskRoot('web@a', 'disk0')).toEqual({
      root: result.root,
      sizeBytes: result.sizeBytes,
      chunkBytes: result.chunkBytes,
      keyed: false,
    });
    expect(result).toMatchObject({
      root: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
      sizeBytes: 3 * MiB + 512,
    });
  });

  test('of an import refuses a source that changed: by a bit, in its length', async () => {
    const bytes = bytesOf(MiB);
    const flipped = bytes.slice();
    flipped[MiB - 1]! ^= 1;
    const longer = new Uint8Array(MiB + 512);
    longer.set(bytes);
    for (const other of [flipped, longer]) {
      await expect(
        f.fleet.importVm({ name: 'web', source: changing(bytes, other), verify: true }),
      ).rejects.toMatchObject({ code: 'verify-failed' });
    }
    expect((await f.fleet.listVms()).items).toEqual([]);
    expect(await f.disks()).toEqual([]);
  });

  test('of a restore reads the backup, tells its progress, and lets it pass', async () => {
    await f.fleet.createVm(oneDisk('web', 8 * MiB));
    const disk = await f.fleet.attach('web');
    await disk.write(5 * MiB, bytesOf(MiB + 1000));
    await disk.close();
    await f.fleet.createBackup('web', { name: 'a' });
    const told: ImportProgress[] = [];
    const onProgress = (progress: ImportProgress): void => void told.push(progress);
    await f.fleet.restoreBackup('web@a', { as: 'copy', verify: true }, { onProgress });
    expect(told.at(-1)).toEqual({ phase: 'verifying', doneBytes: 8 * MiB, allBytes: 8 * MiB });
    expect(same(await contents('copy'), await contents('web@a'))).toBe(true);
    await f.fleet.deleteBackup('web@a');
  });

  test('of a restore ends when it is cancelled, and nothing is restored', async () => {
    await f.fleet.importVm({ name: 'web', source: source(bytesOf(4 * MiB)) });
    await f.fleet.createBackup('web', { name: 'a' });
    const stop = new AbortController();
    stop.abort();
    await expect(
      f.fleet.restoreBackup('web@a', { as: 'copy', verify: true }, { signal: stop.signal }),
    ).rejects.toMatchObject({ code: 'cancelled' });
    await expect(f.fleet.getVm('copy')).rejects.toMatchObject({ code: 'vm-missing' });
  });
});
