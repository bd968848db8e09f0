/**
 * Unpacks what a guest says that it is: a tar whose names, links and owners may mean ill to whoever unpacks it.
 *
 * Into an empty folder. While it is unpacked there is no symlink in it, so that nothing can be written through one; they are made at the end,
 * as they are, and the folders that they are made in are checked. Nothing gets an owner or the bits set-user-id and
 * set-group-id unless that is asked for; devices and pipes are not made at all. Where it is asked for, these bits come after the owners, whose
 * change takes them away, and before the links.
 */
import { PandoError } from '@pando/common';
import { chmod, lchown, lutimes, readdir, realpath, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Unpack, type ReadEntry } from 'tar';

const LINKS_MAX = 1_000_000;
/** Files and folders that get their mode at the end. */
const MODES_MAX = 1_000_000;
/** Set-user-id, set-group-id and sticky. */
const SPECIAL_BITS = 0o7000;
const INEXACT_MAX = 1_000_000;
/** Of what could not be made, so many are named. */
const PROBLEMS_MAX = 100;
const DEPTH_MAX = 1024;

export interface Unpacked {
  readonly files: number;
  readonly directories: number;
  readonly links: number;
  /** Devices, pipes and sockets, which are not made. */
  readonly specials: number;
  /** What could not be made, and why. */
  readonly problems: readonly string[];
  readonly moreProblems: number;
}

