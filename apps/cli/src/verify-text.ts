/** What `pando verify` prints of its reports. */
import type { DamagedDisk, LastVerification, UnfinishedVerification, VerifyReport } from '@pando/client';
import { formatSize } from '@pando/common';
import { formatTime, plural, printable } from './output.ts';

export function lastText({ endedAt, seconds, scheduled, updatedAt, report }: LastVerification): string {
  const kind = report.quick ? 'Quick' : 'Full';
  const by = scheduled ? ', by itself' : '';
  const since =
    updatedAt === undefined ? '' : `, what it found damaged looked at again ${formatTime(updatedAt)}`;
  return `${kind} verification, ended ${formatTime(endedAt)}, ${seconds.toFixed(1)} s${by}${since}:\n${verifyText(report)}`;
}

/** Of a verification that is under way, too: how far it is then is in its job. */
export function unfinishedText({
  startedAt,
  doneBytes,
  allBytes,
  damagedSegments,
}: UnfinishedVerification): string {
  const damage = damagedSegments === 0 ? '' : `, damage in ${plural(damagedSegments, 'segment')} so far`;
  return `Not finished: the full one begun ${formatTime(startedAt)}, at ${percent(doneBytes, allBytes)} %${damage}. pando verify --resume goes on with it.`;
}

export function resumedText({ resumedBytes, bytes }: VerifyReport): string {
  return resumedBytes === undefined
    ? 'There was none to go on with: from the start.'
    : `resumed at ${percent(resumedBytes, bytes)} %`;
}

function percent(part: number, all: number): number {
  return all === 0 ? 0 : Math.floor((part / all) * 100);
}

export function hasDamage({ damaged, disks, isComplete }: VerifyReport): boolean {
  return damaged.length > 0 || disks.length > 0 || !isComplete;
}

/** Ranges of a disk that are named on a line. */
const RANGES_A_LINE = 8;

export function verifyText(report: VerifyReport): string {
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
  const isLogDamaged = damaged.some(({ file }) => /^log\b/.test(file));
  if (isLogDamaged)
    lines.push('Writes may be lost that are in the log alone: the next start names them, if so.');
  if (disks.length === 0 && report.isComplete)
    lines.push(isLogDamaged ? 'In the segments no disk is affected.' : 'No disk is affected.');
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
