/** Policies over a fleet in memory, with a clock that the test moves, and a server that it stops and starts. */
import { isPandoError, PandoError } from '@pando/common';
import type { ServiceEvent } from '@pando/events';
import type { Quiesce } from '@pando/guest-agent';
import { makeFixture, oneDisk, START_MS, type Fixture } from '@pando/fleet/testing';
import { openPolicies, type OpenPolicies } from '../policies.ts';

/** 2026-11-20T10:00:00Z, a Friday. */
export const START = START_MS;
export const MINUTE_MS = 60_000;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;

export interface World extends Omit<Fixture, 'fleet'> {
  fleet: Fixture['fleet'];
  policies: OpenPolicies;
  readonly events: ServiceEvent[];
  /** Set by a test: called before each backup; what it throws, the backup throws. */
  before: ((vm: string) => void) | undefined;
  /** Set by a test: how guests are brought to rest. */
  quiesce: Quiesce | undefined;
  /** As after a restart of the server, which forgets everything but the catalog. */
  reopen(): Promise<void>;
  /** Does what is due, until nothing is. */
  work(): Promise<void>;
  /** Lets time go by in steps, with work after each. */
  pass(ms: number, step?: number): Promise<void>;
  vm(name: string, ...tags: string[]): Promise<string>;
  /** Due times of a VM's backups, oldest first; `hand` for those that were taken by hand. */
  taken(vm: string): Promise<string[]>;
}

export async function makeWorld(): Promise<World> {
  const fixture = await makeFixture();
  const events: ServiceEvent[] = [];
  let ids = 0;
  const open = (): OpenPolicies =>
    openPolicies({
      catalog: fixture.catalog,
      clock: fixture.clock,
      newId: () => `00000000-0000-7000-8000-${String(++ids).padStart(12, '0')}`,
      onEvent: (event) => events.push(event),
      quiesce: (request, action, undo) => {
        if (world.quiesce !== undefined) return world.quiesce(request, action, undo);
        throw new PandoError('guest-agent-refused', 'nobody knows how');
      },
      fleet: {
        createBackup: async (vm, request) => {
          world.before?.((await world.fleet.getVm(vm)).name);
          return world.fleet.createBackup(vm, request);
        },
        deleteBackup: (backup) => world.fleet.deleteBackup(backup),
        listBackups: (request) => world.fleet.listBackups(request),
        expireBackup: (backup) => world.fleet.expireBackup(backup),
        listVms: (request) => world.fleet.listVms(request),
        getVm: (vm) => world.fleet.getVm(vm),
        changeHistory: (vm) => world.fleet.changeHistory(vm),
        trustedTime: () => world.fleet.trustedTime(),
      },
    });
  const world: World = {
    ...fixture,
    policies: open(),
    events,
    before: undefined,
    quiesce: undefined,
    async reopen() {
      await world.policies.close();
      world.fleet = await fixture.restart();
      world.policies = open();
    },
    async work() {
      await world.fleet.tend();
      while (await world.policies.tick());
    },
    async pass(ms, step = ms) {
      for (let left = ms; left > 0; left -= step) {
        fixture.clock.advance(Math.min(step, left));
        await world.work();
      }
    },
    vm: async (name, ...tags) => (await world.fleet.createVm({ ...oneDisk(name), tags })).id,
    taken: async (vm) => {
      const { items } = await world.fleet.listBackups({ vm, limit: 1000 });
      return items.toReversed().map(({ policy }) => policy?.dueAt.slice(0, 16) ?? 'hand');
    },
  };
  await world.work();
  return world;
}

export async function codeOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
    return 'nothing';
  } catch (error) {
    if (isPandoError(error)) return error.code;
    throw error;
  }
}
