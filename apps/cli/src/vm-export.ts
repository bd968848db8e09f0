/**
 * `pando vm export`: a disk as a sparse raw file.
 *
 * A VM is exported through a backup that is taken for it and deleted after it, so the file is of one instant also when
 * the VM runs. The file appears under its name when it is complete and on disk, or not at all.
 */
import { randomBytes } from 'node:crypto';
import { lstat, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import {
  decodeSparse,
  formatSize,
  isPandoError,
  nodeFileSystem,
  PandoError,
  SPARSE_MEDIA_TYPE,
} from '@pando/common';
import { ServerRefusal } from './failures.ts';
import { interruptible } from './interrupt.ts';
import { print } from './output.ts';
import { startProgress, type Progress } from './progress.ts';
import { Rest } from './rest.ts';
import type { Backup, Disk, Vm } from './views.ts';

export interface ExportOptions {
  readonly disk?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

interface Exported {
  readonly file: string;
  readonly disk: string;
  readonly sizeBytes: number;
  readonly dataBytes: number;
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
    const { id } = await rest.post<Backup>(`/vms/${encodeURIComponent(vm.id)}/backups`, { name });
    try {
      return await exportBackup(id, target, options, signal);
    } finally {
      // Not with the signal: this has to happen also when interrupted.
      await new Rest().delete(`/backups/${encodeURIComponent(id)}`).catch((error: unknown) => {
        process.stderr.write(`pando: the backup "${vm.name}@${name}" stays: ${(error as Error).message}\n`);
      });
    }
  });
  print(options.json, { ...result, file }, () => {
    return `${file}: ${formatSize(result.sizeBytes)} disk, ${formatSize(result.dataBytes)} data`;
  });
}

async function exportBackup(
  reference: string,
  target: string,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<Exported> {
  const rest = new Rest({ signal });
  const url = `/backups/${encodeURIComponent(reference)}`;
  const backup = await rest.get<Backup>(url);
  const disk = chooseDisk(backup.disks, options.disk, `${backup.vmName}@${backup.name}`);
  const partial = join(
    dirname(target),
    `.${basename(target).slice(0, 200)}.${randomBytes(6).toString('hex')}.partial`,
  );
  const progress = startProgress('exporting', { json: options.json, unit: 'bytes' });
  let file: FileHandle | undefined;
  try {
    file = await local(() => open(partial, 'wx', 0o644), partial);
    const answer = await rest.stream(
      `${url}/disks/${encodeURIComponent(disk.name)}/content`,
      SPARSE_MEDIA_TYPE,
    );
    const dataBytes = await writeParts(file, answer, disk.sizeBytes, progress, signal);
    const written = file;
    file = undefined;
    await local(async () => {
      await written.truncate(disk.sizeBytes);
      await written.sync();
      await written.close();
    }, partial);
    await checkTarget(target, options.force === true);
    await local(() => rename(partial, target), target);
    await local(() => nodeFileSystem.syncDirectory(dirname(target)), target);
    return { file: target, disk: disk.name, sizeBytes: disk.sizeBytes, dataBytes };
  } catch (error) {
    await file?.close();
    await rm(partial, { force: true });
    throw error;
  } finally {
    progress.stop();
  }
}

/** Writes data where it belongs and skips holes. Resolves to the bytes of data. */
async function writeParts(
  file: FileHandle,
  stream: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  progress: Progress,
  signal: AbortSignal,
): Promise<number> {
  let position = 0;
  let dataBytes = 0;
  try {
    for await (const part of decodeSparse(stream)) {
      if (part instanceof Uint8Array) {
        await local(() => writeAll(file, part, position), 'the file');
        dataBytes += part.byteLength;
        position += part.byteLength;
      } else {
        position += part.holeBytes;
      }
      progress.update(position, sizeBytes);
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (isPandoError(error, 'file-failed')) throw error;
    throw interrupted(`at byte ${position} of ${sizeBytes}`, error);
  }
  if (position !== sizeBytes) throw interrupted(`at byte ${position} of ${sizeBytes}`, undefined);
  return dataBytes;
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.byteLength - done, position + done);
    done += bytesWritten;
  }
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

/** Errors of the local disk, told apart from those of the server. */
async function local<T>(action: () => Promise<T>, path: string): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw new PandoError('file-failed', `cannot write ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