interface Link {
  readonly path: string;
  readonly target: string;
  readonly mtime: Date | undefined;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

export interface UnpackOptions {
  /** Owners, and modes to the bit, as the tar has them. */
  readonly sameOwner: boolean;
  /** The folder itself is what the tar says of `./`. */
  readonly isFolderOwn?: boolean;
  readonly signal: AbortSignal;
}

/** @throws `file-exists` when there is something in the folder, `file-failed` when the disk does not take it, and what `bytes` throws */
export async function unpack(
  bytes: AsyncIterable<Uint8Array>,
  folder: string,
  options: UnpackOptions,
): Promise<Unpacked> {
  // What the process takes away of each mode.
  const umask = process.umask(0);
  if (!options.sameOwner) {
    process.umask(umask);
    return unpackInto(bytes, folder, options, umask);
  }
  try {
    return await unpackInto(bytes, folder, options, 0);
  } finally {
    process.umask(umask);
  }
}

async function unpackInto(
  bytes: AsyncIterable<Uint8Array>,
  folder: string,
  options: UnpackOptions,
  umask: number,
): Promise<Unpacked> {
  const root = await realpath(folder);
  if ((await readdir(root)).length > 0)
    throw new PandoError('file-exists', `${folder} is not empty, and what is there is not replaced`);
  const counts = { files: 0, directories: 0, links: 0, specials: 0 };
  const problems: string[] = [];
  let moreProblems = 0;
  const links: Link[] = [];
  const modes: { readonly path: string; readonly mode: number }[] = [];
  let ownMode: number | undefined;
  const note = (problem: string): void => {
    if (problems.length < PROBLEMS_MAX) problems.push(problem);
    else moreProblems++;
  };
  const laterMode = ({ path, mode = 0 }: ReadEntry): void => {
    if ((mode & SPECIAL_BITS) === 0) return;
    if (modes.length === MODES_MAX) note(`${path}: more than ${MODES_MAX} with set-user-id or the like`);
    else modes.push({ path, mode });
  };
  // Bytes that are no UTF-8 have all become the same sign: what two files are called must not be one file.
  const inexact = new Set<string>();
  const filter = (_path: string, given: unknown): boolean => {
    const entry = given as ReadEntry;
    if (entry.path.includes('\ufffd')) {
      if (inexact.has(entry.path) || inexact.size === INEXACT_MAX) {
        note(`${entry.path}: its name is no UTF-8, and what is left of it another one has`);
        return false;
      }
      // A directory comes once for itself, and what is in it has longer names.
      inexact.add(entry.path);
    }
    switch (entry.type) {
      case 'SymbolicLink':
        if (links.length === LINKS_MAX) note(`${entry.path}: more than ${LINKS_MAX} links`);
        else {
          const { path, mtime, uid, gid } = entry;
          links.push({ path, mtime, uid, gid, target: entry.linkpath ?? '' });
        }
        return false;
      case 'CharacterDevice':
      case 'BlockDevice':
      case 'FIFO':
        counts.specials++;
        return false;
      case 'Directory':
      case 'GNUDumpDir':
        counts.directories++;
        entry.mode = modeOf(entry, 0o700, options.sameOwner);
        if (join(root, entry.path, '.') === root) ownMode = entry.mode;
        else laterMode(entry);
        return true;
      default:
        counts.files++;
        entry.mode = modeOf(entry, 0o600, options.sameOwner);
        if (entry.type !== 'Link') laterMode(entry);
        return true;
    }
  };
  let broken: PandoError | undefined;
  const unpacking = new Unpack({
    cwd: root,
    filter,
    strict: false,
    preserveOwner: options.sameOwner,
    maxDepth: DEPTH_MAX,
    onwarn: (code: string, message: string | Error, data: unknown) => {
      if (code === 'TAR_ENTRY_INFO') return;
      const about = data as { entry?: { path?: string }; code?: string } | undefined;
      const text = typeof message === 'string' ? message : message.message;
      // What the disk does not take is not this one file's trouble.
      if (
        /^(ENOSPC|EDQUOT|EROFS|EIO|EMFILE)$/.test(about?.code ?? '') ||
        /^TAR_(ABORT|BAD_ARCHIVE)$/.test(code)
      ) {
        broken ??= new PandoError('file-failed', `unpacking failed: ${text}`);
      } else note(`${about?.entry?.path ?? '?'}: ${text}`);
    },
  });
  const done = new Promise<void>((resolve, reject) => {
    unpacking.once('close', resolve);
    unpacking.once('error', (error: Error) =>
      reject(new PandoError('file-failed', `unpacking failed: ${error.message}`, { cause: error })),
    );
  });
  done.catch(() => undefined); // reported below
  for await (const piece of bytes) {
    options.signal.throwIfAborted();
    if (broken !== undefined) throw broken;
    if (!unpacking.write(Buffer.from(piece))) await drained(unpacking, done);
  }
  unpacking.end();
  await done;
  if (broken !== undefined) throw broken;
  for (const { path, mode } of modes) {
    options.signal.throwIfAborted();
    try {
      await chmod(await insidePlace(root, path), mode);
    } catch (error) {
      note(`${path}: ${(error as Error).message}`);
    }
  }
  if (options.isFolderOwn === true && ownMode !== undefined) await chmod(root, ownMode & ~umask);
  for (const { path, target, mtime, uid, gid } of links) {
    options.signal.throwIfAborted();
    try {
      const place = await insidePlace(root, path);
      await symlink(target, place);
      if (options.sameOwner && uid !== undefined && gid !== undefined) await lchown(place, uid, gid);
      if (mtime !== undefined) await lutimes(place, mtime, mtime).catch(() => undefined);
      counts.links++;
    } catch (error) {
      note(`${path}: ${(error as Error).message}`);
    }
  }
  return { ...counts, problems, moreProblems };
}

/** What may be read and changed by whoever unpacks. */
function modeOf({ mode }: ReadEntry, always: number, isSame: boolean): number {
  return ((mode ?? always) & (isSame ? 0o7777 : 0o777)) | always;
}

/** Where the path leads in the folder. @throws when it leads out of it, or through a link */
async function insidePlace(root: string, path: string): Promise<string> {
  const isInside = !path.split('/').includes('..') && !path.includes('\0');
  const place = join(root, path, '.');
  if (!isInside || relative(root, place) === '' || (await realpath(dirname(place))) !== dirname(place))
    throw new Error('it is not inside the folder');
  return place;
}

function drained(unpacking: Unpack, done: Promise<void>): Promise<unknown> {
  return Promise.race([new Promise<void>((resolve) => unpacking.once('drain', resolve)), done]);
}

/** One file, as it comes. @throws what `bytes` throws, the system's errors of the target, the signal's reason */
export async function writeBytes(
  bytes: AsyncIterable<Uint8Array>,
  target: NodeJS.WritableStream,
  signal: AbortSignal,
): Promise<void> {
  await pipeline(Readable.from(bytes, { objectMode: false }), target, { signal });
}
