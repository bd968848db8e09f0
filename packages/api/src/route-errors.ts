/**
 * Which error codes a route can answer with, for the OpenAPI document: those that follow from what it is (its parameters, its body, what it
 * needs), and those of the work behind it, by the name of its operation. The tests of this room and the fuzz of the API fail when
 * something else is answered (`testing/listed-errors.ts`).
 */
import type { ErrorCode } from '@pando/common';
import type { RouteNeeds } from './needs.ts';

export interface RouteShape {
  readonly method: string;
  /** With parameters as `:name`. */
  readonly url: string;
  readonly hasCursor: boolean;
  readonly isIdempotent: boolean;
  readonly isLimited: boolean;
  /** It changes nothing, whatever its method. */
  readonly isRead: boolean;
  readonly needs: RouteNeeds | undefined;
  readonly operationId: string | undefined;
}

const EVERY: readonly ErrorCode[] = ['request-invalid', 'host-refused', 'shutting-down', 'internal'];
const SENDS_BODY: readonly ErrorCode[] = ['body-too-large', 'media-type-unsupported', 'request-timeout'];
const CHANGES: readonly ErrorCode[] = ['store-full', 'store-failed', 'audit-unavailable'];
/** Tokens are records of the catalog, as is nearly all that is asked for: each may be damaged, or of a newer version. */
const WANTS_TOKEN: readonly ErrorCode[] = [
  ...(['unauthenticated', 'forbidden', 'scope-exceeded', 'catalog-corrupt', 'store-newer'] as const),
];

/** A parameter of the path names something that may not be there. */
const MISSING: Readonly<Record<string, readonly ErrorCode[]>> = {
  vm: ['vm-missing'],
  backup: ['backup-missing'],
  disk: ['disk-missing'],
  policy: ['policy-missing'],
  token: ['token-missing'],
};

const FILES: readonly ErrorCode[] = [
  ...(['tool-missing', 'files-off', 'files-tool-failed', 'too-busy', 'disk-in-use', 'cancelled'] as const),
  ...(['file-system-missing', 'file-system-encrypted'] as const),
];

const IMAGE: readonly ErrorCode[] = [
  ...(['image-format-mismatch', 'image-unsupported', 'image-refused', 'image-damaged'] as const),
  ...(['import-path-refused', 'import-not-a-file', 'tool-missing', 'confinement-unavailable'] as const),
  ...(['stream-invalid', 'source-failed', 'import-interrupted', 'cancelled', 'too-busy'] as const),
];

/** What reads chunks finds them damaged, or gone with damage. */
const READS_CHUNKS: readonly ErrorCode[] = [
  ...(['chunk-corrupt', 'chunk-missing', 'segment-corrupt', 'index-corrupt'] as const),
];
const READS_DISK: readonly ErrorCode[] = [...READS_CHUNKS, 'disk-in-use', 'too-busy'];
const NAMED: readonly ErrorCode[] = ['name-invalid', 'name-taken', 'too-busy'];
const OWNERS: readonly ErrorCode[] = ['vm-missing', 'backup-missing'];
const GUEST: readonly ErrorCode[] = [
  ...(['guest-agent-refused', 'guest-agent-gone', 'guest-agent-failed', 'guest-frozen'] as const),
  'quiesce-timeout',
];

