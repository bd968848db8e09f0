/** Who may do what, and who has done what: tokens, the first of them, and the audit trail. */
import { join } from 'node:path';
import { AuditTrail, Tokens } from '@pando/access';
import { fromIoError, GiB, nodeFileSystem, systemRandom } from '@pando/common';
import { ensureAdminToken } from './admin-token.ts';
import type { Engine } from './engine.ts';
import { eventOfAuditCut } from './operations.ts';
import type { ServerContext } from './server-context.ts';

const AUDIT_DAYS_DEFAULT = 400;
const AUDIT_BYTES_DEFAULT = GiB;

export interface Access {
  readonly tokens: Tokens;
  readonly audit: AuditTrail;
  /** The first token, when it was made just now. */
  readonly newAdminToken: string | undefined;
}

export async function openAccess(
  { options, clock, logger, operations, closing }: ServerContext,
  { directory, open: { catalog } }: Engine,
): Promise<Access> {
  const tokens = await Tokens.open({
    ...{ catalog, clock, random: systemRandom },
    onTrouble: (error) => logger.warn({ err: error }, 'when tokens were last used could not be kept'),
  });
  closing.push(() => tokens.close());
  const audit = await AuditTrail.open({
    ...{ fs: nodeFileSystem, directory: join(directory.path, 'audit'), clock },
    keepDays: options.auditDays ?? AUDIT_DAYS_DEFAULT,
    bytesMax: options.auditBytes ?? AUDIT_BYTES_DEFAULT,
    catalog,
    onTrouble: (error) => logger.error({ err: error }, 'the audit trail has trouble'),
  }).catch((error: unknown) => {
    throw fromIoError(error, 'opening the audit trail', 'store-failed');
  });
  closing.push(() => audit.close());
  operations.writeTo(audit);
  if (audit.cut !== undefined) {
    logger.error(audit.cut, 'lines of the audit trail are missing or were changed');
    operations.raise(eventOfAuditCut(audit.cut));
  }
  const newAdminToken = await ensureAdminToken(tokens, directory.path);
  return { tokens, audit, newAdminToken };
}
