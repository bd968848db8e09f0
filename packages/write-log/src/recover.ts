/**
 * Opening a log that is there: replay in order, and decide what an unreadable record means.
 *
 * After a crash the log may end in a torn record, and because files are synced in the background, the
 * tear may even lie in a file before the last. Whatever follows a tear was not synced, unless a later
 * record says that it was: `synced` records carry the position up to which everything had been synced
 * when they were written. So: a tear after the greatest such position is the end of the log, and
 * what lies behind it goes; a tear before it is damage, and the log is refused (`log-corrupt`).
 */
import { join } from 'node:path';
import { PandoError, type FileSystem } from '@pando/common';
import { FILE_HEADER_BYTES, crcSeedOf, decodeFileHeader, type FileHeader } from './format.ts';
import { findSyncedAfter, scanFile } from './scan.ts';
import type { LogRecord } from './types.ts';

/** A file of the log that holds records which are still needed. */
export interface OldFile {
  readonly path: string;
  readonly bytes: number;
  readonly lastPosition: number;
}

export interface Recovered {
  readonly files: OldFile[];
  readonly lastPosition: number;
}

const FILE_NAME = /^\d{16}\.log$/;

export function logFileName(firstPosition: number): string {
  return `${String(firstPosition).padStart(16, '0')}.log`;
}

/**
 * Replays what the directory holds and leaves it so that every file in it is whole and durable.
 * `visit` gets the records in order; those behind a tear that ends the log are never handed over.
 * @throws `log-corrupt`, `store-newer`, `store-foreign`
 */
export async function recover(
  fs: FileSystem,
  directory: string,
  storeId: Uint8Array,
  visit: (record: LogRecord) => void | Promise<void>,
): Promise<Recovered> {
  const names = (await fs.list(directory)).filter((name) => FILE_NAME.test(name));
  const tear = await findTear(fs, directory, storeId, names);
  const crcSeed = crcSeedOf(storeId);
  const files: OldFile[] = [];
  let lastPosition = 0;
  for (const [index, name] of names.entries()) {
    const path = join(directory, name);
    if (tear !== undefined && (index > tear.index || (index === tear.index && tear.validBytes === 0))) {
      await fs.remove(path);
      await fs.syncDirectory(directory);
      continue;
    }
    const file = await fs.open(path, 'write');
    try {
      if (index === tear?.index) await file.truncate(tear.validBytes);
      const scan = await scanFile(file, lastPosition, crcSeed, visit);
      // What was only in the page cache when the process died is counted on from here on.
      await file.sync();
      lastPosition = scan.lastPosition;
      files.push({ path, bytes: scan.validBytes, lastPosition });
    } finally {
      await file.close();
    }
    // A file without a record would be in the way of the next one, which starts at the same position.
    if (files.at(-1)!.bytes === FILE_HEADER_BYTES) {
      files.pop();
      await fs.remove(path);
      await fs.syncDirectory(directory);
    }
  }
  return { files, lastPosition };
}

/** The first place where the log cannot be read on, when there is one; refuses damage to what was synced. */
async function findTear(
  fs: FileSystem,
  directory: string,
  storeId: Uint8Array,
  names: readonly string[],
): Promise<{ index: number; validBytes: number } | undefined> {
  let tear: { index: number; validBytes: number; position: number } | undefined;
  const crcSeed = crcSeedOf(storeId);
  let lastPosition = 0;
  let synced = 0;
  for (const [index, name] of names.entries()) {
    const file = await fs.open(join(directory, name), 'read');
    try {
      const header = await readHeader(file);
      if (header !== undefined && !Buffer.from(header.storeId).equals(storeId)) {
        throw new PandoError('store-foreign', `${name} in the write log belongs to another store`);
      }
      if (tear === undefined && header === undefined) {
        // The records of this file are lost, none before them: its name says where it begins.
        tear = { index, validBytes: 0, position: Math.max(lastPosition, Number.parseInt(name, 10) - 1) };
      } else if (tear === undefined && index > 0 && header!.previousPosition !== lastPosition) {
        tear = { index, validBytes: 0, position: lastPosition };
      }
      if (header === undefined) {
        synced = Math.max(synced, await findSyncedAfter(file, 0, crcSeed));
        continue;
      }
      const scan = await scanFile(file, header.firstPosition - 1, crcSeed, () => undefined);
      synced = Math.max(synced, scan.syncedPosition);
      if (!scan.clean) synced = Math.max(synced, await findSyncedAfter(file, scan.validBytes, crcSeed));
      if (tear === undefined && !scan.clean) {
        tear = { index, validBytes: scan.validBytes, position: scan.lastPosition };
      }
      lastPosition = scan.lastPosition;
    } finally {
      await file.close();
    }
  }
  if (tear !== undefined && synced > tear.position) {
    throw new PandoError(
      'log-corrupt',
      `the write log cannot be read after position ${tear.position} (${names[tear.index]}, offset ${tear.validBytes}), but was synced up to ${synced}`,
    );
  }
  return tear;
}

async function readHeader(file: {
  read(target: Uint8Array, position: number): Promise<number>;
}): Promise<FileHeader | undefined> {
  const bytes = Buffer.alloc(FILE_HEADER_BYTES);
  const count = await file.read(bytes, 0);
  return decodeFileHeader(bytes.subarray(0, count));
}
