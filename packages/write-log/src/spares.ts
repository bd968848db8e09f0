/**
 * Files that the log has let go of, kept to be written again.
 *
 * A sync of a file that grows waits for the file system's journal, and so for everybody's metadata; a sync of bytes that have
 * their place on the disk already waits for those bytes only. So files go round, and the first one is made of zeros in the
 * background as soon as somebody writes and syncs. What a spare file holds is void: all of its records are of this process, and released,
 * so their positions are lower than that of any record which will be written over them, and a scan passes them by.
 *
 * Spare files of an earlier process are never used, but removed: positions may have begun anew since.
 */
import { join } from 'node:path';
import { MiB, type File, type FileSystem } from '@pando/common';

const NAME = /^spare-\d+$/;
/** What is kept at most, all together. */
const BYTES_MAX = 256 * MiB;
/** A file is worth keeping when it is as large as the one that is made in advance, which is no larger than this. */
const PREPARED_BYTES_MAX = 16 * MiB;
const ZEROS = new Uint8Array(MiB);

export interface Spare {
  readonly path: string;
  readonly file: File;
  /** All of them have their place on the disk. */
  readonly bytes: number;
}

export interface SparesOptions {
  readonly fs: FileSystem;
  readonly directory: string;
  /** A log file is left for a new one when it has grown past this. */
  readonly fileBytes: number;
  /** Whether there is room for what is only convenient. */
  readonly hasRoom: () => boolean;
}

export class Spares {
  readonly #fs: FileSystem;
  readonly #directory: string;
  readonly #leastBytes: number;
  readonly #hasRoom: () => boolean;
  #spares: Spare[] = [];
  #named = 0;
  /** Set once there is something to sync. */
  #preparing: Promise<void> | undefined;
  #closed = false;

  constructor({ fs, directory, fileBytes, hasRoom }: SparesOptions) {
    this.#fs = fs;
    this.#directory = directory;
    this.#leastBytes = Math.min(fileBytes, PREPARED_BYTES_MAX);
    this.#hasRoom = hasRoom;
  }

  get bytes(): number {
    return this.#spares.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get isEmpty(): boolean {
    return this.#spares.length === 0;
  }

  /** The one that was added last: most of it is still in the page cache. The caller owns it from here on. */
  take(): Spare | undefined {
    return this.#spares.pop();
  }

  /** The path to which a file of `bytes` bytes is to be renamed, if it is to be kept. */
  pathFor(bytes: number): string | undefined {
    if (this.#closed || bytes < this.#leastBytes || this.bytes + bytes > BYTES_MAX || !this.#hasRoom())
      return undefined;
    return this.#nextPath();
  }

  /** Takes over a file that has its path, durably: under its old name it would be missed by nobody, but must not change. */
  async add(spare: Spare): Promise<void> {
    if (this.#closed) await this.#remove(spare);
    else this.#spares.push(spare);
  }

  /** Makes a file in the background, once. */
  prepare(): void {
    if (this.#closed || !this.#hasRoom()) return;
    this.#preparing ??= this.#prepare();
  }

  /** Removes all that are there now. */
  async drop(): Promise<void> {
    const spares = this.#spares;
    this.#spares = [];
    for (const spare of spares) await this.#remove(spare);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#preparing;
    await this.drop();
  }

  /** Never rejects: without a spare file the log works as well. */
  async #prepare(): Promise<void> {
    const path = this.#nextPath();
    const file = await this.#fs.open(path, 'create').catch(() => undefined);
    if (file === undefined) return;
    const spare = { path, file, bytes: this.#leastBytes };
    try {
      for (let at = 0; at < spare.bytes && !this.#closed; at += ZEROS.byteLength)
        await file.write([ZEROS.subarray(0, Math.min(ZEROS.byteLength, spare.bytes - at))], at);
      if (!this.#closed) await file.sync();
      await this.add(spare);
    } catch {
      await this.#remove(spare);
    }
  }

  #nextPath(): string {
    return join(this.#directory, `spare-${++this.#named}`);
  }

  /** What is left behind is removed when the log is opened again. */
  async #remove({ path, file }: Spare): Promise<void> {
    await this.#fs.remove(path).catch(() => undefined);
    await file.close();
  }
}

/** Removes the spare files of an earlier process, durably. */
export async function removeSpares(fs: FileSystem, directory: string): Promise<void> {
  const names = (await fs.list(directory)).filter((name) => NAME.test(name));
  for (const name of names) await fs.remove(join(directory, name));
  if (names.length > 0) await fs.syncDirectory(directory);
}
