/**
 * Bytes that reach the disk, journal and all. What the kernel says of a process (`write_bytes` in /proc/PID/io) is not that: it
 * counts a page when it becomes dirty, and a large folio as a whole when 4 KiB of it do (Linux 6.18, ext4: 64 MiB of random 4 KiB
 * writes into a file count as 256 MiB, and 57 MiB are written); it leaves out the journal (256 appends of 100 bytes, each
 * with a sync: 1 MiB, and 4 MiB are written). For appended data both agree, and for files that were removed before they were written.
 */
import { readFile, stat } from 'node:fs/promises';
import type { Bench } from './bench.ts';
import { measure } from './exports.ts';
import type { Load, Served } from './exports.ts';
import { syncDisk } from './page-cache.ts';
import { writtenBytes } from './processes.ts';
import type { Sample } from './rounds.ts';

const SECTOR_BYTES = 512;
/** The field of a device's `stat` that counts sectors written, from 0: Documentation/block/stat.rst. */
const SECTORS_WRITTEN = 6;

/**
 * One load of writes on the export of one server, whose files are in `folder`: `amplification` is bytes that reached the disk, by
 * the time that nothing is left to do, for each that was written to the export; nothing else may write to the device meanwhile. `dirtied`
 * is what the kernel says of the process, and stands for it where the device does not tell.
 */
export async function measureWrites(
  bench: Bench,
  folder: string,
  served: Served,
  load: Load,
  round: number,
): Promise<Sample> {
  const read = async (): Promise<{ device: number | undefined; process: number }> => {
    if (!bench.isSmoke) await syncDisk(folder);
    return { device: await deviceBytes(folder), process: await writtenBytes(served.pids[0]!) };
  };
  const before = await read();
  const { iops, p50, p99, cpuMicros, bytes } = await measure(bench, served, load, round);
  await served.settle();
  const after = await read();
  const dirtied = (after.process - before.process) / bytes;
  if (before.device === undefined || after.device === undefined) {
    bench.say('  the device does not say what is written to it: /proc/PID/io does');
    return { iops, p50, p99, cpuMicros, amplification: dirtied, dirtied };
  }
  // In a smoke run all of it may have been dirty before.
  const written = Math.max(after.device - before.device, SECTOR_BYTES);
  return { iops, p50, p99, cpuMicros, amplification: written / bytes, dirtied };
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
