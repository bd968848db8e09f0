import { PandoError } from '@pando/common';
import { oneDisk } from '@pando/fleet/testing';
import { beforeEach, describe, expect, test } from 'vitest';
import type { Retention } from './retention.ts';
import { codeOf, DAY_MS, HOUR_MS, makeWorld, MINUTE_MS, START, type World } from './testing/world.ts';
import type { PolicyRequest } from './types.ts';

let w: World;
beforeEach(async () => {
  w = await makeWorld();
});

const daily = (retention: Retention = {}): PolicyRequest => ({
  name: 'nightly',
  rules: [{ name: 'daily', schedule: { timeZone: 'UTC', at: ['02:00'] }, retention }],
});
const hourly = (retention: Retention = {}): PolicyRequest => ({
  name: 'hourly',
  rules: [{ schedule: { timeZone: 'UTC', everyMinutes: 60 }, retention }],
});
const kinds = (): string[] => w.events.map(({ kind }) => kind);

describe('a run', () => {
  test('takes one backup of each VM, by name or by tags, at its time', async () => {
    await w.vm('web', 'shop', 'prod');
    await w.vm('db', 'prod');
    await w.vm('own');
    await w.vm('other');
    await w.policies.create({ ...daily(), tags: ['shop', 'prod'] });
    const { rules } = await w.policies.assign('nightly', { vms: ['own', 'db'] });
    expect(rules[0]).toMatchObject({ name: 'daily', nextRunAt: '2026-11-21T02:00:00.000Z' });
    await w.pass(16 * HOUR_MS - 1);
    expect(await w.taken('web')).toEqual([]);
    await w.pass(1);
    for (const vm of ['web', 'db', 'own']) expect(await w.taken(vm)).toEqual(['2026-11-21T02:00']);
    expect(await w.taken('other')).toEqual([]);
    const [backup] = (await w.fleet.listBackups({ vm: 'web' })).items;
    expect(backup!.policy).toMatchObject({ name: 'nightly', rule: 'daily' });
    expect((await w.policies.get('nightly')).rules[0]).toMatchObject({
      lastRun: { dueAt: '2026-11-21T02:00:00.000Z', backups: 3, failed: 0, passes: 1 },
      nextRunAt: '2026-11-22T02:00:00.000Z',
    });
    expect(w.events).toEqual([]);
  });

  test('that was missed is taken once, however many were, and an event says so', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    w.clock.advance(5 * DAY_MS);
    await w.reopen();
    await w.work();
    expect(await w.taken('web')).toEqual(['2026-11-25T02:00']);
    expect(kinds()).toEqual(['policy-run-late']);
    w.clock.jump(3 * DAY_MS);
    await w.work();
    expect(await w.taken('web')).toEqual(['2026-11-25T02:00', '2026-11-28T02:00']);
    await w.pass(DAY_MS, HOUR_MS);
    expect(await w.taken('web')).toHaveLength(3);
  });

  test('is not done again for a clock that was set back, and a year ahead by mistake stops nothing', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    await w.pass(DAY_MS, HOUR_MS);
    w.clock.jump(-DAY_MS);
    await w.pass(DAY_MS, HOUR_MS);
    expect(await w.taken('web')).toEqual(['2026-11-21T02:00']);
    w.clock.jump(365 * DAY_MS);
    await w.work();
    w.clock.jump(-365 * DAY_MS);
    await w.pass(2 * DAY_MS, HOUR_MS);
    expect(await w.taken('web')).toEqual([
      '2026-11-21T02:00',
      '2027-11-21T02:00',
      '2026-11-22T02:00',
      '2026-11-23T02:00',
    ]);
    await w.pass(366 * DAY_MS, 30 * DAY_MS);
    expect((await w.taken('web')).filter((due) => due === '2027-11-21T02:00')).toHaveLength(1);
  });

  test('that the server is stopped in goes on at the next start, and nobody gets two', async () => {
    for (let i = 0; i < 70; i++) await w.vm(`web-${i}`, 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    let count = 0;
    w.before = () => {
      if (++count === 30) throw new PandoError('shutting-down', 'the server is stopping');
      if (count === 20) void w.policies.close();
    };
    w.clock.advance(DAY_MS);
    // It begins; nobody by name; a page of those with the tag.
    for (let i = 0; i < 3; i++) await w.policies.tick();
    const all = async (): Promise<number> => (await w.fleet.listBackups({ limit: 1000 })).items.length;
    expect(await all()).toBeGreaterThan(10);
    expect(await all()).toBeLessThan(30);
    w.before = undefined;
    await w.reopen();
    await w.work();
    expect(await all()).toBe(70);
    for (let i = 0; i < 70; i++) expect(await w.taken(`web-${i}`)).toEqual(['2026-11-21T02:00']);
    expect((await w.policies.get('nightly')).rules[0]!.lastRun).toMatchObject({ backups: 70, failed: 0 });
  });

  test('misses no VM that is assigned otherwise meanwhile, and counts none twice', async () => {
    for (let i = 100; i < 200; i++) await w.vm(`web-${i}`, 'b');
    await w.vm('both', 'a', 'b');
    await w.vm('broken', 'a', 'b');
    w.before = (vm) => {
      if (vm === 'broken') throw new PandoError('chunk-corrupt', 'it is broken');
    };
    await w.policies.create({ ...daily(), tags: ['a', 'b'] });
    w.clock.advance(DAY_MS);
    // It begins; nobody by name; tag a; the first page of tag b.
    for (let i = 0; i < 4; i++) await w.policies.tick();
    expect((await w.policies.get('nightly')).rules[0]!.running).toMatchObject({ backups: 65, failed: 1 });
    await w.fleet.setTags('web-198', ['a', 'b']);
    await w.policies.assign('nightly', { vms: ['web-199'] });
    await w.work();
    for (const vm of ['web-197', 'web-198', 'web-199', 'both'])
      expect(await w.taken(vm), vm).toEqual(['2026-11-21T02:00']);
    expect((await w.policies.get('nightly')).rules[0]!.lastRun).toMatchObject({ backups: 101, failed: 1 });
    await w.policies.runNow('nightly');
    for (let i = 0; i < 3; i++) await w.policies.tick();
    expect((await w.policies.get('nightly')).rules[0]!.running).toMatchObject({ failed: 1 });
    await w.policies.assign('nightly', { tags: ['c'] });
    await w.work();
    expect((await w.policies.get('nightly')).rules[0]!.lastRun).toMatchObject({ backups: 101, failed: 1 });
  });

  test('does not take a second backup after a crash between the backups of a page and its record', async () => {
    await w.vm('a', 'prod');
    await w.vm('b', 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    w.clock.advance(DAY_MS);
    await w.policies.tick();
    let backups = 0;
    w.before = () => {
      backups++;
    };
    w.catalog.beforeCommit = () =>
      backups === 2 ? Promise.reject(new Error('power cut')) : Promise.resolve();
    for (let i = 0; i < 3; i++) await w.policies.tick().catch(() => undefined);
    w.catalog.beforeCommit = undefined;
    await w.reopen();
    await w.work();
    expect([...(await w.taken('a')), ...(await w.taken('b'))]).toEqual([
      '2026-11-21T02:00',
      '2026-11-21T02:00',
    ]);
  });

  test('can be asked for, of one rule or all, but not twice at a time', async () => {
    await w.vm('web');
    await w.policies.create(daily());
    await w.policies.assign('nightly', { vms: ['web'] });
    expect((await w.policies.runNow('nightly')).rules[0]!.running).toMatchObject({ backups: 0 });
    expect(await codeOf(w.policies.runNow('nightly', 'daily'))).toBe('policy-busy');
    expect(await codeOf(w.policies.runNow('nightly', 'weekly'))).toBe('request-invalid');
    await w.work();
    expect(await w.taken('web')).toEqual(['2026-11-20T10:00']);
    await w.pass(DAY_MS, HOUR_MS);
    expect(await w.taken('web')).toEqual(['2026-11-20T10:00', '2026-11-21T02:00']);
  });

  test('can be asked for one VM alone, between runs, and counts as any other for what is kept', async () => {
    await w.vm('web', 'prod');
    await w.vm('db', 'prod');
    await w.vm('other');
    await w.policies.create({ ...daily({ keepLast: 2 }), tags: ['prod'] });
    for (let i = 0; i < 3; i++) {
      await w.policies.runNow('nightly', undefined, 'web');
      await w.pass(HOUR_MS);
    }
    expect(await w.taken('web')).toEqual(['2026-11-20T11:00', '2026-11-20T12:00']);
    expect(await w.taken('db')).toEqual([]);
    expect(await codeOf(w.policies.runNow('nightly', undefined, 'other'))).toBe('request-invalid');
    expect(await codeOf(w.policies.runNow('nightly', 'weekly', 'web'))).toBe('request-invalid');
    await w.policies.runNow('nightly');
    expect(await codeOf(w.policies.runNow('nightly', undefined, 'web'))).toBe('policy-busy');
    await w.work();
    expect(await w.taken('db')).toEqual(['2026-11-20T13:00']);
    await w.policies.suspend('nightly', 'web');
    expect(await codeOf(w.policies.runNow('nightly', undefined, 'web'))).toBe('policy-busy');
  });

  test('costs two reads when nothing is due, however many VMs there are', async () => {
    for (let i = 0; i < 300; i++) await w.vm(`web-${i}`, 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    await w.work();
    const reads = w.catalog.reads;
    await w.policies.tick();
    expect(w.catalog.reads - reads).toBeLessThanOrEqual(3);
  });
});

describe('what fails', () => {
  const full = (): never => {
    throw new PandoError('store-full', 'no space left');
  };

  test('for now is tried again, after longer and longer waits, and goes on where it was', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    w.before = full;
    await w.pass(16 * HOUR_MS, HOUR_MS);
    expect((await w.policies.failures('nightly')).items).toMatchObject([
      { vmName: 'web', code: 'store-full' },
    ]);
    expect((await w.policies.get('nightly')).rules[0]!.running).toMatchObject({ passes: 2 });
    expect(await w.policies.trouble()).toMatchObject({
      failingRules: 1,
      failing: [{ policy: 'nightly', rule: 'daily', vms: 1 }],
    });
    await w.pass(MINUTE_MS);
    await w.pass(MINUTE_MS);
    expect((await w.policies.get('nightly')).rules[0]!.running).toMatchObject({ passes: 3 });
    w.before = undefined;
    await w.pass(MINUTE_MS);
    expect(await w.taken('web')).toEqual(['2026-11-21T02:00']);
    expect((await w.policies.failures('nightly')).items).toEqual([]);
    expect(w.events).toEqual([]);
  });

  test('for good is given up, with one event', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    w.before = full;
    await w.pass(30 * HOUR_MS, 30 * MINUTE_MS);
    expect(kinds()).toEqual(['policy-run-failed']);
    expect((await w.policies.get('nightly')).rules[0]!.lastRun).toMatchObject({ passes: 8, failed: 1 });
  });

  test('gives way to the next run when that is due', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...hourly(), tags: ['prod'] });
    w.before = full;
    await w.pass(2 * HOUR_MS, MINUTE_MS);
    w.before = undefined;
    await w.pass(30 * MINUTE_MS, MINUTE_MS);
    expect(await w.taken('web')).toEqual(['2026-11-20T12:00']);
    expect(kinds()).toEqual(['policy-run-failed']);
  });

  test('for one VM is told, and keeps no other from its backup', async () => {
    for (const name of ['a', 'bad', 'c']) await w.vm(name, 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    w.before = (vm) => {
      if (vm === 'bad') throw new PandoError('chunk-corrupt', 'it is broken');
    };
    await w.pass(DAY_MS, HOUR_MS);
    expect(
      [await w.taken('a'), await w.taken('bad'), await w.taken('c')].map(({ length }) => length),
    ).toEqual([1, 0, 1]);
    expect(w.events).toMatchObject([{ kind: 'policy-run-failed', subject: 'bad' }]);
    expect((await w.policies.failures('nightly')).items).toMatchObject([
      { vmName: 'bad', code: 'chunk-corrupt' },
    ]);
    const trouble = { failingRules: 1, failing: [{ policy: 'nightly', rule: 'daily', vms: 1 }] };
    expect(await w.policies.trouble()).toEqual({ lagMs: 0, ...trouble });
    w.clock.advance(DAY_MS);
    expect((await w.policies.trouble()).lagMs).toBeGreaterThan(0);
    w.before = undefined;
    await w.work();
    expect(await w.policies.trouble()).toEqual({ lagMs: 0, failingRules: 0, failing: [] });
    expect((await w.policies.failures('nightly')).items).toEqual([]);
  });

  test('in one policy keeps no other from its runs', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...daily(), tags: ['prod'] });
    await w.policies.create({ ...hourly(), tags: ['prod'] });
    const [agenda] = await w.catalog.list('policy-agenda');
    const { id } = await w.policies.get('hourly');
    expect(agenda!.key).toContain(id);
    // A record that cannot be read.
    const state = await w.catalog.get('policy-state', `${id}/rule-1`);
    await w.catalog.commit([
      {
        type: 'put',
        table: 'policy-state',
        key: `${id}/rule-1`,
        value: { ...(state as object), version: 99 },
      },
    ]);
    w.clock.advance(16 * HOUR_MS);
    for (let i = 0; i < 4; i++) expect(await codeOf(w.policies.tick())).toBe('store-newer');
    expect(await w.taken('web')).toEqual(['2026-11-21T02:00']);
  });
});

