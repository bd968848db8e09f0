import { fillRandom, seededRandom } from '@pando/common/testing';
import { account, collect, reclaimable } from '@pando/gc';
import { beforeEach, describe, expect, test } from 'vitest';
import type { FleetContext } from './context.ts';
import { Sharing } from './sharing.ts';
import { Space } from './space.ts';
import { makeFixture, sourceOf, useRealRooms, type Fixture } from './testing/fixture.ts';
import type { Answers, OwnerChoice } from './answer-types.ts';

useRealRooms();

const CHUNK = 4096;
let f: Fixture;
let answers: Answers;
beforeEach(async () => {
  f = await makeFixture();
  answers = f.fleet.answers;
});

const bytesOf = (chunks: number, seed: number): Uint8Array =>
  fillRandom(seededRandom(seed), new Uint8Array(chunks * CHUNK));

async function write(vm: string, at: number, chunks: number, seed: number): Promise<void> {
  const disk = await f.fleet.attach(vm);
  await disk.write(at * CHUNK, bytesOf(chunks, seed));
  await disk.close();
}

/** golden with 200 chunks; web-1 and web-2 are clones that differ in 20 and 30 of them, db has 50 of its own; backups of web-1. */
async function populate(): Promise<void> {
  await f.fleet.importVm({ name: 'golden', source: sourceOf([bytesOf(200, 1)]) });
  await f.fleet.cloneVm('golden', { name: 'web', count: 2, tags: ['web'] });
  await f.fleet.importVm({ name: 'db', source: sourceOf([bytesOf(50, 5)]), tags: ['db', 'paid'] });
  await write('web-2', 40, 30, 7);
  for (const [name, seed] of [
    ['mon', 2],
    ['tue', 3],
    ['wed', 4],
  ] as const) {
    await write('web-1', 10, 20, seed);
    await f.fleet.createBackup('web-1', { name });
    f.clock.advance(60_000);
  }
  await f.rooms.volumes.settleAll();
}

/** Bytes that deleting them turned out to free: what becomes garbage. */
async function deleting(...owners: string[]): Promise<number> {
  const before = (await f.fleet.space()).garbageBytes;
  for (const owner of owners) {
    if (owner.includes('@')) await f.fleet.deleteBackup(owner);
    else await f.fleet.deleteVm(owner);
  }
  return (await f.fleet.space()).garbageBytes - before;
}

async function allPages<T>(
  ask: (page: { limit: number; cursor?: string }) => Promise<{ items: readonly T[]; nextCursor?: string }>,
  limit: number,
): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const page = await ask({ limit, ...(cursor === undefined ? {} : { cursor }) });
    expect(page.items.length).toBeLessThanOrEqual(limit);
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return items;
}

describe('accounts', () => {
  test('by VM and by tag add up to what is stored, which is every byte on disk', async () => {
    await populate();
    const report = await f.fleet.space();
    for (const by of ['vm', 'tag'] as const) {
      const { totals } = await answers.accounts({ by });
      expect(totals.storedBytes).toBe(report.storedBytes);
      expect(totals.ownedBytes).toBe(report.dataStoredBytes + report.metadataBytes);
      for (const limit of [1, 2, 100]) {
        const lines = await allPages((page) => answers.accounts({ by, ...page }), limit);
        expect(lines.reduce((sum, { totalBytes }) => sum + totalBytes, 0)).toBe(totals.ownedBytes);
        for (const line of lines) expect(line.exclusiveBytes + line.sharedBytes).toBe(line.totalBytes);
        expect(lines.map(({ name }) => name)).toEqual(
          by === 'vm' ? ['golden', 'web-1', 'web-2', 'db'] : [undefined, 'db', 'paid', 'web'],
        );
      }
    }
    const owners = (await f.fleet.ownerSpaces()).items;
    expect(owners.reduce((sum, { fairBytes }) => sum + fairBytes, 0)).toBe(
      report.dataStoredBytes + report.metadataBytes,
    );
  });

  test('of a VM count its backups with it, also when it is gone', async () => {
    await populate();
    const [, web] = (await answers.accounts({ by: 'vm' })).items;
    expect(web).toMatchObject({ name: 'web-1', vms: 1, backups: 3 });
    await f.fleet.deleteVm('web-1');
    const gone = (await answers.accounts({ by: 'vm' })).items.find(({ name }) => name === 'web-1');
    expect(gone).toMatchObject({ isGone: true, vms: 0, backups: 3, exclusiveBytes: web!.exclusiveBytes });
    expect(await deleting('web-1@mon', 'web-1@tue', 'web-1@wed')).toBe(gone!.exclusiveBytes);
  });

  test('by policy tell its backups from VMs and from backups taken by hand', async () => {
    await populate();
    await write('db', 0, 20, 9);
    const about = { id: 'p-1', rule: 'hourly', dueAt: f.clock.now() };
    await f.fleet.createBackup('db', { policy: { ...about, name: 'old name' } });
    await f.fleet.createBackup('db', { policy: { ...about, name: 'nightly' } });
    const { items, totals } = await answers.accounts({ by: 'policy' });
    expect(items).toMatchObject([
      { vms: 4, backups: 0 },
      { vms: 0, backups: 3 },
      { name: 'nightly', id: 'p-1', vms: 0, backups: 2, exclusiveBytes: 0 },
    ]);
    expect(items.reduce((sum, { totalBytes }) => sum + totalBytes, 0)).toBe(totals.ownedBytes);
  });

  test('of a tag follow when tags change, without another walk', async () => {
    await populate();
    const lineOf = async (tag: string) =>
      (await answers.accounts({ by: 'tag' })).items.find(({ name }) => name === tag);
    const [db, paid] = [await lineOf('db'), await lineOf('paid')];
    expect(db!.totalBytes).toBeGreaterThan(0);
    // Two tags of one VM: half each, and nobody's alone.
    expect(db!.exclusiveBytes).toBe(0);
    expect(Math.abs(db!.totalBytes - paid!.totalBytes)).toBeLessThan(200);
    await f.fleet.setTags('db', ['paid']);
    expect(await lineOf('db')).toBeUndefined();
    const all = await lineOf('paid');
    expect(all!.exclusiveBytes).toBe(db!.totalBytes + paid!.totalBytes);
  });
});

