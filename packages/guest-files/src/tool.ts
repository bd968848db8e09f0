/** guestfish, the shell of libguestfs: where it is, and what it is told by its environment. */
import { PandoError } from '@pando/common';
import { access, constants } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';

/** What whoever runs the server may say to libguestfs and to supermin, which builds the appliance. */
const PASSED_ON = [
  'LIBGUESTFS_BACKEND',
  'LIBGUESTFS_BACKEND_SETTINGS',
  'LIBGUESTFS_CACHEDIR',
  'LIBGUESTFS_HV',
  'LIBGUESTFS_PATH',
  'SUPERMIN_KERNEL',
  'SUPERMIN_KERNEL_VERSION',
  'SUPERMIN_MODULES',
] as const;

export interface Tool {
  readonly guestfish: string;
  readonly mkfifo: string;
  /** Of util-linux: starts a program with limits of its own. */
  readonly prlimit: string;
  readonly env: Readonly<Record<string, string>>;
}

/** @throws `tool-missing` naming its package */
export async function findTool(environment: NodeJS.ProcessEnv): Promise<Tool> {
  const folders = (environment['PATH'] ?? '').split(delimiter).filter((folder) => isAbsolute(folder));
  const [guestfish, mkfifo, prlimit] = await Promise.all(
    ['guestfish', 'mkfifo', 'prlimit'].map((name) => find(folders, name)),
  );
  if (guestfish === undefined || mkfifo === undefined || prlimit === undefined) {
    throw new PandoError(
      'tool-missing',
      'files are read by guestfish of libguestfs, which is not installed where the server runs (Debian, Ubuntu: apt install guestfish; Fedora: dnf install guestfs-tools)',
    );
  }
  const env: Record<string, string> = {
    LC_ALL: 'C',
    // supermin, which builds the appliance, calls programs that live where only root's PATH leads.
    PATH: [...new Set([...folders, '/usr/sbin', '/usr/bin', '/sbin', '/bin'])].join(delimiter),
    // Without libvirt: there is nothing that it would add here.
    LIBGUESTFS_BACKEND: 'direct',
  };
  for (const name of PASSED_ON) {
    const value = environment[name];
    if (value !== undefined && value !== '') env[name] = value;
  }
  return { guestfish, mkfifo, prlimit, env };
}

async function find(folders: readonly string[], name: string): Promise<string | undefined> {
  for (const folder of folders) {
    const path = join(folder, name);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

/** Whether libguestfs would use KVM: it does where it may open the device. */
export async function mayUseKvm({ env }: Tool): Promise<boolean> {
  if (env['LIBGUESTFS_BACKEND_SETTINGS'] !== undefined) return false;
  return access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
}
