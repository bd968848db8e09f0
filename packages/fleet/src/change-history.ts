/**
 * How much of a VM changes in how long, by its own backups: what a backup holds that a later one does not have any more. Between some
 * pairs of them, closer and farther apart, with a bounded number of nodes read; nothing is destaged for it.
 */
import { zstdCompressSync } from 'node:zlib';
import { isPandoError } from '@pando/common';
import { allocationOf, chunkCount, differences, readTree, type Root } from '@pando/tree';
import type { FleetContext } from './context.ts';
import { findVm, holdBackup } from './lookup.ts';
import { diskKey, getRecord, readAs, vmBackupKey, type BackupRecord } from './records.ts';
import type { ChangeHistory } from './types.ts';

/** Backups of a VM that are looked at, the newest. */
const BACKUPS_MAX = 1000;
/** Of these so many may wait for their destage. */
const UNSETTLED_MAX = 8;
/** Pairs of nodes that one comparison reads, and all of a VM; ranges of one comparison. */
const PAIRS_MAX = 4_000;
const ALL_PAIRS_MAX = 20_000;
const RANGES_MAX = 10_000;
/** Pieces of what has changed that are compressed, to see what they come to. */
const SAMPLES_MAX = 48;
/** As long as a run. */
const SAMPLE_BYTES = 16 * 1024;

interface Taken {
  readonly id: string;
  readonly at: number;
  readonly roots: ReadonlyMap<string, Root>;
}

class Sampler {
  rawBytes = 0;
  storedBytes = 0;
  #left = SAMPLES_MAX;

  get isDone(): boolean {
    return this.#left === 0;
  }

  take(bytes: Uint8Array): void {
    this.#left--;
    this.rawBytes += bytes.byteLength;
    this.storedBytes += Math.min(bytes.byteLength, zstdCompressSync(bytes).byteLength);
  }
}

export async function changeHistory(ctx: FleetContext, ref: string): Promise<ChangeHistory> {
  const { id, record } = await findVm(ctx, ref);
  const logicalBytes = record.disks.reduce((sum, { size }) => sum + size, 0);
  const sampler = new Sampler();
  const samples: { gapMs: number; bytes: number }[] = [];
  const budget = { pairs: ALL_PAIRS_MAX };
  const [newest, ...olderOnes] = await listTaken(ctx, id);
  for (const older of newest === undefined ? [] : olderOnes) {
    const gapMs = newest!.at - older.at;
    if (gapMs <= 0 || budget.pairs <= 0) continue;
    const bytes = await holdBoth(ctx, older, newest!, () => heldBytes(ctx, older, newest!, budget, sampler));
    if (bytes !== undefined) samples.push({ gapMs, bytes });
  }
  const { rawBytes, storedBytes } = sampler;
  return { logicalBytes, samples, storedRatio: rawBytes === 0 ? 1 : storedBytes / rawBytes };
}

/** While neither can be deleted; undefined when one of them is already. */
async function holdBoth<T>(
  ctx: FleetContext,
  one: Taken,
  other: Taken,
  action: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await holdBackup(ctx, one.id, 'shared', () => holdBackup(ctx, other.id, 'shared', action));
  } catch (error) {
    if (isPandoError(error, 'backup-missing')) return undefined;
    throw error;
  }
}

/** The newest that is in the tree, and those 1, 2, 4, … before it that are. */
async function listTaken(ctx: FleetContext, vmId: string): Promise<Taken[]> {
  const prefix = vmBackupKey(vmId, '');
  const found = await ctx.catalog.list('vm-backup', { prefix, reverse: true, limit: BACKUPS_MAX });
  const taken: Taken[] = [];
  let step = 1;
  for (let i = 0; i < found.length; i += taken.length === 0 ? 1 : step) {
    if (taken.length === 0 && i > UNSETTLED_MAX) break;
    if (taken.length > 1) step *= 2;
    const id = found[i]!.key.slice(prefix.length);
    const record = await getRecord(ctx.catalog, 'backup', id);
    const roots = record === undefined ? undefined : await settledRoots(ctx, record);
    if (roots !== undefined) taken.push({ id, at: record!.createdAt, roots });
  }
  return taken;
}

async function settledRoots(
  ctx: FleetContext,
  { disks }: BackupRecord,
): Promise<ReadonlyMap<string, Root> | undefined> {
  const keys = disks.map(({ disk }) => diskKey(disk));
  const roots = new Map<string, Root>();
  for (const [i, value] of (await ctx.catalog.getMany('disk', keys)).entries()) {
    if (value === undefined) return undefined;
    const { rootId, rootHeight, rootSize, overlays } = readAs('disk', keys[i]!, value);
    if (overlays.length > 0) return undefined;
    roots.set(disks[i]!.name, { id: rootId, height: rootHeight, size: rootSize });
  }
  return roots;
}

/** Bytes, in whole chunks, that the older one holds and the newer one does not; a part is taken for the whole where there is much. */
async function heldBytes(
  ctx: FleetContext,
  older: Taken,
  newer: Taken,
  all: { pairs: number },
  sampler: Sampler,
): Promise<number> {
  const { store } = ctx;
  let bytes = 0;
  for (const [name, root] of older.roots) {
    const other = newer.roots.get(name);
    const end = chunkCount(root.size, store.chunkBytes);
    const empty = { ...root, id: new Uint8Array(root.id.byteLength) };
    const budget = { pairs: Math.min(PAIRS_MAX, all.pairs) };
    const before = budget.pairs;
    const ranges = differences(store, root, other ?? empty, 0, end, { budget });
    let chunks = 0;
    let reached = end;
    for (let count = 0; ; count++) {
      const { done, value } = await ranges.next();
      if (done === true) {
        reached = value;
        break;
      }
      const held = await allocationOf(store, root, value.start, value.count, RANGES_MAX);
      chunks += held.counts.reduce((sum, n, i) => (held.holes[i] === true ? sum : sum + n), 0);
      if (!sampler.isDone) await sample(ctx, root, value.start, value.count, sampler);
      if (count === RANGES_MAX) {
        reached = value.start + value.count;
        await ranges.return(reached);
        break;
      }
    }
    all.pairs -= before - budget.pairs;
    bytes += reached === 0 ? 0 : (chunks * store.chunkBytes * end) / reached;
  }
  return Math.round(bytes);
}

async function sample(
  ctx: FleetContext,
  root: Root,
  start: number,
  count: number,
  sampler: Sampler,
): Promise<void> {
  const { store } = ctx;
  const offset = start * store.chunkBytes;
  const length = Math.min(SAMPLE_BYTES, count * store.chunkBytes, root.size - offset);
  const bytes = new Uint8Array(length);
  await readTree(store, root, offset, length, bytes, 0);
  if (bytes.some((byte) => byte !== 0)) sampler.take(bytes);
}