describe('holders', () => {
  test('are who shares a VM’s or backup’s space, those with most first, in pages', async () => {
    await populate();
    const { owner, items, reachedBytes, exclusiveBytes, holders } = await answers.holders('web-1@wed');
    expect(owner).toMatchObject({ kind: 'backup', name: 'web-1@wed' });
    // web-1 has not changed since; the others share what was never written.
    expect(items[0]).toMatchObject({ name: 'web-1', sharedBytes: reachedBytes });
    expect(exclusiveBytes).toBe(0);
    expect(holders).toBe(5);
    expect(items.map(({ name }) => name).sort()).toEqual(
      ['golden', 'web-1', 'web-1@mon', 'web-1@tue', 'web-2'].sort(),
    );
    for (const limit of [1, 2, 3])
      expect(await allPages((page) => answers.holders('web-1@wed', page), limit)).toEqual(items);
    expect((await answers.holders('db')).items).toEqual([]);
    await expect(answers.holders('nobody')).rejects.toMatchObject({ code: 'vm-missing' });
    await expect(answers.holders('web-1@never')).rejects.toMatchObject({ code: 'backup-missing' });
  });
});

describe('reclaim', () => {
  test.each<[OwnerChoice, string[]]>([
    [{ owners: ['web-1@mon', 'web-1@tue'] }, ['web-1@mon', 'web-1@tue']],
    [{ owners: ['web-1'], withBackups: true }, ['web-1', 'web-1@mon', 'web-1@tue', 'web-1@wed']],
    [{ tag: 'paid' }, ['db']],
    [{ prefix: 'web-1', kind: 'backup' }, ['web-1@mon', 'web-1@tue', 'web-1@wed']],
    [{ owners: ['golden'], tag: 'web', kind: 'vm' }, ['golden', 'web-1', 'web-2']],
  ])('of %j is what deleting them frees', async (choice, owners) => {
    await populate();
    const report = await answers.reclaim(choice);
    expect(report.vms + report.backups).toBe(owners.length);
    expect(report.aloneBytes).toBeLessThanOrEqual(report.freedBytes);
    for (const limit of [1, 2])
      expect(await allPages((page) => answers.reclaim({ ...choice, ...page }), limit)).toEqual(report.items);
    expect(await deleting(...owners)).toBe(report.freedBytes);
  });

  test('names what stays because of whom, and what would go with whom', async () => {
    await populate();
    const report = await answers.reclaim({ owners: ['web-1'] });
    expect(report.freedBytes).toBe(0);
    const wed = report.items.find(({ name }) => name === 'web-1@wed');
    expect(wed!.aloneBytes).toBeGreaterThan(20 * CHUNK * 0.9);
    expect(wed!.sharedBytes).toBe(report.stayingBytes);
    expect(await deleting('web-1', 'web-1@wed')).toBe(wed!.aloneBytes);
  });

  test('is exact, too, where sets of owners are not told apart', async () => {
    await populate();
    const ctx = { catalog: f.catalog, time: f.clock, ...f.rooms } as unknown as FleetContext;
    const space = new Space(ctx, (store, owners, work) =>
      account(store, owners, { ...work, setBytesMax: 0 }),
    );
    const coarse = new Sharing(ctx, space, reclaimable);
    const choice = { prefix: 'web-1' };
    const exact = await answers.reclaim(choice);
    const found = await coarse.reclaim(choice);
    expect(found.untoldBytes).toBeGreaterThan(0);
    expect(found.freedBytes).toBe(exact.freedBytes);
    const { totals, items } = await coarse.accounts({ by: 'vm' });
    const told = items.reduce((sum, { totalBytes }) => sum + totalBytes, 0);
    expect(told + totals.untoldBytes).toBe(totals.ownedBytes);
  });

  test('refuses to guess what is meant', async () => {
    await expect(answers.reclaim({})).rejects.toMatchObject({ code: 'request-invalid' });
    await expect(answers.reclaim({ owners: ['nobody'] })).rejects.toMatchObject({ code: 'vm-missing' });
    const owners = Array.from({ length: 1001 }, () => 'web-1');
    await expect(answers.reclaim({ owners })).rejects.toMatchObject({ code: 'request-invalid' });
  });
});

