/**
 * Bytes that reach the disk, journal and all. What the kernel says of a process (`write_bytes` in /proc/PID/io) is not that: it
 * counts a page when it becomes dirty, and a large folio as a whole when 4 KiB of it do (Linux 6.18, ext4: 64 MiB of random 4 KiB
 * writes into a file count as 256 MiB, and 57 MiB are written); it leaves out the journal (256 appends of 100 bytes, each
 * with a sync: 1 MiB, and 4 MiB are written). For appended data both agree, and for files that were removed before they were written.
 */
import { readFile, stat } from 'node:fs/promises';
import type { Bench } from './bench.ts';
import { syncDisk } from './page-cache.ts';
import { writtenBytes } from './processes.ts';

const SECTOR_BYTES = 512;
/** The field of a device's `stat` that counts sectors written, from 0: Documentation/block/stat.rst. */
const SECTORS_WRITTEN = 6;

/** Counts what is written from `startCounting` on by somebody and, since nothing else runs, to the device of a folder. */
export interface WriteCount {
  /** Bytes until now, after all that is dirty was written. */
  readonly read: () => Promise<{ readonly deviceBytes: number; readonly processBytes: number }>;
}

/** Where the device of a folder does not tell, what the kernel says of the process stands for it. */
export async function startCounting(bench: Bench, folder: string, pid: number): Promise<WriteCount> {
  const now = async (): Promise<{ device: number | undefined; process: number }> => {
    await syncDisk(folder);
    return { device: await deviceBytes(folder), process: await writtenBytes(pid) };
  };
  const before = await now();
  if (before.device === undefined)
    bench.say('  the device does not say what is written to it: /proc/PID/io does');
  return {
    read: async () => {
      const after = await now();
      const processBytes = after.process - before.process;
      if (before.device === undefined || after.device === undefined)
        return { deviceBytes: processBytes, processBytes };
      return { deviceBytes: after.device - before.device, processBytes };
    },
  };
}

/** All bytes written to the device that a folder is on; undefined for file systems that have none of their own. */
async function deviceBytes(folder: string): Promise<number | undefined> {
  const { dev } = await stat(folder, { bigint: true });
  // As gnu_dev_major and gnu_dev_minor.
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  const text = await readFile(`/sys/dev/block/${major}:${minor}/stat`, 'utf8').catch(() => undefined);
  const sectors = text?.trim().split(/\s+/)[SECTORS_WRITTEN];
  return sectors === undefined ? undefined : Number(sectors) * SECTOR_BYTES;
}
