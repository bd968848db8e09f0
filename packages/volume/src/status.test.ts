/** What disks say about themselves: against a model, what it costs, and what is kept for it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StatusExtents } from '@pando/block-device';
import { MemoryCatalog, type CatalogOperation } from '@pando/catalog';
import { TiB } from '@pando/common';
import { CrashFileSystem, runSeed, seededRandom } from '@pando/common/testing';
import { DISK_TABLE, diskKey, openVolumes, type DiskNumber, type OpenVolume, type Volumes } from './index.ts';
import { STRETCHES_MAX } from './comparison.ts';
import { StatusModel } from './testing/status-model.ts';
import { scarce } from './testing/test-machine.ts';
import { TestStore } from './testing/test-store.ts';
import { testWorld } from './testing/test-world.ts';
import type { DiskRecord } from './types.ts';

const CHUNK = 4096;
const storeId = new Uint8Array(16).fill(6);
const none = (): [] => [];

it('says what differs, how old it is and what is pending, exactly, at every moment', async () => {
  const model = new StatusModel(runSeed(), testWorld);
  await model.run(200);
}, 60_000);

for (const seed of [1, 2, 3, 4]) {
  it(`does so for the fixed seed ${seed}`, async () => {
    const model = new StatusModel(seed, testWorld);
    await model.run(150);
    expect(model.old.known).toBeGreaterThan(50);
  }, 60_000);
}

/** Counts commits and what is in them. */
class CountingCatalog extends MemoryCatalog {
  commits: (readonly CatalogOperation[])[] = [];

  override commit(operations: readonly CatalogOperation[]): Promise<void> {
    this.commits.push(operations);
    return super.commit(operations);
  }
}

let catalog: CountingCatalog;
let fs: CrashFileSystem;
let store: TestStore;
let volumes: Volumes;
let warm = true;
const handles: OpenVolume[] = [];

async function open(): Promise<Volumes> {
  return openVolumes({
    store: store.asChunkStore(),
    catalog,
    fs,
    logDirectory: 'log',
    storeId,
    destageAfterMs: 1e9,
    // The file system of tests copies a file for each write.
    logFileBytes: 1e6,
    space: scarce,
  });
}

async function handleOf(disk: DiskNumber): Promise<OpenVolume> {
  const handle = await volumes.open(disk);
  handles.push(handle);
  return handle;
}

async function fork(source: DiskNumber, readOnly = true): Promise<DiskNumber> {
  const request = { sources: [source], copies: 1, readOnly, records: none };
  const [[copy]] = (await volumes.fork(request)) as [[number]];
  return copy;
}

async function write(handle: OpenVolume, chunk: number, byte: number): Promise<void> {
  await handle.write(chunk * CHUNK, Buffer.alloc(CHUNK, byte));
}

/** Chunks with another flag than 0, as `first+count:flag`. */
function flagged({ lengths, flags }: StatusExtents): string {
  const found: string[] = [];
  let at = 0;
  for (const [index, length] of lengths.entries()) {
    if (flags[index] !== 0) found.push(`${at / CHUNK}+${length / CHUNK}:${flags[index]}`);
    at += length;
  }
  return found.join(' ');
}

async function recordOf(disk: DiskNumber): Promise<DiskRecord> {
  return (await catalog.get(DISK_TABLE, diskKey(disk))) as DiskRecord;
}

/** Power fails, with nothing of what was not synced kept, and comes back. */
async function crash(): Promise<void> {
  handles.length = 0;
  fs = fs.crash(() => 0.99);
  store = store.crash();
  volumes = await open();
}

beforeEach(async () => {
  warm = true;
  catalog = new CountingCatalog();
  fs = new CrashFileSystem();
  store = new TestStore(CHUNK, () => warm);
  volumes = await open();
});

afterEach(async () => {
  for (const handle of handles.splice(0)) await handle.close();
  await volumes.close().catch(() => undefined);
});

