/** A wall clock that is set forward or back by years changes what people read, and nothing else. */
import { PandoError } from '@pando/common';
import { beforeEach, expect, test } from 'vitest';
import { makeFixture, oneDisk, START_MS, type Fixture } from './testing/fixture.ts';

const YEAR_MS = 365 * 24 * 60 * 60_000;

let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
});

test.each([
  ['back', -9 * YEAR_MS],
  ['forward, and then back to what it was', 12 * YEAR_MS],
])(
  'VMs and backups stay in the order of their making when the clock is set %s, over restarts',
  async (_way, jump) => {
    const made: string[] = [];
    const ids: string[] = [];
    const vms: string[] = [];
    let { fleet } = f;
    await fleet.createVm(oneDisk('web'));
    vms.push('web');
    const back = async (name: string): Promise<void> => {
      made.unshift(name);
      ids.push((await fleet.createBackup('web', { name })).id);
      vms.push(`vm-${name}`);
      ids.push((await fleet.cloneVm('web', { name: `vm-${name}` }))[0]!.id);
    };
    await back('first');
    f.clock.jump(jump);
    await back('jumped');
    fleet = await f.restart();
    await back('restarted');
    if (jump > 0) f.clock.jump(-jump);
    await back('unjumped');
    fleet = await f.restart();
    await back('restarted-again');
    f.clock.advance(1000);
    await back('last');

    const names = async (request: { vm?: string; limit?: number }): Promise<string[]> => {
      const found: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await fleet.listBackups({ ...request, ...(cursor === undefined ? {} : { cursor }) });
        found.push(...page.items.map(({ name }) => name));
        cursor = page.nextCursor;
      } while (cursor !== undefined);
      return found;
    };
    expect(await names({})).toEqual(made);
    expect(await names({ vm: 'web' })).toEqual(made);
    expect(await names({ vm: 'web', limit: 2 })).toEqual(made);
    expect((await fleet.listVms()).items.map(({ name }) => name)).toEqual(vms);
    expect([...ids].sort()).toEqual(ids);
    expect(new Set(ids).size).toBe(ids.length);
  },
);

test('a backup without a name gets another one when the clock comes to the same second again', async () => {
  await f.fleet.createVm(oneDisk('web'));
  const first = await f.fleet.createBackup('web');
  f.clock.advance(5000);
  f.clock.jump(-5000);
  const second = await f.fleet.createBackup('web');
  expect(second.name).toBe(`${first.name}-2`);
  expect(second.createdAt).toBe(new Date(START_MS).toISOString());
  expect((await f.fleet.listBackups()).items.map(({ name }) => name)).toEqual([second.name, first.name]);
});

test('one damaged record does not keep the fleet from opening', async () => {
  await f.fleet.createVm(oneDisk('web'));
  const list = f.catalog.list.bind(f.catalog);
  f.catalog.list = (table, ...rest) =>
    table === 'vm' && rest[0]?.reverse === true
      ? Promise.reject(new PandoError('catalog-corrupt', 'the checksum is wrong'))
      : list(table, ...rest);
  const fleet = await f.restart();
  expect((await fleet.listVms()).items.map(({ name }) => name)).toEqual(['web']);
});
