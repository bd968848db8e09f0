/** `node boot.ts DISK KERNEL INITRD OUT`: boots a copy of the guest's disk, works in it, powers off; the copy is OUT/disk.raw. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Guest } from '../../../test/guest/qemu.ts';
import { run } from '../processes.ts';

const WORK_MS_MAX = 900_000;

const [source, kernel, initrd, out] = process.argv.slice(2) as [string, string, string, string];
const disk = join(out, 'disk.raw');
await run('cp', ['--sparse=always', source, disk]);
const guest = await Guest.boot({ image: { disk, kernel, initrd }, drives: [disk] });
try {
  const script = await readFile(fileURLToPath(new URL('work.sh', import.meta.url)), 'utf8');
  await guest.must(`cat >/run/work.sh <<'THE END'\n${script}THE END`);
  await guest.must('sh /run/work.sh 2>&1', WORK_MS_MAX);
  await guest.powerOff();
} finally {
  await guest.close();
}
