/**
 * `pando audit verify --data DIR`: whether lines of the audit trail were taken out or changed. Beside a server too, which then keeps the catalog to itself: it has
 * looked at the end of the trail when it started.
 */
import { join } from 'node:path';
import { readAuditKnown, verifyAudit, type AuditKnown, type AuditVerification } from '@pando/access';
import { fromIoError, isPandoError, nodeFileSystem, systemClock } from '@pando/common';
import { openDataDirectory } from './data-directory.ts';

/** `unknownEnd`: why nobody looked whether lines are missing at the end. @throws `file-failed` */
export async function verifyAuditOffline(path: string): Promise<AuditVerification & { unknownEnd?: string }> {
  let known: AuditKnown = { cuts: [] };
  let unknownEnd: string | undefined;
  try {
    const { catalog } = await openDataDirectory(path, { clock: systemClock, create: false });
    try {
      known = await readAuditKnown(catalog);
    } finally {
      await catalog.close();
    }
    if (known.head === undefined) unknownEnd = 'the catalog does not know yet how far it goes';
  } catch (error) {
    if (!isPandoError(error)) throw error;
    unknownEnd = error.code === 'store-locked' ? 'a server uses the catalog' : error.message;
  }
  try {
    const found = await verifyAudit(nodeFileSystem, join(path, 'audit'), known);
    return { ...found, ...(unknownEnd === undefined ? {} : { unknownEnd }) };
  } catch (error) {
    throw fromIoError(error, 'reading the audit trail', 'file-failed');
  }
}