describe('what it costs', () => {
  const SIZE = 64 * TiB;
  const CHUNKS = SIZE / CHUNK;
  /** Nodes of a way from the top of a tree of 64 TiB to a chunk. */
  const HEIGHT = 5;
  let disk: OpenVolume;
  let backup: OpenVolume;

  const cost = async (run: () => Promise<StatusExtents>): Promise<{ said: string; nodes: number }> => {
    store.memory.resetCounts();
    const said = flagged(await run());
    // Ids are compared, data is never read.
    expect(store.memory.counts.chunkReads).toBe(0);
    return { said, nodes: store.memory.counts.nodeReads };
  };

  beforeEach(async () => {
    disk = await handleOf(await volumes.create({ size: SIZE }, none));
    for (let i = 0; i < 500; i++) await write(disk, i * 30_000_011, 1 + (i % 250));
    await volumes.settleAll();
    backup = await handleOf(await fork(disk.disk));
    warm = false;
  });

  it('one chunk that has changed in 64 TiB costs two ways through the tree, or one while it is in an overlay', async () => {
    const late = CHUNKS - 1000;
    await write(disk, late, 9);
    for (const ways of [1, 2]) {
      const all = await cost(() => disk.differences(backup, 0, SIZE, 100));
      expect(all.said).toBe(`${late}+1:1`);
      expect(all.nodes).toBeLessThanOrEqual(ways * HEIGHT);
      const back = await cost(() => backup.differences(disk, 0, SIZE, 100));
      expect(back).toEqual(all);
      // Past all that is stored.
      const past = await cost(() => disk.differences(backup, SIZE - 10 * CHUNK, 10 * CHUNK, 1));
      expect(past.said).toBe('');
      expect(past.nodes).toBeLessThanOrEqual((ways - 1) * 2 * HEIGHT);
      const { nodes } = await cost(() => disk.differences(backup, late * CHUNK, 999 * CHUNK, 1));
      expect(nodes).toBeLessThanOrEqual(ways * HEIGHT);
      await volumes.settleAll();
    }
  });

  it('a late range costs its own way, however much lies before', async () => {
    const late = 499 * 30_000_011;
    const depths = await cost(() => disk.depths(late * CHUNK, CHUNK, 1));
    expect(depths.said).toBe('0+1:2');
    expect(depths.nodes).toBeLessThanOrEqual(HEIGHT);
    const few = await cost(() => disk.depths(0, SIZE, 2));
    expect(few.said).toBe('0+1:2');
    // Some are read ahead, none of the hundreds that follow.
    expect(few.nodes).toBeLessThanOrEqual(50);
  });

  it('a trim of 64 TiB on either side costs what was stored under it, and as little as is asked for', async () => {
    await disk.zero(CHUNK, SIZE - CHUNK);
    for (let i = 0; i < 2; i++) {
      for (const [one, other] of [
        [disk, backup],
        [backup, disk],
      ] as const) {
        const first = await cost(() => one.differences(other, 0, SIZE, 2));
        expect(first.said).toBe('30000011+1:1');
        expect(first.nodes).toBeLessThanOrEqual(50);
        const all = await one.differences(other, 0, SIZE, 10_000);
        expect(all.flags.filter((flag) => flag === 1)).toHaveLength(499);
      }
      expect(await cost(() => disk.depths(0, SIZE, 10_000))).toMatchObject({ said: '0+1:2' });
      await volumes.settleAll();
    }
  });

  it('an answer ends early when much was read for it, and gets on all the same', async () => {
    await disk.zero(0, SIZE);
    for (let i = 0; i < STRETCHES_MAX; i++) await write(disk, 2 * i + 1, 7);
    const found: number[] = [];
    let calls = 0;
    for (let at = 0; at < SIZE; calls++) {
      const { lengths, flags } = await disk.differences(backup, at, SIZE - at, 1e6);
      expect(lengths.length).toBeLessThanOrEqual(STRETCHES_MAX + 1000);
      for (const [index, length] of lengths.entries()) {
        for (let chunk = at; flags[index] === 1 && chunk < at + length; chunk += CHUNK)
          found.push(chunk / CHUNK);
        at += length;
      }
    }
    expect(calls).toBeGreaterThan(2);
    expect(calls).toBeLessThan(10);
    expect(found.slice(0, 4)).toEqual([0, 1, 3, 5]);
    expect(found).toHaveLength(STRETCHES_MAX + 500);
  }, 60_000);
});

