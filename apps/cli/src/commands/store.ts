/** `pando gc run`: the store underneath. */
import { formatSize } from '@pando/common';
import type { Command } from 'commander';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import type { ScanOptions } from '../scan.ts';
import { plural, print } from '../output.ts';
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
        runJob(
          'collectGarbage',
          { body: { thorough } },
          { label: 'collecting', unit: 'count', json, signal },
        ),
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
}
