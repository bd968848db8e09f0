/** One file of the log that is being written, or waits to be let go of; and how one begins. */
import type { File, FileSystem } from '@pando/common';
import { encodeFileHeader, FILE_HEADER_BYTES } from './format.ts';
import type { Spare } from './spares.ts';

export interface LogFile {
  readonly path: string;
  readonly firstPosition: number;
  /** Absent for files of an earlier process: they are whole, synced, and only wait to be released. */
  readonly file: File | undefined;
  bytes: number;
  /** Its size: behind `bytes` it holds what it did when it was another file. */
  allocatedBytes: number;
  lastPosition: number;
  synced: boolean;
}

export type OpenLogFile = LogFile & { readonly file: File };

export function isOpen(file: LogFile): file is OpenLogFile {
  return file.file !== undefined;
}

export interface Beginning {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly storeId: Uint8Array;
  readonly path: string;
  readonly firstPosition: number;
  /** Position of the last record in the file before it. */
  readonly previousPosition: number;
  /** The file to write over; without one a new one is made. */
  readonly spare: Spare | undefined;
}

/** A file of which nobody knows whether it is gone. */
class LeftBehindError extends Error {}

/** Its name is durable when this returns; its header is with the first sync. Where it rejects there is no such file. */
export async function beginFile(beginning: Beginning): Promise<OpenLogFile> {
  const { fs, directory, path, spare, firstPosition, previousPosition } = beginning;
  const file = spare?.file ?? (await fs.open(path, 'create'));
  try {
    await file.write([encodeFileHeader(beginning)], 0);
    if (spare !== undefined) await fs.rename(spare.path, path);
    await fs.syncDirectory(directory);
  } catch (error) {
    await file.close();
    for (const unfinished of spare === undefined ? [path] : [path, spare.path]) {
      await fs.remove(unfinished).catch((cause: unknown) => {
        if (codeOf(cause) !== 'ENOENT') throw new LeftBehindError(`${unfinished} stays`, { cause });
      });
    }
    throw error;
  }
  return {
    ...{ path, file, firstPosition },
    bytes: FILE_HEADER_BYTES,
    allocatedBytes: spare?.bytes ?? FILE_HEADER_BYTES,
    lastPosition: previousPosition,
    synced: false,
  };
}

export function isFull(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG';
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code;
}
