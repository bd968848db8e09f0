/**
 * `pando verify --repair-from`: damaged chunks out of a source that holds their bytes. The source is read here and sent
 * to the server, which stores what it misses of it; or the server reads it (`--path`); or there is no server (`--data`).
 */
import { readdir, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { RepairReport } from '@pando/client';
import { encodeSparse, formatSize, SPARSE_MEDIA_TYPE } from '@pando/common';
import { looksLikeNbdUri, openSource, type DiskSource, type ImageFormat } from '@pando/images';
import { connect } from './connect.ts';
import { CommandFailure } from './failures.ts';
import { interruptible } from './interrupt.ts';
import { runJob } from './job-work.ts';
import { formatTime, plural, print, printable } from './output.ts';
import { startProgress } from './progress.ts';
import { verifyText } from './verify-text.ts';
import { counted } from './vm-import.ts';

export interface RepairOptions {
  /** The store to repair, which no server has open. */
  readonly data?: string;
  /** The source is one of the server's import directory. */
  readonly path?: boolean;
  readonly format?: ImageFormat;
  /** Where the files may lie that an image names. Absent: in the directory of the image. */
  readonly backingDir?: string;
  readonly trustImage?: boolean;
  readonly json?: boolean;
}

type Source = Pick<DiskSource, 'sizeBytes' | 'parts' | 'close' | 'remark'> & { readonly lostRuns?: number };

export async function repairFrom(what: string, options: RepairOptions): Promise<void> {
  const report = await interruptible((signal) =>
    options.path === true ? repairByPath(what, options, signal) : repairFromSource(what, options, signal),
  );
  print(options.json, report, () => repairText(report));
  const { disks, isComplete } = report.report;
  if (disks.length > 0 || !isComplete) throw new CommandFailure(1);
}

function repairByPath(
  path: string,
  { format, json }: RepairOptions,
  signal: AbortSignal,
): Promise<RepairReport> {
  return runJob('repair', { body: { path, format } }, { label: 'repairing', unit: 'bytes', json, signal });
}

async function repairFromSource(
  what: string,
  options: RepairOptions,
  signal: AbortSignal,
): Promise<RepairReport> {
  const source = await openRepairSource(what, options, signal);
  if (source.remark !== undefined && options.json !== true) process.stderr.write(`pando: ${source.remark}\n`);
  try {
    const report = await (options.data === undefined
      ? repairByUpload(source, options, signal)
      : repairDirectory(options.data, source, options, signal));
    if (source.lostRuns !== undefined && source.lostRuns > 0)
      process.stderr.write(`pando: ${plural(source.lostRuns, 'run')} of the source could not be read\n`);
    return report;
  } finally {
    await source.close();
  }
}

async function openRepairSource(what: string, options: RepairOptions, signal: AbortSignal): Promise<Source> {
  const { format, backingDir, trustImage } = options;
  if (!looksLikeNbdUri(what) && (await isDirectory(what))) {
    // Only here: without the engine where it is not needed.
    const { openStoreSource } = await import('@pando/server');
    return openStoreSource(what);
  }
  return openSource(what, {
    signal,
    backingWithin: backingDir ?? dirname(await realpath(what).catch(() => what)),
    ...(format === undefined ? {} : { format }),
    ...(trustImage === true ? { confinement: 'none' } : {}),
  });
}

/** Sends the source, and sends it again as long as that repairs more. */
async function repairByUpload(
  source: Source,
  { json }: RepairOptions,
  signal: AbortSignal,
): Promise<RepairReport> {
  let sum: RepairReport | undefined;
  for (;;) {
    const progress = startProgress('repairing', { json, unit: 'bytes' });
    try {
      const { sizeBytes } = source;
      const { result } = await connect({ signal }).upload('repair', SPARSE_MEDIA_TYPE, {
        sizeBytes,
        body: encodeSparse(counted(source.parts(signal), sizeBytes, progress)),
      });
      sum = sum === undefined ? result : together(sum, result);
      if (!result.again) return sum;
    } finally {
      progress.stop();
    }
  }
}

/** What a second reading missed was missed before, or came to light by what the first one repaired. */
function together(first: RepairReport, next: RepairReport): RepairReport {
  return {
    ...next,
    readBytes: first.readBytes + next.readBytes,
    lostChunks: first.repairedChunks + next.lostChunks,
    lostNodes: first.repairedNodes + next.lostNodes,
    repairedChunks: first.repairedChunks + next.repairedChunks,
    repairedNodes: first.repairedNodes + next.repairedNodes,
    repairedDisks: [...first.repairedDisks, ...next.repairedDisks],
  };
}

async function repairDirectory(
  path: string,
  source: Source,
  { json }: RepairOptions,
  signal: AbortSignal,
): Promise<RepairReport> {
  const { repairOffline } = await import('@pando/server');
  const progress = startProgress('repairing', { json, unit: 'bytes' });
  try {
    return await repairOffline(path, source, {
      signal,
      onProgress: ({ phase, done, all }) => {
        // Nodes of disks are no bytes.
        if (phase !== 'disks') progress.update(done, all);
      },
    });
  } finally {
    progress.stop();
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return readdir(path).then(
    () => true,
    () => false,
  );
}

function repairText(result: RepairReport): string {
  const { lostChunks, lostNodes, repairedChunks, repairedNodes, repairedDisks, report, readBytes } = result;
  const verified = `by the verification of ${formatTime(result.verifiedAt)}`;
  if (lostChunks + lostNodes === 0 && report.disks.length === 0)
    return `No disk misses anything, ${verified}: nothing to repair.`;
  const lines: string[] = [];
  const lost = `${plural(lostChunks, 'chunk')} and ${plural(lostNodes, 'node')}`;
  if (repairedChunks + repairedNodes === 0) {
    lines.push(
      `Nothing repaired: the source (${formatSize(readBytes)} read) holds none of the ${lost} that disks miss.`,
    );
  } else {
    lines.push(
      `Repaired ${repairedChunks} of ${plural(lostChunks, 'chunk')} and ${repairedNodes} of ${plural(lostNodes, 'node')} that disks missed.`,
    );
  }
  if (repairedDisks.length > 0) lines.push(`Whole again: ${plural(repairedDisks.length, 'disk')}.`);
  for (const { kind, name, disk } of repairedDisks)
    lines.push(printable(`  ${kind === 'vm' ? 'VM' : 'backup'} ${name}, ${disk}`));
  if (report.disks.length === 0 && report.isComplete)
    lines.push(`No disk misses anything any more, ${verified}.`);
  else lines.push('Still damaged:', verifyText(report));
  return lines.join('\n');
}
