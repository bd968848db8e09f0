/**
 * The command line that runs a program of QEMU's with next to nothing around it. It owns what such a program can see:
 *
 * - Its root is an empty, read-only file system with programs and libraries of the system, read-only; `/dev/null` and
 *   `/dev/urandom`; the images as `/dev/fd/<FIRST_IMAGE_FD + index>`, read-only unless it is to write them; and the
 *   folder of its socket. There is no `/proc`, so that nothing can be opened anew by way of a descriptor.
 * - Its own namespaces of processes, network, IPC, host name and cgroups; no privileges and no way to new ones.
 * - Bounds on memory, descriptors, core files; when reading, on writing to any file at all.
 *
 * That is bubblewrap's work (`bwrap`, the sandbox of Flatpak), and that of `prlimit` of util-linux.
 */
import { PandoError } from '@pando/common';
import { fstat } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { isInside } from './image-file.ts';
import { findTool } from './tools.ts';

/** Address space of the helper: QEMU caps its tables at some 50 MiB, threads and libraries take the rest. */
export const MEMORY_BYTES_MAX = 3 * 1024 ** 3;
/** Descriptors besides those of the images. */
const DESCRIPTORS_MAX = 256;

/** First descriptor of the images: 0 to 2 are the usual ones, 3 is not used. */
export const FIRST_IMAGE_FD = 4;

/** Programs and libraries, wherever a system keeps them. */
const SYSTEM = ['/usr', '/bin', '/sbin', '/lib', '/lib64', '/lib32', '/nix/store', '/gnu/store'];
const LIBRARY_CACHE = '/etc/ld.so.cache';
const ENVIRONMENT = { LC_ALL: 'C', PATH: '/usr/bin:/bin', MALLOC_ARENA_MAX: '4' };
/** Where the program sees the folder of its socket. */
const SOCKET_FOLDER = '/socket';

const SWAPPED = 'another file took the place of an image';

/** An image that is open; the descriptor stays the caller's. */
export interface HandedImage {
  readonly fd: number;
  /** Where it is. Absent for a file without a name: then the program gets a copy, which cannot be written. */
  readonly path?: string;
}

export interface SandboxOptions {
  readonly images: readonly HandedImage[];
  readonly writable: boolean;
  /** A folder that the program may write to: for its socket. */
  readonly socketFolder?: string;
}

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What becomes descriptor FIRST_IMAGE_FD + index; undefined: nothing. */
  readonly descriptors: readonly (number | undefined)[];
  /** `socketFolder` as the program sees it. */
  readonly socketFolder: string;
  /** Closes what was opened for it. To be called when it has been started, or will not be. */
  release(): Promise<void>;
}

/** The program in its sandbox. @throws `tool-missing` */
export async function sandboxed(tool: string, options: SandboxOptions): Promise<Command> {
  const [bwrap, program] = await Promise.all([findTool('bwrap'), realpath(tool)]);
  const { images, writable, socketFolder } = options;
  const opened = new Map<number, Awaited<ReturnType<typeof open>>>();
  const release = async (): Promise<void> => {
    for (const handle of opened.values()) await handle.close();
    opened.clear();
  };
  try {
    for (const [index, { fd, path }] of images.entries()) {
      // Opened anew, because what is read of it must not move the place that others read from.
      if (path === undefined) opened.set(index, await open(`/proc/self/fd/${fd}`));
    }
    const named = [...images.keys()].filter((index) => images[index]!.path !== undefined);
    const args = [
      ...['--die-with-parent', '--new-session', '--unshare-ipc', '--unshare-pid', '--unshare-net'],
      ...['--unshare-uts', '--unshare-cgroup-try', '--cap-drop', 'ALL', '--clearenv', ...privileges()],
      ...Object.entries(ENVIRONMENT).flatMap(([name, value]) => ['--setenv', name, value]),
      ...[...SYSTEM, LIBRARY_CACHE, ...foldersOf(program)].flatMap((path) => ['--ro-bind-try', path, path]),
      ...['/dev/null', '/dev/urandom'].flatMap((path) => ['--dev-bind', path, path]),
      ...images.flatMap(({ path }, index) =>
        path === undefined
          ? ['--ro-bind-data', String(FIRST_IMAGE_FD + index), imagePath(index)]
          : [writable ? '--bind' : '--ro-bind', path, imagePath(index)],
      ),
      ...(socketFolder === undefined ? [] : ['--bind', socketFolder, SOCKET_FOLDER]),
      ...['--chdir', '/', '--remount-ro', '/', '--', 'prlimit', ...limits(options), '--'],
      ...(await sameFiles(named, images)),
      program,
    ];
    const descriptors = images.map((_image, index) => opened.get(index)?.fd);
    return { program: bwrap, args, env: ENVIRONMENT, descriptors, socketFolder: SOCKET_FOLDER, release };
  } catch (error) {
    await release();
    throw error;
  }
}

