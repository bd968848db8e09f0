/** `pando gc run`, `pando verify`, `pando report space`: the store underneath. */
import { formatSize } from '@pando/common';
import type { Command } from 'commander';
import { CommandFailure } from '../failures.ts';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import { formatRatio, plural, print, table } from '../output.ts';
import { startProgress } from '../progress.ts';
import { Rest } from '../rest.ts';
import type { GcReport, OwnerSpace, SpaceReport, VerifyReport } from '../views.ts';
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
    .description('read and check every chunk of the store')
    .option('--data <dir>', 'a data directory that no server has open')
    .option('--rebuild-index', 'make the index anew first; needs --data')
    .option('--json', 'print JSON')
    .action(async function (this: Command, options: { data?: string; rebuildIndex?: boolean } & JsonOption) {
      if (options.rebuildIndex === true && options.data === undefined) {
        this.error('error: --rebuild-index needs --data DIR and no server that has it open');
      }
      await verify(options);
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

async function verify({
  data,
  rebuildIndex: rebuild,
  json,
}: { data?: string; rebuildIndex?: boolean } & JsonOption): Promise<void> {
  const report = await interruptible((signal) =>
    data === undefined
      ? runJob<VerifyReport>('/verify', {}, { label: 'verifying', unit: 'bytes', json, signal })
      : verifyDirectory(data, rebuild === true, json, signal),
  );
  const { chunks, bytes, damaged } = report;
  print(json, report, () => {
    const read = `${plural(chunks, 'chunk')}, ${formatSize(bytes)}`;
    if (damaged.length === 0) return `${read}: all good.`;
    const places = damaged.map(
      ({ segment, offset, problem }) => `  segment ${segment} at byte ${offset}: ${problem}`,
    );
    return [`${read}: ${plural(damaged.length, 'damaged place')}.`, ...places].join('\n');
  });
  if (damaged.length > 0) throw new CommandFailure(1);
}

async function verifyDirectory(
  path: string,
  rebuild: boolean,
  json: boolean | undefined,
  signal: AbortSignal,
): Promise<VerifyReport> {
  // Only here: the other commands start faster without the engine.
  const { rebuildIndex, verifyOffline } = await import('@pando/server');
  const progress = startProgress('verifying', { json, unit: 'bytes' });
  try {
    const work = { signal, onProgress: (done: number, all: number) => progress.update(done, all) };
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
