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

/** Writes what the page cache still has to write. */
export async function syncDisk(folder: string): Promise<void> {
  if (onPath('sync')) await run('sync', ['-f', folder]);
}
