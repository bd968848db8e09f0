/** `pando gc run`, `pando verify`, `pando report space`: the store underneath. */
import { formatSize } from '@pando/common';
import type { VerifyWork } from '@pando/server';
import type { Command } from 'commander';
import { CommandFailure } from '../failures.ts';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import { formatRatio, formatTime, plural, print, printable, table } from '../output.ts';
import { startProgress } from '../progress.ts';
import { Rest } from '../rest.ts';
import type {
  DamagedDisk,
  GcReport,
  LastVerification,
  LastVerifications,
  OwnerSpace,
  SpaceReport,
  VerifyReport,
} from '../views.ts';
import type { JsonOption } from './arguments.ts';

export function addStoreCommands(program: Command): void {
  program
    .command('gc')
    .description('garbage collection')
    .command('run')
    .description('free what nothing refers to any more')
    .option('--thorough', 'all of it: also rewrite segments that are more than three quarters alive')
    .option('--json', 'print JSON')
    .action(async ({ thorough = false, json }: { thorough?: boolean } & JsonOption) => {
      const report = await interruptible((signal) =>
        runJob<GcReport>('/gc', { thorough }, { label: 'collecting', unit: 'count', json, signal }),
      );
      print(json, report, () => {
        const files = `${plural(report.droppedSegments, 'segment')} dropped, ${report.compactedSegments} compacted`;
        const damaged =
          report.damagedSegments === 0
            ? ''
            : ` ${plural(report.damagedSegments, 'damaged segment')} left as they are: run pando verify.`;
        return `Freed ${formatSize(report.freedBytes)}: ${plural(report.deadChunks, 'dead chunk')}, ${files}. ${plural(report.liveChunks, 'chunk')} live.${damaged}`;
      });
    });

  program
    .command('verify')
    .description('check the store: read every chunk, and name the disks that damage affects')
    .option('--quick', 'structure only: read headers, footers and nodes, hash no data')
    .option('--data <dir>', 'a data directory that no server has open')
    .option('--rebuild-index', 'make the index anew first; needs --data')
    .option('--last', 'do nothing but tell what the last ones found')
    .option('--json', 'print JSON')
    .action(async function (this: Command, options: VerifyFlags) {
      if (options.rebuildIndex === true && options.data === undefined) {
        this.error('error: --rebuild-index needs --data DIR and no server that has it open');
      }
      if (options.last === true && (options.data !== undefined || options.quick === true)) {
        this.error('error: --last asks the server, and goes with nothing but --json');
      }
      await (options.last === true ? showLast(options.json) : verify(options));
    });

  program
    .command('report')
    .description('reports')
    .command('space')
    .description('what is stored, and why it is that small')
    .option('--owners', 'list each VM and backup, and what deleting it alone would free')
    .option('--json', 'print JSON')
    .action(async ({ owners, json }: { owners?: boolean } & JsonOption) => {
      const rest = new Rest();
      const report = await rest.get<SpaceReport>('/report/space');
      if (owners !== true) {
        print(json, report, () => spaceText(report));
        return;
      }
      const items = await rest.all<OwnerSpace>('/report/space/owners');
      print(json, { ...report, owners: items }, () => `${spaceText(report)}\n\n${ownerTable(items)}`);
    });
}

interface VerifyFlags extends JsonOption {
  readonly data?: string;
  readonly rebuildIndex?: boolean;
  readonly quick?: boolean;
  readonly last?: boolean;
}

async function verify({ data, rebuildIndex, quick = false, json }: VerifyFlags): Promise<void> {
  const report = await interruptible((signal) =>
    data === undefined
      ? runJob<VerifyReport>('/verify', { quick }, { label: 'verifying', unit: 'bytes', json, signal })
      : verifyDirectory(data, { rebuild: rebuildIndex === true, quick, json, signal }),
  );
  print(json, report, () => verifyText(report));
  if (hasDamage(report)) throw new CommandFailure(1);
}

async function showLast(json: boolean | undefined): Promise<void> {
  const last = await new Rest().get<LastVerifications>('/verify/last');
  const all = [last.full, last.quick].filter((each) => each !== undefined);
  print(json, last, () =>
    all.length === 0 ? 'Nothing has been verified yet.' : all.map(lastText).join('\n'),
  );
  if (all.some(({ report }) => hasDamage(report))) throw new CommandFailure(1);
}

function lastText({ endedAt, seconds, scheduled, report }: LastVerification): string {
  const kind = report.quick ? 'Quick' : 'Full';
  const by = scheduled ? ', by itself' : '';
  return `${kind} verification, ended ${formatTime(endedAt)}, ${seconds.toFixed(1)} s${by}:\n${verifyText(report)}`;
}

function hasDamage({ damaged, disks, isComplete }: VerifyReport): boolean {
  return damaged.length > 0 || disks.length > 0 || !isComplete;
}

/** Ranges of a disk that are named on a line. */
const RANGES_A_LINE = 8;

