/** The data directory and the engine over it, up to the volumes and what is noted of their writes. */
import { Activity } from '@pando/activity';
import { FileSystemSpaceGuard, TRIPWIRE_LOCK_DAYS } from '@pando/common';
import type { OnEvent } from '@pando/events';
import type { Logger } from 'pino';
import { openDataDirectory, type DataDirectory } from './data-directory.ts';
import { lossLines } from './log-loss.ts';
import type { ServerContext } from './server-context.ts';
import { openStore, type OpenStore } from './store.ts';

export interface Engine {
  readonly directory: DataDirectory;
  readonly space: FileSystemSpaceGuard;
  readonly open: OpenStore;
  readonly activity: Activity;
}

/** @throws what `openDataDirectory` throws; errors of kind `data` from recovery */
export async function openEngine(context: ServerContext): Promise<Engine> {
  const { options, clock, logger, operations, closing } = context;
  const acceptCatalogDamage = options.acceptDamage?.includes('catalog') === true;
  const directory = await openDataDirectory(options.dataDirectory, {
    clock,
    create: true,
    chunkBytes: options.chunkBytes,
    keyedHash: options.keyedHash,
    acceptCatalogDamage,
  });
  closing.push(() => directory.catalog.close());
  if (directory.mended !== undefined)
    logger.warn({ problem: directory.mended }, 'store.json was made again from the segments');
  const space = new FileSystemSpaceGuard(directory.path, clock);
  await space.start();
  closing.push(() => space.close());
  // Recovery may destage before there is anything to note it.
  let noted: Activity | undefined;
  const open = await openStore(directory, clock, space, {
    onEvent: operations.raise,
    acceptLogDamage: options.acceptDamage?.includes('log') === true,
    acceptCatalogDamage,
    onIndexRebuild: (error) => {
      logger.warn({ err: error }, 'the index is made anew from the segments');
      operations.raise({ kind: 'index-rebuilt', text: `The index is made anew: ${error.message}.` });
    },
    onExpired: operations.noteExpiry,
    onDestaged: (disk, counts) => noted?.destaged(disk, counts),
    onMirrorTrouble: (error) => {
      if (error === undefined) logger.info('the catalog is mirrored again');
      else logger.warn({ err: error }, 'the catalog could not be mirrored; it is tried again');
      operations.mirrorTrouble(error);
    },
  });
  await tellLogLoss(open, logger, operations.raise);
  space.setPromised(() => open.volumes.stats.overlayBytes);
  closing.push(() => open.store.close());
  closing.push(() => open.mirror.close());
  const activity = (noted = new Activity({
    ...{ catalog: open.catalog, clock, chunkBytes: open.store.chunkBytes, fleet: open.fleet },
    onEvent: operations.raise,
    lockMs: (options.tripwireLockDays ?? TRIPWIRE_LOCK_DAYS) * 24 * 60 * 60_000,
    onTrouble: (error) => logger.warn({ err: error }, 'what VMs write could not be kept or judged'),
  }));
  closing.push(() => activity.close());
  closing.push(() => open.volumes.close());
  return { directory, space, open, activity };
}

/** What was lost with damage that was accepted goes into the log, disk by disk. */
async function tellLogLoss({ catalog, volumes }: OpenStore, logger: Logger, onEvent: OnEvent): Promise<void> {
  if (volumes.logLoss === undefined) return;
  const { places } = volumes.logLoss;
  logger.error({ places }, 'the write log is damaged, and that was accepted');
  for (const line of await lossLines(catalog, volumes.logLoss)) {
    logger.error({ lost: line }, 'writes are lost');
    onEvent({ kind: 'log-loss', text: line });
  }
}
