/** What is booted: the Debian guest of `test/guest`, or in a smoke run as little as a BIOS starts. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { guestImage } from '../../test/guest/build-image.ts';
import { Guest } from '../../test/guest/qemu.ts';
import type { Bench } from '../harness/bench.ts';
import { warmAll } from '../harness/page-cache.ts';
import { background } from '../harness/processes.ts';

export interface Bootable {
  /** Raw; nobody may write to it. */
  readonly disk: string;
  /** Boots from what QEMU finds there, resolves to the seconds until the prompt answers, and pulls the plug. */
  readonly boot: (drive: string) => Promise<number>;
}

const LOOK_EVERY_MS = 5;
const BOOT_MS_MAX = 60_000;
const SMALL_DISK_BYTES = 1024 * 1024;
/** Real mode: `# ` to the first serial port, then stop. */
const BOOT_SECTOR = '\xba\xf8\x03\xb0#\xee\xb0 \xee\xfa\xf4\xeb\xfd';

export async function debianGuest(): Promise<Bootable> {
  const image = await guestImage();
  return {
    disk: image.disk,
    boot: async (drive) => {
      // QEMU reads them itself: they do not come from the disk that is asked about.
      for (const path of [image.kernel, image.initrd]) await warmAll(path);
      const started = performance.now();
      const guest = await Guest.boot({ image, drives: [drive] });
      const seconds = (performance.now() - started) / 1000;
      await guest.close();
      return seconds;
    },
  };
}

export async function smallestGuest(bench: Bench, folder: string): Promise<Bootable> {
  const disk = join(folder, 'smallest.raw');
  const bytes = Buffer.alloc(SMALL_DISK_BYTES);
  bytes.write(BOOT_SECTOR, 'latin1');
  bytes.write('\x55\xaa', 510, 'latin1');
  await writeFile(disk, bytes);
  return {
    disk,
    boot: async (drive) => {
      const args = ['-accel', 'tcg', '-nodefaults', '-display', 'none', '-serial', 'stdio'];
      const file = `file=${drive.replaceAll(',', ',,')},format=raw,if=virtio`;
      const started = performance.now();
      const qemu = background('qemu-system-x86_64', [...args, '-drive', file], bench.pin);
      try {
        while (!qemu.printed().includes('# ')) {
          qemu.mustRun();
          if (performance.now() - started > BOOT_MS_MAX) throw new Error(`no prompt: "${qemu.printed()}"`);
          await sleep(LOOK_EVERY_MS);
        }
        return (performance.now() - started) / 1000;
      } finally {
        await qemu.stop();
      }
    },
  };
}
