/** Programs of the system that images need, found on the PATH. */
import { PandoError } from '@pando/common';
import { access, constants } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';

/** Packages that have them: on Debian and its kin, and on Fedora and its kin. */
const PACKAGES = {
  'qemu-nbd': ['qemu-utils', 'qemu-img'],
  'qemu-img': ['qemu-utils', 'qemu-img'],
  'bwrap': ['bubblewrap', 'bubblewrap'],
  'prlimit': ['util-linux', 'util-linux'],
  'setpriv': ['util-linux', 'util-linux'],
} as const;

/** The absolute path of a program. @throws `tool-missing` naming its package */
export async function findTool(name: keyof typeof PACKAGES): Promise<string> {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  for (const folder of folders) {
    // An empty or relative entry means the current directory, where images may lie.
    if (!isAbsolute(folder)) continue;
    const path = join(folder, name);
    const usable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return path;
  }
  const [debian, fedora] = PACKAGES[name];
  throw new PandoError(
    'tool-missing',
    `images of this format need the program ${name}, which is not installed (Debian, Ubuntu: apt install ${debian}; Fedora: dnf install ${fedora})`,
  );
}
