import { isPandoError } from '@pando/common';
import type { ServiceEvent } from '@pando/events';
import { beforeEach, describe, expect, test } from 'vitest';
import { openFleet } from './fleet.ts';
import { makeFixture, oneDisk, START_MS, type Fixture } from './testing/fixture.ts';

const HOUR_MS = 60 * 60_000;
const DAY_MS = 24 * HOUR_MS;

let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
  await f.fleet.createVm(oneDisk('web'));
});

const code = (error: unknown): string => (isPandoError(error) ? error.code : String(error));
const codeOf = async (action: Promise<unknown>): Promise<string> => {
  try {
    await action;
    return 'nothing';
  } catch (error) {
    return code(error);
  }
};

describe('note, labels and name', () => {
  test('are told when a backup is taken and changed later; what is left out stays, null takes away', async () => {
    const taken = await f.fleet.createBackup('web', {
      name: 'a',
      note: 'before',
      labels: { z: '1', a: 'ü' },
    });
    expect(taken).toMatchObject({ note: 'before', labels: { a: 'ü', z: '1' } });
    const renamed = await f.fleet.changeBackup('web@a', { name: 'b' });
    expect(renamed).toEqual({ ...taken, name: 'b' });
    expect(await f.fleet.getBackup('web@b')).toEqual(renamed);
    expect(await codeOf(f.fleet.getBackup('web@a'))).toBe('backup-missing');
    const { note: _, ...bare } = renamed;
    expect(await f.fleet.changeBackup(taken.id, { note: null, labels: {} })).toEqual({ ...bare, labels: {} });
    await f.fleet.createBackup('web', { name: 'a' });
    expect(await codeOf(f.fleet.changeBackup('web@b', { name: 'a' }))).toBe('name-taken');
  });

  test('a renamed backup is found by its new name when its VM is gone, and leaves nothing when it is deleted', async () => {
    await f.fleet.createBackup('web', { name: 'a', labels: { x: 'a/b' }, expiresAt: START_MS + DAY_MS });
    await f.fleet.changeBackup('web@a', { name: 'b' });
    await f.fleet.deleteVm('web');
    const found = await f.fleet.getBackup('web@b');
    await f.fleet.deleteBackup(found.id);
    const left = await Promise.all(
      [
        'backup',
        'vm-backup',
        'backup-name',
        'backup-label',
        'backup-mark',
        'backup-expiry',
        'backup-compare',
      ].map((table) => f.catalog.list(table)),
    );
    expect(left.flat()).toEqual([]);
  });

  test.each([
    ['a note that is too long', { note: 'x'.repeat(4097) }],
    ['the name of a label', { labels: { 'a b': '1' } }],
    ['the value of a label', { labels: { a: 'x'.repeat(256) } }],
    ['labels', { labels: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`l${i}`, ''])) }],
    ['a lock that is past', { lockedUntil: START_MS }],
    ['a lock for ever', { lockedUntil: START_MS + 3661 * DAY_MS }],
    ['a date that is past', { expiresAt: START_MS - 1 }],
    ['a date that is none', { expiresAt: Number.NaN }],
  ])('refuses what is none or too much: %s', async (_what, wrong) => {
    expect(await codeOf(f.fleet.createBackup('web', wrong))).toBe('request-invalid');
    expect((await f.fleet.listBackups()).items).toEqual([]);
  });

  test('a list goes by label, in pages; values that look like keys are none', async () => {
    for (const value of ['a', 'a/b', 'a', 'b', 'a'])
      await f.fleet.createBackup('web', { labels: { k: value } });
    const label = { name: 'k', value: 'a' };
    const first = await f.fleet.listBackups({ label, limit: 2 });
    const rest = await f.fleet.listBackups({ label, limit: 2, cursor: first.nextCursor! });
    expect([first, rest].map(({ items }) => items.length)).toEqual([2, 1]);
    expect([...first.items, ...rest.items].every(({ labels }) => labels['k'] === 'a')).toBe(true);
    expect(await codeOf(f.fleet.listBackups({ label, vm: 'web' }))).toBe('request-invalid');
  });
});

