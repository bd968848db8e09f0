import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { changeIn } from './impact.ts';
import { retain, type Retention } from './retention.ts';
import { previousRun, runsBetween, type Schedule } from './schedule.ts';
import { steadyTimes } from './steady.ts';
import { codeOf, DAY_MS, HOUR_MS, makeWorld, START } from './testing/world.ts';

const hourly = { schedule: { timeZone: 'UTC', everyMinutes: 60 }, retention: { keepLast: 5, keepDaily: 3 } };

describe('the report', () => {
  test('says what then comes to pass: backups taken, expired, and there at the end', async () => {
    const w = await makeWorld();
    await w.vm('web', 'prod');
    await w.policies.create({ name: 'p', rules: [hourly], tags: ['prod'] });
    await w.pass(30 * HOUR_MS, HOUR_MS);
    const before = (await w.taken('web')).length;
    const rules = [{ ...hourly, name: 'rule-1', retention: { keepHourly: 3, keepDaily: 2 } }];
    const { items } = await w.policies.impact({ policy: 'p', rules, horizonDays: 2 });
    expect(items).toMatchObject([{ vm: { name: 'web' }, created: 48, now: { backups: before } }]);
    const counters = { ...w.policies.counters };
    await w.policies.change('p', { rules });
    await w.pass(2 * DAY_MS, HOUR_MS);
    const [said] = items;
    expect((await w.taken('web')).length).toBe(said!.then.backups);
    expect(w.policies.counters.backups - counters.backups).toBe(said!.created);
    expect(w.policies.counters.expired - counters.expired).toBe(said!.expired);
    expect(said!.steady!.backups).toBe(said!.then.backups);
  });

  test('of a VM that takes nothing for now says what stays of what it has', async () => {
    const w = await makeWorld();
    for (const name of ['on', 'off']) await w.vm(name, 'prod');
    await w.policies.create({ name: 'p', rules: [hourly], tags: ['prod'] });
    await w.pass(30 * HOUR_MS, HOUR_MS);
    const { items: backups } = await w.fleet.listBackups({ vm: 'off', limit: 1 });
    await w.fleet.changeBackup(backups[0]!.id, { expiresAt: 'never' });
    await w.policies.suspend('p', 'off');
    const rules = [{ ...hourly, name: 'rule-1', retention: { keepForMinutes: 120 } }];
    const { items } = await w.policies.impact({ policy: 'p', rules, horizonDays: 1 });
    const said = items.find(({ vm }) => vm.name === 'off')!;
    expect(said).toMatchObject({ created: 0, then: { backups: 2 }, steady: { backups: 2 } });
    await w.policies.change('p', { rules });
    await w.pass(DAY_MS, HOUR_MS);
    expect(await w.taken('off')).toHaveLength(said.then.backups);
    expect(await w.taken('on')).toHaveLength(items.find(({ vm }) => vm.name === 'on')!.then.backups);
  });

  test('is of VMs by name and tag, each once, page by page; of those of the policy where none are named', async () => {
    const w = await makeWorld();
    for (const name of ['a', 'b', 'c']) await w.vm(name, 'x');
    await w.vm('d', 'y');
    const rules = [hourly];
    const found: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await w.policies.impact({
        ...{ rules, vms: ['d', 'b'], tags: ['y', 'x'], limit: 1 },
        ...(cursor === undefined ? {} : { cursor }),
      });
      found.push(...page.items.map(({ vm }) => vm.name));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(found).toEqual(['d', 'b', 'a', 'c']);
    await w.policies.create({ name: 'p', rules, tags: ['y'] });
    expect((await w.policies.impact({ policy: 'p' })).items.map(({ vm }) => vm.name)).toEqual(['d']);
    expect(await codeOf(w.policies.impact({ rules }))).toBe('request-invalid');
    expect(await codeOf(w.policies.impact({ vms: ['a'] }))).toBe('request-invalid');
    const often = [{ schedule: { timeZone: 'UTC', everyMinutes: 1 }, retention: {} }];
    expect(await codeOf(w.policies.impact({ rules: often, vms: ['a'], horizonDays: 40 }))).toBe(
      'request-invalid',
    );
  });

  test('invents no bytes, projects them from what changed, and leaves out the long run where there is none', async () => {
    const w = await makeWorld();
    await w.vm('web');
    const [unknown] = (await w.policies.impact({ rules: [hourly], vms: ['web'] })).items;
    expect(unknown!.then).toEqual({ backups: 7 });
    const endless = [{ ...hourly, retention: {} }];
    const [first] = (await w.policies.impact({ rules: endless, vms: ['web'], horizonDays: 1 })).items;
    expect(first).not.toHaveProperty('steady');
    await w.fleet.createBackup('web');
    w.clock.advance(HOUR_MS);
    await w.fleet.createBackup('web');
    const [known] = (await w.policies.impact({ rules: [hourly], vms: ['web'] })).items;
    expect(known!.then).toEqual({ backups: 7, bytes: 0 });
  });
});

test('what changes in a time never shrinks with it, meets what was measured, and stays below the disks', () => {
  const history = fc.record({
    logicalBytes: fc.constant(1000),
    storedRatio: fc.constant(1),
    samples: fc.array(
      fc.record({ gapMs: fc.integer({ min: 1, max: 100 }), bytes: fc.integer({ min: 0, max: 1000 }) }),
      {
        minLength: 1,
        maxLength: 6,
      },
    ),
  });
  fc.assert(
    fc.property(history, (one) => {
      let last = 0;
      for (let gap = 0; gap <= 200; gap += 5) {
        const bytes = changeIn(one, gap);
        expect(bytes).toBeGreaterThanOrEqual(last - 1e-6);
        expect(bytes).toBeLessThanOrEqual(1000);
        last = bytes;
      }
    }),
    { numRuns: 100, seed: 5 },
  );
  const measured = {
    logicalBytes: 1000,
    storedRatio: 1,
    samples: [
      { gapMs: 10, bytes: 100 },
      { gapMs: 40, bytes: 160 },
    ],
  };
  expect([0, 5, 10, 25, 40, 80].map((gap) => changeIn(measured, gap))).toEqual([0, 50, 100, 130, 160, 320]);
});

test('the long run is what all runs of a long time leave', () => {
  const schedules: Schedule[] = [
    { timeZone: 'Europe/Berlin', everyMinutes: 240 },
    { timeZone: 'America/New_York', at: ['02:30'], weekdays: ['mon', 'thu'] },
    { timeZone: 'UTC', at: ['12:00'], monthDays: [1, 'last'] },
  ];
  const retentions: Retention[] = [
    { keepLast: 3, keepWeekly: 2 },
    { keepHourly: 5, keepDaily: 4, keepMonthly: 2 },
    { keepForMinutes: 10 * 24 * 60, keepYearly: 1 },
    { keepAtLeast: 2, keepForMinutes: 60 },
  ];
  for (const schedule of schedules) {
    for (const retention of retentions) {
      const all = Array.from(runsBetween(schedule, START - 400 * DAY_MS, START)).reverse();
      const { kept } = retain(all, retention, schedule.timeZone, START);
      const found = steadyTimes({ name: 'r', schedule, retention }, START);
      expect(found, JSON.stringify([schedule, retention])).toEqual(all.filter((_, i) => kept[i]));
      expect(found![0]).toBe(previousRun(schedule, START));
    }
  }
});
