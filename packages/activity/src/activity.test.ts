import { MemoryCatalog, type CatalogOperation } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { ServiceEvent } from '@pando/events';
import type { Backup, Vm } from '@pando/fleet';
import { beforeEach, describe, expect, it } from 'vitest';
import { Activity, type ActivityOptions } from './activity.ts';
import { HISTORY_TABLE, TRIPWIRE_TABLE } from './records.ts';
import { DAY_MS, HOUR_MS, MiB, MONDAY_MS, STEP_MS } from './testing/profiles.ts';
import { TestClock } from './testing/world.ts';

class FailingCatalog extends MemoryCatalog {
  failing = false;
  override commit(operations: readonly CatalogOperation[]): Promise<void> {
    return this.failing
      ? Promise.reject(new PandoError('store-full', 'as the test wanted'))
      : super.commit(operations);
  }
}

let clock: TestClock;
let catalog: FailingCatalog;
let events: ServiceEvent[];
let troubles: unknown[];
/** Disk numbers to names of VMs, which are their ids as well. */
let vms: Map<number, string>;
let backups: Backup[];
let lockError: PandoError | undefined;
let locks: [string, number][];
let activity: Activity;

const fleet: ActivityOptions['fleet'] = {
  vmOfDisk: (disk) => vms.get(disk),
  getVm: (id) =>
    [...vms.values()].includes(id)
      ? Promise.resolve({ id, name: id } as Vm)
      : Promise.reject(new PandoError('vm-missing', id)),
  listBackups: ({ vm } = {}) => Promise.resolve({ items: backups.filter(({ vmId }) => vmId === vm) }),
  changeBackup: (id, { lockedUntil }) => {
    if (lockError !== undefined) return Promise.reject(lockError);
    locks.push([id, lockedUntil!]);
    return Promise.resolve({} as Backup);
  },
  trustedTime: () => ({ now: clock.now(), isBehind: false }),
};

function open(options: Partial<ActivityOptions> = {}): Activity {
  return new Activity({
    ...{ catalog, clock, fleet, chunkBytes: 4096, lockMs: DAY_MS },
    onEvent: (event) => events.push(event),
    onTrouble: (error) => troubles.push(error),
    ...options,
  });
}

beforeEach(() => {
  clock = new TestClock();
  catalog = new FailingCatalog();
  [events, troubles, backups, locks, lockError] = [[], [], [], [], undefined];
  vms = new Map([
    [1, 'web'],
    [2, 'db'],
  ]);
  activity = open();
});

/** A destage of so many chunks, all of them new, of which a share is raw. */
function destage(disk: number, bytes: number, rawShare = 0): void {
  const chunks = bytes / 4096;
  activity.destaged(disk, {
    ...{ chunks, zeroChunks: 0, knownChunks: 0, newBytes: bytes },
    ...{ storedBytes: bytes / 2, rawBytes: bytes * rawShare },
  });
}

const newBytes = async (vm: string, grain: '5m' | '1h' | '1d' = '5m'): Promise<number[]> =>
  (await activity.buckets(vm, grain, { limit: 1000 })).items.map((bucket) => bucket.newBytes);

describe('what VMs write', () => {
  it('is there at once, after a flush, and after a restart in order; what waited in a crash is not', async () => {
    destage(1, 8192);
    expect([await newBytes('web'), await newBytes('db')]).toEqual([[8192], []]);
    await activity.flush();
    destage(1, 4096);
    destage(2, 4096);
    clock.advance(STEP_MS);
    destage(1, 4096);
    expect(await newBytes('web')).toEqual([4096, 12_288]);
    await activity.close();
    activity = open();
    expect([await newBytes('web'), await newBytes('db')]).toEqual([[4096, 12_288], [4096]]);
    destage(1, 4096);
    activity = open();
    expect(await newBytes('web')).toEqual([4096, 12_288]);
    expect(await newBytes('web', '1d')).toEqual([16_384]);
  });

  it('comes in pages, newest first', async () => {
    for (let i = 1; i <= 5; i++) {
      destage(1, i * 4096);
      clock.advance(STEP_MS);
    }
    await activity.flush();
    const first = await activity.buckets('web', '5m', { limit: 2 });
    expect(first.isMore).toBe(true);
    const last = await activity.buckets('web', '5m', { limit: 2, before: first.items[1]!.start });
    // Four stretches wait at a time; a fifth is added to the last.
    expect([first, last].map(({ items }) => items.map((bucket) => bucket.newBytes / 4096))).toEqual([
      [9, 3],
      [2, 1],
    ]);
    expect(last.isMore).toBe(false);
  });

  it('waits when it cannot be kept, and is kept later, once', async () => {
    destage(1, 4096);
    catalog.failing = true;
    await activity.flush();
    expect(troubles).toMatchObject([{ code: 'store-full' }]);
    destage(1, 4096);
    clock.advance(STEP_MS);
    destage(1, 4096);
    expect(await newBytes('web')).toEqual([4096, 8192]);
    catalog.failing = false;
    await activity.flush();
    await activity.flush();
    expect(await newBytes('web')).toEqual([4096, 8192]);
  });

  it('begins anew where it is damaged, and keeps nobody else from being counted', async () => {
    destage(1, 4096);
    await activity.flush();
    for (const grain of ['5m', '1d']) {
      const damaged = { version: 1, buckets: Buffer.of(0xff) };
      await catalog.commit([{ type: 'put', table: HISTORY_TABLE, key: `web/${grain}`, value: damaged }]);
      clock.advance(HOUR_MS);
      destage(1, 8192);
      destage(2, 4096);
      await activity.flush();
    }
    expect(troubles).toMatchObject([{ code: 'catalog-corrupt' }, { code: 'catalog-corrupt' }]);
    expect([await newBytes('web'), await newBytes('db')]).toEqual([[8192], [4096, 4096]]);
  });

  it('of disks that nobody knows is counted as not counted', async () => {
    destage(9, 4096);
    await activity.flush();
    expect(activity.stats).toEqual({ trips: 0, uncountedBytes: 4096 });
    expect(await catalog.list(HISTORY_TABLE)).toEqual([]);
  });

  it('is kept every five minutes without being asked, and forgotten with its VM', async () => {
    activity.start();
    destage(1, 4096);
    destage(2, 4096);
    await activity.setSensitivity('web', 'low');
    const keys = async (): Promise<string[]> => (await catalog.list(HISTORY_TABLE)).map(({ key }) => key);
    clock.advance(STEP_MS);
    await until(async () => (await keys()).join() === 'db/5m,web/5m');
    vms.delete(1);
    // In rounds: one that begins behind the last record goes on from the first.
    for (let round = 0; round < 3; round++) {
      await turns();
      clock.advance(STEP_MS);
    }
    await until(async () => (await keys()).join() === 'db/5m');
    expect(await catalog.get(TRIPWIRE_TABLE, 'web')).toBeUndefined();
    await activity.close();
    expect(troubles).toEqual([]);
  });
});

