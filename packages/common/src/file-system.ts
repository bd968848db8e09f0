/**
 * The file system as the engine sees it: the seam under segments and write log.
 *
 * The promise of an implementation, which a simulated disk has to honour too:
 * - `write` returns when the bytes are in the page cache: they survive the process, not the machine.
 * - `sync` (fdatasync) makes a file's bytes and size durable. After it has failed, the file's unsynced
 *   bytes are in an unknown state for good; callers must not retry as if nothing had happened.
 * - A new, renamed or removed name is durable after `syncDirectory` of its directory.
 * - Errors are the system's own (`code` ENOSPC, EIO, …); callers turn them into PandoErrors.
 */
export interface FileSystem {
  /** Creates a directory and its parents where missing, for their owner only; the new entries are durable. */
  makeDirectory(path: string): Promise<void>;
  /** Names (not paths) of the regular files in a directory, sorted. */
  list(path: string): Promise<string[]>;
  /**
   * Opens a file. `read`: must exist, writes fail. `write`: must exist, read and write.
   * `create`: must not exist yet (EEXIST), read and write, empty.
   */
  open(path: string, mode: 'read' | 'write' | 'create'): Promise<File>;
  remove(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
}

export interface File {
  readonly path: string;
  size(): Promise<number>;
  /** Reads from `position` until `target` is full or the file ends; resolves to the bytes read. */
  read(target: Uint8Array, position: number): Promise<number>;
  /** As `read`, blocking: for bytes known to be in the page cache. */
  readSync(target: Uint8Array, position: number): number;
  /**
   * As `read`, blocking, while such reads turn out to be quick; undefined while they do not, and when one fails. Absent where
   * nobody can tell.
   */
  readNow?(target: Uint8Array, position: number): number | undefined;
  /** Writes all of `parts` one after another from `position`, or rejects; a prefix may then be there. */
  write(parts: readonly Uint8Array[], position: number): Promise<void>;
  /** As `write`, blocking: for a few bytes that only go into the page cache. Absent where that makes no sense. */
  writeSync?(parts: readonly Uint8Array[], position: number): void;
  sync(): Promise<void>;
  truncate(size: number): Promise<void>;
  /** Closing twice does nothing. A file that was removed stays readable until it is closed. */
  close(): Promise<void>;
}
