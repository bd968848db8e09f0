/**
 * Which error codes a route can answer with, for the OpenAPI document: those that follow from what it is (its parameters, its body, what it
 * needs), and those of the work behind it, by the name of its operation; of one that begins a job, what that ends with, too. The tests of this room and the fuzz
 * of the API fail when something else is answered (`testing/listed-errors.ts`), and test/route-errors when something else could be, by the sources.
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
/** So much waits for the catalog, or for the audit trail, that no more may. */
const CHANGES: readonly ErrorCode[] = ['store-full', 'store-failed', 'audit-unavailable', 'too-busy'];
/**
 * Who may see what is looked up in the catalog, as is nearly all that is asked for. Its records may be damaged, or of a newer version; and it cannot be
 * read for a moment when the disk is full or gives errors: it is opened anew then.
 */
const WANTS_TOKEN: readonly ErrorCode[] = [
  ...(['unauthenticated', 'forbidden', 'scope-exceeded'] as const),
  ...(['catalog-corrupt', 'store-newer', 'store-full', 'store-failed'] as const),
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
  'vm-missing',
];
const IN_FILES: readonly ErrorCode[] = [
  ...FILES,
  ...(['file-system-missing', 'file-system-encrypted', 'file-missing'] as const),
];

const IMAGE: readonly ErrorCode[] = [
  ...(['image-format-mismatch', 'image-unsupported', 'image-refused', 'image-damaged'] as const),
  ...(['import-path-refused', 'import-not-a-file', 'tool-missing', 'confinement-unavailable'] as const),
  ...(['stream-invalid', 'source-failed', 'import-interrupted', 'cancelled', 'too-busy'] as const),
];

/** What reads chunks finds them damaged, or gone with damage. */
const READS_CHUNKS: readonly ErrorCode[] = ['chunk-corrupt', 'chunk-missing'];
const READS_DISK: readonly ErrorCode[] = [...READS_CHUNKS, 'disk-in-use', 'too-busy'];
/** Goes through all trees, and asks each segment what its chunks take. */
const WALKS: readonly ErrorCode[] = [...READS_CHUNKS, 'segment-corrupt', 'cancelled', 'too-busy'];
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
    ...READS_CHUNKS,
    ...(['size-invalid', 'shrink-refused', 'vm-attached', 'disk-missing', 'disk-in-use'] as const),
  ],
  deleteVm: ['vm-attached', 'disk-in-use'],
  createBackup: [
    ...NAMED,
    ...GUEST,
    ...(['clock-set-back', 'backup-locked', 'backup-missing', 'disk-in-use'] as const),
  ],
  listBackups: ['vm-missing', 'policy-missing'],
  changeBackup: [...NAMED, 'backup-locked', 'clock-set-back'],
  deleteBackup: ['backup-locked', 'disk-in-use'],
  restoreBackup: [
    ...NAMED,
    ...READS_DISK,
    ...(['vm-attached', 'vm-missing', 'disk-missing', 'cancelled'] as const),
  ],
  readVmDisk: [...READS_DISK, 'range-invalid'],
  measureVmDisk: [...READS_DISK, 'range-invalid'],
  readBackupDisk: [...READS_DISK, 'range-invalid', 'vm-missing'],
  measureBackupDisk: [...READS_DISK, 'range-invalid', 'vm-missing'],
  mapVmDisk: READS_DISK,
  mapBackupDisk: [...READS_DISK, 'vm-missing'],
  rootsOfVm: [...READS_CHUNKS, 'too-busy'],
  rootsOfBackup: [...READS_CHUNKS, 'too-busy', 'vm-missing'],
  proveBackupDisk: [...READS_CHUNKS, 'too-busy', 'range-invalid', 'ids-keyed'],
  diffDisks: [...READS_DISK, ...OWNERS, 'disk-missing'],
  lookUpChunks: ['ids-keyed'],
  listBackupFileSystems: FILES,
  listBackupFiles: IN_FILES,
  readBackupFile: [...IN_FILES, 'file-type-wrong'],
  archiveBackupFiles: [...IN_FILES, 'file-type-wrong'],
  importVm: [
    ...IMAGE,
    ...NAMED,
    ...READS_DISK,
    ...(['size-invalid', 'verify-failed', 'chunk-unknown', 'ids-keyed', ...OWNERS, 'disk-missing'] as const),
  ],
  repair: [...IMAGE, 'chunk-missing', 'store-missing', 'size-invalid', 'disk-in-use'],
  collectGarbage: [...READS_CHUNKS, 'index-corrupt', 'cancelled'],
  verify: ['cancelled'],
  reportSpace: WALKS,
  reportOwners: WALKS,
  reportAccounts: WALKS,
  reportHolders: [...WALKS, ...OWNERS],
  reportReclaim: [...WALKS, ...OWNERS, 'cursor-invalid'],
  planReclaim: [...WALKS, 'cursor-invalid'],
  getJob: ['job-missing'],
  cancelJob: ['job-missing'],
  followJob: ['job-missing', 'too-busy'],
  followEvents: ['too-busy'],
  createWebhook: ['webhook-invalid', 'too-busy'],
  getWebhook: ['webhook-missing'],
  deleteWebhook: ['webhook-missing'],
  testWebhook: ['webhook-missing'],
  createPolicy: ['name-invalid', 'name-taken'],
  changePolicy: ['name-invalid', 'name-taken'],
  assignPolicy: ['vm-missing', 'name-invalid'],
  unassignPolicy: ['vm-missing', 'name-invalid'],
  suspendPolicy: ['vm-missing'],
  resumePolicy: ['vm-missing'],
  reportPolicyImpact: [...READS_CHUNKS, 'vm-missing', 'policy-missing', 'cursor-invalid', 'name-invalid'],
  runPolicy: [...(['policy-busy', 'vm-missing', 'backup-missing', 'backup-locked', 'disk-in-use'] as const)],
  whoami: ['token-missing'],
  createToken: ['name-invalid', 'name-taken'],
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
