/**
 * A data directory with everything in it that a store can have, as a killed server leaves it, and what it holds; copies of it to
 * be damaged; and what a copy gives to whoever opens it.
 */
import { cp, mkdtemp, readdir, readFile, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { isPandoError, systemClock, type Clock, type PandoError, type SpaceGuard } from '@pando/common';
import { between, fillRandom, seededRandom } from '@pando/common/testing';
import type { VerifyReport } from '@pando/api';
import { listOwnedDisks } from '@pando/fleet';
import type { LogLoss } from '@pando/volume';
import { openDataDirectory } from '../../apps/server/src/data-directory.ts';
import { openStore, type OpenStore } from '../../apps/server/src/store.ts';
import { verifyAll } from '../../apps/server/src/verify.ts';

export const CHUNK = 4096;
const WEB_BYTES = 150 * CHUNK + 1024;
const OTHER_BYTES = 40 * CHUNK;

/** Time stands still, so that nothing is destaged before somebody asks for it. */
const stopped: Clock = { ...systemClock, monotonic: () => 0 };
const ample: SpaceGuard = { refusal: undefined };

export interface Pristine {
  readonly path: string;
  /** Every export, and what it holds. */
  readonly disks: ReadonlyMap<string, Buffer>;
  /** What the exports held before the writes that are in the log. */
  readonly settled: ReadonlyMap<string, Buffer>;
}

/** Makes the directory. The caller removes it. */
export async function makeStore(seed: number): Promise<Pristine> {
  const random = seededRandom(seed);
  const path = await mkdtemp(join(tmpdir(), 'pando-pristine-'));
  const live = join(path, 'live');
  const disks = new Map<string, Buffer>();
  let { open, close } = await openIn(live);
  const write = async (exportName: string, offset: number, data: Uint8Array): Promise<void> => {
    const disk = await open.fleet.attach(exportName);
    await disk.write(offset, data);
    await disk.flush();
    await disk.close();
    disks.get(exportName)!.set(data, offset);
  };
  const make = async (name: string, sizeBytes: number): Promise<void> => {
    await open.fleet.createVm({ name, disks: [{ name: 'disk0', sizeBytes }] });
    disks.set(`${name}/disk0`, Buffer.alloc(sizeBytes));
  };
  const copy = (from: string, to: string): void => void disks.set(to, Buffer.from(disks.get(from)!));

  await make('web', WEB_BYTES);
  await make('other', OTHER_BYTES);
  await make('spare', OTHER_BYTES);
  await write('web/disk0', 0, fillRandom(random, Buffer.alloc(WEB_BYTES)));
  await write('other/disk0', 0, Buffer.alloc(OTHER_BYTES / 2, 'compressible'));
  await open.volumes.settleAll();
  await open.fleet.createBackup('web', { name: 'monday' });
  copy('web/disk0', 'web@monday/disk0');
  await open.fleet.cloneVm('web', { name: 'clone' });
  copy('web/disk0', 'clone/disk0');
  // A restart seals segments, and makes tables of the logs of catalog and index.
  await close();
  ({ open, close } = await openIn(live));
  await write('clone/disk0', 30 * CHUNK, fillRandom(random, Buffer.alloc(9 * CHUNK)));
  await write('other/disk0', 10 * CHUNK + 100, fillRandom(random, Buffer.alloc(12 * CHUNK)));
  await open.volumes.settleAll();
  const settled = new Map([...disks].map(([name, bytes]) => [name, Buffer.from(bytes)]));
  for (let i = 0; i < 20; i++) {
    const exportName = ['web/disk0', 'clone/disk0', 'other/disk0'][i % 3]!;
    const size = disks.get(exportName)!.length;
    const length = between(random, 1, 5 * CHUNK);
    const data = fillRandom(random, Buffer.alloc(length));
    await write(exportName, between(random, 0, Math.floor((size - length) / 512)) * 512, data);
    if (i === 10) {
      await open.fleet.createBackup('web', { name: 'tuesday' });
      copy('web/disk0', 'web@tuesday/disk0');
      settled.set('web@tuesday/disk0', settled.get('web/disk0')!);
    }
  }
  // What is in the page cache is what a killed process leaves.
  await cp(live, join(path, 'data'), { recursive: true });
  await withoutSpares(join(path, 'data', 'log'));
  await close();
  await rm(live, { recursive: true });
  return { path, disks, settled };
}

/** Leaves only a little of the room that the log has in advance: damage to it is no damage, and it would get nearly all of it. */
async function withoutSpares(log: string): Promise<void> {
  for (const name of await readdir(log)) {
    const file = join(log, name);
    if (!name.endsWith('.log')) {
      await rm(file);
      continue;
    }
    const bytes = await readFile(file);
    const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
    await truncate(file, Math.min(bytes.length, end + 500));
  }
}

/** A copy of it, to be damaged. The caller removes it. */
export async function copyOf({ path }: Pristine): Promise<string> {
  const copy = await mkdtemp(join(tmpdir(), 'pando-damaged-'));
  await cp(join(path, 'data'), copy, { recursive: true });
  return copy;
}

/** The files that hold anything, with their sizes, by their paths in the directory. */
export async function filesOf({ path }: Pristine): Promise<{ file: string; size: number }[]> {
  const data = join(path, 'data');
  const files: { file: string; size: number }[] = [];
  for (const entry of await readdir(data, { recursive: true, withFileTypes: true })) {
    const full = join(entry.parentPath, entry.name);
    // LevelDB's lock, and what it tells people.
    if (!entry.isFile() || /^(LOCK|LOG|LOG\.old)$/.test(entry.name)) continue;
    files.push({ file: relative(data, full), size: (await stat(full)).size });
  }
  return files.sort((a, b) => (a.file < b.file ? -1 : 1));
}

export interface Range {
  readonly offset: number;
  bytes: number;
}

/** What of an export cannot be read, or is said to be lost. */
export type Ranges = ReadonlyMap<string, readonly Range[]>;

export interface Outcome {
  /** Why it does not open. */
  readonly refused?: PandoError;
  /** What was made again when it opened. */
  readonly mended: readonly string[];
  readonly logLoss?: LogLoss | undefined;
  /** What is named as damaged by verification, or as lost with the log. */
  readonly named: Ranges;
  /** Exports that may have lost more with the log. */
  readonly maybe: readonly string[];
  /** Of each export: chunks that cannot be read, as ranges; and numbers of those that hold something else than they should. */
  readonly unreadable: Ranges;
  readonly wrong: ReadonlyMap<string, readonly number[]>;
  readonly report?: VerifyReport;
}

/** Opens a directory, reads all that there is, verifies it, and writes to a disk that has nothing to do with it. */
export async function outcomeOf(
  directory: string,
  disks: ReadonlyMap<string, Buffer>,
  accept: { readonly log?: boolean; readonly catalog?: boolean } = {},
): Promise<Outcome> {
  let opened: Awaited<ReturnType<typeof openIn>>;
  try {
    opened = await openIn(directory, accept);
  } catch (error) {
    if (!isPandoError(error)) throw error;
    const none = new Map();
    return { refused: error, mended: [], named: none, maybe: [], unreadable: none, wrong: none };
  }
  const { open, close, mended } = opened;
  try {
    const unreadable = new Map<string, Range[]>();
    const wrong = new Map<string, number[]>();
    for (const [exportName, expected] of disks) {
      const found = await readChunks(open, exportName, expected);
      if (found.unreadable.length > 0) unreadable.set(exportName, found.unreadable);
      if (found.wrong.length > 0) wrong.set(exportName, found.wrong);
    }
    const { report } = await verifyAll({ catalog: open.catalog, store: open.store });
    const spare = await open.fleet.attach('spare/disk0');
    const data = fillRandom(seededRandom(1), Buffer.alloc(3 * CHUNK));
    await spare.write(CHUNK + 7, data);
    await spare.flush();
    const back = Buffer.alloc(data.length);
    await spare.read(CHUNK + 7, data.length, back, 0);
    if (!back.equals(data)) throw new Error('what was written just now is not what is read');
    await spare.close();
    const { logLoss } = open.volumes;
    const named = new Map(report.disks.map(({ name, disk, ranges }) => [`${name}/${disk}`, [...ranges]]));
    const maybe: string[] = [];
    for await (const { number, name, disk } of listOwnedDisks(open.catalog)) {
      const exportName = `${name}/${disk}`;
      if (logLoss?.maybe.includes(number) === true) maybe.push(exportName);
      const lost = logLoss?.disks.find((each) => each.disk === number)?.ranges ?? [];
      if (lost.length > 0) named.set(exportName, [...(named.get(exportName) ?? []), ...lost]);
    }
    // What verification has mended is whole again, and needs no name.
    for (const [exportName, ranges] of unreadable) {
      const isNamed = (at: number): boolean =>
        named.get(exportName)?.some(({ offset, bytes }) => at >= offset && at < offset + bytes) === true;
      if (ranges.every(({ offset, bytes }) => isNamed(offset) && isNamed(offset + bytes - 1))) continue;
      const again = await readChunks(open, exportName, disks.get(exportName)!);
      if (again.wrong.length > 0) wrong.set(exportName, again.wrong);
      if (again.unreadable.length > 0) unreadable.set(exportName, again.unreadable);
      else unreadable.delete(exportName);
      mended.push(`${exportName}, by verification`);
    }
    // A close in order keeps in the log what it has no time for; that is not what is asked here.
    if (accept.log === true) {
      await open.volumes.settleAll().catch((error: unknown) => {
        if (!isPandoError(error) || error.kind !== 'data') throw error;
      });
    }
    return { mended, logLoss, named, maybe, unreadable, wrong, report };
  } finally {
    await close();
  }
}

async function readChunks(
  open: OpenStore,
  exportName: string,
  expected: Buffer,
): Promise<{ unreadable: Range[]; wrong: number[] }> {
  const disk = await open.fleet.attach(exportName);
  const unreadable: Range[] = [];
  const wrong: number[] = [];
  const bytes = Buffer.alloc(CHUNK);
  for (let offset = 0; offset < expected.length; offset += CHUNK) {
    const length = Math.min(CHUNK, expected.length - offset);
    try {
      await disk.read(offset, length, bytes, 0);
      if (!bytes.subarray(0, length).equals(expected.subarray(offset, offset + length)))
        wrong.push(offset / CHUNK);
    } catch (error) {
      if (!isPandoError(error) || error.kind !== 'data') throw error;
      const last = unreadable.at(-1);
      if (last !== undefined && last.offset + last.bytes === offset) last.bytes += length;
      else unreadable.push({ offset, bytes: length });
    }
  }
  await disk.close();
  return { unreadable, wrong };
}

async function openIn(
  path: string,
  accept: { readonly log?: boolean; readonly catalog?: boolean } = {},
): Promise<{ open: OpenStore; close: () => Promise<void>; mended: string[] }> {
  const mended: string[] = [];
  const directory = await openDataDirectory(path, {
    clock: stopped,
    create: true,
    acceptCatalogDamage: accept.catalog === true,
  });
  if (directory.mended !== undefined) mended.push(directory.mended);
  try {
    const open = await openStore(directory, stopped, ample, {
      acceptLogDamage: accept.log === true,
      onIndexRebuild: (error) => mended.push(error.message),
    });
    const close = async (): Promise<void> => {
      await open.fleet.close();
      await open.volumes.close();
      await open.mirror.close();
      await open.store.close();
      await directory.catalog.close();
    };
    return { open, close, mended };
  } catch (error) {
    await directory.catalog.close();
    throw error;
  }
}
