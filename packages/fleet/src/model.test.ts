/**
 * Many requests at once for few names, against what must hold whatever their order: seeded, over fake and real
 * rooms. Every request either is done wholly or is refused with a code that fits.
 */
import { isPandoError } from '@pando/common';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, test } from 'vitest';
import { makeFixture, oneDisk, useRealRooms, type Fixture } from './testing/fixture.ts';

const NAMES = ['a', 'b', 'c', 'd-1', 'd-2', 'd-3'];
const BACKUPS = ['x', 'y'];
const EXPECTED_CODES = [
  'name-taken',
  'vm-missing',
  'backup-missing',
  'vm-attached',
  'disk-in-use',
  'disk-missing',
  'shrink-refused',
];

async function run(f: Fixture, seed: number, operations: number): Promise<void> {
  const random = seededRandom(seed);
  const pick = <T>(of: readonly T[]): T => of[between(random, 0, of.length - 1)]!;
  const { fleet } = f;
  const requests: (() => Promise<unknown>)[] = [
    () => fleet.createVm(oneDisk(pick(NAMES), 8192)),
    () => fleet.cloneVm(pick(NAMES), { name: pick(NAMES) }),
    () => fleet.cloneVm(pick(NAMES), { name: 'd', count: between(random, 1, 3) }),
    () => fleet.renameVm(pick(NAMES), pick(NAMES)),
    () => fleet.deleteVm(pick(NAMES), { force: random() < 0.3 }),
    () => fleet.createBackup(pick(NAMES), { name: pick(BACKUPS) }),
    () => fleet.createBackup(pick(NAMES)),
    () => fleet.deleteBackup(`${pick(NAMES)}@${pick(BACKUPS)}`),
    () =>
      fleet.restoreBackup(
        `${pick(NAMES)}@${pick(BACKUPS)}`,
        random() < 0.5 ? { as: pick(NAMES) } : { force: random() < 0.5 },
      ),
    () => fleet.resizeDisk(pick(NAMES), 'disk0', 512 * between(random, 1, 64), { shrink: random() < 0.7 }),
    async () => {
      const name = random() < 0.7 ? pick(NAMES) : `${pick(NAMES)}@${pick(BACKUPS)}`;
      const client = await fleet.attach(name);
      client.revoked.addEventListener('abort', () => void client.close());
      if (!client.readOnly) await client.write(0, new Uint8Array(512).fill(between(random, 1, 255)));
      for (let i = between(random, 0, 10); i > 0; i--) await new Promise((resolve) => setImmediate(resolve));
      await client.close();
    },
  ];
  const under: Promise<void>[] = [];
  for (let i = 0; i < operations; i++) {
    const request = pick(requests);
    under.push(
      request().then(
        () => undefined,
        (error: unknown) => {
          if (!isPandoError(error) || !EXPECTED_CODES.includes(error.code)) throw error;
        },
      ),
    );
    if (under.length >= 12) await Promise.all(under.splice(0, between(random, 1, 12)));
  }
  await Promise.all(under);
}

/** What must hold between the tables, and between records and disks. */
async function check(f: Fixture): Promise<void> {
  const table = async <T>(name: string): Promise<Map<string, T>> =>
    new Map((await f.catalog.list(name, { limit: 100_000 })).map(({ key, value }) => [key, value as T]));
  interface Owner {
    name: string;
    vmId: string;
    vmName: string;
    disks: { disk: number; size: number }[];
  }
  const vms = await table<Owner>('vm');
  const backups = await table<Owner>('backup');
  expect(await table('vm-name')).toEqual(
    new Map([...vms].map(([id, vm]) => [vm.name, { version: 1, id }]).sort() as [string, unknown][]),
  );
  const sorted = (keys: Iterable<string>): string[] => [...keys].sort();
  expect(sorted((await table('vm-backup')).keys())).toEqual(
    sorted([...backups].map(([id, { vmId }]) => `${vmId}/${id}`)),
  );
  expect(sorted((await table('backup-name')).keys())).toEqual(
    sorted([...backups.values()].map(({ vmId, name }) => `${vmId}/${name}`)),
  );
  expect(sorted((await table('backup-label')).keys())).toEqual(
    sorted([...backups].map(([id, { vmName, name }]) => `${vmName}@${name}/${id}`)),
  );
  const withBackups = new Set([...backups.values()].map(({ vmId }) => vmId));
  expect(sorted((await table('vm-gone')).keys())).toEqual(
    sorted([...withBackups].filter((id) => !vms.has(id))),
  );
  const gone = await table<{ name: string }>('vm-gone');
  for (const [name, { id }] of await table<{ id: string }>('vm-gone-name'))
    expect(gone.get(id)?.name).toBe(name);
  expect(await f.catalog.list('disk-removal')).toEqual([]);

  const owned = [...vms.values(), ...backups.values()].flatMap((owner) => owner.disks);
  expect(owned.map(({ disk }) => disk).sort((a, b) => a - b)).toEqual(await f.disks());
  const disks = await table<{ size: number }>('disk');
  for (const { disk, size } of owned) expect(disks.get(String(disk).padStart(12, '0'))?.size).toBe(size);

  // Every list holds everything once, and every name that it prints leads back.
  const listed: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await f.fleet.listVms({ limit: 2, ...(cursor === undefined ? {} : { cursor }) });
    for (const vm of page.items) {
      expect((await f.fleet.getVm(vm.name)).id).toBe(vm.id);
      expect(vm.attachedClients).toBe(0);
      listed.push(vm.id);
    }
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  expect(listed).toEqual([...vms.keys()]);
  for (const id of vms.keys()) {
    for (const backup of (await f.fleet.listBackups({ vm: id, limit: 1000 })).items) {
      expect((await f.fleet.getBackup(`${id}@${backup.name}`)).id).toBe(backup.id);
    }
  }
}

describe('many requests for few names at once', () => {
  const seed = runSeed();
  test.each([
    ['fake', 600],
    ['real', 400],
  ] as const)(`leave the tables in order over %s rooms (seed ${seed})`, async (rooms, operations) => {
    if (rooms === 'real') useRealRooms();
    for (let round = 0; round < 4; round++) {
      const f = await makeFixture();
      await run(f, seed + round, operations);
      await check(f);
    }
  });

  test.each([10, 100])('of %i creations of one name one is done', async (count) => {
    const f = await makeFixture();
    const requests = Array.from({ length: count }, (_, i) =>
      i % 2 === 0
        ? f.fleet.createVm(oneDisk('x-1'))
        : f.fleet.importVm({
            name: 'x-1',
            source: {
              async *parts() {
                yield await Promise.resolve(new Uint8Array(512));
              },
            },
          }),
    );
    const results = await Promise.allSettled(requests);
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
    await check(f);
  });
});
