import type { AccountOwner, Accounts, AccountWork } from '@pando/gc';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { collect, HeldSetsBuilder } from '@pando/gc';
import { emptyRoot } from '@pando/tree';
import { beforeEach, describe, expect, test } from 'vitest';
import { Space, ratiosOf } from './space.ts';
import type { FleetContext } from './context.ts';
import { makeFixture, oneDisk, sourceOf, useRealRooms, type Fixture } from './testing/fixture.ts';

useRealRooms();

const CHUNK = 4096;
let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
});

const bytesOf = (length: number, seed: number): Uint8Array =>
  fillRandom(seededRandom(seed), new Uint8Array(length));

/** A disk of 1,000 chunks: 100 that nobody else has, 100 twice the same, the rest hole. */
async function importGolden(): Promise<void> {
  const source = sourceOf([
    bytesOf(100 * CHUNK, 1),
    bytesOf(100 * CHUNK, 2),
    bytesOf(100 * CHUNK, 2),
    { holeBytes: 700 * CHUNK },
  ]);
  await f.fleet.importVm({ name: 'golden', source });
}
async function write(vm: string, chunks: number, seed: number): Promise<void> {
  const disk = await f.fleet.attach(vm);
  await disk.write(0, bytesOf(chunks * CHUNK, seed));
  await disk.close();
}
const exclusive = async (
  request?: Parameters<Fixture['fleet']['ownerSpaces']>[0],
): Promise<Record<string, number>> =>
  Object.fromEntries(
    (await f.fleet.ownerSpaces(request)).items.map((owner) => [owner.name, owner.exclusiveBytes]),
  );

