/** `pando audit verify --data DIR`: whether lines of the audit trail were taken out or changed. Reads only, also beside a server. */
import { join } from 'node:path';
import { verifyAudit, type AuditVerification } from '@pando/access';
import { fromIoError, nodeFileSystem } from '@pando/common';

/** @throws `file-failed` */
export async function verifyAuditOffline(path: string): Promise<AuditVerification> {
  try {
    return await verifyAudit(nodeFileSystem, join(path, 'audit'));
  } catch (error) {
    throw fromIoError(error, 'reading the audit trail', 'file-failed');
  }
}
