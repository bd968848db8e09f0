/**
 * A machine for tests that follow one small, fixed order of events: its disk for the log, its chunk store, its catalog, and the
 * volumes of the process that runs on it, restarted after a power cut whenever the test wants.
 */
import { MemoryCatalog, type Catalog } from '@pando/catalog';
import { systemClock, type Clock, type SpaceGuard } from '@pando/common';
import { CrashFileSystem, fillRandom, seededRandom } from '@pando/common/testing';
import { openVolumes, type DiskNumber, type LogGate, type Volumes } from '../index.ts';
import { mortalCatalog } from './mortal-catalog.ts';
import { TestStore } from './test-store.ts';

export const CHUNK = 4096;
export const storeId = new Uint8Array(16).fill(5);
export const none = (): [] => [];
export const DAMAGED = { code: 'chunk-corrupt', kind: 'data' };

/** A disk on which the log keeps no files for later: tests that look at its files find those that hold something. */
export const scarce: SpaceGuard = { refusal: undefined, isScarce: true };

/** A thousand times faster than the real one. */
export const quick: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * 1000,
  sleep: (ms, signal) => systemClock.sleep(ms / 1000, signal),
};

/** What the first 8 chunks of the damaged disk held before the writes that are in the log. */
export const bases = fillRandom(seededRandom(11), new Uint8Array(8 * CHUNK));
export const base = (chunk: number): Uint8Array => bases.slice(chunk * CHUNK, (chunk + 1) * CHUNK);

export interface MachineOptions {
  readonly destageAfterMs?: number;
  readonly logBytesMax?: number;
  readonly logFileBytes?: number;
  readonly overlayBytesMax?: number;
  readonly space?: SpaceGuard;
  readonly clock?: Clock;
  readonly logGate?: LogGate;
  readonly acceptLogDamage?: boolean;
}

export class TestMachine {
  readonly records = new MemoryCatalog();
  fs = new CrashFileSystem();
  store: TestStore;
  catalog: Catalog;
  volumes!: Volumes;
  /** Whether chunks are read without waiting. */
  warm = true;
  /** Whether the power is off: from a crash to the next start. */
  isOff = true;
  #kill: () => void;

  constructor() {
    this.store = new TestStore(CHUNK, () => this.warm);
    ({ catalog: this.catalog, kill: this.#kill } = mortalCatalog(this.records));
  }

  async open(options: MachineOptions = {}): Promise<Volumes> {
    this.volumes = await openVolumes({
      store: this.store.asChunkStore(),
      catalog: this.catalog,
      fs: this.fs,
      logDirectory: 'log',
      storeId,
      destageAfterMs: 1e9,
      logFileBytes: 8 * CHUNK,
      clock: quick,
      space: scarce,
      ...options,
    });
    this.isOff = false;
    return this.volumes;
  }

  /** The power fails: of what was not synced nothing stays, but for names, which do by `random`. What still runs can do no more. */
  crash(random: () => number = () => 0.99): void {
    this.isOff = true;
    this.#kill();
    void this.volumes.close().catch(() => undefined);
    this.fs = this.fs.crash(random);
    this.store = this.store.crash();
    ({ catalog: this.catalog, kill: this.#kill } = mortalCatalog(this.records));
  }

  async restart(options: MachineOptions = {}): Promise<void> {
    this.crash();
    await this.open(options);
  }

  async read(disk: DiskNumber, offset: number, length: number): Promise<Buffer> {
    const volume = await this.volumes.open(disk);
    const bytes = Buffer.alloc(length, 0xee);
    try {
      await volume.read(offset, length, bytes, 0);
    } finally {
      await volume.close();
    }
    return bytes;
  }

  /** Writes and flushes. */
  async write(disk: DiskNumber, offset: number, data: Uint8Array): Promise<void> {
    const volume = await this.volumes.open(disk);
    try {
      await volume.write(offset, data);
      await volume.flush();
    } finally {
      await volume.close();
    }
  }

  /** Zeroes and flushes. */
  async zero(disk: DiskNumber, offset: number, length: number): Promise<void> {
    const volume = await this.volumes.open(disk);
    try {
      await volume.zero(offset, length);
      await volume.flush();
    } finally {
      await volume.close();
    }
  }

  async fork(source: DiskNumber, readOnly = true): Promise<DiskNumber> {
    const request = { sources: [source], copies: 1, readOnly, records: none };
    const [[copy]] = (await this.volumes.fork(request)) as [[number]];
    return copy;
  }

  /** A disk of 8 chunks in the tree, and 100 bytes of 7 written at 50 of chunk 2; chunk 2 is damaged, and the power fails. */
  async damagedDisk(options: MachineOptions = {}): Promise<DiskNumber> {
    const disk = await this.volumes.create({ size: 8 * CHUNK }, none);
    await this.write(disk, 0, bases);
    await this.volumes.settle(disk);
    await this.write(disk, 2 * CHUNK + 50, Buffer.alloc(100, 7));
    this.store.damage(base(2));
    await this.restart(options);
    return disk;
  }

  close(): Promise<void> {
    return this.volumes.close().catch(() => undefined);
  }
}

export type Patch = readonly [at: number, count: number, value: number];

export function patched(bytes: Uint8Array, ...patches: readonly Patch[]): Buffer {
  const copy = Buffer.from(bytes);
  for (const [at, count, value] of patches) copy.fill(value, at, at + count);
  return copy;
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