/** The program with its bounds alone, for images that are trusted: it may open what we may. @throws `tool-missing` */
export async function unconfined(tool: string, options: SandboxOptions): Promise<Command> {
  const [prlimit, setpriv] = await Promise.all([findTool('prlimit'), findTool('setpriv')]);
  return {
    program: prlimit,
    args: [...limits(options), '--', setpriv, '--pdeathsig', 'KILL', '--no-new-privs', '--', tool],
    env: ENVIRONMENT,
    descriptors: options.images.map(({ fd }) => fd),
    socketFolder: options.socketFolder ?? '',
    release: () => Promise.resolve(),
  };
}

/** What a complaint says of the sandbox, if it is the sandbox that complains and not the program in it. */
export function sandboxFailure(complaint: string): PandoError | undefined {
  if (complaint.startsWith(SWAPPED)) return new PandoError('image-refused', `${SWAPPED} while it was opened`);
  const said = /^bwrap: (.*)/m.exec(complaint)?.[1];
  if (said === undefined) return undefined;
  if (said.startsWith("Can't find source path")) {
    return new PandoError('import-not-a-file', 'an image was moved or removed while it was opened');
  }
  return new PandoError('confinement-unavailable', `bubblewrap cannot confine the reader of images: ${said}`);
}

function imagePath(index: number): string {
  return `/dev/fd/${FIRST_IMAGE_FD + index}`;
}

/**
 * Root reads images that belong to others (those of virtual machines do); in a namespace of users it could not. Not
 * CAP_DAC_READ_SEARCH: that opens files of a whole file system by their numbers.
 */
function privileges(): string[] {
  return process.geteuid?.() === 0 ? ['--cap-add', 'CAP_DAC_OVERRIDE'] : ['--unshare-user'];
}

/** For a program outside of the system's folders: its own, and those beside it where its libraries and data are. */
function foldersOf(program: string): string[] {
  if (SYSTEM.some((folder) => isInside(folder, program))) return [];
  const folder = dirname(program);
  return [folder, ...['lib', 'lib64', 'share'].map((name) => join(dirname(folder), name))];
}

function limits({ images, writable }: SandboxOptions): string[] {
  return [
    `--as=${MEMORY_BYTES_MAX}`,
    '--core=0',
    `--nofile=${DESCRIPTORS_MAX + images.length}`,
    ...(writable ? [] : ['--fsize=0']),
  ];
}

/** The files are there by their names; here it is made sure, inside, that they are those that were opened and looked at. */
async function sameFiles(named: readonly number[], images: readonly HandedImage[]): Promise<string[]> {
  if (named.length === 0) return [];
  const identities = await Promise.all(
    named.map(async (index) => {
      const { dev, ino } = await promisify(fstat)(images[index]!.fd, { bigint: true });
      return `${dev}:${ino}`;
    }),
  );
  const ask = `stat -c %d:%i ${named.map(imagePath).join(' ')}`;
  const script = `[ "$(${ask})" = "$0" ] || { echo '${SWAPPED}' >&2; exit 1; }; exec "$@"`;
  return ['sh', '-c', script, identities.join('\n')];
}
