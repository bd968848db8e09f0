/** `pando vm import`: a local file or standard input, sent so that holes and zeros cost nothing on the way. */
import {
  encodeSparse,
  formatSize,
  openSparseFile,
  SPARSE_MEDIA_TYPE,
  splitZeros,
  type DiskPart,
} from '@pando/common';
import { interruptible } from './interrupt.ts';
import { runJob } from './job-work.ts';
import { formatRatio, print } from './output.ts';
import { startProgress, type Progress } from './progress.ts';
import { Rest } from './rest.ts';
import type { ImportResult } from './views.ts';

export interface ImportOptions {
  readonly name: string;
  readonly disk?: string;
  /** The file is one of the server's import directory. */
  readonly path?: boolean;
  readonly json?: boolean;
}

export async function importVm(file: string, options: ImportOptions): Promise<void> {
  const started = performance.now();
  const result = await interruptible((signal) =>
    options.path === true ? importByPath(file, options, signal) : importByUpload(file, options, signal),
  );
  print(options.json, result, () => summary(result, (performance.now() - started) / 1000));
}

function importByPath(
  path: string,
  { name, disk, json }: ImportOptions,
  signal: AbortSignal,
): Promise<ImportResult> {
  const body = { name, path, ...(disk === undefined ? {} : { disk }) };
  return runJob<ImportResult>('/imports', body, { label: 'importing', unit: 'bytes', json, signal });
}

async function importByUpload(
  file: string,
  { name, disk, json }: ImportOptions,
  signal: AbortSignal,
): Promise<ImportResult> {
  const source = file === '-' ? undefined : await openSparseFile(file);
  const progress = startProgress('importing', { json, unit: 'bytes' });
  try {
    const parts = source === undefined ? standardInput() : source.parts(signal);
    const query = new URLSearchParams({
      name,
      ...(disk === undefined ? {} : { disk }),
      ...(source === undefined ? {} : { sizeBytes: String(source.sizeBytes) }),
    });
    const { result } = await new Rest({ signal }).upload<{ result: ImportResult }>(
      `/imports?${query.toString()}`,
      SPARSE_MEDIA_TYPE,
      encodeSparse(counted(parts, source?.sizeBytes, progress)),
    );
    return result;
  } finally {
    progress.stop();
    // A pipe that nobody reads any more would keep the process alive.
    if (source === undefined) process.stdin.destroy();
    else await source.close();
  }
}

async function* standardInput(): AsyncGenerator<DiskPart, void, undefined> {
  for await (const piece of process.stdin) yield* splitZeros(piece as Buffer);
}

async function* counted(
  parts: AsyncIterable<DiskPart>,
  all: number | undefined,
  progress: Progress,
): AsyncGenerator<DiskPart> {
  let done = 0;
  for await (const part of parts) {
    yield part;
    done += part instanceof Uint8Array ? part.byteLength : part.holeBytes;
    progress.update(done, all);
  }
}

/** `golden: 8.0 GiB disk, 1.1 GiB data, stored 312 MiB: 1/26 (in 9.8 s)` */
function summary({ vm, readBytes, storedBytes }: ImportResult, seconds: number): string {
  const diskBytes = vm.disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const share =
    storedBytes === 0
      ? 'nothing that was not there'
      : `${formatSize(storedBytes)}: 1/${formatRatio(diskBytes / storedBytes)}`;
  return `${vm.name}: ${formatSize(diskBytes)} disk, ${formatSize(readBytes)} data, stored ${share} (in ${seconds.toFixed(1)} s)`;
}
