/** The FileSystem seam over node:fs. */
import * as fs from 'node:fs';
import { mkdir, open, readdir, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { File, FileSystem } from './file-system.ts';
import { QuickReads } from './quick-reads.ts';

const FLAGS = { read: 'r', write: 'r+', create: 'wx+' } as const;

/** Most buffers in one pwritev; Linux takes 1,024 (IOV_MAX). */
const PARTS_MAX = 1024;

/** One for the process: event loop and page cache are shared by all files. */
const quickReads = new QuickReads(
  () => performance.now(),
  () => process.resourceUsage().fsRead,
);

class NodeFile implements File {
  readonly path: string;
  #handle: FileHandle;
  #closed = false;
  /** Operations on the descriptor that the system has not answered yet. */
  #underWay = 0;
  #onIdle: (() => void) | undefined;

  constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  // Callbacks on the descriptor: a FileHandle's promises cost about 15 µs more a call. Unlike a FileHandle, the system
  // would give the number of a closed descriptor to the next file at once, so `close` waits for what is under way.
  read(target: Uint8Array, position: number): Promise<number> {
    const length = target.byteLength;
    return new Promise((resolve, reject) => {
      const fd = this.#begin();
      const readOn = (done: number): void => {
        fs.read(fd, target, done, length - done, position + done, (error, count) => {
          if (error === null && count > 0 && done + count < length) {
            readOn(done + count);
            return;
          }
          this.#end();
          if (error === null) resolve(done + count);
          else reject(error);
        });
      };
      readOn(0);
    });
  }

  readSync(target: Uint8Array, position: number): number {
    if (this.#closed) throw Object.assign(new Error(`${this.path} is closed`), { code: 'EBADF' });
    let done = 0;
    while (done < target.byteLength) {
      const count = fs.readSync(this.#handle.fd, target, done, target.byteLength - done, position + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  readNow(target: Uint8Array, position: number): number | undefined {
    if (!quickReads.begin()) return undefined;
    try {
      return this.readSync(target, position);
    } catch {
      return undefined;
    } finally {
      quickReads.end();
    }
  }

  async write(parts: readonly Uint8Array[], position: number): Promise<void> {
    let at = position;
    for (let first = 0; first < parts.length; first += PARTS_MAX) {
      let group = parts.slice(first, first + PARTS_MAX);
      while (group.length > 0) {
        const bytesWritten = await this.#writeSome(group, at);
        if (bytesWritten === 0 && group.some((part) => part.byteLength > 0)) {
          throw noProgress(this.path);
        }
        at += bytesWritten;
        group = rest(group, bytesWritten);
      }
    }
  }

  writeSync(parts: readonly Uint8Array[], position: number): void {
    if (this.#closed) throw Object.assign(new Error(`${this.path} is closed`), { code: 'EBADF' });
    const { fd } = this.#handle;
    let group = parts;
    for (let at = position; group.length > 0;) {
      const some = group.slice(0, PARTS_MAX);
      const bytesWritten =
        some.length === 1
          ? fs.writeSync(fd, some[0]!, 0, some[0]!.byteLength, at)
          : fs.writevSync(fd, some, at);
      if (bytesWritten === 0 && some.some((part) => part.byteLength > 0)) throw noProgress(this.path);
      at += bytesWritten;
      group = rest(group, bytesWritten);
    }
  }

  #writeSome(parts: Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const fd = this.#begin();
      const done = (error: Error | null, count: number): void => {
        this.#end();
        if (error === null) resolve(count);
        else reject(error);
      };
      if (parts.length === 1) fs.write(fd, parts[0]!, 0, parts[0]!.byteLength, position, done);
      else fs.writev(fd, parts, position, done);
    });
  }

  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  async truncate(size: number): Promise<void> {
    await this.#handle.truncate(size);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    await this.#handle.close();
  }

  #begin(): number {
    if (this.#closed) throw Object.assign(new Error(`${this.path} is closed`), { code: 'EBADF' });
    this.#underWay++;
    return this.#handle.fd;
  }

  #end(): void {
    if (--this.#underWay === 0) this.#onIdle?.();
  }
}

/** What is left to write. A short write (a disk that just filled up) continues with it, and then gets the errno. */
function rest(parts: readonly Uint8Array[], bytesWritten: number): Uint8Array[] {
  let skip = 0;
  while (skip < parts.length && bytesWritten >= parts[skip]!.byteLength) {
    bytesWritten -= parts[skip]!.byteLength;
    skip++;
  }
  const left = parts.slice(skip);
  if (bytesWritten > 0) left[0] = left[0]!.subarray(bytesWritten);
  return left;
}

function noProgress(path: string): Error {
  return Object.assign(new Error(`write to ${path} made no progress`), { code: 'EIO' });
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export const nodeFileSystem: FileSystem = {
  async makeDirectory(path) {
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    // Every directory from the parent of the first new one downwards gained an entry.
    const top = dirname(resolve(first));
    for (let at = dirname(resolve(path)); at.length >= top.length; at = dirname(at)) {
      await syncDirectory(at);
      if (at === dirname(at)) break;
    }
  },
  async list(path) {
    const entries = await readdir(path, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => entry.name)
      .sort();
  },
  async open(path, mode) {
    return new NodeFile(path, await open(path, FLAGS[mode], 0o600));
  },
  remove: (path) => unlink(path),
  rename: (from, to) => rename(from, to),
  syncDirectory,
};

/** Bytes of the files in a directory, not of those below it; a file that goes meanwhile counts as nothing. */
export async function directoryBytes(path: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(path)) {
    bytes += await stat(join(path, name)).then(
      (info) => info.size,
      () => 0,
    );
  }
  return bytes;
}