describe('space', () => {
  test('of an empty fleet is nothing, and its ratios are 1', async () => {
    const report = await f.fleet.space();
    expect(report).toMatchObject({ logicalBytes: 0, allocatedBytes: 0, uniqueBytes: 0, vms: 0, backups: 0 });
    expect(report.ratios).toEqual({ thin: 1, lineage: 1, dedupe: 1, compression: 1, total: 1 });
    expect(await f.fleet.ownerSpaces()).toEqual({ items: [] });
  });

  test('tells thin, lineage, dedupe and compression apart', async () => {
    await importGolden();
    await f.fleet.cloneVm('golden', { name: 'web', count: 9 });
    const report = await f.fleet.space();
    expect(report).toMatchObject({
      logicalBytes: 10_000 * CHUNK,
      allocatedBytes: 3000 * CHUNK,
      uniqueBytes: 200 * CHUNK,
      vms: 10,
      backups: 0,
    });
    const { thin, lineage, dedupe, compression, total } = report.ratios;
    expect(thin).toBeCloseTo(10 / 3);
    expect(lineage).toBeCloseTo(10);
    expect(dedupe).toBeCloseTo(1.5);
    expect(compression).toBeCloseTo(report.uniqueBytes / report.dataStoredBytes);
    expect(total).toBeCloseTo(report.logicalBytes / report.dataStoredBytes);
    expect(report.ratiosWithoutBackups).toEqual(report.ratios);
    const { segmentBytes, indexBytes } = await f.rooms.store.stats();
    expect(report.storedBytes).toBe(
      segmentBytes + indexBytes + report.logBytes + report.logSpareBytes + report.catalogBytes,
    );
    expect(report.dataStoredBytes + report.metadataBytes + report.garbageBytes).toBe(segmentBytes);
  });

  test('with and without backups', async () => {
    await importGolden();
    for (let i = 0; i < 4; i++) await f.fleet.createBackup('golden');
    const { ratios, ratiosWithoutBackups, backups } = await f.fleet.space();
    expect(backups).toBe(4);
    expect(ratios.lineage).toBeCloseTo(5);
    expect(ratiosWithoutBackups.lineage).toBeCloseTo(1);
    expect(ratiosWithoutBackups.thin).toBeCloseTo(ratios.thin);
  });

  test('exclusive bytes are what deleting that one frees', async () => {
    await importGolden();
    await f.fleet.cloneVm('golden', { name: 'web' });
    await f.fleet.createBackup('web', { name: 'x' });
    await write('web', 50, 3);
    await f.rooms.volumes.settleAll();
    const before = await exclusive();
    expect(Object.keys(before)).toEqual(['golden', 'web', 'web@x']);
    expect(before).toMatchObject({ 'golden': 0, 'web@x': 0 });
    expect(before['web']).toBeGreaterThan(50 * CHUNK * 0.9);
    const garbage = (await f.fleet.space()).garbageBytes;
    await f.fleet.deleteVm('web');
    expect((await f.fleet.space()).garbageBytes - garbage).toBe(before['web']);
  });

  test('writes that are not destaged are bytes of the log and of nothing else', async () => {
    await importGolden();
    const before = await f.fleet.space();
    await write('golden', 50, 3);
    const after = await f.fleet.space();
    expect(after.logBytes).toBeGreaterThan(before.logBytes + 50 * CHUNK);
    expect(after.allocatedBytes).toBe(before.allocatedBytes);
  });

  test('reports while disks are made, deleted and collected never meet a chunk that is gone (seeded)', async () => {
    await importGolden();
    const state = { stopped: false };
    const churn = (async () => {
      for (let i = 0; i < 15; i++) {
        await f.fleet.importVm({ name: `vm-${i}`, source: sourceOf([bytesOf(30 * CHUNK, i + 10)]) });
        if (i >= 2) await f.fleet.deleteVm(`vm-${i - 2}`);
        await f.rooms.store.seal();
        const snapshot = f.catalog.snapshot();
        await collect(f.rooms.store, async function* () {
          for await (const { value } of snapshot.entries('disk')) {
            const record = value as { rootId: Uint8Array; rootHeight: number; rootSize: number };
            yield { id: record.rootId, height: record.rootHeight, size: record.rootSize };
          }
        });
        await snapshot.close();
      }
    })().finally(() => (state.stopped = true));
    while (!state.stopped) {
      const { vms } = await f.fleet.space();
      expect(vms).toBeGreaterThan(0);
    }
    await churn;
  });

  test('ownerSpaces pages through the accounts by kind, also when owners go meanwhile', async () => {
    await importGolden();
    await f.fleet.cloneVm('golden', { name: 'web', count: 4 });
    for (const name of ['x', 'y']) await f.fleet.createBackup('web-1', { name });
    const names = async (request: Parameters<Fixture['fleet']['ownerSpaces']>[0]): Promise<string[]> => {
      const all: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await f.fleet.ownerSpaces({ ...request, ...(cursor === undefined ? {} : { cursor }) });
        all.push(...page.items.map((owner) => owner.name));
        cursor = page.nextCursor;
      } while (cursor !== undefined);
      return all;
    };
    const vms = ['golden', 'web-1', 'web-2', 'web-3', 'web-4'];
    for (const limit of [1, 2, 3, 5, 7, 100]) {
      expect(await names({ limit })).toEqual([...vms, 'web-1@x', 'web-1@y']);
      expect(await names({ limit, kind: 'vm' })).toEqual(vms);
      expect(await names({ limit, kind: 'backup' })).toEqual(['web-1@x', 'web-1@y']);
    }
    const first = await f.fleet.ownerSpaces({ limit: 2 });
    await f.fleet.deleteVm('web-1');
    await f.fleet.space();
    const second = await f.fleet.ownerSpaces({ limit: 2, cursor: first.nextCursor! });
    expect(second.items.map((owner) => owner.name)).toEqual(['web-2', 'web-3']);
    await expect(f.fleet.ownerSpaces({ kind: 'vm', cursor: first.nextCursor! })).rejects.toMatchObject({
      code: 'cursor-invalid',
    });
    await expect(f.fleet.ownerSpaces({ limit: 0 })).rejects.toMatchObject({ code: 'request-invalid' });
  });
});

