/** `pando verify`: what is damaged, and which disks it affects. */
import { formatSize, isPandoError, PandoError } from '@pando/common';
import type { VerifyWork } from '@pando/server';
import type { Command } from 'commander';
import { CommandFailure } from '../failures.ts';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import { formatTime, plural, print, printable } from '../output.ts';
import { startProgress } from '../progress.ts';
import { Rest } from '../rest.ts';
import type {
  DamagedDisk,
  LastVerification,
  LastVerifications,
  UnfinishedVerification,
  VerifyReport,
} from '../views.ts';
import type { JsonOption } from './arguments.ts';

export function addVerifyCommand(program: Command): void {
  program
    .command('verify')
    .description('check the store: read every chunk, and name the disks that damage affects')
    .option('--quick', 'structure only: read headers, footers and nodes, hash no data')
    .option('--data <dir>', 'a data directory that no server has open')
    .option('--rebuild-index', 'make the index anew first; needs --data')
    .option('--resume', 'go on where the last one was cut off')
    .option('--last', 'do nothing but tell what the last ones found')
    .option('--json', 'print JSON')
    .action(async function (this: Command, options: VerifyFlags) {
      if (options.rebuildIndex === true && options.data === undefined) {
        this.error('error: --rebuild-index needs --data DIR and no server that has it open');
      }
      const { last, data, quick, resume, rebuildIndex } = options;
      if (last === true && (data !== undefined || quick === true || resume === true)) {
        this.error('error: --last asks the server, and goes with nothing but --json');
      }
      if (resume === true && (quick === true || rebuildIndex === true)) {
        this.error(
          'error: --resume goes on with a full verification; --quick and --rebuild-index begin anew',
        );
      }
      await (options.last === true ? showLast(options.json) : verify(options));
    });
}

interface VerifyFlags extends JsonOption {
  readonly data?: string;
  readonly rebuildIndex?: boolean;
  readonly quick?: boolean;
  readonly resume?: boolean;
  readonly last?: boolean;
}

async function verify(flags: VerifyFlags): Promise<void> {
  const { data, rebuildIndex, quick = false, resume = false, json } = flags;
  const report = await interruptible((signal) =>
    data === undefined
      ? runJob<VerifyReport>(
          '/verify',
          { quick, resume },
          { label: 'verifying', unit: 'bytes', json, signal },
        )
      : verifyDirectory(data, { rebuild: rebuildIndex === true, quick, resume, json, signal }),
  ).catch((error: unknown) => {
    if (quick || !isPandoError(error, 'cancelled')) throw error;
    throw new PandoError('cancelled', `${error.message}; pando verify --resume goes on with it`, {
      cause: error,
    });
  });
  print(json, report, () => `${resume ? `${resumedText(report)}\n` : ''}${verifyText(report)}`);
  if (hasDamage(report)) throw new CommandFailure(1);
}

async function showLast(json: boolean | undefined): Promise<void> {
  const last = await new Rest().get<LastVerifications>('/verify/last');
  const all = [last.full, last.quick].filter((each) => each !== undefined);
  const { unfinished } = last;
  print(json, last, () => {
    const lines = all.length === 0 ? ['Nothing has been verified yet.'] : all.map(lastText);
    return [...lines, ...(unfinished === undefined ? [] : [unfinishedText(unfinished)])].join('\n');
  });
  if (all.some(({ report }) => hasDamage(report))) throw new CommandFailure(1);
}

function lastText({ endedAt, seconds, scheduled, report }: LastVerification): string {
  const kind = report.quick ? 'Quick' : 'Full';
  const by = scheduled ? ', by itself' : '';
  return `${kind} verification, ended ${formatTime(endedAt)}, ${seconds.toFixed(1)} s${by}:\n${verifyText(report)}`;
}

/** Of a verification that is under way, too: how far it is then is in its job. */
function unfinishedText({ startedAt, doneBytes, allBytes, damagedSegments }: UnfinishedVerification): string {
  const damage = damagedSegments === 0 ? '' : `, damage in ${plural(damagedSegments, 'segment')} so far`;
  return `Not finished: the full one begun ${formatTime(startedAt)}, at ${percent(doneBytes, allBytes)} %${damage}. pando verify --resume goes on with it.`;
}

function resumedText({ resumedBytes, bytes }: VerifyReport): string {
  return resumedBytes === undefined
    ? 'There was none to go on with: from the start.'
    : `resumed at ${percent(resumedBytes, bytes)} %`;
}

function percent(part: number, all: number): number {
  return all === 0 ? 0 : Math.floor((part / all) * 100);
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
  how: { rebuild: boolean; quick: boolean; resume: boolean; json: boolean | undefined; signal: AbortSignal },
): Promise<VerifyReport> {
  // Only here: the other commands start faster without the engine.
  const { rebuildIndex, verifyOffline } = await import('@pando/server');
  const { rebuild, quick, resume, json, signal } = how;
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
    return await (rebuild ? rebuildIndex(path, work) : verifyOffline(path, work, { resume }));
  } finally {
    progress.stop();
  }
}
