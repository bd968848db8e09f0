/**
 * Random changes of policies, VMs and clock, with restarts, against a plain model of what must hold: no due time is taken twice of
 * a VM, none is taken before it has come, and what is due is taken once; backups that are gone are those that retention lets go.
 */
import { seededRandom } from '@pando/common/testing';
import { PandoError } from '@pando/common';
import { expect, test } from 'vitest';
import { nextRun, previousRun, type Schedule } from './schedule.ts';
import { HOUR_MS, makeWorld, MINUTE_MS } from './testing/world.ts';

const SCHEDULES: readonly Schedule[] = [
  { timeZone: 'Europe/Berlin', at: ['02:30', '14:00'] },
  { timeZone: 'America/New_York', everyMinutes: 45, from: '22:00', to: '03:00' },
  { timeZone: 'UTC', everyMinutes: 20 },
];

const KINDS = ['pass', 'pass', 'pass', 'forward', 'back', 'restart', 'suspend', 'resume', 'fail'] as const;

test.each([1, 2, 3, 4])('runs of random worlds, seed %i', async (seed) => {
  const random = seededRandom(seed);
  const w = await makeWorld();
  const schedule = SCHEDULES[seed % SCHEDULES.length]!;
  const keepLast = 1 + Math.floor(random() * 4);
  const vms = ['a', 'b', 'c'];
  for (const vm of vms) await w.vm(vm, 'prod');
  const rules = [{ name: 'r', schedule, retention: { keepLast } }];
  const { id } = await w.policies.create({ name: 'p', rules, tags: ['prod'] });
  let created = w.clock.now();
  let isSuspended = false;
  /** Due times that were begun, and what each VM got, in the order of their making. */
  const given = new Map(vms.map((vm) => [vm, [] as number[]]));
  let isFailing = false;
  w.before = (vm) => {
    if (isFailing && vm === 'b') throw new PandoError('chunk-corrupt', 'it is broken');
  };
  for (let step = 0; step < 60; step++) {
    const what = KINDS[Math.floor(random() * KINDS.length)]!;
    const far = Math.floor(random() * 30 * HOUR_MS);
    if (what === 'pass') w.clock.advance(Math.floor(random() * 6 * HOUR_MS));
    else if (what === 'forward') w.clock.jump(far);
    else if (what === 'back') w.clock.jump(-far);
    else if (what === 'restart') await w.reopen();
    else if (what === 'fail') isFailing = !isFailing;
    else if (what === 'suspend' && !isSuspended) {
      await w.policies.suspend(id);
      isSuspended = true;
    } else if (what === 'resume' && isSuspended) {
      await w.policies.resume(id);
      isSuspended = false;
      created = w.clock.now();
    }
    await w.work();
    const now = w.clock.now();
    for (const vm of vms) {
      const { items } = await w.fleet.listBackups({ vm, limit: 1000 });
      const times = given.get(vm)!;
      for (const backup of items.toReversed()) {
        const dueAt = Date.parse(backup.policy!.dueAt);
        if (Date.parse(backup.createdAt) === now && !times.includes(dueAt)) {
          expect(dueAt, `step ${step}`).toBe(previousRun(schedule, now));
          times.push(dueAt);
        }
      }
      const dues = items.map(({ policy }) => policy!.dueAt);
      expect(new Set(dues).size, `step ${step}, ${what}: ${vm} has one of each`).toBe(dues.length);
      if (!isSuspended && !w.fleet.trustedTime().isBehind)
        expect(items.length, `step ${step}: ${vm}`).toBeLessThanOrEqual(keepLast);
    }
    // What had come since the policy runs, and was not done before, is done now.
    const latest = previousRun(schedule, now)!;
    const [rule] = (await w.policies.get(id)).rules;
    if (isSuspended) expect(rule!.nextRunAt).toBeUndefined();
    else {
      expect(Date.parse(rule!.nextRunAt!), `step ${step}, ${what}`).toBe(nextRun(schedule, now));
      const isNew = latest > created && now - latest < MINUTE_MS * 20 && what === 'pass';
      if (isNew && !isFailing) {
        const last = Date.parse(rule!.lastRun!.dueAt);
        expect([latest, ...given.get('a')!], `step ${step}`).toContain(last);
      }
    }
  }
  expect(given.get('a')!.length).toBeGreaterThan(0);
  await w.policies.close();
});
