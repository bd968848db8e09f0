/**
 * Segments as files of one directory: `<12 decimal digits>.seg`.
 *
 * Descriptors for reading are kept open up to a bound, the least recently used closed first, never one
 * that a read is using.
 */
import { fromIoError, PandoError, rewriteInPlace, type File, type FileSystem } from '@pando/common';
import { OPEN_CONCURRENCY, OPEN_FILES_DEFAULT } from './limits.ts';
import type { SegmentStorage, SegmentWriter } from './types.ts';

const NAME = /^(\d{12})\.seg$/;

interface OpenFile {
  readonly file: Promise<File>;
  /** The same once it is open. */
  opened: File | undefined;
  users: number;
  /** No longer cached: the last user closes it. */
  dropped: boolean;
}

/** The name of a segment's file. */
export function segmentFileName(segment: number): string {
  return `${String(segment).padStart(12, '0')}.seg`;
}

class FileSegmentWriter implements SegmentWriter {
  readonly segment: number;
  readonly #file: File;
  readonly #syncName: (() => Promise<void>) | undefined;
  #named = false;
  #size: number;

  constructor(segment: number, file: File, size: number, syncName: (() => Promise<void>) | undefined) {
    this.segment = segment;
    this.#file = file;
    this.#size = size;
    this.#syncName = syncName;
  }

  get size(): number {
    return this.#size;
  }

  async append(parts: readonly Uint8Array[]): Promise<void> {
    await this.#file.write(parts, this.#size);
    for (const part of parts) this.#size += part.byteLength;
  }

  async sync(): Promise<void> {
    await this.#file.sync();
    if (this.#named || this.#syncName === undefined) return;
    await this.#syncName();
    this.#named = true;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

export class DirectorySegmentStorage implements SegmentStorage {
  readonly #fs: FileSystem;
  readonly #directory: string;
  readonly #openFilesMax: number;
  /** In order of use, least recent first. */
  readonly #files = new Map<number, OpenFile>();

  /** @param directory is created when it is not there, by the first call of `list` or `create` */
  constructor(fs: FileSystem, directory: string, openFilesMax = OPEN_FILES_DEFAULT) {
    this.#fs = fs;
    this.#directory = directory;
    this.#openFilesMax = openFilesMax;
  }

  async list(): Promise<{ segment: number; size: number }[]> {
    await this.#fs.makeDirectory(this.#directory);
    const numbers = (await this.#fs.list(this.#directory)).flatMap((name) => {
      const match = NAME.exec(name);
      return match === null ? [] : [Number(match[1])];
    });
    const found: { segment: number; size: number }[] = [];
    for (let first = 0; first < numbers.length; first += OPEN_CONCURRENCY) {
      const group = numbers.slice(first, first + OPEN_CONCURRENCY);
      found.push(...(await Promise.all(group.map((segment) => this.#sizeOf(segment)))));
    }
    return found.sort((a, b) => a.segment - b.segment);
  }

  async create(segment: number): Promise<SegmentWriter> {
    await this.#fs.makeDirectory(this.#directory);
    let file: File;
    try {
      file = await this.#fs.open(this.#path(segment), 'create');
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      throw new PandoError('internal', `segment ${segment} exists already`, { cause: error });
    }
    return new FileSegmentWriter(segment, file, 0, () => this.#fs.syncDirectory(this.#directory));
  }

  async read(segment: number, target: Uint8Array, position: number): Promise<number> {
    const open = this.#use(segment);
    try {
      return await (await open.file).read(target, position);
    } catch (error) {
      throw this.#readError(segment, error);
    } finally {
      open.users--;
      await this.#closeIfDropped(open);
    }
  }

  readNow(segment: number, target: Uint8Array, position: number): number | undefined {
    const open = this.#files.get(segment);
    if (open?.opened?.readNow === undefined) return undefined;
    this.#files.delete(segment);
    this.#files.set(segment, open);
    return open.opened.readNow(target, position);
  }

  async truncate(segment: number, size: number): Promise<void> {
    const file = await this.#fs.open(this.#path(segment), 'write');
    try {
      await file.truncate(size);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async rewrite(segment: number, from: number): Promise<void> {
    const file = await this.#fs.open(this.#path(segment), 'write');
    try {
      await rewriteInPlace(file, from, await file.size());
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#fs.syncDirectory(this.#directory);
  }

  async reopen(segment: number): Promise<SegmentWriter> {
    const file = await this.#fs.open(this.#path(segment), 'write');
    // The name may be as new as the bytes: a segment that broke off before its first sync.
    return new FileSegmentWriter(segment, file, await file.size(), () =>
      this.#fs.syncDirectory(this.#directory),
    );
  }

  async remove(segment: number): Promise<void> {
    await this.#drop(segment);
    try {
      await this.#fs.remove(this.#path(segment));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
    await this.#fs.syncDirectory(this.#directory);
    // A read that began in between may have opened the file again.
    await this.#drop(segment);
  }

  async close(): Promise<void> {
    for (const segment of [...this.#files.keys()]) await this.#drop(segment);
  }

  #path(segment: number): string {
    return `${this.#directory}/${segmentFileName(segment)}`;
  }

  async #sizeOf(segment: number): Promise<{ segment: number; size: number }> {
    const file = await this.#fs.open(this.#path(segment), 'read');
    try {
      return { segment, size: await file.size() };
    } finally {
      await file.close();
    }
  }

  #use(segment: number): OpenFile {
    let open = this.#files.get(segment);
    if (open === undefined) {
      const opening: OpenFile = {
        file: this.#fs.open(this.#path(segment), 'read'),
        ...{ opened: undefined, users: 0, dropped: false },
      };
      opening.file.then(
        (file) => {
          opening.opened = file;
        },
        () => {
          // A failed opening must not be what later reads find.
          if (this.#files.get(segment) === opening) this.#files.delete(segment);
        },
      );
      open = opening;
    } else {
      this.#files.delete(segment);
    }
    open.users++;
    this.#files.set(segment, open);
    if (this.#files.size > this.#openFilesMax) this.#evict();
    return open;
  }

  #evict(): void {
    for (const [segment, open] of this.#files) {
      if (open.users > 0) continue;
      void this.#drop(segment).catch(() => undefined); // closing a file that was only read loses nothing
      return;
    }
  }

  async #drop(segment: number): Promise<void> {
    const open = this.#files.get(segment);
    if (open === undefined) return;
    this.#files.delete(segment);
    open.dropped = true;
    await this.#closeIfDropped(open);
  }

  async #closeIfDropped(open: OpenFile): Promise<void> {
    if (!open.dropped || open.users > 0) return;
    const file = await open.file.catch(() => undefined);
    await file?.close();
  }

  #readError(segment: number, error: unknown): PandoError {
    if (errnoOf(error) === 'ENOENT') {
      return new PandoError('chunk-missing', `segment ${segment} does not exist`, { cause: error });
    }
    return fromIoError(error, `reading segment ${segment}`, 'store-failed');
  }
}

function errnoOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code;
}
