/** `pando verify --rebuild-catalog`: makes the catalog anew, verifies the store, and says what came back and what cannot have. */
import { formatSize } from '@pando/common';
import { rebuildCatalog, type CatalogRebuildReport } from '@pando/server';
import { CommandFailure } from './failures.ts';
import { interruptible } from './interrupt.ts';
import { formatTime, plural, print, printable } from './output.ts';
import { startProgress } from './progress.ts';
import { hasDamage, verifyText } from './verify-text.ts';

/** Disks and records that a line names. */
const NAMED_MAX = 8;

export async function rebuildCatalogOf(
  path: string,
  how: {
    readonly rebuildIndex: boolean;
    readonly force: boolean;
    readonly quick: boolean;
    readonly json: boolean | undefined;
  },
): Promise<void> {
  const { rebuildIndex, force, quick, json } = how;
  const { catalog, verification } = await interruptible(async (signal) => {
    const progress = startProgress('verifying', { json, unit: 'bytes' });
    try {
      return await rebuildCatalog(
        path,
        { force, rebuildIndex },
        {
          quick,
          signal,
          onProgress: ({ phase, done, all }) => {
            if (phase === 'segments') progress.update(done, all);
          },
        },
      );
    } finally {
      progress.stop();
    }
  });
  print(json, { ...verification, catalog }, () => `${rebuiltText(catalog)}\n${verifyText(verification)}`);
  if (hasDamage(verification)) throw new CommandFailure(1);
}

export function rebuiltText(report: CatalogRebuildReport): string {
  const { mirroredAt, vms, backups, disks, unreadable, unknownDisks, cutDisks, logProblem } = report;
  const when = formatTime(mirroredAt);
  const lines = [
    `The catalog is that of ${when}: ${plural(vms, 'VM')}, ${plural(backups, 'backup')}, ${plural(disks, 'disk')}.`,
    `What was made, renamed or resized after that is missing, and what was deleted after it is there. Writes that were flushed are in the log.`,
  ];
  if (report.unreadableMirrors > 0)
    lines.push(`Newer mirrors that cannot be read: ${report.unreadableMirrors}.`);
  if (unreadable.length > 0)
    lines.push(
      `Records that were damaged before: ${named(unreadable.map(({ table, key }) => `${table} ${key}`))}.`,
    );
  for (const { disk, size, writtenBytes } of unknownDisks.slice(0, NAMED_MAX)) {
    lines.push(
      `Made after it, and lost: disk ${disk} of ${formatSize(size)}, to which ${formatSize(writtenBytes)} had been written.`,
    );
  }
  if (unknownDisks.length > NAMED_MAX) lines.push(`  and ${unknownDisks.length - NAMED_MAX} more`);
  if (cutDisks.length > 0)
    lines.push(
      `Some writes that were flushed are lost of ${plural(cutDisks.length, 'disk')}: ${named(cutDisks.map(String))}.`,
    );
  if (logProblem !== undefined) lines.push(`The log: ${logProblem}.`);
  if (report.movedTo !== undefined) lines.push(`The old catalog is in ${report.movedTo}.`);
  return printable(lines.join('\n'));
}

function named(names: readonly string[]): string {
  const more = names.length - NAMED_MAX;
  return names.slice(0, NAMED_MAX).join(', ') + (more > 0 ? `, and ${more} more` : '');
}
