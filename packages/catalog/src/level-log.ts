/**
 * What the catalog has to know of LevelDB's own write-ahead log, for the case of a full disk.
 *
 * LevelDB 1.20 (db/db_impl.cc, `DBImpl::Write`; db/log_writer.cc) after a failed write:
 * - The append failed: the batch is not in the memtable, so reads do not see it, but a part of its record may be
 *   in the log file, and LevelDB goes on appending behind it. On the next open, the rest of that 32 KiB block,
 *   with batches that were reported as durable, is skipped without an error.
 * - The sync failed: as above, but the whole record is in the log and comes back on the next open, although the
 *   batch was reported as failed. LevelDB refuses every further write until then.
 * - A background compaction failed: nothing is in the log, and every further write is refused as well.
 *
 * So a catalog that met a full disk cuts the log back to where it was before the batch (this makes "had
 * no effect" true, in a restart too), writes nothing more, and opens the database again once there is
 * room: opening replays the log into a table file, which it syncs, and begins a new log.
 */
import { readdirSync, statSync } from 'node:fs';
import { open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';

/** End of the log before a batch: name of the newest log file, and its bytes. */
export interface LogEnd {
  readonly number: number;
  readonly size: number;
}

/** Room beyond the logs that opening needs: a manifest, an empty log, and a margin for others on the disk. */
const ROOM_MARGIN_BYTES = 1024 * 1024;
const PROBE_PART_BYTES = 256 * 1024;
const PROBE_FILE = 'room.probe';

/**
 * Where LevelDB will append next, as long as it does not begin another file. Asked by the main thread itself: two trips to another
 * thread would cost a commit under load more than its sync.
 */
export function logEnd(directory: string): LogEnd {
  let newest = 0;
  let name = '';
  for (const file of readdirSync(directory)) {
    const number = logNumber(file);
    if (number > newest) {
      newest = number;
      name = file;
    }
  }
  return newest === 0
    ? { number: 0, size: 0 }
    : { number: newest, size: statSync(join(directory, name)).size };
}

/** Cuts everything off that was appended after `end`, durably. Needs no room on the disk. */
export async function cutLog(directory: string, end: LogEnd): Promise<void> {
  for (const file of await readdir(directory)) {
    const number = logNumber(file);
    if (number < end.number || number === 0) continue;
    const size = number === end.number ? end.size : 0;
    const handle = await open(join(directory, file), 'r+');
    try {
      if ((await handle.stat()).size > size) {
        await handle.truncate(size);
        await handle.sync();
      }
    } finally {
      await handle.close();
    }
  }
}

/**
 * Finds out whether there is room to open the database again, by writing as much as that would write.
 * Rejects with what the file system says otherwise. Leaves nothing behind.
 */
export async function probeRoom(directory: string): Promise<void> {
  let bytes = ROOM_MARGIN_BYTES;
  for (const file of await readdir(directory)) {
    if (logNumber(file) > 0) bytes += (await stat(join(directory, file))).size;
  }
  const path = join(directory, PROBE_FILE);
  const handle = await open(path, 'w', 0o600);
  try {
    // Random bytes would be safer against file systems that compress, but none of those is short of room for 1 MiB.
    const part = Buffer.alloc(PROBE_PART_BYTES, 0xa5);
    for (let done = 0; done < bytes; done += part.byteLength) await handle.writeFile(part);
    await handle.datasync();
  } finally {
    await handle.close();
    await unlink(path);
  }
}

/** Whether every file could be LevelDB's (or there is none): a crash in the first open leaves no CURRENT. */
export function looksLikeLevel(files: readonly string[]): boolean {
  return files.every(
    (file) =>
      /^(CURRENT|LOCK|LOG|LOG\.old|MANIFEST-\d+|\d+\.(log|ldb|sst|dbtmp))$/.test(file) || file === PROBE_FILE,
  );
}

/** Whether LevelDB's message says that the disk is full. It passes on strerror's text of ENOSPC, EDQUOT or EFBIG, never the number. */
export function saysFull(message: string): boolean {
  return /: (No space left on device|Disk quota exceeded|Quota exceeded|File too large)$/.test(message);
}

/** Number of a log file's name, or 0. */
function logNumber(file: string): number {
  const match = /^(\d+)\.log$/.exec(file);
  return match === null ? 0 : Number(match[1]);
}
