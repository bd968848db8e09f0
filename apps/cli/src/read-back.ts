/**
 * What a server holds, read back and hashed here: how an import is verified where the server's root says nothing to anybody outside, because its ids are
 * keyed. It costs a download of the disk.
 */
import { hashChunk } from '@pando/chunk-store/hashing';
import { ServerRefusal, type Backup, type BackupImportResult, type ImportResult } from '@pando/client';
import { decodeSparse, idToHex, PandoError, SPARSE_MEDIA_TYPE, SPARSE_PROTOCOL } from '@pando/common';
import { rootOf } from '@pando/tree';
import { randomBytes } from 'node:crypto';
import { connect } from './connect.ts';
import { startProgress } from './progress.ts';

interface How {
  readonly json: boolean | undefined;
  readonly signal: AbortSignal;
}

/** The plain root, as if no key were, of the disk that was imported; `diskName` is absent where it is the only one. */
export async function rootReadBack(
  result: ImportResult | BackupImportResult,
  diskName: string | undefined,
  how: How,
): Promise<string> {
  if ('backup' in result) return readRoot(result.backup, result, diskName, how);
  // Content of one instant is that of a backup. Without the signal, and deleted in any case: as an export does it.
  const { id: vm, name: vmName } = result.vm;
  const name = `verify ${randomBytes(6).toString('hex')}`;
  const backup = await connect().call('createBackup', { vm, body: { name } });
  try {
    return await readRoot(backup, result, diskName, how);
  } finally {
    await connect()
      .call('deleteBackup', { backup: backup.id })
      .catch((error: unknown) => {
        process.stderr.write(`pando: the backup "${vmName}@${name}" stays: ${(error as Error).message}\n`);
      });
  }
}

async function readRoot(
  { id, disks }: Backup,
  { chunkBytes, sizeBytes }: ImportResult | BackupImportResult,
  diskName: string | undefined,
  { json, signal }: How,
): Promise<string> {
  signal.throwIfAborted();
  const disk = disks.find(({ name }) => name === diskName) ?? disks[0]!;
  const progress = startProgress('reading back', { json, unit: 'bytes' });
  try {
    const { bytes } = await connect({ signal }).download('readBackupDisk', {
      ...{ backup: id, disk: disk.name },
      ...{ accept: SPARSE_MEDIA_TYPE, protocol: SPARSE_PROTOCOL },
    });
    const found = await rootOf(decodeSparse(bytes), {
      chunkBytes,
      hash: hashChunk,
      onProgress: (done) => progress.update(done, sizeBytes),
    });
    if (found.size !== sizeBytes) throw new Error(`it ended at byte ${found.size} of ${sizeBytes}`);
    return idToHex(found.id);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ServerRefusal) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new PandoError('export-interrupted', `reading back broke off: ${reason}`, { cause: error });
  } finally {
    progress.stop();
  }
}
