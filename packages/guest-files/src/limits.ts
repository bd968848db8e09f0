/** Every bound by name; docs/files.md says what happens past those that people meet. */
import { GiB, MiB } from '@pando/common';

/** Of a path in a guest, as Linux has it. */
export const PATH_BYTES_MAX = 4096;

/** guestfish reads its commands in lines of at most 8192 bytes. */
export const LINE_BYTES_MAX = 8000;

export interface GuestFilesLimits {
  /** Appliances at the same time; none: files are not read. */
  readonly appliancesMax: number;
  /** Requests that wait for one appliance. */
  readonly waitingMax: number;
  /** How long they wait. */
  readonly waitMs: number;
  /** For an appliance to start; the first one on a machine is built before, and without KVM all takes longer. */
  readonly startMs: number;
  /** For one command that moves no bytes. */
  readonly commandMs: number;
  /** A body of which nothing moved for so long is given up. */
  readonly pauseMs: number;
  /** An appliance that nobody asks anything stays for so long. */
  readonly idleMs: number;
  /** Of memory for an appliance. */
  readonly applianceMiB: number;
  /**
   * What an appliance may write over one disk, into a file in the temporary directory; past it, its kernel sees a disk that fails. More than the
   * 4 GiB that the image of the appliance itself has when it is built, most of them holes.
   */
  readonly writtenBytesMax: number;
  /** Answers of commands. */
  readonly answerBytesMax: number;
  /** Names of one directory. */
  readonly directoryBytesMax: number;
  readonly fileSystemsMax: number;
  readonly operatingSystemsMax: number;
  readonly mountsMax: number;
}

export const DEFAULT_LIMITS: GuestFilesLimits = {
  appliancesMax: 2,
  waitingMax: 16,
  waitMs: 60_000,
  startMs: 180_000,
  commandMs: 60_000,
  pauseMs: 60_000,
  idleMs: 60_000,
  applianceMiB: 768,
  writtenBytesMax: 8 * GiB,
  answerBytesMax: 8 * MiB,
  directoryBytesMax: 64 * MiB,
  fileSystemsMax: 256,
  operatingSystemsMax: 8,
  mountsMax: 64,
};
