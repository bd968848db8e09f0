/** What the kernel keeps of files: there for all sides, and not at work for one of them while another one runs. */
import { createReadStream } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { onPath, run } from './processes.ts';

const READ_BYTES = 1024 * 1024;

/** Reads a file, or all files below a folder, so that they are in the page cache. */
export async function warmAll(path: string): Promise<void> {
  const stat = await lstat(path);
  if (stat.isDirectory()) {
    for (const name of await readdir(path)) await warmAll(join(path, name));
  } else if (stat.isFile()) {
    for await (const _ of createReadStream(path, { highWaterMark: READ_BYTES }));
  }
}

/**
 * Lets the page cache forget a file, or all files below a folder, once they are on disk: whoever reads them next reads the disk. Nobody
 * may have them open. dd(1) asks for that with posix_fadvise; it needs no rights, and nothing else on the machine becomes cold.
 */
export async function dropAll(path: string): Promise<void> {
  const stat = await lstat(path);
  if (stat.isDirectory()) {
    for (const name of await readdir(path)) await dropAll(join(path, name));
  } else if (stat.isFile()) {
    await run('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
  }
}

/** Writes what the page cache still has to write. */
export async function syncDisk(folder: string): Promise<void> {
  if (onPath('sync')) await run('sync', ['-f', folder]);
}