describe('expiry', () => {
  test('follows each backup; what is locked, dated or taken by hand stays', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...hourly({ keepLast: 2 }), tags: ['prod'] });
    await w.pass(2 * HOUR_MS, HOUR_MS);
    const [two, one] = (await w.fleet.listBackups()).items;
    await w.fleet.changeBackup(one!.id, { lockedUntil: w.clock.now() + 10 * HOUR_MS });
    await w.fleet.changeBackup(two!.id, { expiresAt: 'never' });
    await w.fleet.createBackup('web');
    await w.pass(4 * HOUR_MS, HOUR_MS);
    expect(await w.taken('web')).toEqual([
      '2026-11-20T11:00',
      '2026-11-20T12:00',
      'hand',
      '2026-11-20T15:00',
      '2026-11-20T16:00',
    ]);
    await w.policies.suspend('hourly', 'web');
    // With no new ones, the lock alone ends it.
    await w.pass(7 * HOUR_MS, HOUR_MS);
    expect(await w.taken('web')).toHaveLength(4);
    expect(w.policies.counters.expired).toBe(3);
  });

  test('by age comes at its time, also for a VM that is gone, but for the last one', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...hourly({ keepForMinutes: 180 }), tags: ['prod'] });
    await w.pass(5 * HOUR_MS, HOUR_MS);
    expect(await w.taken('web')).toHaveLength(3);
    await w.fleet.deleteVm('web');
    await w.pass(HOUR_MS);
    expect(await w.taken('web')).toEqual(['2026-11-20T14:00', '2026-11-20T15:00']);
    await w.pass(DAY_MS, HOUR_MS);
    expect(await w.taken('web')).toEqual(['2026-11-20T15:00']);
  });

  test('waits while the clock is behind, and does not follow one that is set forward', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...hourly({ keepForMinutes: 180 }), tags: ['prod'] });
    await w.pass(2 * HOUR_MS, HOUR_MS);
    await w.policies.suspend('hourly', 'web');
    w.clock.jump(30 * DAY_MS);
    await w.work();
    expect(await w.taken('web')).toHaveLength(2);
    w.clock.jump(-31 * DAY_MS);
    await w.pass(4 * HOUR_MS, HOUR_MS);
    expect(await w.taken('web')).toHaveLength(2);
    w.clock.jump(DAY_MS);
    await w.pass(HOUR_MS);
    expect(await w.taken('web')).toHaveLength(1);
  });

  test('goes by the order of making: one that was taken a year ahead is not the newest for a year', async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...hourly({ keepLast: 1 }), tags: ['prod'] });
    w.clock.jump(365 * DAY_MS);
    await w.work();
    w.clock.jump(-365 * DAY_MS);
    await w.pass(HOUR_MS);
    expect(await w.taken('web')).toEqual(['2026-11-20T11:00']);
  });

  test('follows a changed retention over what is there, and rests while the policy does', async () => {
    for (const name of ['a', 'b']) await w.vm(name, 'prod');
    await w.policies.create({ ...hourly(), tags: ['prod'] });
    await w.pass(6 * HOUR_MS, HOUR_MS);
    await w.policies.suspend('hourly');
    await w.policies.change('hourly', { rules: hourly({ keepLast: 1 }).rules });
    await w.pass(HOUR_MS);
    expect((await w.taken('a')).length + (await w.taken('b')).length).toBe(12);
    await w.policies.resume('hourly');
    await w.work();
    expect((await w.taken('a')).length + (await w.taken('b')).length).toBe(2);
  });
});

