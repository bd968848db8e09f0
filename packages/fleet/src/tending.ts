/**
 * What the fleet does when it is given a moment: lets go of backups whose own date has come, finds out which are the same as the one
 * before, and keeps the mark of the clock. Each time a bounded number; with nothing to do it costs two reads.
 */
import { isPandoError } from '@pando/common';
import { expireBackup, holdRecord } from './backups.ts';
import type { FleetContext } from './context.ts';
import {
  diskKey,
  expiryKey,
  getRecord,
  put,
  readAs,
  remove,
  vmBackupKey,
  type BackupRecord,
  type StoredBackup,
} from './records.ts';
import type { Tended } from './types.ts';

/** Backups that one call lets go of, and that it compares. */
const EXPIRED_MAX = 64;
const COMPARED_MAX = 64;

export class Tending {
  readonly #ctx: FleetContext;
  /** Behind this one the comparing goes on: some wait long for their destage, and are not to hold up the others. */
  #compared = '';
  /** Likewise those that somebody reads. */
  #expired = '';

  constructor(ctx: FleetContext) {
    this.#ctx = ctx;
  }

  async tend(): Promise<Tended> {
    await this.#ctx.time.keep(this.#ctx.catalog);
    const expiry = await this.#expire();
    const compared = await this.#compare();
    return { expired: expiry.expired, isMore: expiry.isMore || compared };
  }

  async #expire(): Promise<{ expired: number; isMore: boolean }> {
    const { catalog, time } = this.#ctx;
    if (time.isBehind) return { expired: 0, isMore: false };
    const found = await catalog.list('backup-expiry', {
      before: expiryKey(time.now() + 1, ''),
      ...(this.#expired === '' ? {} : { after: this.#expired }),
      limit: EXPIRED_MAX,
    });
    const gone = await Promise.all(
      found.map(async ({ key }) => {
        try {
          return await expireBackup(this.#ctx, key.slice(key.indexOf('/') + 1));
        } catch (error) {
          // Somebody reads it: it goes another time.
          if (isPandoError(error, 'disk-in-use')) return false;
          throw error;
        }
      }),
    );
    const isMore = found.length === EXPIRED_MAX;
    this.#expired = isMore ? found.at(-1)!.key : '';
    return { expired: gone.filter(Boolean).length, isMore };
  }

  async #compare(): Promise<boolean> {
    const found = await this.#ctx.catalog.list('backup-compare', {
      ...(this.#compared === '' ? {} : { after: this.#compared }),
      limit: COMPARED_MAX,
    });
    const known = await Promise.all(
      found.map(async ({ key }) => {
        try {
          return await holdRecord(this.#ctx, key, (backup) => compare(this.#ctx, backup));
        } catch (error) {
          if (isPandoError(error, 'backup-missing')) return false;
          throw error;
        }
      }),
    );
    const isFull = found.length === COMPARED_MAX;
    this.#compared = isFull ? found.at(-1)!.key : '';
    return isFull && known.some(Boolean);
  }
}

/** Records whether the backup is as the one before it, if that is known by now. Costs the reads of its disks. */
async function compare(ctx: FleetContext, { id, record }: StoredBackup): Promise<boolean> {
  const [before] = await ctx.catalog.list('vm-backup', {
    prefix: vmBackupKey(record.vmId, ''),
    before: vmBackupKey(record.vmId, id),
    reverse: true,
    limit: 1,
  });
  const previous =
    before === undefined
      ? undefined
      : await getRecord(ctx.catalog, 'backup', before.key.slice(vmBackupKey(record.vmId, '').length));
  const unchanged = previous === undefined ? false : await isSame(ctx, record, previous);
  if (unchanged === undefined) return false;
  await ctx.catalog.commit([put('backup', id, { ...record, unchanged }), remove('backup-compare', id)]);
  return true;
}

/** Undefined while one of their disks has writes that are not in its tree. */
async function isSame(ctx: FleetContext, a: BackupRecord, b: BackupRecord): Promise<boolean | undefined> {
  const pairs = a.disks.map((disk) => [disk, b.disks.find(({ name }) => name === disk.name)] as const);
  if (a.disks.length !== b.disks.length || pairs.some(([disk, other]) => disk.size !== other?.size)) {
    return false;
  }
  const keys = pairs.flatMap(([disk, other]) => [diskKey(disk.disk), diskKey(other!.disk)]);
  const disks = (await ctx.catalog.getMany('disk', keys)).map((value, i) =>
    value === undefined ? undefined : readAs('disk', keys[i]!, value),
  );
  if (disks.some((disk) => disk === undefined || disk.overlays.length > 0)) return undefined;
  return pairs.every((_, i) => {
    const [one, other] = [disks[2 * i]!, disks[2 * i + 1]!];
    return Buffer.compare(one.rootId, other.rootId) === 0 && one.rootSize === other.rootSize;
  });
}
