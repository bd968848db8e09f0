/** Whether a directory lies on a disk that turns, as Linux knows it. */
import { readFile, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** False where nobody knows: other systems, file systems without one device of their own. Never throws. */
export async function isRotational(directory: string, sysfs = '/sys'): Promise<boolean> {
  try {
    const { dev } = await stat(directory, { bigint: true });
    return await isRotationalDevice(dev, sysfs);
  } catch {
    return false;
  }
}

/** As Linux packs device numbers; a partition has no queue, the disk above it has. */
async function isRotationalDevice(device: bigint, sysfs: string): Promise<boolean> {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  const folder = await realpath(join(sysfs, 'dev', 'block', `${major}:${minor}`));
  const of = (path: string): Promise<string> => readFile(join(path, 'queue', 'rotational'), 'utf8');
  const text = await of(folder).catch(() => of(dirname(folder)));
  return text.trim() === '1';
}
