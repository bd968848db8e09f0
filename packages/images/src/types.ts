/**
 * Disks outside of Pando: image files of any format and exports of other NBD servers, read as a stream of parts or
 * written as a new file. Raw files need nothing; other formats go through QEMU's own `qemu-nbd` and `qemu-img`,
 * confined so that nothing an image says can make them open another file.
 */
import type { DiskPart } from '@pando/common';

/** Formats that are read and written. */
export const IMAGE_FORMATS = ['raw', 'qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc'] as const;
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/**
 * Whether the programs that read and write images run in a sandbox: or they do not run (`required`); or without it
 * where there can be none (`preferred`); or without it (`none`), for images from somebody who is trusted.
 */
export type Confinement = 'required' | 'preferred' | 'none';

export interface OpenImageOptions {
  /**
   * What the user said. Absent: recognised by the content. An image that is something else is refused; `raw` takes the
   * bytes of any file as they are.
   */
  readonly format?: ImageFormat;
  /**
   * What to do with a backing file or another file that the image names: refuse (default), or follow it when it lies
   * in this directory or below.
   */
  readonly backingWithin?: string;
  /** The image itself lies in this directory or below, with all links resolved. Absent: anywhere. */
  readonly within?: string;
  /** Default: `required`. */
  readonly confinement?: Confinement;
  readonly signal?: AbortSignal;
}

/** A disk that can be read from its start to its end, as often as one likes. */
export interface DiskSource {
  /** `qcow2`, …, or `nbd`. */
  readonly format: ImageFormat | 'nbd';
  readonly sizeBytes: number;
  /** Something that a person should know about how it was taken. */
  readonly remark?: string;
  /**
   * The bytes in order; neighbouring holes joined, none of no bytes. Buffers are the source's and hold until the
   * next pull. Ends early with the reason of the signal; a source that was aborted is of no more use but to be closed.
   */
  parts(signal: AbortSignal): AsyncIterable<DiskPart>;
  /** Ends helpers and connections. Idempotent. */
  close(): Promise<void>;
}

export interface CreateImageOptions {
  readonly format: ImageFormat;
  readonly sizeBytes: number;
  /** qcow2 only: compressed clusters. */
  readonly compress?: boolean;
  /** Whether a regular file of that name is replaced. Default: it is refused, with `file-exists`. */
  readonly replace?: boolean;
  /** Ends what is under way; `abort` is to be called all the same. */
  readonly signal?: AbortSignal;
}

/** A new image file. It has its name when `finish` has resolved, whole and synced, or not at all. */
export interface DiskTarget {
  /** Writes in ascending order; what is skipped is a hole. The data is taken before it resolves. */
  write(position: number, data: Uint8Array): Promise<void>;
  /**
   * Completes the image. Before it gets its name it is checked, by `qemu-img check` where the format has that, and by
   * `verify`, which reads the finished file; when that throws, there is no file.
   * @throws `verify-failed`, `file-failed`, `file-exists`
   */
  finish(verify?: (written: DiskSource) => Promise<void>): Promise<void>;
  /** Removes what there is of it. Idempotent; after `finish` it does nothing. */
  abort(): Promise<void>;
}