describe('policies', () => {
  test('suspended ones take nothing, and make up for nothing; one VM may rest alone', async () => {
    await w.vm('a', 'prod');
    await w.vm('b', 'prod');
    await w.policies.create({ ...hourly(), tags: ['prod'] });
    await w.policies.suspend('hourly', 'a');
    await w.pass(HOUR_MS);
    expect([await w.taken('a'), await w.taken('b')].map(({ length }) => length)).toEqual([0, 1]);
    const suspended = await w.policies.suspend('hourly');
    expect(suspended.rules[0]!.nextRunAt).toBeUndefined();
    expect(await codeOf(w.policies.runNow('hourly'))).toBe('policy-busy');
    await w.pass(5 * HOUR_MS, HOUR_MS);
    await w.policies.resume('hourly');
    await w.policies.resume('hourly', 'a');
    await w.work();
    expect(await w.taken('b')).toHaveLength(1);
    await w.pass(HOUR_MS);
    expect([await w.taken('a'), await w.taken('b')].map(({ length }) => length)).toEqual([1, 2]);
    expect(w.events).toEqual([]);
  });

  test('are listed, with their VMs, those of a VM, and what is due next', async () => {
    await w.vm('a', 'x', 'y');
    await w.vm('b', 'y');
    await w.vm('c', 'y');
    await w.policies.create({ ...daily(), tags: ['y', 'x'] });
    await w.policies.create(hourly());
    await w.policies.assign('nightly', { vms: ['c'] });
    await w.policies.assign('hourly', { vms: ['a'] });
    await w.policies.suspend('hourly', 'a');
    const found: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await w.policies.vms('nightly', { limit: 1, ...(cursor === undefined ? {} : { cursor }) });
      found.push(...page.items.map(({ name, tag }) => `${name} ${tag ?? 'by name'}`));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(found).toEqual(['c by name', 'a x', 'b y']);
    expect(await w.policies.ofVm('a')).toMatchObject([
      { name: 'hourly', isSuspended: true },
      { name: 'nightly', tag: 'x', isSuspended: false },
    ]);
    expect((await w.policies.due()).items.map(({ policy, at }) => [policy, at.slice(0, 16)])).toEqual([
      ['hourly', '2026-11-20T11:00'],
      ['nightly', '2026-11-21T02:00'],
    ]);
    const first = await w.policies.list({ limit: 1 });
    expect(first.items.map(({ name }) => name)).toEqual(['nightly']);
    expect((await w.policies.list({ cursor: first.nextCursor! })).items.map(({ name }) => name)).toEqual([
      'hourly',
    ]);
    expect(await codeOf(w.policies.list({ cursor: 'nonsense' }))).toBe('cursor-invalid');
    await w.policies.unassign('nightly', { vms: ['c'], tags: ['x'] });
    expect((await w.policies.vms('nightly')).items).toEqual([]);
  });

  test('are renamed and changed; a rule that stays as it is goes on, one with another schedule begins anew', async () => {
    await w.vm('a');
    const created = await w.policies.create({ ...hourly(), note: 'n' });
    await w.policies.assign('hourly', { vms: ['a'] });
    await w.policies.create(daily());
    expect(await codeOf(w.policies.change('hourly', { name: 'nightly' }))).toBe('name-taken');
    const renamed = await w.policies.change('hourly', { name: 'often', note: '' });
    expect(renamed).toMatchObject({ id: created.id, name: 'often' });
    expect(renamed).not.toHaveProperty('note');
    expect(await codeOf(w.policies.get('hourly'))).toBe('policy-missing');
    await w.pass(30 * MINUTE_MS);
    const { rules } = await w.policies.change('often', {
      rules: [
        ...hourly().rules,
        { name: 'half', schedule: { timeZone: 'UTC', everyMinutes: 30 }, retention: {} },
      ],
    });
    expect(rules.map(({ nextRunAt }) => nextRunAt?.slice(11, 16))).toEqual(['11:00', '11:00']);
    await w.policies.change('often', {
      rules: [{ name: 'half', schedule: { timeZone: 'UTC', everyMinutes: 15 }, retention: {} }],
    });
    await w.pass(HOUR_MS, MINUTE_MS);
    expect(await w.taken('a')).toEqual(
      ['10:45', '11:00', '11:15', '11:30'].map((time) => `2026-11-20T${time}`),
    );
  });

  test('that are removed leave their backups, which stay, and no records', async () => {
    for (let i = 0; i < 3; i++) await w.vm(`web-${i}`, 'prod');
    await w.policies.create({ ...hourly({ keepForMinutes: 60, keepAtLeast: 0 }), tags: ['prod'] });
    await w.policies.assign('hourly', { vms: ['web-0', 'web-1'] });
    await w.policies.suspend('hourly', 'web-2');
    w.before = (vm) => {
      if (vm === 'web-1') throw new PandoError('chunk-corrupt', 'it is broken');
    };
    await w.pass(HOUR_MS);
    await w.policies.remove('hourly');
    expect(await codeOf(w.policies.get('hourly'))).toBe('policy-missing');
    await w.pass(3 * DAY_MS, DAY_MS);
    expect(await w.taken('web-0')).toHaveLength(1);
    const tables = [
      '',
      '-name',
      '-state',
      '-agenda',
      '-expiry',
      '-forget',
      '-vm',
      '-of-vm',
      '-tag',
      '-rest',
      '-failure',
    ];
    const left = await Promise.all(tables.map((table) => w.catalog.list(`policy${table}`)));
    expect(left.flat()).toEqual([]);
  });

  test.each<[string, PolicyRequest]>([
    ['no rules', { name: 'p', rules: [] }],
    ['two rules of a name', { name: 'p', rules: [...daily().rules, ...daily().rules] }],
    ['a count that is none', daily({ keepDaily: 0 })],
    ['too many tags', { ...daily(), tags: Array.from({ length: 33 }, (_, i) => `t${i}`) }],
    ['a note that is too long', { ...daily(), note: 'x'.repeat(4097) }],
  ])('are refused with %s', async (_what, wrong) => {
    expect(await codeOf(w.policies.create(wrong))).toBe('request-invalid');
    expect((await w.policies.list()).items).toEqual([]);
  });

  test('a VM that is taken from a policy and assigned again takes backups, whatever was suspended before', async () => {
    for (const name of ['web', 'tagged', 'gone']) await w.vm(name, ...(name === 'tagged' ? ['prod'] : []));
    await w.policies.create({ ...hourly(), tags: ['prod'] });
    const vms = ['web', 'tagged', 'gone'];
    await w.policies.assign('hourly', { vms });
    for (const vm of vms) await w.policies.suspend('hourly', vm);
    await w.policies.unassign('hourly', { vms: ['web', 'tagged'] });
    await w.policies.assign('hourly', { vms: ['web'] });
    await w.fleet.deleteVm('gone');
    await w.pass(HOUR_MS);
    expect(await w.taken('web')).toHaveLength(1);
    // A tag had it all the time.
    expect(await w.taken('tagged')).toEqual([]);
    expect(await w.catalog.list('policy-rest')).toHaveLength(1);
  });

  test('the runner does what is due by itself, and ends when it is closed', async () => {
    await w.fleet.createVm(oneDisk('web'));
    await w.policies.create(hourly());
    await w.policies.assign('hourly', { vms: ['web'] });
    w.policies.start();
    const taken = Promise.withResolvers<string>();
    w.before = (vm) => taken.resolve(vm);
    await w.policies.runNow('hourly');
    expect(await taken.promise).toBe('web');
    await w.policies.close();
    expect(START).toBe(w.clock.now());
  });
});

