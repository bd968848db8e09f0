/** Whether the server can do its work, check by check, out of what it knows anyway: nothing is read or tried for it but the room on the disk. */
import { statfs } from 'node:fs/promises';
import type { ReadyCheck } from '@pando/api';
import { formatSize, type FileSystemSpaceGuard } from '@pando/common';
import type { VolumeStats } from '@pando/volume';
import type { Operations } from './operations.ts';
import { storeState, type OpenStore } from './store.ts';

export interface ReadyParts {
  readonly state: 'ready' | 'full' | 'failed';
  readonly failure: string | undefined;
  readonly volumes: Pick<VolumeStats, 'damaged' | 'logBytes' | 'overlayBytes'>;
  readonly damagedRuns: number;
  /** Room that is left, and what of it is kept for collections. */
  readonly disk: { readonly freeBytes: number; readonly isScarce: boolean } | undefined;
  readonly isMirrorBehind: boolean;
  readonly failingWebhooks: number;
  readonly lostEvents: number;
  /** What certificates that end soon have been told of. */
  readonly certificates: readonly string[];
}

/** A check for each thing that can be wrong, always all of them. */
export function readyChecks(parts: ReadyParts): readonly ReadyCheck[] {
  const { state, failure, volumes, damagedRuns, disk } = parts;
  const warn = (name: string, isWrong: boolean, detail: string): ReadyCheck =>
    isWrong ? { name, status: 'warning', detail } : { name, status: 'ok' };
  return [
    state === 'ready'
      ? { name: 'store', status: 'ok' }
      : {
          name: 'store',
          status: 'failed',
          detail:
            state === 'full'
              ? 'the disk under the store is full: writes are refused, reads go on'
              : `a write or sync failed, restart after checking the disk: ${failure ?? 'see the log'}`,
        },
    {
      ...warn('disk', disk?.isScarce === true, 'room is scarce'),
      ...(disk === undefined ? {} : { detail: `${formatSize(disk.freeBytes)} free` }),
    },
    {
      name: 'log',
      status: 'ok',
      detail: `${formatSize(volumes.logBytes)} wait for the tree, ${formatSize(volumes.overlayBytes)} of them in memory`,
    },
    warn(
      'damage',
      volumes.damaged.length > 0 || damagedRuns > 0,
      `${volumes.damaged.length} disks have writes that damage keeps in the log, ${damagedRuns} runs are known to be damaged: pando verify`,
    ),
    warn('mirror', parts.isMirrorBehind, 'the catalog could not be mirrored; it is tried again'),
    warn('webhooks', parts.failingWebhooks > 0, `${parts.failingWebhooks} do not take what they are sent`),
    warn('events', parts.lostEvents > 0, `${parts.lostEvents} came while too many waited to be kept`),
    warn('certificates', parts.certificates.length > 0, parts.certificates.join(' ')),
  ];
}

export async function readyParts(
  open: OpenStore,
  operations: Operations,
  space: FileSystemSpaceGuard,
  path: string,
): Promise<ReadyParts> {
  const { volumes, catalog, store } = open;
  const [{ damagedRuns }, freeBytes] = await Promise.all([store.stats(), freeBytesOf(path)]);
  const failure = volumes.stats.failure ?? catalog.failure ?? store.failure;
  return {
    state: storeState(open),
    failure: failure?.message,
    volumes: volumes.stats,
    damagedRuns,
    disk: freeBytes === undefined ? undefined : { freeBytes, isScarce: space.isScarce },
    isMirrorBehind: operations.isMirrorBehind,
    failingWebhooks: operations.webhooks.list().filter(({ failing }) => failing !== undefined).length,
    lostEvents: operations.events.lost,
    certificates: operations.expiringCertificates,
  };
}

/** Undefined where the system cannot tell. */
export async function freeBytesOf(path: string): Promise<number | undefined> {
  return statfs(path).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => undefined,
  );
}