/** Of the work behind an operation. */
export const OPERATION_ERRORS: Readonly<Record<string, readonly ErrorCode[]>> = {
  listVms: ['name-invalid'],
  createVm: [...NAMED, 'size-invalid'],
  cloneVm: NAMED,
  changeVm: [
    ...NAMED,
    ...(['size-invalid', 'shrink-refused', 'vm-attached', 'disk-missing', 'disk-in-use'] as const),
  ],
  deleteVm: ['vm-attached', 'too-busy', 'disk-in-use'],
  createBackup: [...NAMED, ...GUEST, 'clock-set-back'],
  listBackups: ['vm-missing', 'policy-missing'],
  changeBackup: [...NAMED, 'backup-locked', 'clock-set-back'],
  deleteBackup: ['backup-locked', 'disk-in-use', 'clock-set-back', 'too-busy'],
  restoreBackup: [
    ...NAMED,
    ...READS_DISK,
    ...(['vm-attached', 'vm-missing', 'disk-missing', 'cancelled'] as const),
  ],
  readVmDisk: [...READS_DISK, 'range-invalid', 'export-interrupted'],
  measureVmDisk: [...READS_DISK, 'range-invalid'],
  readBackupDisk: [...READS_DISK, 'range-invalid', 'export-interrupted'],
  measureBackupDisk: [...READS_DISK, 'range-invalid'],
  mapVmDisk: READS_DISK,
  mapBackupDisk: READS_DISK,
  rootsOfVm: READS_DISK,
  rootsOfBackup: READS_DISK,
  proveBackupDisk: [...READS_DISK, 'range-invalid', 'ids-keyed'],
  diffDisks: [...READS_DISK, ...OWNERS, 'disk-missing'],
  lookUpChunks: [...READS_CHUNKS, 'ids-keyed'],
  listBackupFileSystems: FILES.slice(0, 6),
  listBackupFiles: [...FILES, 'file-missing'],
  readBackupFile: [...FILES, 'file-missing', 'file-type-wrong'],
  archiveBackupFiles: [...FILES, 'file-missing', 'file-type-wrong'],
  importVm: [
    ...IMAGE,
    ...NAMED,
    ...READS_DISK,
    ...([
      'size-invalid',
      'verify-failed',
      'chunk-unknown',
      'ids-keyed',
      'backup-missing',
      'disk-missing',
    ] as const),
  ],
  repair: [...IMAGE, ...READS_CHUNKS, 'store-missing'],
  collectGarbage: [...READS_CHUNKS, 'too-busy'],
  verify: [...READS_CHUNKS, 'too-busy'],
  reportSpace: [...READS_CHUNKS, 'cancelled'],
  reportOwners: [...READS_CHUNKS, 'cancelled'],
  reportAccounts: [...READS_CHUNKS, 'cancelled'],
  reportHolders: [...READS_CHUNKS, ...OWNERS, 'cancelled'],
  reportReclaim: [...READS_CHUNKS, ...OWNERS, 'cancelled', 'cursor-invalid'],
  planReclaim: [...READS_CHUNKS, 'cancelled', 'cursor-invalid', 'clock-set-back'],
  getJob: ['job-missing'],
  cancelJob: ['job-missing'],
  followJob: ['job-missing', 'too-busy'],
  followEvents: ['too-busy'],
  createWebhook: ['webhook-invalid', 'too-busy'],
  getWebhook: ['webhook-missing'],
  deleteWebhook: ['webhook-missing'],
  testWebhook: ['webhook-missing'],
  createPolicy: ['name-invalid', 'name-taken', 'guest-agent-refused'],
  changePolicy: ['name-invalid', 'name-taken', 'guest-agent-refused'],
  assignPolicy: ['vm-missing', 'name-invalid'],
  unassignPolicy: ['vm-missing', 'name-invalid'],
  suspendPolicy: ['vm-missing'],
  resumePolicy: ['vm-missing'],
  reportPolicyImpact: [...READS_CHUNKS, 'vm-missing', 'policy-missing', 'cursor-invalid', 'name-invalid'],
  runPolicy: ['policy-busy', 'vm-missing'],
  createToken: ['name-invalid', 'name-taken', 'too-busy'],
  revokeToken: ['last-admin'],
};

/** Sorted, each once. */
export function errorsOf(route: RouteShape): readonly ErrorCode[] {
  const { method, url, hasCursor, isIdempotent, isLimited, isRead, needs, operationId = '' } = route;
  const found = new Set<ErrorCode>(EVERY);
  const add = (codes: readonly ErrorCode[]): void => codes.forEach((code) => found.add(code));
  if (isLimited) add(['rate-limited']);
  if (method === 'POST' || method === 'PATCH' || method === 'PUT') add(SENDS_BODY);
  if (!isRead) add(CHANGES);
  if (hasCursor) add(['cursor-invalid']);
  if (isIdempotent) add(['idempotency-conflict']);
  if (needs !== 'open') add(WANTS_TOKEN);
  for (const [, name] of url.matchAll(/:(\w+)/g)) add(MISSING[name!] ?? []);
  add(OPERATION_ERRORS[operationId] ?? []);
  return [...found].sort();
}
