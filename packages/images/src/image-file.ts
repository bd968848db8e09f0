/** Files of images: opened once, checked after opening, read in small bounded pieces. */
import { PandoError } from '@pando/common';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, readlink, realpath, unlink, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve, sep } from 'node:path';

/** An image file that is open for reading. */
export interface ImageFile {
  readonly handle: FileHandle;
  /** Where it really is, links resolved. */
  readonly path: string;
  readonly bytes: number;
  /** Made by us, and without a name by now: `path` is where it was. */
  readonly isUnnamed?: true;
}

/**
 * Opens a regular file; never blocks on a pipe, never opens a device. With `within`, the file that was opened lies in that
 * directory or below, whatever links led to it: checked on the open file, so nobody can swap it afterwards.
 * @throws `import-not-a-file`, `image-refused` when it lies outside
 */
export async function openImageFile(path: string, within?: string): Promise<ImageFile> {
  const refused = (cause?: unknown): PandoError =>
    new PandoError('image-refused', `${JSON.stringify(path.slice(0, 300))} is not inside ${within!}`, {
      cause,
    });
  let root: string | undefined;
  if (within !== undefined) {
    root = await realpath(within);
    // Before opening too: opening a pipe or a tape can have an effect.
    const real = await realpath(path).catch((cause: unknown) => {
      // Outside the directory nobody learns what exists.
      if (!isInside(root!, resolve(path))) throw refused(cause);
      throw new PandoError('import-not-a-file', `cannot open ${path.slice(0, 300)}`, { cause });
    });
    if (!isInside(root, real)) throw refused();
  }
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw new PandoError('import-not-a-file', `cannot open ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new PandoError('import-not-a-file', `${path} is not a regular file`);
    const real =
      process.platform === 'linux' ? await readlink(`/proc/self/fd/${handle.fd}`) : await realpath(path);
    if (root !== undefined && !isInside(root, real)) throw refused();
    return { handle, path: real, bytes: stat.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

export function isInside(root: string, path: string): boolean {
  return path.startsWith(root.endsWith(sep) ? root : root + sep);
}

/** Bytes of the file; fewer where it ends before. */
export async function readAt({ handle }: ImageFile, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

/** A file of the temporary directory that holds `text` and has no name any more. */
export async function unnamedFile(text: string): Promise<ImageFile> {
  const path = join(tmpdir(), `pando-${randomBytes(12).toString('hex')}`);
  const handle = await open(path, 'wx+', 0o600);
  try {
    await handle.writeFile(text);
    return { handle, path, bytes: Buffer.byteLength(text), isUnnamed: true };
  } catch (error) {
    await handle.close();
    throw error;
  } finally {
    await unlink(path);
  }
}
