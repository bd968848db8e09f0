/** Whether the server can do its work, check by check, out of what it knows anyway: nothing is read or tried for it but the room on the disk. */
import { statfs } from 'node:fs/promises';
import type { AuditTrail } from '@pando/access';
import type { ReadyCheck } from '@pando/api';
import { formatSize, type Clock, type FileSystemSpaceGuard } from '@pando/common';
import type { PolicyTrouble } from '@pando/policies';
import type { VolumeStats } from '@pando/volume';
import type { Operations } from './operations.ts';
import { storeState, type OpenStore } from './store.ts';

export interface ReadyParts {
  readonly state: 'ready' | 'full' | 'failed';
  readonly failure: string | undefined;
  readonly volumes: Pick<VolumeStats, 'damaged' | 'logBytes' | 'logBytesMax' | 'overlayBytes'>;
  readonly damagedRuns: number;
  /** Room that is left, and what of it is kept for collections. */
  readonly disk: { readonly freeBytes: number; readonly isScarce: boolean } | undefined;
  /** Or why it is not known. */
  readonly policies: PolicyTrouble | { readonly unreadable: string };
  /** Why the audit trail cannot be written, if so. */
  readonly auditFailure: string | undefined;
  readonly isMirrorBehind: boolean;
  readonly failingWebhooks: number;
  readonly lostEvents: number;
  /** What certificates that end soon have been told of. */
  readonly certificates: readonly string[];
}

/** Of what the log may hold before writers wait: from half of it on everything is done to empty it. */
const LOG_SHARE_MAX = 0.75;
/** Longer than what is due at the same time takes to be begun, one after another. */
const LAG_MS_MAX = 15 * 60_000;

function policyText({ failingRules, failing, lagMs }: PolicyTrouble): string {
  const named = failing.map(({ policy, rule }) => `${policy}/${rule}`);
  const more = failingRules - named.length;
  const parts = [
    ...(failingRules === 0
      ? []
      : [
          `VMs have no backup of the last run of ${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}: pando policy vms POLICY --failed`,
        ]),
    ...(lagMs > LAG_MS_MAX
      ? [`what is due waits for ${Math.round(lagMs / 60_000)} minutes: the server's log may say why`]
      : []),
  ];
  return parts.join('; ');
}

/** A check for each thing that can be wrong, always all of them. */
export function readyChecks(parts: ReadyParts): readonly ReadyCheck[] {
  const { state, failure, volumes, damagedRuns, disk, policies } = parts;
  const { logBytes, logBytesMax, overlayBytes } = volumes;
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
      ...warn('log', logBytes > logBytesMax * LOG_SHARE_MAX, ''),
      detail: `${formatSize(logBytes)} of ${formatSize(logBytesMax)} wait for the tree, ${formatSize(overlayBytes)} of them in memory`,
    },
    warn(
      'damage',
      volumes.damaged.length > 0 || damagedRuns > 0,
      `${volumes.damaged.length} disks have writes that damage keeps in the log, ${damagedRuns} runs are known to be damaged: pando verify`,
    ),
    'unreadable' in policies
      ? warn('policies', true, `their records cannot be read: ${policies.unreadable}`)
      : warn('policies', policies.failingRules > 0 || policies.lagMs > LAG_MS_MAX, policyText(policies)),
    parts.auditFailure === undefined
      ? { name: 'audit', status: 'ok' }
      : {
          name: 'audit',
          status: 'failed',
          detail: `changes are refused, but for deletions and gc: ${parts.auditFailure}`,
        },
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
  policies: ReadyParts['policies'],
  audit: Pick<AuditTrail, 'failure'>,
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
    policies,
    auditFailure: audit.failure?.message,
    isMirrorBehind: operations.isMirrorBehind,
    failingWebhooks: operations.webhooks.list().filter(({ failing }) => failing !== undefined).length,
    lostEvents: operations.events.lost,
    certificates: operations.expiringCertificates,
  };
}

/** How old an answer may be that somebody is given; and what it says of policies, which is read from the catalog. */
export const READY_MS_MAX = 500;
export const POLICIES_MS_MAX = 10_000;

/** Looks once for all who ask at about the same time: anybody may ask, as often as they like. */
export function sharedLook<T>(clock: Clock, ageMsMax: number, look: () => Promise<T>): () => Promise<T> {
  let answer: { readonly found: Promise<T>; readonly at: number } | undefined;
  return () => {
    const now = clock.monotonic();
    if (answer === undefined || now - answer.at >= ageMsMax) {
      const asked = { found: look(), at: now };
      answer = asked;
      asked.found.catch(() => {
        if (answer === asked) answer = undefined;
      });
    }
    return answer.found;
  };
}

/** Undefined where the system cannot tell. */
export async function freeBytesOf(path: string): Promise<number | undefined> {
  return statfs(path).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => undefined,
  );
}
