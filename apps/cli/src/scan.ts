/** `pando scan`: reads images and says what a store would make of them; no server, and nothing is written. */
import { formatSize, isPandoError, PandoError } from '@pando/common';
import { openImage, type DiskSource } from '@pando/images';
import { Estimator, type Estimate, type SizeEstimate } from '@pando/scan';
import { opendir, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CommandFailure } from './failures.ts';
import { escaped } from './guest-paths.ts';
import { interruptible } from './interrupt.ts';
import { formatRatio, plural, print, table } from './output.ts';
import { startProgress } from './progress.ts';

export interface ScanOptions {
  readonly trustImage?: boolean;
  readonly json?: boolean;
}

interface ScannedImage {
  readonly path: string;
  readonly format: string;
  readonly sizeBytes: number;
  /** Of chunks of 4 KiB that were not in images before it, nor before in itself; compressed. */
  readonly addsBytes: number;
}

/** An image or a directory that could not be read. */
interface Failed {
  readonly path: string;
  readonly code: string;
  readonly detail: string;
}

interface Scan extends Estimate {
  readonly images: readonly ScannedImage[];
  readonly failed: readonly Failed[];
  /** Files in the directories whose names are not those of images. */
  readonly passedBy: number;
}

const IMAGE_NAMES = /\.(raw|img|qcow2?|vmdk|vdi|vhdx?|iso)$/i;
/** Parts of images, which are read with the file that names them. */
const PART_NAMES = /-(flat|delta|[sf]\d{3,})\.vmdk$/i;
const FILES_MAX = 100_000;
const DEPTH_MAX = 32;
/** Images that the text lists. */
const SHOWN_MAX = 20;

export async function scan(paths: readonly string[], options: ScanOptions): Promise<void> {
  const scanned = await interruptible((signal) => scanAll(paths, options, signal));
  print(options.json, scanned, () => report(scanned));
  if (scanned.failed.length > 0) throw new CommandFailure(1);
}

async function scanAll(paths: readonly string[], options: ScanOptions, signal: AbortSignal): Promise<Scan> {
  const { files, passedBy, failed } = await findImages(paths);
  const estimator = new Estimator();
  const images: ScannedImage[] = [];
  const progress = startProgress('scanning', { json: options.json, unit: 'bytes' });
  try {
    let done = 0;
    for (const path of files) {
      signal.throwIfAborted();
      try {
        const before = stored(estimator);
        const source = await openImage(path, {
          signal,
          backingWithin: dirname(await realpath(path)),
          confinement: options.trustImage === true ? 'none' : 'required',
        });
        const from = done;
        await read(source, estimator, signal, (bytes) => progress.update((done = from + bytes)));
        const { format, sizeBytes } = source;
        images.push({ path, format, sizeBytes, addsBytes: stored(estimator) - before });
      } catch (error) {
        signal.throwIfAborted();
        if (!isPandoError(error)) throw error;
        failed.push({ path, code: error.code, detail: error.message });
      }
    }
  } finally {
    progress.stop();
  }
  return { ...estimator.estimate(), images, failed, passedBy };
}