describe('a lock', () => {
  test('keeps a backup from everybody until its date, and can only be extended', async () => {
    const until = START_MS + DAY_MS;
    await f.fleet.createBackup('web', { name: 'a', lockedUntil: until });
    expect(await codeOf(f.fleet.deleteBackup('web@a'))).toBe('backup-locked');
    for (const lockedUntil of [until - 1, null]) {
      expect(await codeOf(f.fleet.changeBackup('web@a', { lockedUntil }))).toBe('backup-locked');
    }
    expect(await codeOf(f.fleet.changeBackup('web@a', { expiresAt: until - 1 }))).toBe('backup-locked');
    await f.fleet.changeBackup('web@a', { lockedUntil: until + DAY_MS });
    await f.fleet.deleteVm('web');
    f.clock.advance(2 * DAY_MS - 1);
    expect(await codeOf(f.fleet.deleteBackup('web@a'))).toBe('backup-locked');
    f.clock.advance(1);
    await f.fleet.deleteBackup('web@a');
  });

  test('does not open for a clock that is set forward while the server runs', async () => {
    await f.fleet.createBackup('web', { name: 'a', lockedUntil: START_MS + DAY_MS });
    f.clock.jump(400 * DAY_MS);
    expect(await codeOf(f.fleet.deleteBackup('web@a'))).toBe('backup-locked');
    f.clock.advance(DAY_MS - 2 * 60_000);
    f.clock.jump(-400 * DAY_MS);
    expect(await codeOf(f.fleet.deleteBackup('web@a'))).toBe('backup-locked');
    f.clock.advance(2 * 60_000);
    await f.fleet.deleteBackup('web@a');
  });

  test('a clock set back, also over a restart, gets no locks and no dates, and an event tells of it once', async () => {
    await f.fleet.createBackup('web', { name: 'a', lockedUntil: START_MS + HOUR_MS });
    f.clock.jump(-DAY_MS);
    const events: ServiceEvent[] = [];
    const again = await openFleet({
      catalog: f.catalog,
      ...f.rooms,
      clock: f.clock,
      random: { fill: (bytes) => bytes.fill(7) },
      onEvent: (event) => events.push(event),
    });
    for (const fleet of [f.fleet, again]) {
      const lockedUntil = START_MS + 2 * HOUR_MS;
      expect(await codeOf(fleet.changeBackup('web@a', { lockedUntil }))).toBe('clock-set-back');
      expect(await codeOf(fleet.createBackup('web', { expiresAt: START_MS + DAY_MS }))).toBe(
        'clock-set-back',
      );
      expect(fleet.trustedTime().isBehind).toBe(true);
    }
    expect(events.map(({ kind }) => kind)).toEqual(['clock-set-back']);
    expect((await again.createBackup('web', { note: 'nothing about time' })).note).toBe('nothing about time');
    // Put right again: locks work, and end when they were to.
    f.clock.jump(DAY_MS);
    await again.changeBackup('web@a', { lockedUntil: START_MS + 2 * HOUR_MS });
    f.clock.advance(2 * HOUR_MS);
    await again.deleteBackup('web@a');
    await again.close();
  });
});