describe('a policy that brings guests to rest', () => {
  const quiesce = 'qemu-ga:/run/guests/{vm}.sock';
  const backups = async (): Promise<string[]> =>
    (await w.fleet.listBackups({ vm: 'web' })).items.map(({ consistency }) => consistency);
  beforeEach(async () => {
    await w.vm('web', 'prod');
    await w.policies.create({ ...daily(), quiesce, tags: ['prod'] });
  });

  test('asks for the guest of each VM, and its backups say so', async () => {
    const asked: object[] = [];
    w.quiesce = (request, action) => {
      asked.push(request);
      return action();
    };
    await w.pass(DAY_MS, HOUR_MS);
    expect(asked).toEqual([{ guest: quiesce, vm: 'web' }]);
    expect(await backups()).toEqual(['application']);
    expect(w.events).toEqual([]);
  });

  test('takes a backup as after a crash when the guest cannot be brought to rest, and tells somebody', async () => {
    w.quiesce = async (_request, action, undo) => {
      await undo(await action());
      throw new PandoError('quiesce-timeout', 'too long');
    };
    await w.pass(DAY_MS, HOUR_MS);
    expect(await backups()).toEqual(['crash']);
    expect(kinds()).toEqual(['policy-not-quiesced']);
  });

  test('tells nobody when no guest runs', async () => {
    w.quiesce = () => Promise.reject(new PandoError('guest-agent-gone', 'nobody listens'));
    await w.pass(DAY_MS, HOUR_MS);
    expect(await backups()).toEqual(['crash']);
    expect(w.events).toEqual([]);
    const client = await w.fleet.attach('web/disk0');
    await w.pass(DAY_MS, HOUR_MS);
    expect(kinds()).toEqual(['policy-not-quiesced']);
    await client.close();
  });

  test('fails as any other when it is the backup that cannot be taken', async () => {
    w.quiesce = (_request, action) => action();
    w.before = () => {
      throw new PandoError('internal', 'broken');
    };
    await w.pass(DAY_MS, HOUR_MS);
    expect(await backups()).toEqual([]);
    expect(kinds()).toEqual(['policy-run-failed']);
  });

  test('stops doing so when it is told to, and takes no agent that is the same for all', async () => {
    expect((await w.policies.change('nightly', { quiesce: '' })).quiesce).toBeUndefined();
    expect(await codeOf(w.policies.change('nightly', { quiesce: 'qemu-ga:/run/one.sock' }))).toBe(
      'request-invalid',
    );
    await w.pass(DAY_MS, HOUR_MS);
    expect(await backups()).toEqual(['crash']);
    expect(w.events).toEqual([]);
  });
});