/** What was read of a disk that fails half-way counts: it would be stored, too. */
async function read(
  source: DiskSource,
  estimator: Estimator,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<void> {
  let bytes = 0;
  try {
    for await (const part of source.parts(signal)) {
      estimator.add(part);
      onBytes((bytes += part instanceof Uint8Array ? part.byteLength : part.holeBytes));
    }
  } finally {
    estimator.endDisk();
    await source.close();
  }
}

function stored(estimator: Estimator): number {
  return estimator.estimate().sizes[0]!.storedBytes;
}

/**
 * Files that are named are images; in directories those with names of images. In the order of their names, each once. What cannot be
 * read in a directory is left out, and said.
 */
async function findImages(
  paths: readonly string[],
): Promise<{ files: string[]; passedBy: number; failed: Failed[] }> {
  const found = new Map<string, string>();
  const failed: Failed[] = [];
  let passedBy = 0;
  const add = async (path: string): Promise<void> => {
    found.set(await realpath(path), path);
    if (found.size > FILES_MAX)
      throw new PandoError('request-invalid', `there are more than ${FILES_MAX} images`);
  };
  const leaveOut = (path: string, error: unknown): void => {
    if (isPandoError(error)) throw error;
    failed.push({ path, code: 'file-failed', detail: (error as Error).message });
  };
  const walk = async (directory: string, depth: number): Promise<void> => {
    if (depth > DEPTH_MAX) {
      leaveOut(directory, new Error(`it is more than ${DEPTH_MAX} directories deep`));
      return;
    }
    const names: { name: string; isDirectory: boolean; isFile: boolean }[] = [];
    try {
      for await (const entry of await opendir(directory)) {
        names.push({ name: entry.name, isDirectory: entry.isDirectory(), isFile: entry.isFile() });
      }
    } catch (error) {
      leaveOut(directory, error);
    }
    names.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const { name, isDirectory, isFile } of names) {
      const path = join(directory, name);
      if (isDirectory) await walk(path, depth + 1);
      else if (!isFile || !IMAGE_NAMES.test(name) || PART_NAMES.test(name)) passedBy++;
      // It may have gone since its directory was read.
      else await add(path).catch((error: unknown) => leaveOut(path, error));
    }
  };
  for (const path of paths) {
    const about = await stat(path).catch((error: unknown) => {
      throw new PandoError('file-failed', `cannot read ${path}: ${(error as Error).message}`, {
        cause: error,
      });
    });
    if (about.isDirectory()) await walk(path, 0);
    else await add(path);
  }
  return { files: [...found.values()], passedBy, failed };
}

function report(scan: Scan): string {
  const { images, failed, passedBy, sizes, logicalBytes, isSampled } = scan;
  const lines: string[] = [];
  if (images.length > 0) {
    lines.push(imageTable(images), '', sizeTable(sizes, logicalBytes), '');
    const [small] = sizes;
    lines.push(
      `${plural(images.length, 'image')}, ${formatSize(logicalBytes)} of disks, ${formatSize(small!.allocatedBytes)} without zeros: ` +
        `a store with chunks of 4 KiB would take about ${formatSize(small!.storedBytes)}.`,
    );
    if (isSampled)
      lines.push('Numbers of different chunks are estimated by a sample, to a few tenths of a percent.');
  } else lines.push('No images.');
  if (passedBy > 0) lines.push(`${plural(passedBy, 'other file')} passed by.`);
  for (const { path, detail, code } of failed)
    lines.push(`not read: ${escaped(path)}: ${escaped(detail)} (${code})`);
  return lines.join('\n');
}

function imageTable(images: readonly ScannedImage[]): string {
  const shown = table(images.slice(0, SHOWN_MAX), [
    { title: 'IMAGE', text: ({ path }) => escaped(path) },
    { title: 'FORMAT', text: ({ format }) => format },
    { title: 'SIZE', right: true, text: ({ sizeBytes }) => formatSize(sizeBytes) },
    { title: 'ADDS', right: true, text: ({ addsBytes }) => formatSize(addsBytes) },
  ]);
  const more = images.length - SHOWN_MAX;
  return more > 0 ? `${shown}\n… and ${more} more` : shown;
}

function sizeTable(sizes: readonly SizeEstimate[], logicalBytes: number): string {
  return table(sizes, [
    { title: 'CHUNKS', right: true, text: ({ chunkBytes }) => formatSize(chunkBytes) },
    { title: 'DIFFERENT', right: true, text: ({ uniqueBytes }) => formatSize(uniqueBytes) },
    {
      title: 'DEDUPE',
      right: true,
      text: ({ allocatedBytes, uniqueBytes }) =>
        formatRatio(uniqueBytes === 0 ? 1 : allocatedBytes / uniqueBytes),
    },
    {
      title: 'COMPRESSION',
      right: true,
      text: ({ uniqueBytes, compressedBytes }) =>
        formatRatio(compressedBytes === 0 ? 1 : uniqueBytes / compressedBytes),
    },
    { title: 'METADATA', right: true, text: ({ metadataBytes }) => formatSize(metadataBytes) },
    { title: 'STORED', right: true, text: ({ storedBytes }) => formatSize(storedBytes) },
    {
      title: 'IN ALL',
      right: true,
      text: ({ storedBytes }) => formatRatio(storedBytes === 0 ? 1 : logicalBytes / storedBytes),
    },
  ]);
}