describe('what is kept for it', () => {
  it('a fork takes the commit and the syncs that it took without', async () => {
    const disk = await handleOf(await volumes.create({ size: 100 * CHUNK }, none));
    const taken = async (): Promise<[commits: number, records: number, syncs: number]> => {
      catalog.commits = [];
      let syncs = 0;
      fs.faults.before = (operation) => {
        if (operation.startsWith('sync')) syncs++;
      };
      await fork(disk.disk);
      const records = catalog.commits.flat().filter(({ table }) => table === DISK_TABLE).length;
      return [catalog.commits.length, records, syncs];
    };
    // Of a disk without overlays: its record goes with the commit once, for as long as nothing changes.
    expect(await taken()).toEqual([1, 2, 0]);
    expect(await taken()).toEqual([1, 1, 0]);
    // Of one with overlays, where the log is synced: its record went with the commit before, too.
    await write(disk, 1, 1);
    const [commits, records, syncs] = await taken();
    expect([commits, records]).toEqual([1, 2]);
    expect(syncs).toBeGreaterThan(0);
    await volumes.settleAll();
    expect(await taken()).toEqual([1, 1, 0]);
  });

  it('records name the overlay, and its root once that was destaged; a disk of a backup needs nothing', async () => {
    const disk = await handleOf(await volumes.create({ size: 100 * CHUNK }, none));
    expect(await recordOf(disk.disk)).not.toHaveProperty('forked');
    await write(disk, 1, 1);
    const [clone, backup] = [await fork(disk.disk, false), await fork(disk.disk)];
    const { overlays } = await recordOf(disk.disk);
    expect(overlays).toHaveLength(1);
    for (const number of [disk.disk, clone])
      expect((await recordOf(number)).forked).toEqual({ overlay: overlays[0] });
    expect(await recordOf(backup)).not.toHaveProperty('forked');
    await write(disk, 2, 2);
    await volumes.settleAll();
    const { rootId, rootHeight, rootSize } = await recordOf(backup);
    for (const number of [disk.disk, clone])
      expect((await recordOf(number)).forked).toEqual({ rootId, rootHeight, rootSize });
  });

  it('the newest of several forks at one time counts, also after a power cut', async () => {
    const random = seededRandom(runSeed());
    for (let round = 0; round < 20; round++) {
      const disk = (await handleOf(await volumes.create({ size: 100 * CHUNK }, none))).disk;
      const handle = await handleOf(disk);
      const forks: Promise<DiskNumber>[] = [];
      let called = 0;
      for (let i = 1; i <= 5; i++) {
        await write(handle, i, i);
        if (random() < 0.3) void volumes.settle(disk).catch(() => undefined);
        if (random() < 0.7) {
          forks.push(fork(disk, random() < 0.5));
          called = i;
        }
        for (let turns = Math.floor(random() * 4); turns > 0; turns--) await Promise.resolve();
      }
      // The instant of a fork is somewhere between its call and its return: later writes may be in it.
      let last = 0;
      for (const copy of await Promise.all(forks)) {
        const bytes = Buffer.alloc(6 * CHUNK);
        await (await handleOf(copy)).read(0, bytes.byteLength, bytes, 0);
        for (let i = 1; i <= 5; i++) if (bytes[i * CHUNK] === i) last = Math.max(last, i);
      }
      expect(last).toBeGreaterThanOrEqual(called);
      await handle.flush();
      const expected = [1, 2, 3, 4, 5].map((i) => `${i}:${i <= last ? 2 : 1}`).join(' ');
      const said = async (): Promise<string> => {
        const { lengths, flags } = await (await handleOf(disk)).depths(0, 6 * CHUNK, 100);
        const each = flags.flatMap((flag, i) => Array.from({ length: lengths[i]! / CHUNK }, () => flag));
        return [1, 2, 3, 4, 5].map((i) => `${i}:${each[i]}`).join(' ');
      };
      expect(await said()).toBe(expected);
      if (round % 4 === 0) await crash();
      expect(await said()).toBe(expected);
      await volumes.settleAll();
      expect(await said()).toBe(expected);
    }
  });

  it('a fork that fails leaves the fork before it the newest', async () => {
    const disk = await handleOf(await volumes.create({ size: 100 * CHUNK }, none));
    await write(disk, 1, 1);
    await fork(disk.disk);
    await write(disk, 2, 2);
    await expect(
      volumes.fork({
        sources: [disk.disk],
        copies: 1,
        readOnly: true,
        records: () => {
          throw new Error('as the test wanted');
        },
      }),
    ).rejects.toThrow('as the test wanted');
    expect(flagged(await disk.depths(0, 100 * CHUNK, 10))).toBe('1+1:2 2+1:1');
    await volumes.settleAll();
    expect(flagged(await disk.depths(0, 100 * CHUNK, 10))).toBe('1+1:2 2+1:1');
  });

  it('a backup that is deleted frees its chunks; what only it could tell counts as new', async () => {
    const disk = await handleOf(await volumes.create({ size: 1000 * CHUNK }, none));
    for (const chunk of [1, 2, 900]) await write(disk, chunk, chunk % 255);
    const backup = await fork(disk.disk);
    await write(disk, 2, 200);
    await volumes.settleAll();
    expect(flagged(await disk.depths(0, 1000 * CHUNK, 10))).toBe('1+1:2 2+1:1 900+1:2');
    await volumes.remove([backup], none);
    expect(await store.collect(catalog)).toBeGreaterThan(0);
    // The fork's top node is gone.
    expect(flagged(await disk.depths(0, 1000 * CHUNK, 10))).toBe('1+2:1 900+1:1');
    await disk.write(900 * CHUNK, Buffer.alloc(CHUNK, 900 % 255));
    expect(flagged(await disk.depths(0, 1000 * CHUNK, 10))).toBe('1+2:1 900+1:1');
  });

  it('records of before know no fork, and one that cannot be is refused', async () => {
    const disk = await handleOf(await volumes.create({ size: 100 * CHUNK }, none));
    await write(disk, 1, 1);
    await fork(disk.disk);
    await volumes.settleAll();
    const { forked, ...before } = await recordOf(disk.disk);
    const reopen = async (record: object): Promise<OpenVolume> => {
      for (const handle of handles.splice(0)) await handle.close();
      await volumes.close();
      await catalog.commit([{ type: 'put', table: DISK_TABLE, key: diskKey(disk.disk), value: record }]);
      volumes = await open();
      return handleOf(disk.disk);
    };
    expect(flagged(await (await reopen({ ...before, forked })).depths(0, 100 * CHUNK, 9))).toBe('1+1:2');
    expect(flagged(await (await reopen(before)).depths(0, 100 * CHUNK, 9))).toBe('1+1:1');
    for (const bad of [null, 7, {}, { overlay: 5 }, { ...(forked as object), rootHeight: 9 }])
      await expect(reopen({ ...before, forked: bad })).rejects.toMatchObject({ code: 'catalog-corrupt' });
  });
});

