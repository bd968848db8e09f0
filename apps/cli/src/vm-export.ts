/**
 * `pando vm export`: a disk as an image file, raw or of another format.
 *
 * A VM is exported through a backup that is taken for it and deleted after it, so the file is of one instant also when
 * the VM runs. What is written is hashed on its way and held against the root that the server names; `--verify` reads
 * the finished file again too. The file appears under its name when all that is done and it is on disk, or not at all.
 */
import { hashChunk } from '@pando/chunk-store/hashing';
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
import { ServerRefusal } from './failures.ts';
import { interruptible } from './interrupt.ts';
import { print } from './output.ts';
import { startProgress, type Progress } from './progress.ts';
import { Rest } from './rest.ts';
import type { Backup, Disk, Vm } from './views.ts';

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
  /** What the bytes hash to: the server's root of the disk, which they were held against. */
  readonly root: string;
  /** Whether the finished file was read again. */
  readonly verified: boolean;
}

/** `reference` names a VM, or a backup as `vm@name`. */
export async function exportDisk(reference: string, file: string, options: ExportOptions): Promise<void> {
  const target = resolve(file);
  await checkTarget(target, options.force === true);
  const result = await interruptible(async (signal) => {
    if (reference.includes('@')) return exportBackup(reference, target, options, signal);
    const rest = new Rest({ signal });
    const vm = await rest.get<Vm>(`/vms/${encodeURIComponent(reference)}`);
    chooseDisk(vm.disks, options.disk, vm.name);
    const name = `export ${randomBytes(6).toString('hex')}`;
    // Without the signal: a request that is given up may have been carried out, and nobody would know what to delete.
    const { id } = await new Rest().post<Backup>(`/vms/${encodeURIComponent(vm.id)}/backups`, { name });
    try {
      signal.throwIfAborted();
      return await exportBackup(id, target, options, signal);
    } finally {
      // Not with the signal: this has to happen also when interrupted.
      await new Rest().delete(`/backups/${encodeURIComponent(id)}`).catch((error: unknown) => {
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
  const rest = new Rest({ signal });
  const url = `/backups/${encodeURIComponent(reference)}`;
  const backup = await rest.get<Backup>(url);
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
    const content = await rest.download(
      `${url}/disks/${encodeURIComponent(disk.name)}/content`,
      SPARSE_MEDIA_TYPE,
      SPARSE_PROTOCOL,
    );
    const { root, chunkBytes, dataBytes } = await download(content, target, disk.sizeBytes, options, signal);
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
    return { file: path, disk: disk.name, format, sizeBytes: disk.sizeBytes, dataBytes, root, verified };
  } catch (error) {
    await target.abort();
    throw error;
  }
}

interface Content {
  readonly headers: IncomingHttpHeaders;
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** Writes what comes and hashes it on its way. @throws `verify-failed` when it is not the disk that the server has */
async function download(
  { headers, bytes }: Content,
  target: DiskTarget,
  sizeBytes: number,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<{ root: string; chunkBytes: number; dataBytes: number }> {
  const expected = header(headers, 'pando-root');
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
  return { root, chunkBytes, dataBytes };
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
