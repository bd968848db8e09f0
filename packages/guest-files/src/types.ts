/**
 * Files out of backups: their disks are given to an appliance of libguestfs, a small virtual machine that reads the file systems of
 * guests, so that what a hostile one does to whoever parses it is done there.
 *
 * Names in a guest are bytes, and so they are here: text is made of them by whoever shows them.
 */
import type { ExportHandle } from '@pando/nbd';

/** The disks of a backup, in their order. */
export interface BackupDisks {
  /** Id of the backup: what is under way for the same one is done by the same appliance. */
  readonly id: string;
  /** For messages. */
  readonly name: string;
  readonly disks: readonly string[];
}

/** Where to look: a path in the guest as it mounts its file systems, or in one of them alone. */
export interface Place {
  /** Absolute, at most PATH_BYTES_MAX, without a zero byte. */
  readonly path: Uint8Array;
  /** Name of a file system, see `fileSystems`. */
  readonly fileSystem?: string;
}

export interface GuestFileSystem {
  /** `/dev/sda1`: partition 1 of the first disk; `/dev/vg/lv`; `/dev/sdb` when there is no partition table. */
  readonly name: string;
  /** `ext4`, `xfs`, `ntfs`, …, `swap`, `crypto_LUKS`, `unknown`. */
  readonly type: string;
  readonly label?: string;
  readonly sizeBytes?: number;
}

export interface OperatingSystem {
  /** The file system of its `/`. */
  readonly fileSystem: string;
  readonly product?: string;
  /** Where it mounts what, by its own tables. */
  readonly mounts: readonly { readonly path: string; readonly fileSystem: string }[];
}

export interface GuestFileSystems {
  readonly items: readonly GuestFileSystem[];
  readonly operatingSystems: readonly OperatingSystem[];
}

export type FileType =
  'file' | 'directory' | 'symlink' | 'character-device' | 'block-device' | 'fifo' | 'socket' | 'unknown';

export interface FileEntry {
  readonly path: Uint8Array;
  readonly type: FileType;
  /** Permissions with set-user-id and their kin: 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
  /** Of a symlink. */
  readonly target?: Uint8Array;
}

export interface FilePage {
  readonly items: readonly FileEntry[];
  /** `after` of the next page; absent on the last one. */
  readonly next?: Uint8Array;
}

export interface FileBody {
  readonly sizeBytes: number;
  /** Has to be read to its end, or ended early with `return`. */
  readonly bytes: AsyncGenerator<Uint8Array, void, undefined>;
}

/**
 * All of them throw `tool-missing`, `files-off`, `files-tool-failed`, `too-busy`, `file-system-missing`, `file-system-encrypted`,
 * `file-missing`, `shutting-down`, the signal's reason, and what opening the disks throws. The signal means that nobody waits any more.
 */
export interface GuestFiles {
  fileSystems(backup: BackupDisks, signal?: AbortSignal): Promise<GuestFileSystems>;
  /**
   * What is in a directory, or, recursive, below it, a directory before what is in it; names in order of their bytes. What is
   * no directory is listed itself.
   */
  list(
    backup: BackupDisks,
    request: Place & {
      readonly recursive?: boolean;
      /** Below the directory: what came last on the page before. */
      readonly after?: Uint8Array;
      readonly limit: number;
    },
    signal?: AbortSignal,
  ): Promise<FilePage>;
  /** The bytes of a regular file; links are followed, inside the guest. @throws `file-type-wrong` */
  read(backup: BackupDisks, place: Place, signal?: AbortSignal): Promise<FileBody>;
  /** A directory as a tar stream (GNU), names in it beginning with `./`. @throws `file-type-wrong` */
  archive(
    backup: BackupDisks,
    place: Place,
    signal?: AbortSignal,
  ): Promise<AsyncGenerator<Uint8Array, void, undefined>>;
  /** Lets go of a backup that nobody reads at the moment, so that it can be deleted. */
  release(backupId: string): Promise<void>;
  /** Ends what is under way, and removes what it has left. */
  close(): Promise<void>;
}

/** Opens a disk of a backup, read-only. */
export type OpenDisk = (backupId: string, disk: string) => Promise<ExportHandle>;
