/**
 * Which error codes a route can answer with, for the OpenAPI document: those that follow from what it is (its parameters, its body, what it
 * needs), and those of the work behind it, by the name of its operation. What is wrong with stored bytes (kind `data`) can come from
 * any route that reads them, and is not listed for each.
 */
import { ERROR_CODES, type ErrorCode } from '@pando/common';
import type { RouteNeeds } from './needs.ts';

export interface RouteShape {
  readonly method: string;
  /** With parameters as `:name`. */
  readonly url: string;
  readonly hasCursor: boolean;
  readonly isIdempotent: boolean;
  readonly needs: RouteNeeds | undefined;
  readonly operationId: string | undefined;
}

const EVERY: readonly ErrorCode[] = ['request-invalid', 'host-refused', 'shutting-down', 'internal'];
const SENDS_BODY: readonly ErrorCode[] = ['body-too-large', 'media-type-unsupported', 'request-timeout'];
const CHANGES: readonly ErrorCode[] = ['store-full', 'store-failed'];

/** A parameter of the path names something that may not be there. */
const MISSING: Readonly<Record<string, readonly ErrorCode[]>> = {
  vm: ['vm-missing'],
  backup: ['backup-missing'],
  disk: ['disk-missing'],
  policy: ['policy-missing'],
};

const IMAGE: readonly ErrorCode[] = [
  ...(['image-format-mismatch', 'image-unsupported', 'image-refused', 'image-damaged'] as const),
  ...(['import-path-refused', 'import-not-a-file', 'tool-missing', 'confinement-unavailable'] as const),
  ...(['stream-invalid', 'source-failed', 'import-interrupted', 'cancelled', 'too-busy'] as const),
];

/** Of the work behind an operation. */
export const OPERATION_ERRORS: Readonly<Record<string, readonly ErrorCode[]>> = {
  createVm: ['name-invalid', 'name-taken', 'size-invalid'],
  cloneVm: ['name-invalid', 'name-taken'],
  changeVm: ['name-invalid', 'name-taken', 'size-invalid', 'shrink-refused', 'vm-attached', 'disk-missing'],
  deleteVm: ['vm-attached'],
  createBackup: ['name-invalid', 'name-taken', 'clock-set-back'],
  changeBackup: ['name-invalid', 'name-taken', 'backup-locked', 'clock-set-back'],
  deleteBackup: ['backup-locked', 'disk-in-use'],
  restoreBackup: [
    ...(['name-invalid', 'name-taken', 'vm-attached', 'vm-missing', 'disk-missing', 'cancelled'] as const),
    'too-busy',
  ],
  importVm: [
    ...IMAGE,
    ...(['name-invalid', 'name-taken', 'size-invalid', 'verify-failed', 'chunk-unknown'] as const),
    ...(['backup-missing', 'disk-missing'] as const),
  ],
  repair: [...IMAGE, 'store-missing', 'store-newer'],
  collectGarbage: ['too-busy'],
  verify: ['too-busy'],
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
  runPolicy: ['policy-busy'],
};

/** Sorted, each once. */
export function errorsOf(route: RouteShape): readonly ErrorCode[] {
  const { method, url, hasCursor, isIdempotent, needs, operationId = '' } = route;
  const found = new Set<ErrorCode>(EVERY);
  const add = (codes: readonly ErrorCode[]): void => codes.forEach((code) => found.add(code));
  if (method === 'POST' || method === 'PATCH' || method === 'PUT') add(SENDS_BODY);
  if (method !== 'GET' && method !== 'HEAD') add(CHANGES);
  if (hasCursor) add(['cursor-invalid']);
  if (isIdempotent) add(['idempotency-conflict']);
  if (needs !== 'open') add((['unauthenticated', 'forbidden'] as string[]).filter(isErrorCode));
  for (const [, name] of url.matchAll(/:(\w+)/g)) add(MISSING[name!] ?? []);
  add(OPERATION_ERRORS[operationId] ?? []);
  return [...found].sort();
}

function isErrorCode(code: string): code is ErrorCode {
  return code in ERROR_CODES;
}