describe('the tripwire', () => {
  const DISK = 2048 * MiB;

  function backup(id: string, createdAt: number, lockedUntil?: number): void {
    const locked = lockedUntil === undefined ? {} : { lockedUntil: new Date(lockedUntil).toISOString() };
    backups.unshift({
      id,
      name: id,
      vmId: 'web',
      createdAt: new Date(createdAt).toISOString(),
      ...locked,
    } as Backup);
  }

  /** Twelve days of little, then much that is raw. */
  async function trip(): Promise<void> {
    for (let day = 0; day < 12; day++) {
      destage(1, MiB, 0.1);
      clock.advance(DAY_MS);
      await activity.flush();
    }
    destage(1, DISK, 1);
    await activity.flush();
  }

  it('locks the last backup from before, and none that was taken in the minute before it', async () => {
    const began = MONDAY_MS + 12 * DAY_MS;
    for (const [id, at] of [
      ['old', began - DAY_MS],
      ['last', began - 61_000],
      ['late', began - 59_000],
      ['bad', began + 1],
    ] as const)
      backup(id, at);
    await trip();
    expect(locks).toEqual([['last', began + DAY_MS]]);
    expect(events).toHaveLength(1);
    expect(events[0]!.data).toMatchObject({
      backup: 'web@last',
      lockedUntil: '2026-01-18T00:00:00.000Z',
      window: 'hour',
    });
    expect((await activity.tripwire('web')).trip).toMatchObject({
      since: began,
      rawBytes: DISK,
      lockedUntil: began + DAY_MS,
    });
  });

  it('leaves a longer lock alone, and says so; locks nothing where it is not to; says when there is no backup', async () => {
    backup('kept', MONDAY_MS, MONDAY_MS + 1000 * DAY_MS);
    await trip();
    expect(locks).toEqual([]);
    expect(events[0]!.text).toContain('web@kept, is locked until 2028-10-01');
    await catalog.commit([{ type: 'delete', table: TRIPWIRE_TABLE, key: 'web' }]);
    activity = open({ lockMs: 0 });
    destage(1, 4096);
    await activity.flush();
    expect(events[1]!.text).toContain('web@kept; the server is not to lock it');
    backups = [];
    await catalog.commit([{ type: 'delete', table: TRIPWIRE_TABLE, key: 'web' }]);
    destage(1, 4096);
    await activity.flush();
    expect(events[2]!.text).toContain('There is no backup from before');
    expect(locks).toEqual([]);
    expect(events).toHaveLength(3);
  });

  it('tries again when the backup cannot be locked, and says so when it is', async () => {
    backup('last', MONDAY_MS);
    lockError = new PandoError('clock-set-back', 'as the test wanted');
    await trip();
    expect(events[0]!.data).toMatchObject({ notLocked: 'clock-set-back' });
    destage(1, 4096);
    await activity.flush();
    expect(events).toHaveLength(1);
    lockError = undefined;
    destage(1, 4096);
    await activity.flush();
    expect([locks.length, events.length, activity.stats.trips]).toEqual([1, 2, 1]);
    expect(events[1]!.data).toMatchObject({ backup: 'web@last', lockedUntil: expect.any(String) as string });
    destage(1, 4096);
    await activity.flush();
    expect([locks.length, events.length]).toEqual([1, 2]);
  });

  it('trips again after a day without, and over restarts not before', async () => {
    await trip();
    for (let hour = 0; hour < 20; hour++) {
      clock.advance(HOUR_MS);
      activity = open();
      destage(1, 4096);
      await activity.flush();
    }
    expect(events).toHaveLength(1);
    clock.advance(3 * DAY_MS);
    destage(1, 5 * DISK, 1);
    await activity.flush();
    expect(events).toHaveLength(2);
  });

  it('is silent where it is off, or less sensitive than that, and goes on counting', async () => {
    await activity.setSensitivity('web', 'off');
    await trip();
    expect([events, (await activity.tripwire('web')).state]).toEqual([[], 'off']);
    await activity.setSensitivity('web', 'low');
    destage(1, 4096);
    await activity.flush();
    expect([events, (await activity.tripwire('web')).state]).toEqual([[], 'quiet']);
    await activity.setSensitivity('web', 'normal');
    destage(1, 4096);
    await activity.flush();
    expect([events.length, (await activity.tripwire('web')).state]).toEqual([1, 'jump']);
    expect(troubles).toEqual([]);
  });
});

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
};

async function until(check: () => Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setImmediate(resolve));
}
