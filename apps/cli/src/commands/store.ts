/** `pando gc run`, `pando report space`: the store underneath. */
import { formatSize } from '@pando/common';
import type { Command } from 'commander';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import { formatRatio, plural, print, table } from '../output.ts';
import { Rest } from '../rest.ts';
import type { ScanOptions } from '../scan.ts';
import type { GcReport, OwnerSpace, SpaceReport } from '../views.ts';
import type { JsonOption } from './arguments.ts';

export function addStoreCommands(program: Command): void {
  program
    .command('scan')
    .description(
      'read images and say what a store would make of them; no server is asked, and nothing is stored',
    )
    .argument('<paths...>', 'images, and directories of images')
    .option('--trust-image', 'read the images without a sandbox: only where nobody hostile made them')
    .option('--json', 'print JSON')
    .action(async (paths: string[], options: ScanOptions) => {
      // Only here: the other commands start faster without what reads and hashes images.
      const { scan } = await import('../scan.ts');
      await scan(paths, options);
    });
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
    ['log', report.logBytes, 'what is not in the tree yet'],
    ['spare log', report.logSpareBytes, 'files that the log uses again'],
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
