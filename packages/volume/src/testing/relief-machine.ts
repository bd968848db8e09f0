/**
 * A machine on which a disk is damaged and the log is short, for tests of its relief: the disk has four overlays, in files of
 * their own, that need each other.
 */
import type { Clock } from '@pando/common';
import { expect } from 'vitest';
import type { DiskNumber, Volumes } from '../index.ts';
import { WRITERS_MS_MAX } from '../log-relief.ts';
import {
  CHUNK,
  TestMachine,
  base,
  bases,
  none,
  patched,
  quick,
  type MachineOptions,
  type Patch,
} from './test-machine.ts';

export const LOG_BYTES_MAX = 48 * CHUNK;

export interface Disks {
  readonly disk: DiskNumber;
  /** Forks of it with the oldest overlay, and with the two oldest; the others are in no record. */
  readonly copy: DiskNumber;
  readonly backup: DiskNumber;
  readonly other: DiskNumber;
}

export const ofCopy = patched(bases, [2 * CHUNK + 50, 100, 7], [5 * CHUNK, CHUNK, 0]);
export const ofBackup = patched(ofCopy, [2 * CHUNK + 200, 10, 9]);
export const ofDisk = patched(ofBackup, [6 * CHUNK + 10, 20, 3], [6 * CHUNK + 20, 20, 4]);

export class ReliefMachine extends TestMachine {
  /** Called once when a relief begins; it is told so by how long that waits for writers. */
  onRelief: (() => void) | undefined;
  readonly #clock: Clock = {
    ...quick,
    sleep: (ms, signal) => {
      const run = ms === WRITERS_MS_MAX ? this.onRelief : undefined;
      if (run !== undefined) this.onRelief = undefined;
      run?.();
      return quick.sleep(ms, signal);
    },
  };

  override open(options: MachineOptions = {}): Promise<Volumes> {
    return super.open({
      ...{ logBytesMax: LOG_BYTES_MAX, logFileBytes: 2 * CHUNK, clock: this.#clock },
      ...options,
    });
  }

  /** Makes the disks, damages chunk 2, and lets the power fail. */
  async makeDisks(options: MachineOptions = {}): Promise<Disks> {
    const other = await this.volumes.create({ size: 40 * CHUNK }, none);
    const disk = await this.volumes.create({ size: 8 * CHUNK }, none);
    const fill = async (value: number): Promise<void> => this.write(other, 0, Buffer.alloc(3 * CHUNK, value));
    await this.write(disk, 0, bases);
    await this.volumes.settle(disk);
    await this.write(disk, 2 * CHUNK + 50, Buffer.alloc(100, 7));
    await this.zero(disk, 5 * CHUNK, CHUNK);
    const copy = await this.fork(disk, false);
    await fill(1);
    await this.write(disk, 2 * CHUNK + 200, Buffer.alloc(10, 9));
    // Of a chunk that the overlay below says is zero, this one says nothing then.
    await this.zero(disk, 5 * CHUNK + 10, 20);
    const backup = await this.fork(disk);
    await fill(2);
    await this.write(disk, 6 * CHUNK + 10, Buffer.alloc(20, 3));
    this.store.damage(base(2));
    await this.restart(options);
    await fill(3);
    await this.write(disk, 6 * CHUNK + 20, Buffer.alloc(20, 4));
    return { disk, copy, backup, other };
  }

  /** Writes to `other` until the log was relieved, or `stop` says so. */
  async relieve(other: DiskNumber, stop = (): boolean => false): Promise<void> {
    const before = this.volumes.stats.logRewrites;
    for (let value = 1; !stop() && this.volumes.stats.logRewrites === before; value++) {
      await this.write(other, 0, Buffer.alloc(CHUNK, value));
      // Destage, too, gets its turn, before the log is full.
      if (this.volumes.stats.logBytes * 2 > LOG_BYTES_MAX) await quick.sleep(1_000);
    }
  }

  async check({ disk, copy, backup }: Disks, ...more: Patch[]): Promise<void> {
    expect(await this.read(copy, 0, 8 * CHUNK)).toEqual(ofCopy);
    expect(await this.read(backup, 0, 8 * CHUNK)).toEqual(ofBackup);
    expect(await this.read(disk, 0, 8 * CHUNK)).toEqual(patched(ofDisk, ...more));
  }
}
