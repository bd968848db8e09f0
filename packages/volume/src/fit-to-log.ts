/**
 * A catalog that was made anew is older than the log beside it. What the log has of disks that it knows is replayed when
 * the volumes are opened; here is seen to the rest: disks that only the log knows, overlays that the log does not have any
 * more, and numbers that were handed out since.
 */
import type { Catalog, CatalogOperation } from '@pando/catalog';
import { isPandoError, type FileSystem, type PandoError } from '@pando/common';
import { openWriteLog, type LogRecord } from '@pando/write-log';
import {
  DISK_TABLE,
  NUMBERS_KEY,
  NUMBERS_TABLE,
  PENDING_TABLE,
  checkRecord,
  diskKey,
  readNumbers,
  type NumbersRecord,
} from './disk.ts';
import type { DiskNumber, DiskRecord, LogFit } from './types.ts';

/** More disks and overlays than can have been made between two mirrors of a catalog: their numbers are passed by. */
const NUMBERS_MARGIN = 1_000_000;
const PAGE = 1_000;

export interface FitOptions {
  readonly catalog: Catalog;
  readonly fs: FileSystem;
  readonly logDirectory: string;
  readonly storeId: Uint8Array;
  readonly chunkBytes: number;
}

/**
 * Makes a catalog fit to the log: in one commit, and so that numbers which may have been handed out are never used again. The volumes must not
 * be open. A log that is damaged is left to them.
 * @throws `catalog-corrupt`, the errors of the catalog; of the log `store-newer`, `store-foreign`, `store-failed`
 */
export async function fitToLog(options: FitOptions): Promise<LogFit> {
  const { catalog, chunkBytes } = options;
  const found = new Findings();
  let problem: PandoError | undefined;
  try {
    const { fs, logDirectory: directory, storeId } = options;
    const log = await openWriteLog({ fs, directory, storeId }, (record) => found.note(record));
    await log.close();
  } catch (error) {
    if (!isPandoError(error) || error.kind !== 'data') throw error;
    problem = error;
  }
  const { lastDisk, lastOverlay } = await lastNumbers(catalog, chunkBytes);
  const fitted: NumbersRecord = {
    version: 1,
    lastDisk: Math.max(lastDisk, found.lastDisk) + NUMBERS_MARGIN,
    lastOverlay: Math.max(lastOverlay, found.lastOverlay) + NUMBERS_MARGIN,
  };
  const operations: CatalogOperation[] = [
    { type: 'put', table: NUMBERS_TABLE, key: NUMBERS_KEY, value: fitted },
  ];
  const cut: DiskNumber[] = [];
  // Of a damaged log it is not known what it lacks.
  for await (const [number, record] of problem === undefined ? pendingDisks(catalog, chunkBytes) : []) {
    const overlays = record.overlays.filter((overlay) => found.overlays.has(overlay));
    if (overlays.length === record.overlays.length) continue;
    cut.push(number);
    const { forked, ...rest } = record;
    const keepsFork = forked !== undefined && (!('overlay' in forked) || overlays.includes(forked.overlay));
    const value: DiskRecord = { ...rest, overlays, ...(keepsFork ? { forked } : {}) };
    operations.push({ type: 'put', table: DISK_TABLE, key: diskKey(number), value });
    if (overlays.length === 0)
      operations.push({ type: 'delete', table: PENDING_TABLE, key: diskKey(number) });
  }
  await catalog.commit(operations);
  return {
    unknown: found.disksAfter(lastDisk),
    cut,
    ...(problem === undefined ? {} : { problem }),
  };
}

/** What the log holds of whom. */
class Findings {
  lastDisk = 0;
  lastOverlay = 0;
  /** Overlays that were opened, and the disk of each. */
  readonly overlays = new Map<number, DiskNumber>();
  readonly #disks = new Map<DiskNumber, { size: number; writtenBytes: number }>();

  note(record: LogRecord): void {
    if (record.type === 'open') {
      const { overlay, disk, size } = record;
      this.lastDisk = Math.max(this.lastDisk, disk);
      this.lastOverlay = Math.max(this.lastOverlay, overlay);
      if (!this.overlays.has(overlay)) this.overlays.set(overlay, disk);
      this.#disks.set(disk, { size, writtenBytes: this.#disks.get(disk)?.writtenBytes ?? 0 });
    } else if (record.type === 'write') {
      const disk = this.overlays.get(record.overlay);
      const known = disk === undefined ? undefined : this.#disks.get(disk);
      if (known !== undefined) known.writtenBytes += record.data.byteLength;
    }
  }

  disksAfter(lastDisk: DiskNumber): LogFit['unknown'] {
    return [...this.#disks]
      .filter(([disk]) => disk > lastDisk)
      .map(([disk, { size, writtenBytes }]) => ({ disk, size, writtenBytes }));
  }
}

/** The greatest numbers that the catalog knows: the record of them may be what it lacks. */
async function lastNumbers(
  catalog: Catalog,
  chunkBytes: number,
): Promise<{ lastDisk: number; lastOverlay: number }> {
  let { lastDisk, lastOverlay } = (await readNumbers(catalog)) ?? { lastDisk: 0, lastOverlay: 0 };
  const snapshot = catalog.snapshot();
  try {
    for await (const { key, value } of snapshot.entries(DISK_TABLE)) {
      const number = Number(key);
      const { overlayFloor, overlays } = checkRecord(number, value, chunkBytes);
      lastDisk = Math.max(lastDisk, number);
      lastOverlay = Math.max(lastOverlay, overlayFloor, ...overlays);
    }
  } finally {
    await snapshot.close();
  }
  return { lastDisk, lastOverlay };
}

async function* pendingDisks(
  catalog: Catalog,
  chunkBytes: number,
): AsyncGenerator<readonly [DiskNumber, DiskRecord]> {
  let after: string | undefined;
  for (;;) {
    const page = await catalog.list(PENDING_TABLE, {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    });
    for (const { key } of page) {
      const value = await catalog.get(DISK_TABLE, key);
      if (value !== undefined) yield [Number(key), checkRecord(Number(key), value, chunkBytes)];
    }
    if (page.length < PAGE) return;
    after = page.at(-1)!.key;
  }
}
