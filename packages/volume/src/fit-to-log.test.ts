/** An older catalog and a newer log: every disk of the catalog comes back with all flushed writes, whatever happened since. */
import type { CatalogOperation } from '@pando/catalog';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { expect, it } from 'vitest';
import { NUMBERS_KEY, NUMBERS_TABLE, type NumbersRecord } from './disk.ts';
import { fitToLog } from './fit-to-log.ts';
import type { DiskNumber, LogGate } from './index.ts';
import { CHUNK, none, storeId, TestMachine } from './testing/test-machine.ts';

const CHUNKS_MAX = 8;
const OPERATIONS = 40;

/** A mirror that takes no time, when it is asked to be made. */
class Copy implements LogGate {
  readonly #m: TestMachine;
  #wanted = 0;
  #covered = 0;
  records: readonly CatalogOperation[] = [];
  /** What was there then. */
  disks: readonly DiskNumber[] = [];

  constructor(m: TestMachine) {
    this.#m = m;
  }

  async take(): Promise<void> {
    const wanted = this.#wanted;
    const snapshot = this.#m.records.snapshot();
    const records: CatalogOperation[] = [];
    for (const table of ['disk', 'disk-pending', 'volume'])
      for await (const { key, value } of snapshot.entries(table))
        records.push({ type: 'put', table, key, value: value as object });
    await snapshot.close();
    this.records = records;
    this.disks = records.filter(({ table }) => table === 'disk').map(({ key }) => Number(key));
    this.#covered = Math.max(this.#covered, wanted);
  }

  release(position: number): number {
    this.#wanted = Math.max(this.#wanted, position);
    return Math.min(position, this.#covered);
  }

  onRelease(): void {}

  settle(): Promise<void> {
    return this.take();
  }
}

const seeds = [runSeed(), 3, 4];
it.each(seeds)('every disk that the catalog knows has all that was flushed (seed %i)', async (seed) => {
  const random = seededRandom(seed);
  const m = new TestMachine();
  /** Also of disks that were removed: they may come back. */
  const contents = new Map<DiskNumber, Buffer>();
  const there = new Set<DiskNumber>();
  const readOnly = new Set<DiskNumber>();
  let unknown = 0;
  const options = { logFileBytes: 2 * CHUNK, logBytesMax: 60 * CHUNK };
  for (let round = 0; round < 12; round++) {
    const copy = new Copy(m);
    await m.open({ ...options, logGate: copy });
    await copy.take();
    const pick = (): DiskNumber => [...there][between(random, 0, there.size - 1)]!;
    for (let n = 0; n < OPERATIONS; n++) {
      const dice = random();
      const disk = there.size === 0 ? -1 : pick();
      const now = contents.get(disk);
      if (now === undefined || dice < 0.05) {
        const size = between(random, 1, CHUNKS_MAX) * CHUNK;
        const made = await m.volumes.create({ size }, none);
        contents.set(made, Buffer.alloc(size));
        there.add(made);
      } else if (dice < 0.5) {
        if (readOnly.has(disk)) continue;
        const offset = between(random, 0, now.length / 512 - 1) * 512;
        const data = fillRandom(
          random,
          new Uint8Array(Math.min(between(random, 1, 12) * 512, now.length - offset)),
        );
        await m.write(disk, offset, data);
        now.set(data, offset);
      } else if (dice < 0.62) await m.volumes.settle(disk);
      else if (dice < 0.72) {
        const isBackup = random() < 0.5;
        const made = await m.fork(disk, isBackup);
        contents.set(made, Buffer.from(now));
        there.add(made);
        if (isBackup) readOnly.add(made);
      } else if (dice < 0.78) {
        const target = pick();
        if (readOnly.has(target)) continue;
        await m.volumes.replace([{ target, source: disk }], none);
        contents.set(target, Buffer.from(now));
      } else if (dice < 0.86) {
        if (readOnly.has(disk)) continue;
        const size = between(random, 1, CHUNKS_MAX) * CHUNK;
        await m.volumes.resize(disk, size, none);
        contents.set(disk, Buffer.concat([now, Buffer.alloc(CHUNKS_MAX * CHUNK)]).subarray(0, size));
      } else if (dice < 0.9 && there.size > 3) {
        await m.volumes.remove([disk], none);
        there.delete(disk);
      } else if (dice < 0.94) await copy.take();
      else await m.volumes.settleAll();
    }
    const { records, disks } = copy;
    m.crash();
    for (let again = between(random, 1, 2); again > 0; again--) {
      for (const table of ['disk', 'disk-pending', 'volume']) {
        const found = await m.records.list(table, { limit: 10_000 });
        await m.records.commit(found.map(({ key }) => ({ type: 'delete', table, key })));
      }
      await m.records.commit(records);
      const given = { catalog: m.records, fs: m.fs, logDirectory: 'log', storeId, chunkBytes: CHUNK };
      const fit = await fitToLog(given);
      expect(fit).toMatchObject({ cut: [] });
      expect(fit.problem).toBeUndefined();
      unknown += fit.unknown.length;
    }
    there.clear();
    for (const disk of disks) there.add(disk);
    for (const disk of contents.keys()) if (!there.has(disk)) contents.delete(disk);
    await m.open(options);
    for (const disk of disks) {
      const expected = contents.get(disk)!;
      const handle = await m.volumes.open(disk);
      expect(handle.size, `disk ${disk}`).toBe(expected.length);
      await handle.close();
      expect((await m.read(disk, 0, expected.length)).equals(expected), `disk ${disk}`).toBe(true);
    }
    if (random() < 0.5) m.crash();
    else await m.volumes.close();
    if (!m.isOff) m.crash();
  }
  // With most seeds; these two are among them.
  if (seed !== seeds[0]) expect(unknown).toBeGreaterThan(0);
});

it('numbers go on above those of all disks and overlays, also where the record of them is lost', async () => {
  const m = new TestMachine();
  const numbers = { version: 1, lastDisk: 5_000_000, lastOverlay: 7_000_000 };
  await m.records.commit([{ type: 'put', table: NUMBERS_TABLE, key: NUMBERS_KEY, value: numbers }]);
  await m.open();
  const source = await m.volumes.create({ size: CHUNK }, none);
  const target = await m.volumes.create({ size: CHUNK }, none);
  await m.write(source, 0, Buffer.alloc(CHUNK, 1));
  await m.volumes.replace([{ target, source }], none);
  await m.volumes.close();
  await m.records.commit([{ type: 'delete', table: NUMBERS_TABLE, key: NUMBERS_KEY }]);
  const given = { catalog: m.records, fs: m.fs, logDirectory: 'log', storeId, chunkBytes: CHUNK };
  expect(await fitToLog(given)).toEqual({ unknown: [], cut: [] });
  const fitted = (await m.records.get(NUMBERS_TABLE, NUMBERS_KEY)) as NumbersRecord;
  expect(fitted.lastDisk).toBeGreaterThan(target);
  expect(fitted.lastOverlay).toBeGreaterThan(7_000_000);
});
