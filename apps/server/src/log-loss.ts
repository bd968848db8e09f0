/** What damage to the write log costs, with the names that people know the disks by. */
import type { Catalog } from '@pando/catalog';
import { PandoError } from '@pando/common';
import { listOwnedDisks } from '@pando/fleet';
import { LogLossError, type LogLoss } from '@pando/volume';

/** Disks, and ranges of each, that are named. */
const DISKS_MAX = 20;
const RANGES_MAX = 8;

/** One line for each disk that has lost writes or may have. @throws `catalog-corrupt`, `store-newer` */
export async function lossLines(catalog: Catalog, { disks, maybe, isAnyDisk }: LogLoss): Promise<string[]> {
  const names = new Map<number, string>();
  for await (const { number, kind, name, disk } of listOwnedDisks(catalog)) {
    const isNamed = maybe.includes(number) || disks.some((each) => each.disk === number);
    if (isNamed) names.set(number, `${kind === 'vm' ? 'VM' : 'backup'} ${name}, ${disk}`);
  }
  // A disk that nobody owns any more is about to be removed.
  const lines = disks
    .filter(({ disk }) => names.has(disk))
    .map(({ disk, ranges }) => {
      const shown = ranges
        .slice(0, RANGES_MAX)
        .map(({ offset, bytes }) => `${offset} to ${offset + bytes - 1}`);
      const more = ranges.length > RANGES_MAX ? `, and ${ranges.length - RANGES_MAX} more` : '';
      return `${names.get(disk)!}: bytes ${shown.join(', ')}${more}`;
    });
  const others = maybe
    .filter((disk) => names.has(disk))
    .map((disk) => `${names.get(disk)!}: perhaps more, nobody knows where`);
  if (isAnyDisk) others.push('any other disk that was written to: perhaps, nobody knows where');
  return [...lines, ...others];
}

/** The error of a log that is damaged, with what accepting that costs. */
export async function withNames(catalog: Catalog, error: unknown): Promise<unknown> {
  if (!(error instanceof LogLossError)) return error;
  const lines = await lossLines(catalog, error.loss);
  const shown = lines.slice(0, DISKS_MAX).join('; ');
  const more = lines.length > DISKS_MAX ? `; and ${lines.length - DISKS_MAX} more disks` : '';
  const lost =
    lines.length === 0 ? 'no disk has lost anything with it' : `lost are writes to ${shown}${more}`;
  return new PandoError('log-corrupt', `${error.message}; ${lost}`, { cause: error });
}