describe('one walk serves all who ask', () => {
  const nothing = { nodeStoredBytes: 0, inFlightBytes: 0, garbageBytes: 0, liveChunks: 0 };

  /** A walk that counts, takes its time, and says so. */
  function slowWalk(): {
    walks: number;
    walk: ConstructorParameters<typeof Space>[1];
    go: () => void;
    aborted: () => boolean;
  } {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const state = { walks: 0, signal: undefined as AbortSignal | undefined };
    const walk = async (
      _store: unknown,
      owners: AsyncIterable<AccountOwner> | Iterable<AccountOwner>,
      work: AccountWork = {},
    ): Promise<Accounts> => {
      state.walks++;
      state.signal = work.signal;
      const found: Accounts['owners'][number][] = [];
      for await (const { key } of owners)
        found.push({ key, logicalBytes: 4, allocatedBytes: 2, exclusiveBytes: 1 });
      work.onProgress?.({ phase: 'walk', done: 1, all: 2 });
      await promise;
      const sums = {
        logicalBytes: 4,
        allocatedBytes: 2,
        lineageBytes: 2,
        uniqueBytes: 1,
        dataStoredBytes: 1,
      };
      const held = new HeldSetsBuilder(found.length).finish(0);
      return { ...sums, subset: sums, owners: found, held, ...nothing };
    };
    return {
      get walks() {
        return state.walks;
      },
      walk,
      go: () => resolve(undefined),
      aborted: () => state.signal?.aborted === true,
    };
  }
  const spaceOver = (walk: ConstructorParameters<typeof Space>[1]): Space =>
    new Space({ catalog: f.catalog, ...f.rooms } as unknown as FleetContext, walk);
  const turns = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  };

  test('concurrent reports share it, with progress for each', async () => {
    await f.fleet.createVm(oneDisk('a'));
    const slow = slowWalk();
    const space = spaceOver(slow.walk);
    const told: string[] = [];
    const reports = [1, 2, 3].map((n) =>
      space.report({ onProgress: ({ phase }) => told.push(`${n} ${phase}`) }),
    );
    await turns();
    slow.go();
    const [first, ...others] = await Promise.all(reports);
    for (const other of others) expect(other).toEqual(first);
    expect(slow.walks).toBe(1);
    expect(told).toEqual(['1 walk', '2 walk', '3 walk']);
    expect(first!.ratios).toEqual({ thin: 2, lineage: 1, dedupe: 2, compression: 1, total: 4 });
  });

  test('nothing is walked again until catalog or store have changed', async () => {
    await f.fleet.createVm(oneDisk('a'));
    const slow = slowWalk();
    slow.go();
    const space = spaceOver(slow.walk);
    await space.report({});
    await space.report({});
    await space.owners({});
    expect(slow.walks).toBe(1);
    await f.fleet.renameVm('a', 'b');
    expect((await space.owners({})).items[0]!.name).toBe('b');
    expect(slow.walks).toBe(1); // a name is no matter of space
    await f.fleet.importVm({ name: 'c', source: sourceOf([bytesOf(512, 1)]) });
    await space.report({});
    expect(slow.walks).toBe(2);
    await f.fleet.createBackup('b');
    await space.report({});
    expect(slow.walks).toBe(3);
  });

  test('who cancels leaves the others to it; when all have, the walk ends and the next one is fresh', async () => {
    await f.fleet.createVm(oneDisk('a'));
    const slow = slowWalk();
    const space = spaceOver(slow.walk);
    const [a, b] = [new AbortController(), new AbortController()];
    const reports = [a, b].map((cancel) => space.report({ signal: cancel.signal }));
    const outcomes = reports.map((report) => expect(report).rejects.toMatchObject({ code: 'cancelled' }));
    await turns();
    a.abort();
    await outcomes[0];
    expect(slow.aborted()).toBe(false);
    b.abort();
    await outcomes[1];
    expect(slow.aborted()).toBe(true);
    slow.go();
    await space.report({});
    expect(slow.walks).toBe(2);
    await expect(space.report({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'cancelled' });
  });

  test('a walk that fails fails for all, and the next one is fresh', async () => {
    let walks = 0;
    const slow = slowWalk();
    slow.go();
    const space = spaceOver((...args) =>
      walks++ === 0 ? Promise.reject(new Error('damaged')) : slow.walk(...args),
    );
    const reports = [space.report({}), space.report({})];
    for (const report of reports) await expect(report).rejects.toThrow('damaged');
    await space.report({});
    expect(walks).toBe(2);
  });
});

test('a ratio of nothing to nothing is 1', () => {
  const accounts = {
    logicalBytes: 0,
    allocatedBytes: 0,
    lineageBytes: 0,
    uniqueBytes: 0,
    dataStoredBytes: 0,
  };
  expect(ratiosOf(accounts)).toEqual({ thin: 1, lineage: 1, dedupe: 1, compression: 1, total: 1 });
  expect(ratiosOf({ ...accounts, logicalBytes: emptyRoot(512, CHUNK).size }).thin).toBe(1);
});