describe('a date of its own', () => {
  const names = async (): Promise<string[]> => (await f.fleet.listBackups()).items.map(({ name }) => name);

  test('lets a backup go when it has come, not before its lock, and not while somebody reads it', async () => {
    await f.fleet.createBackup('web', { name: 'a', expiresAt: START_MS + HOUR_MS });
    await f.fleet.createBackup('web', { name: 'b', expiresAt: START_MS + HOUR_MS });
    await f.fleet.changeBackup('web@b', { expiresAt: START_MS + DAY_MS, lockedUntil: START_MS + DAY_MS });
    await f.fleet.createBackup('web', { name: 'c', expiresAt: START_MS + HOUR_MS });
    await f.fleet.createBackup('web', { name: 'd', expiresAt: 'never' });
    await f.fleet.createBackup('web', { name: 'e' });
    const reader = await f.fleet.attach('web@c/disk0');
    f.clock.advance(HOUR_MS - 1);
    expect((await f.fleet.tend()).expired).toBe(0);
    f.clock.advance(1);
    expect((await f.fleet.tend()).expired).toBe(1);
    expect(await names()).toEqual(['e', 'd', 'c', 'b']);
    await reader.close();
    f.clock.advance(DAY_MS);
    expect((await f.fleet.tend()).expired).toBe(2);
    expect(await names()).toEqual(['e', 'd']);
  });

  test('is told of when it has let a backup go, and of nothing else', async () => {
    const gone: string[] = [];
    await f.fleet.createBackup('web', { name: 'a', expiresAt: START_MS + HOUR_MS });
    await f.fleet.createBackup('web', { name: 'b' });
    await f.fleet.close();
    const again = await openFleet({
      ...{ ...f.rooms, catalog: f.catalog, clock: f.clock, random: { fill: (bytes) => bytes.fill(7) } },
      onExpired: ({ vmName, name }) => gone.push(`${vmName}@${name}`),
    });
    await again.deleteBackup('web@b');
    await again.tend();
    expect(gone).toEqual([]);
    f.clock.advance(HOUR_MS);
    await again.tend();
    expect(gone).toEqual(['web@a']);
    await again.close();
  });

  test('a bounded number goes at once, and it costs what is due', async () => {
    for (let i = 0; i < 70; i++) await f.fleet.createBackup('web', { expiresAt: START_MS + HOUR_MS });
    while ((await f.fleet.tend()).isMore);
    f.clock.advance(HOUR_MS);
    expect(await f.fleet.tend()).toEqual({ expired: 64, isMore: true });
    expect(await f.fleet.tend()).toEqual({ expired: 6, isMore: false });
    const reads = f.catalog.reads;
    await f.fleet.tend();
    expect(f.catalog.reads - reads).toBe(2);
  });

  test('a policy lets go of what it took, and not of what was taken out of its hands', async () => {
    const policy = { id: 'p1', name: 'nightly', rule: 'daily', dueAt: START_MS };
    const make = async (about: object): Promise<string> =>
      (await f.fleet.createBackup('web', { policy, ...about })).id;
    const [free, locked, dated, never] = [
      await make({}),
      await make({ lockedUntil: START_MS + DAY_MS }),
      await make({ expiresAt: START_MS + DAY_MS }),
      await make({ expiresAt: 'never' }),
    ];
    const byHand = (await f.fleet.createBackup('web')).id;
    const listed = await f.fleet.listBackups({ policy: 'p1', vm: 'web', rule: 'daily' });
    expect(listed.items.map(({ id }) => id)).toEqual([never, dated, locked, free]);
    expect(listed.items[0]!.policy).toEqual({ ...policy, dueAt: new Date(START_MS).toISOString() });
    const gone = [];
    for (const id of [free, locked, dated, never, byHand, free]) gone.push(await f.fleet.expireBackup(id));
    expect(gone).toEqual([true, false, false, false, false, false]);
  });
});

describe('unchanged', () => {
  test('is found out behind the backup, compared with the one before it, and is about content', async () => {
    const take = async (name: string): Promise<void> => {
      await f.fleet.createBackup('web', { name });
    };
    await take('first');
    expect((await f.fleet.getBackup('web@first')).unchanged).toBeUndefined();
    await take('second');
    await f.fleet.tend();
    await f.fleet.resizeDisk('web', 'disk0', 2 ** 21);
    await take('third');
    while ((await f.fleet.tend()).isMore);
    const unchanged = async (name: string): Promise<boolean | undefined> =>
      (await f.fleet.getBackup(`web@${name}`)).unchanged;
    expect([await unchanged('first'), await unchanged('second'), await unchanged('third')]).toEqual([
      false,
      true,
      false,
    ]);
    expect(await f.catalog.list('backup-compare')).toEqual([]);
  });
});

describe('restore of one disk', () => {
  test('in place changes that disk and no other; as a new VM it has that one only', async () => {
    const disks = [
      { name: 'root', sizeBytes: 4096 },
      { name: 'data', sizeBytes: 8192 },
    ];
    await f.fleet.createVm({ name: 'db', disks });
    const put = async (disk: string, byte: number): Promise<void> => {
      const open = await f.fleet.attach(`db/${disk}`);
      await open.write(0, new Uint8Array(512).fill(byte));
      await open.close();
    };
    const first = async (name: string): Promise<number> => {
      const open = await f.fleet.attach(name);
      const target = new Uint8Array(1);
      await open.read(0, 1, target, 0);
      await open.close();
      return target[0]!;
    };
    await put('root', 1);
    await put('data', 1);
    await f.fleet.createBackup('db', { name: 'a' });
    await put('root', 2);
    await put('data', 2);
    const restored = await f.fleet.restoreBackup('db@a', { disk: 'data' });
    expect(restored.disks).toEqual(disks);
    expect([await first('db/root'), await first('db/data')]).toEqual([2, 1]);
    const copied = await f.fleet.restoreBackup('db@a', { disk: 'root', as: 'copy' });
    expect(copied.disks).toEqual([disks[0]]);
    expect(await first('copy/root')).toBe(1);
    expect(await codeOf(f.fleet.restoreBackup('db@a', { disk: 'tmp' }))).toBe('disk-missing');
  });
});
