/**
 * `pando vm import`: an image file, an NBD export or standard input, read here and sent so that holes and zeros cost
 * nothing on the way; or a file of the server. The result is a VM, or with `--since` the next backup of one.
 */
import { ServerRefusal, type BackupImportResult, type Client, type ImportResult } from '@pando/client';
import {
  encodeSparse,
  formatSize,
  idToHex,
  PandoError,
  SPARSE_IDS_MEDIA_TYPE,
  SPARSE_MEDIA_TYPE,
  splitZeros,
  type DiskPart,
} from '@pando/common';
import { hashChunk } from '@pando/chunk-store/hashing';
import { openSource, type DiskSource, type ImageFormat } from '@pando/images';
import { NODE_BYTES, rootOf, type Root } from '@pando/tree';
import { realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { connect } from './connect.ts';
import { interruptible } from './interrupt.ts';
import { runJob } from './job-work.ts';
import { encodeKnown } from './known-chunks.ts';
import { formatRatio, print } from './output.ts';
import { startProgress, type Progress } from './progress.ts';
import { rootReadBack } from './read-back.ts';

export interface ImportOptions {
  /** Of the VM, which has to have one; with `since` of the backup. */
  readonly name?: string;
  readonly disk?: string;
  readonly format?: ImageFormat;
  /** Where the files may lie that an image names. Absent: in the directory of the image. */
  readonly backingDir?: string;
  /** The programs that read the image need no sandbox. */
  readonly trustImage?: boolean;
  /** The file is one of the server's import directory. */
  readonly path?: boolean;
  readonly since?: string;
  /** Of the new VM. */
  readonly tag?: readonly string[];
  readonly verify?: boolean;
  readonly json?: boolean;
}

type Result = ImportResult | BackupImportResult;

export async function importVm(what: string, options: ImportOptions): Promise<void> {
  const started = performance.now();
  const result = await interruptible((signal) => {
    if (options.path === true) return importByPath(what, options, signal);
    return what === '-' ? importStandardInput(options, signal) : importSource(what, options, signal);
  });
  print(options.json, result, () => summary(result, (performance.now() - started) / 1000));
}

async function importByPath(path: string, options: ImportOptions, signal: AbortSignal): Promise<Result> {
  const { json, path: _path, backingDir, trustImage, tag, ...about } = options;
  if (trustImage === true) {
    throw new PandoError('request-invalid', 'with --path the server reads the image: it has --trust-images');
  }
  if (backingDir !== undefined) {
    throw new PandoError(
      'request-invalid',
      'with --path, files that the image names are looked for in the import directory of the server, not where --backing-dir says',
    );
  }
  return runJob(
    'importVm',
    { body: { ...about, path, tags: tag } },
    { label: 'importing', unit: 'bytes', json, signal },
  );
}

/** A pipe is bytes of a disk, once: there is no second reading, and nothing to recognise a format by. */
async function importStandardInput(options: ImportOptions, signal: AbortSignal): Promise<Result> {
  if (options.verify === true) {
    throw new PandoError(
      'request-invalid',
      'standard input cannot be read again, so --verify cannot compare it',
    );
  }
  if (options.format !== undefined && options.format !== 'raw') {
    throw new PandoError('request-invalid', `standard input is taken as it is, not as ${options.format}`);
  }
  try {
    return await upload(encodeSparse, SPARSE_MEDIA_TYPE, standardInput(), undefined, options, signal);
  } finally {
    // A pipe that nobody reads any more would keep the process alive.
    process.stdin.destroy();
  }
}

async function importSource(what: string, options: ImportOptions, signal: AbortSignal): Promise<Result> {
  const { format, backingDir, trustImage } = options;
  const source = await openSource(what, {
    signal,
    backingWithin: backingDir ?? dirname(await realpath(what).catch(() => what)),
    ...(format === undefined ? {} : { format }),
    ...(trustImage === true ? { confinement: 'none' } : {}),
  });
  if (source.remark !== undefined && options.json !== true) process.stderr.write(`pando: ${source.remark}\n`);
  try {
    const result = await uploadSource(source, options, signal);
    if (options.verify === true) await verifyOrDelete(source, result, options, signal);
    return result;
  } finally {
    await source.close();
  }
}

/** Without the chunks that the server has, where it can say which; what it then does not have any more, is sent after all. */
async function uploadSource(
  source: DiskSource,
  options: ImportOptions,
  signal: AbortSignal,
): Promise<Result> {
  const pando = connect({ signal });
  try {
    const chunkBytes = await chunkBytesOfIds(pando);
    if (chunkBytes !== undefined) {
      const encode = (parts: AsyncIterable<DiskPart>): AsyncIterable<Uint8Array> =>
        encodeKnown(parts, chunkBytes, async (ids) => (await pando.exchange('lookUpChunks', ids)).bytes);
      try {
        return await upload(
          encode,
          SPARSE_IDS_MEDIA_TYPE,
          source.parts(signal),
          source.sizeBytes,
          options,
          signal,
        );
      } catch (error) {
        // A collection may have come in between.
        if (!(error instanceof ServerRefusal) || error.problem.code !== 'chunk-unknown') throw error;
      }
    }
    return await upload(
      encodeSparse,
      SPARSE_MEDIA_TYPE,
      source.parts(signal),
      source.sizeBytes,
      options,
      signal,
    );
  } finally {
    pando.close();
  }
}

/** How long chunks are that the server takes by their ids; undefined when it takes none. */
async function chunkBytesOfIds(pando: Client): Promise<number | undefined> {
  try {
    const { headers } = await pando.exchange('lookUpChunks', new Uint8Array());
    const chunkBytes = Number(headers['pando-chunk-bytes']);
    return chunkBytes === NODE_BYTES ? chunkBytes : undefined;
  } catch (error) {
    // One before version 0.2; or a token with a scope, or a store whose ids are keyed: there nothing comes by its id.
    const { status, code } = error instanceof ServerRefusal ? error.problem : {};
    if (status === 404 || code === 'scope-exceeded' || code === 'ids-keyed') return undefined;
    throw error;
  }
}

async function upload(
  encode: (parts: AsyncIterable<DiskPart>) => AsyncIterable<Uint8Array>,
  mediaType: typeof SPARSE_MEDIA_TYPE | typeof SPARSE_IDS_MEDIA_TYPE,
  parts: AsyncIterable<DiskPart>,
  sizeBytes: number | undefined,
  { name, disk, since, tag, json }: ImportOptions,
  signal: AbortSignal,
): Promise<Result> {
  const progress = startProgress('importing', { json, unit: 'bytes' });
  try {
    const { result } = await connect({ signal }).upload('importVm', mediaType, {
      ...{ name, disk, since, tag, sizeBytes },
      body: encode(counted(parts, sizeBytes, progress)),
    });
    return result;
  } finally {
    progress.stop();
  }
}

/** Reads the source again. What was not found to be equal, for whatever reason, does not stay. */
async function verifyOrDelete(
  source: DiskSource,
  result: Result,
  { disk, json }: ImportOptions,
  signal: AbortSignal,
): Promise<void> {
  try {
    const found = await rootOfSource(source, result, json, signal);
    const stored = result.keyed ? await rootReadBack(result, disk, { json, signal }) : result.root;
    if (idToHex(found.id) === stored && found.size === result.sizeBytes) return;
    throw new PandoError(
      'verify-failed',
      `the source, read again, has root ${idToHex(found.id)}; stored was ${stored}, which is deleted again`,
    );
  } catch (error) {
    // Not with the signal: this has to happen also when interrupted.
    const pando = connect();
    const [deletion, what] =
      'vm' in result
        ? [pando.call('deleteVm', { vm: result.vm.id }), `VM ${result.vm.name}`]
        : [pando.call('deleteBackup', { backup: result.backup.id }), `backup ${labelOf(result)}`];
    await deletion.catch((reason: unknown) => {
      process.stderr.write(`pando: ${what} stays, and was not verified: ${(reason as Error).message}\n`);
    });
    throw error;
  }
}

async function rootOfSource(
  source: DiskSource,
  { chunkBytes }: Result,
  json: boolean | undefined,
  signal: AbortSignal,
): Promise<Root> {
  const progress = startProgress('verifying', { json, unit: 'bytes' });
  try {
    const onProgress = (done: number): void => progress.update(done, source.sizeBytes);
    return await rootOf(source.parts(signal), { chunkBytes, hash: hashChunk, onProgress });
  } finally {
    progress.stop();
  }
}

async function* standardInput(): AsyncGenerator<DiskPart, void, undefined> {
  for await (const piece of process.stdin) yield* splitZeros(piece as Buffer);
}

export async function* counted(
  parts: AsyncIterable<DiskPart>,
  all: number | undefined,
  progress: Progress,
): AsyncGenerator<DiskPart> {
  let done = 0;
  for await (const part of parts) {
    // Not a copy: whoever sends it asks for the next part when the system has taken this one.
    yield part;
    done += part instanceof Uint8Array ? part.byteLength : part.holeBytes;
    progress.update(done, all);
  }
}

const labelOf = ({ backup }: BackupImportResult): string => `${backup.vmName}@${backup.name}`;

/**
 * `golden: 8.0 GiB disk, 1.1 GiB data, stored 312 MiB: 1/26 (in 9.8 s)`, or
 * `web@tuesday: 8.0 GiB disk, 82 MiB changed, stored 41 MiB (in 5.1 s)`
 */
function summary(result: Result, seconds: number): string {
  const { readBytes, storedBytes, sizeBytes } = result;
  const time = `(in ${seconds.toFixed(1)} s)`;
  const stored = storedBytes === 0 ? 'nothing that was not there' : formatSize(storedBytes);
  if ('backup' in result) {
    return `${labelOf(result)}: ${formatSize(sizeBytes)} disk, ${formatSize(result.changedBytes)} changed, stored ${stored} ${time}`;
  }
  const share = storedBytes === 0 ? '' : `: 1/${formatRatio(sizeBytes / storedBytes)}`;
  return `${result.vm.name}: ${formatSize(sizeBytes)} disk, ${formatSize(readBytes)} data, stored ${stored}${share} ${time}`;
}
