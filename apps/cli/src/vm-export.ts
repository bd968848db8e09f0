/**
 * `pando vm export`: a disk as an image file, raw or of another format.
 *
 * A VM is exported through a backup that is taken for it and deleted after it, so the file is of one instant also when
 * the VM runs. What is written is hashed on its way and held against the root that the server names, unless that is keyed;
 * `--verify` reads the finished file again too. The file appears under its name when all that is done and it is on disk, or not at all.
 */
import { hashChunk } from '@pando/chunk-store/hashing';
import { ServerRefusal, type Disk, type ReceivedBytes } from '@pando/client';
import {
  CHUNK_BYTES_DEFAULT,
  decodeSparse,
  formatSize,
  PandoError,
  SPARSE_MEDIA_TYPE,
  SPARSE_PROTOCOL,
  type DiskPart,
} from '@pando/common';
import { createImage, formatOfName, type DiskTarget, type ImageFormat } from '@pando/images';
import { rootOf } from '@pando/tree';
import { randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { lstat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { connect } from './connect.ts';
import { interruptible } from './interrupt.ts';
import { print } from './output.ts';
import { startProgress, type Progress } from './progress.ts';

export interface ExportOptions {
  readonly disk?: string;
  readonly force?: boolean;
  /** Absent: what the extension of the file means, raw for any that means none. */
  readonly format?: ImageFormat;
  readonly compress?: boolean;
  /** Read the finished file again. */
  readonly verify?: boolean;
  readonly json?: boolean;
}

interface Exported {
  readonly file: string;
  readonly disk: string;
  readonly format: ImageFormat;
  readonly sizeBytes: number;
  readonly dataBytes: number;
  /** What the bytes hash to, without a key: the server's root of the disk, which they were held against, unless that is keyed. */
  readonly root: string;
  readonly keyed: boolean;
  /** Whether the finished file was read again. */
  readonly verified: boolean;
}

/** `reference` names a VM, or a backup as `vm@name`. */
export async function exportDisk(reference: string, file: string, options: ExportOptions): Promise<void> {
  const target = resolve(file);
  await checkTarget(target, options.force === true);
  const result = await interruptible(async (signal) => {
    if (reference.includes('@')) return exportBackup(reference, target, options, signal);
    const vm = await connect({ signal }).call('getVm', { vm: reference });
    chooseDisk(vm.disks, options.disk, vm.name);
    const name = `export ${randomBytes(6).toString('hex')}`;
    // Without the signal: a request that is given up may have been carried out, and nobody would know what to delete.
    const { id } = await connect().call('createBackup', { vm: vm.id, body: { name } });
    try {
      signal.throwIfAborted();
      return await exportBackup(id, target, options, signal);
    } finally {
      // Not with the signal: this has to happen also when interrupted.
      await connect()
        .call('deleteBackup', { backup: id })
        .catch((error: unknown) => {
          process.stderr.write(`pando: the backup "${vm.name}@${name}" stays: ${(error as Error).message}\n`);
        });
    }
  });
  print(options.json, { ...result, file }, () => {
    const checked = result.verified ? ', read back and equal' : '';
    return `${file}: ${formatSize(result.sizeBytes)} disk, ${formatSize(result.dataBytes)} data${checked}`;
  });
}

async function exportBackup(
  reference: string,
  path: string,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<Exported> {
  const pando = connect({ signal });
  const backup = await pando.call('getBackup', { backup: reference });
  const disk = chooseDisk(backup.disks, options.disk, `${backup.vmName}@${backup.name}`);
  const format = options.format ?? formatOfName(path);
  const target = await createImage(path, {
    format,
    sizeBytes: disk.sizeBytes,
    compress: options.compress === true,
    replace: options.force === true,
    signal,
  });
  try {
    const content = await pando.download('readBackupDisk', {
      backup: reference,
      disk: disk.name,
      accept: SPARSE_MEDIA_TYPE,
      protocol: SPARSE_PROTOCOL,
    });
    const { root, keyed, chunkBytes, dataBytes } = await download(
      content,
      target,
      disk.sizeBytes,
      options,
      signal,
    );
    const verified = options.verify === true;
    await target.finish(
      verified
        ? async (written) => {
            const again = await rootHex(
              written.parts(signal),
              chunkBytes,
              'verifying',
              disk.sizeBytes,
              options,
            );
            if (again !== root || written.sizeBytes !== disk.sizeBytes) throw differs(path, again, root);
          }
        : undefined,
    );
    const { name, sizeBytes } = disk;
    return { file: path, disk: name, format, sizeBytes, dataBytes, root, keyed, verified };
  } catch (error) {
    await target.abort();
    throw error;
  }
}

/** Writes what comes and hashes it on its way. @throws `verify-failed` when it is not the disk that the server has, as far as its root can tell */
async function download(
  { headers, bytes }: ReceivedBytes,
  target: DiskTarget,
  sizeBytes: number,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<{ root: string; keyed: boolean; chunkBytes: number; dataBytes: number }> {
  const keyed = header(headers, 'pando-root-keyed') === 'true';
  const expected = keyed ? undefined : header(headers, 'pando-root');
  const chunkBytes = Number(header(headers, 'pando-chunk-bytes') ?? CHUNK_BYTES_DEFAULT);
  let dataBytes = 0;
  const counted = async function* (): AsyncGenerator<DiskPart> {
    for await (const part of written(bytes, target, sizeBytes, signal)) {
      if (part instanceof Uint8Array) dataBytes += part.byteLength;
      yield part;
    }
  };
  const root = await rootHex(counted(), chunkBytes, 'exporting', sizeBytes, options);
  if (expected !== undefined && root !== expected) throw differs('what came', root, expected);
  return { root, keyed, chunkBytes, dataBytes };
}

/** The parts as they come; each is written while it is with whoever asked for it. */
async function* written(
  stream: AsyncIterable<Uint8Array>,
  target: DiskTarget,
  sizeBytes: number,
  signal: AbortSignal,
): AsyncGenerator<DiskPart> {
  let position = 0;
  let downloading = true;
  try {
    for await (const part of decodeSparse(stream)) {
      downloading = false;
      const at = position;
      position += part instanceof Uint8Array ? part.byteLength : part.holeBytes;
      if (part instanceof Uint8Array) {
        const writing = target.write(at, part);
        writing.catch(() => undefined); // reported below
        try {
          yield part;
        } finally {
          // Also when nobody wants more: nothing writes to a target that may be closed then.
          await writing;
        }
      } else yield part;
      downloading = true;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw downloading ? interrupted(`at byte ${position} of ${sizeBytes}`, error) : error;
  }
  if (position !== sizeBytes) throw interrupted(`at byte ${position} of ${sizeBytes}`, undefined);
}

async function rootHex(
  parts: AsyncIterable<DiskPart>,
  chunkBytes: number,
  label: string,
  sizeBytes: number,
  { json }: ExportOptions,
): Promise<string> {
  const progress: Progress = startProgress(label, { json, unit: 'bytes' });
  try {
    const onProgress = (done: number): void => progress.update(done, sizeBytes);
    const { id } = await rootOf(parts, { chunkBytes, hash: hashChunk, onProgress });
    return Buffer.from(id).toString('hex');
  } finally {
    progress.stop();
  }
}

function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value : undefined;
}

function differs(what: string, found: string, expected: string): PandoError {
  return new PandoError('verify-failed', `${what} hashes to ${found}, the disk to ${expected}`);
}

function chooseDisk(disks: readonly Disk[], name: string | undefined, of: string): Disk {
  const found =
    name === undefined && disks.length === 1 ? disks[0] : disks.find((disk) => disk.name === name);
  if (found !== undefined) return found;
  const names = disks.map((disk) => disk.name).join(', ');
  throw new PandoError(
    'disk-missing',
    name === undefined
      ? `${of} has several disks; choose one with --disk: ${names}`
      : `${of} has no disk "${name}", but: ${names}`,
  );
}

async function checkTarget(path: string, force: boolean): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!force) throw new PandoError('file-exists', `${path} exists already`);
  if (!found.isFile()) throw new PandoError('file-exists', `${path} exists and is no regular file`);
}

function interrupted(where: string, cause: unknown): Error {
  if (cause instanceof ServerRefusal) return cause;
  return new PandoError('export-interrupted', `the download broke off ${where}`, { cause });
}
