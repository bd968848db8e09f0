/** What OpenAPI has no words for, as extensions of the document that a client can be generated from. */

/** `x-pando-job-result`: names of the schemas of what a job ends with, by the operation that begins it. */
export const JOB_RESULTS: Readonly<Record<string, readonly string[]>> = {
  collectGarbage: ['GcReport'],
  importVm: ['ImportResult', 'BackupImportResult'],
  repair: ['RepairReport'],
  restoreBackup: ['Vm'],
  verify: ['VerifyReport'],
};

/** `x-pando-events`: what the events of a stream hold, by their names. */
export const STREAMED_EVENTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  followEvents: { event: 'Event' },
  followJob: { job: 'Job' },
};

export function extensionsOf(operationId: string | undefined): object {
  const result = JOB_RESULTS[operationId ?? ''];
  const events = STREAMED_EVENTS[operationId ?? ''];
  return {
    ...(result === undefined ? {} : { 'x-pando-job-result': result }),
    ...(events === undefined ? {} : { 'x-pando-events': events }),
  };
}