describe('what goes wrong', () => {
  it('what a fork was read through is destaged and collected while it is asked: the new root answers', async () => {
    const disk = await handleOf(await volumes.create({ size: 1000 * CHUNK }, none));
    await write(disk, 700, 7);
    await volumes.settleAll();
    await write(disk, 701, 1);
    const backup = await handleOf(await fork(disk.disk));
    await write(disk, 700, 7); // what it held already: the fork's tree is asked for the id
    await write(disk, 702, 2);
    warm = false;
    let pass!: () => void;
    const passed = new Promise<void>((resolve) => (pass = resolve));
    const { memory } = store;
    const read = memory.readNode.bind(memory);
    memory.readNode = async (...node) => {
      memory.readNode = read;
      await passed;
      return read(...node);
    };
    const asked = disk.depths(700 * CHUNK, 3 * CHUNK, 10);
    await volumes.settleAll();
    expect(await store.collect(catalog)).toBeGreaterThan(0);
    pass();
    expect(flagged(await asked)).toBe('0+2:2 2+1:1');
    expect(flagged(await disk.differences(backup, 700 * CHUNK, 3 * CHUNK, 10))).toBe('2+1:1');
  });

  it('damage of either side is told, and is no difference', async () => {
    const disk = await handleOf(await volumes.create({ size: 1000 * CHUNK }, none));
    await write(disk, 1, 1);
    const backup = await handleOf(await fork(disk.disk));
    await volumes.settleAll();
    await write(disk, 1, 2);
    warm = false;
    store.readFault = () => true;
    const damaged = { code: 'chunk-corrupt' };
    await expect(disk.differences(backup, 0, 1000 * CHUNK, 10)).rejects.toMatchObject(damaged);
    await expect(backup.differences(disk, 0, 1000 * CHUNK, 10)).rejects.toMatchObject(damaged);
    await expect(disk.depths(0, 1000 * CHUNK, 10)).rejects.toMatchObject(damaged);
    await expect(disk.allocation(0, 1000 * CHUNK, 10)).rejects.toMatchObject(damaged);
    expect(flagged(await disk.pending(0, 1000 * CHUNK, 10))).toBe('1+1:1');
    store.readFault = undefined;
    expect(flagged(await disk.differences(backup, 0, 1000 * CHUNK, 10))).toBe('1+1:1');
  });

  it('a handle that is closed neither asks nor is compared with', async () => {
    const disk = await volumes.create({ size: 100 * CHUNK }, none);
    const [open1, closed] = [await handleOf(disk), await volumes.open(disk)];
    await closed.close();
    const code = { code: 'shutting-down' };
    await expect(open1.differences(closed, 0, CHUNK, 1)).rejects.toMatchObject(code);
    await expect(closed.differences(open1, 0, CHUNK, 1)).rejects.toMatchObject(code);
    await expect(closed.depths(0, CHUNK, 1)).rejects.toMatchObject(code);
    await expect(closed.pending(0, CHUNK, 1)).rejects.toMatchObject(code);
    for (const ask of ['depths', 'pending', 'allocation'] as const)
      await expect(open1[ask](99 * CHUNK, 2 * CHUNK, 1)).rejects.toMatchObject({ code: 'range-invalid' });
    await expect(open1.differences(open1, -1, 2, 1)).rejects.toMatchObject({ code: 'range-invalid' });
  });
});