describe('a plan to free so much', () => {
  test('takes the oldest backups first, frees what it says, and none in vain', async () => {
    await populate();
    const plan = await answers.planReclaim({ bytes: 20 * CHUNK, prefer: 'oldest' });
    expect(plan.items.map(({ name }) => name)).toEqual(['web-1@mon']);
    expect(plan).toMatchObject({ isEnough: true, vms: 0, backups: 1, wantedBytes: 20 * CHUNK });
    const more = await answers.planReclaim({ bytes: 30 * CHUNK, prefer: 'oldest' });
    expect(more.items.map(({ name }) => name)).toEqual(['web-1@mon', 'web-1@tue']);
    for (const limit of [1, 5]) {
      const items = await allPages(
        (page) => answers.planReclaim({ bytes: 30 * CHUNK, prefer: 'oldest', ...page }),
        limit,
      );
      expect(items).toEqual(more.items);
    }
    expect(await deleting('web-1@mon', 'web-1@tue')).toBe(more.freedBytes);
  });

  test('takes VMs only when it may, none that are attached, and few when it is asked for few', async () => {
    await populate();
    const wish = { bytes: 45 * CHUNK, prefer: 'smallest', includeVms: true } as const;
    const few = await answers.planReclaim(wish);
    expect([few.items.map(({ name }) => name), few.isFewest]).toEqual([['db'], true]);
    expect((await answers.planReclaim({ ...wish, prefer: 'oldest' })).isFewest).toBe(false);
    const client = await f.fleet.attach('db');
    const other = await answers.planReclaim(wish);
    expect(other.items.map(({ name }) => name)).not.toContain('db');
    expect(other.isEnough).toBe(true);
    await client.close();
    const all = await answers.planReclaim({ ...wish, bytes: 1e12, includeVms: false });
    expect(all).toMatchObject({ isEnough: false, vms: 0 });
    expect(all.items.map(({ name }) => name)).toEqual(['web-1@mon', 'web-1@tue']);
    expect((await answers.planReclaim({ ...wish, tag: 'paid' })).items.map(({ name }) => name)).toEqual([
      'db',
    ]);
  });

  test('leaves locked backups where they are, and says so', async () => {
    await populate();
    await f.fleet.changeBackup('web-1@mon', { lockedUntil: f.clock.now() + 60_000 });
    const wish = { bytes: 20 * CHUNK, prefer: 'oldest' } as const;
    const plan = await answers.planReclaim(wish);
    expect(plan.items.map(({ name }) => name)).toEqual(['web-1@tue']);
    expect(plan).toMatchObject({ isEnough: true, locked: 1 });
    expect(await answers.reclaim({ prefix: 'web-1@' })).toMatchObject({ backups: 3, locked: 1 });
    f.clock.advance(60_001);
    expect((await answers.planReclaim(wish)).items.map(({ name }) => name)).toEqual(['web-1@mon']);
  });

  test('of what was collected since is a fresh one', async () => {
    await populate();
    const wish = { bytes: 1e12, prefer: 'oldest' } as const;
    const before = await answers.planReclaim(wish);
    await f.fleet.deleteBackup('web-1@mon');
    const snapshot = f.catalog.snapshot();
    await collect(f.rooms.store, async function* () {
      for await (const { value } of snapshot.entries('disk')) {
        const record = value as { rootId: Uint8Array; rootHeight: number; rootSize: number };
        yield { id: record.rootId, height: record.rootHeight, size: record.rootSize };
      }
    });
    await snapshot.close();
    const after = await answers.planReclaim(wish);
    expect(after.items).toHaveLength(before.items.length - 1);
    expect(after.freedBytes).toBeLessThan(before.freedBytes);
  });
});