function verifyText(report: VerifyReport): string {
  const { quick, chunks, bytes, nodes, checkedDisks, damaged, moreDamaged, disks, moreDisks } = report;
  const read = quick
    ? `structure of ${formatSize(bytes)}, ${plural(nodes, 'node')} of ${plural(checkedDisks, 'disk')}`
    : `${plural(chunks, 'chunk')}, ${formatSize(bytes)}, ${plural(checkedDisks, 'disk')}`;
  if (!hasDamage(report)) return `${read}: all good.`;
  const lines = [`${read}: ${plural(damaged.length + moreDamaged, 'damaged place')}.`];
  for (const { file, offset, problem } of damaged) lines.push(`  ${file} at byte ${offset}: ${problem}`);
  if (moreDamaged > 0) lines.push(`  and ${moreDamaged} more`);
  if (report.missingChunks > 0)
    lines.push(`Missing from the segments: ${plural(report.missingChunks, 'chunk')}.`);
  if (disks.length === 0 && report.isComplete) lines.push('No disk is affected.');
  else lines.push(`Affected: ${plural(disks.length + moreDisks, 'disk')}.`);
  for (const disk of disks) lines.push(`  ${damagedDiskText(disk)}`);
  if (moreDisks > 0) lines.push(`  and ${moreDisks} more`);
  if (!report.isComplete) lines.push('There is too much damage to find all disks that are affected.');
  return lines.join('\n');
}

function damagedDiskText({ kind, name, disk, damagedBytes, ranges, moreRanges }: DamagedDisk): string {
  const named = ranges
    .slice(0, RANGES_A_LINE)
    .map(({ offset, bytes }) => `${offset} to ${offset + bytes - 1}`)
    .join(', ');
  const more = moreRanges + Math.max(0, ranges.length - RANGES_A_LINE);
  const rest = more === 0 ? '' : `, and ${more} more`;
  const owner = kind === 'vm' ? 'VM' : 'backup';
  return printable(`${owner} ${name}, ${disk}: ${formatSize(damagedBytes)}, bytes ${named}${rest}`);
}

async function verifyDirectory(
  path: string,
  how: { rebuild: boolean; quick: boolean; json: boolean | undefined; signal: AbortSignal },
): Promise<VerifyReport> {
  // Only here: the other commands start faster without the engine.
  const { rebuildIndex, verifyOffline } = await import('@pando/server');
  const { rebuild, quick, json, signal } = how;
  const progress = startProgress('verifying', { json, unit: 'bytes' });
  try {
    const work: VerifyWork = {
      quick,
      signal,
      onProgress: ({ phase, done, all }) => {
        // Nodes of disks are no bytes; the bytes stand still at their end.
        if (phase === 'segments') progress.update(done, all);
      },
    };
    return await (rebuild ? rebuildIndex(path, work) : verifyOffline(path, work));
  } finally {
    progress.stop();
  }
}

function spaceText(report: SpaceReport): string {
  const { ratios, ratiosWithoutBackups } = report;
  const times = (ratio: number): string => `${formatRatio(ratio)}×`;
  const rows: [string, number, string][] = [
    ['logical', report.logicalBytes, `${plural(report.vms, 'VM')}, ${plural(report.backups, 'backup')}`],
    ['allocated', report.allocatedBytes, `holes left out: ${times(ratios.thin)}`],
    [
      'unique',
      report.uniqueBytes,
      `clones and backups share: ${times(ratios.lineage)}, equal chunks: ${times(ratios.dedupe)}`,
    ],
    ['data stored', report.dataStoredBytes, `compression: ${times(ratios.compression)}`],
    ['', -1, `together: ${times(ratios.total)} (VMs alone: ${times(ratiosWithoutBackups.total)})`],
    ['metadata', report.metadataBytes, 'tree nodes, headers and footers'],
    ['garbage', report.garbageBytes, 'what a gc can free'],
    ['index', report.indexBytes, ''],
    ['log', report.logBytes, ''],
    ['catalog', report.catalogBytes, ''],
    ['on disk', report.storedBytes, 'all of it'],
  ];
  return table(rows, [
    { title: '', text: ([name]) => name },
    { title: '', right: true, text: ([, bytes]) => (bytes < 0 ? '' : formatSize(bytes)) },
    { title: '', text: ([, , remark]) => remark },
  ]).trimStart();
}

function ownerTable(owners: readonly OwnerSpace[]): string {
  return table(owners, [
    { title: 'NAME', text: ({ name }) => name },
    { title: 'KIND', text: ({ kind }) => kind },
    { title: 'LOGICAL', right: true, text: ({ logicalBytes }) => formatSize(logicalBytes) },
    { title: 'ALLOCATED', right: true, text: ({ allocatedBytes }) => formatSize(allocatedBytes) },
    { title: 'ONLY ITS OWN', right: true, text: ({ exclusiveBytes }) => formatSize(exclusiveBytes) },
  ]);
}
