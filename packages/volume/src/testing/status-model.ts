/**
 * What disks say about themselves (differences, depths, pending, allocation) against plain bytes: random writes, also of
 * what is there already, zeros, trims, forks, replacements, resizes and removals, while overlays are destaged,
 * garbage is collected, the process is restarted or loses power, at random moments.
 */
import type { ChunkStore } from '@pando/chunk-store';
import { between, fillRandom, seededRandom } from '@pando/common/testing';
import type { StatusExtents } from '@pando/block-device';
import { readTree } from '@pando/tree';
import { openVolumes, type DiskNumber, type OpenVolume, type Volumes } from '../index.ts';
import type { World } from './crash-model.ts';

const CHUNK = 4096;
const SECTOR = 512;
const DISKS_MAX = 7;
const storeId = new Uint8Array(16).fill(5);
const ZEROS = Buffer.alloc(CHUNK);
const none = (): [] => [];

/** What a disk was at a fork. */
interface Fork {
  readonly bytes: Buffer;
  /** Disks of backups that hold just this. */
  readonly held: Set<DiskNumber>;
  /** A collection has run while none of them was there: some of it may be unknown. */
  mayBeGone: boolean;
}

interface ModelDisk {
  bytes: Buffer;
  readonly readOnly: boolean;
  fork: Fork | undefined;
}

export class StatusModel {
  readonly #seed: number;
  readonly #random: () => number;
  readonly #disks = new Map<DiskNumber, ModelDisk>();
  #world: World;
  #store!: ChunkStore;
  #volumes!: Volumes;
  /** Chunks that were older than the fork and said to be, and those where nobody could know. */
  readonly old = { known: 0, unknown: 0 };

  constructor(seed: number, makeWorld: (random: () => number) => World) {
    this.#seed = seed;
    this.#random = seededRandom(seed);
    this.#world = makeWorld(this.#random);
  }

  async run(steps: number): Promise<void> {
    await this.#boot();
    for (let step = 0; step < steps; step++) {
      try {
        await this.#step();
        await this.#check();
      } catch (error) {
        throw new Error(`seed ${this.#seed}, step ${step}`, { cause: error });
      }
    }
    await this.#volumes.close();
  }

  async #boot(): Promise<void> {
    this.#store = await this.#world.openStore();
    await this.#open();
  }

  async #open(): Promise<void> {
    this.#volumes = await openVolumes({
      store: this.#store,
      catalog: this.#world.catalog,
      fs: this.#world.fs,
      logDirectory: 'log',
      storeId,
      destageAfterMs: this.#random() < 0.3 ? 0 : 1e9,
      overlayBytesMax: 2000 * CHUNK,
    });
  }

  #pick<T>(of: readonly T[]): T {
    return of[between(this.#random, 0, of.length - 1)]!;
  }

  #some(wanted: (disk: ModelDisk) => boolean): [DiskNumber, ModelDisk] | undefined {
    const found = [...this.#disks].filter(([, disk]) => wanted(disk));
    return found.length === 0 ? undefined : this.#pick(found);
  }

  async #step(): Promise<void> {
    const dice = this.#random();
    const any = this.#some(() => true);
    if (any === undefined || (dice < 0.05 && this.#disks.size < DISKS_MAX)) return this.#create();
    const [number, disk] = any;
    if (dice < 0.55) return this.#change();
    if (dice < 0.7) return this.#fork(number, disk);
    if (dice < 0.74) return this.#replace(number, disk);
    if (dice < 0.8) return this.#resize();
    if (dice < 0.84) return this.#disks.size > 3 ? this.#remove(number) : undefined;
    if (dice < 0.9) return this.#settle(number);
    if (dice < 0.94) return this.#collect();
    if (dice < 0.97) {
      await this.#volumes.close();
      return this.#open();
    }
    return this.#crash();
  }

  async #create(): Promise<void> {
    const size = between(this.#random, 1, this.#pick([3, 100, 2400])) * SECTOR;
    const number = await this.#volumes.create({ size }, none);
    this.#disks.set(number, { bytes: Buffer.alloc(size), readOnly: false, fork: undefined });
  }

  async #change(): Promise<void> {
    const [number, disk] = this.#some(({ readOnly }) => !readOnly) ?? [];
    if (number === undefined) return this.#create();
    const { bytes } = disk!;
    const handle = await this.#volumes.open(number);
    for (let count = between(this.#random, 1, 6); count > 0; count--) {
      const whole = this.#random() < 0.4;
      const at = between(this.#random, 0, bytes.byteLength - 1);
      const offset = whole ? Math.floor(at / CHUNK) * CHUNK : at;
      const most = this.#pick([1, 700, CHUNK, CHUNK, 9 * CHUNK, 200 * CHUNK]);
      const length = Math.min(bytes.byteLength - offset, whole ? most : between(this.#random, 1, most));
      const data = bytes.subarray(offset, offset + length);
      const dice = this.#random();
      if (dice < 0.25) {
        await handle.zero(offset, length);
        data.fill(0);
        continue;
      }
      if (dice < 0.35) data.fill(0);
      // Few values, so that equal chunks meet, on one disk and on several.
      else if (dice < 0.6) data.fill(between(this.#random, 1, 3));
      else if (dice < 0.8) fillRandom(this.#random, data);
      await handle.write(offset, data);
    }
    if (this.#random() < 0.3) await handle.flush();
    await handle.close();
  }

  async #fork(number: DiskNumber, disk: ModelDisk): Promise<void> {
    if (this.#disks.size >= DISKS_MAX) return this.#change();
    const readOnly = this.#random() < 0.6;
    const fork: Fork = { bytes: Buffer.from(disk.bytes), held: new Set(), mayBeGone: false };
    const request = { sources: [number], copies: 1, readOnly, records: none };
    const [[copy]] = (await this.#volumes.fork(request)) as [[number]];
    this.#disks.set(copy, { bytes: Buffer.from(disk.bytes), readOnly, fork });
    if (readOnly) fork.held.add(copy);
    if (!disk.readOnly) disk.fork = fork;
    else fork.held.add(number);
  }

  async #replace(source: DiskNumber, from: ModelDisk): Promise<void> {
    const [target, disk] = this.#some((other) => other !== from && !other.readOnly) ?? [];
    if (target === undefined) return;
    await this.#volumes.replace([{ target, source }], none);
    const fork: Fork = { bytes: Buffer.from(from.bytes), held: new Set(), mayBeGone: false };
    disk!.bytes = Buffer.from(from.bytes);
    disk!.fork = fork;
    if (from.readOnly) fork.held.add(source);
    else from.fork = fork;
  }

  async #resize(): Promise<void> {
    const [number, disk] = this.#some(({ readOnly }) => !readOnly) ?? [];
    if (number === undefined) return;
    const size = between(this.#random, 1, this.#pick([3, 100, 2400])) * SECTOR;
    await this.#volumes.resize(number, size, none);
    const bytes = Buffer.alloc(size);
    disk!.bytes.copy(bytes);
    disk!.bytes = bytes;
  }

  async #settle(number: DiskNumber): Promise<void> {
    await this.#volumes.settle(number);
  }

  async #remove(number: DiskNumber): Promise<void> {
    await this.#volumes.remove([number], none);
    this.#disks.delete(number);
    for (const { fork } of this.#disks.values()) fork?.held.delete(number);
  }

  async #collect(): Promise<void> {
    // Those that are not held when it begins, or any more when it ends; nothing is removed meanwhile.
    for (const { fork } of this.#disks.values()) if (fork?.held.size === 0) fork.mayBeGone = true;
    await this.#world.collect(this.#store);
  }

  async #crash(): Promise<void> {
    const old = this.#volumes;
    this.#world = this.#world.crash();
    void old.close().catch(() => undefined);
    await this.#boot();
    for (const [number, disk] of this.#disks) {
      const handle = await this.#volumes.open(number);
      // Of what was not flushed, what is there now is what counts.
      if (!disk.readOnly) await handle.read(0, disk.bytes.byteLength, disk.bytes, 0);
      await handle.close();
    }
  }

  /** Asks two disks about themselves, sometimes while what they are read through changes. */
  async #check(): Promise<void> {
    const [number, disk] = this.#some(() => true)!;
    const [otherNumber, other] = this.#some(() => true)!;
    const handle = await this.#volumes.open(number);
    const otherHandle = await this.#volumes.open(otherNumber);
    const dice = this.#random();
    const meanwhile =
      dice < 0.2
        ? this.#volumes.settle(number).then(() => (this.#random() < 0.5 ? this.#collect() : undefined))
        : undefined;
    try {
      for (let count = 3; count > 0; count--) await this.#ask(handle, disk, otherHandle, other);
      await meanwhile;
      await this.#ask(handle, disk, otherHandle, other);
    } finally {
      await meanwhile?.catch(() => undefined);
      await handle.close();
      await otherHandle.close();
    }
  }

  async #ask(handle: OpenVolume, disk: ModelDisk, otherHandle: OpenVolume, other: ModelDisk): Promise<void> {
    const { bytes } = disk;
    const start = this.#random() < 0.4 ? 0 : between(this.#random, 0, bytes.byteLength - 1);
    const length =
      this.#random() < 0.4 ? bytes.byteLength - start : between(this.#random, 1, bytes.byteLength - start);
    const most = this.#pick([1, 1, 2, 5, 10_000]);
    const chunks = (flagOf: (chunk: number) => number): number[] => {
      const flags: number[] = [];
      for (let chunk = Math.floor(start / CHUNK); chunk * CHUNK < start + length; chunk++)
        flags.push(flagOf(chunk));
      return flags;
    };
    const differs = chunks((chunk) => (sameChunk(bytes, other.bytes, chunk) ? 0 : 1));
    match(
      'differences',
      await handle.differences(otherHandle, start, length, most),
      start,
      length,
      most,
      differs,
    );

    const { fork } = disk;
    const exact = chunks((chunk) => {
      if (isZeroChunk(bytes, chunk)) return 0;
      return fork !== undefined && sameChunk(bytes, fork.bytes, chunk) ? 2 : 1;
    });
    const depths = await handle.depths(start, length, most);
    if (fork?.mayBeGone === true) this.#matchLoosely(depths, start, length, most, exact);
    else {
      this.old.known += exact.filter((flag) => flag === 2).length;
      match('depths', depths, start, length, most, exact);
    }

    const { lengths, holes } = await handle.allocation(start, length, most);
    const stored = chunks((chunk) => (isZeroChunk(bytes, chunk) ? 0 : 1));
    match('allocation', { lengths, flags: holes.map((hole) => (hole ? 0 : 1)) }, start, length, most, stored);

    await this.#checkPending(handle, bytes, start, length, most);
  }

  /** Where nothing is pending, the root holds what the disk holds. */
  async #checkPending(
    handle: OpenVolume,
    bytes: Buffer,
    start: number,
    length: number,
    most: number,
  ): Promise<void> {
    const { root } = handle;
    const { lengths, flags } = await handle.pending(start, length, most);
    let at = start;
    for (const [index, count] of lengths.entries()) {
      if (flags[index] === 0) {
        // A disk that has grown may have a root that ends in the middle of its last chunk; zeros follow.
        const found = Buffer.alloc(count);
        try {
          await readTree(
            this.#store,
            root,
            Math.min(at, root.size),
            Math.max(0, Math.min(count, root.size - at)),
            found,
            0,
          );
        } catch (error) {
          // It was destaged and collected meanwhile.
          if (handle.root === root) throw error;
          return;
        }
        if (!found.equals(bytes.subarray(at, at + count)))
          throw new Error(`${at}: the root holds something else`);
      }
      at += count;
    }
    if (at < start + length && lengths.length < most) throw new Error('pending: not all is covered');
  }

  /** As match, but what is older than the fork may be taken for newer, because the fork's nodes may be gone. */
  #matchLoosely(found: StatusExtents, start: number, length: number, most: number, exact: number[]): void {
    const said: number[] = [];
    let at = start;
    for (const [index, count] of found.lengths.entries()) {
      at += count;
      while (Math.floor(start / CHUNK + said.length) * CHUNK < at && said.length < exact.length)
        said.push(found.flags[index]!);
    }
    for (const [index, flag] of said.entries()) {
      if (exact[index] === 2) this.old[flag === 2 ? 'known' : 'unknown']++;
      if (flag !== exact[index] && !(exact[index] === 2 && flag === 1))
        throw new Error(`depths: chunk ${index} of the range is ${exact[index]}, not ${flag}`);
    }
    if (said.length < exact.length) {
      if (found.lengths.length < most) throw new Error('depths: not all is covered');
    } else match('depths', found, start, length, most, said);
  }
}

/** Chunks past the end are zeros, as is the rest of a last chunk that is not whole. */
function sameChunk(a: Buffer, b: Buffer, chunk: number): boolean {
  const inA = a.subarray(chunk * CHUNK, (chunk + 1) * CHUNK);
  const inB = b.subarray(chunk * CHUNK, (chunk + 1) * CHUNK);
  const both = Math.min(inA.byteLength, inB.byteLength);
  return (
    inA.subarray(0, both).equals(inB.subarray(0, both)) &&
    isZero(inA.subarray(both)) &&
    isZero(inB.subarray(both))
  );
}

function isZeroChunk(bytes: Buffer, chunk: number): boolean {
  return isZero(bytes.subarray(chunk * CHUNK, (chunk + 1) * CHUNK));
}

function isZero(bytes: Buffer): boolean {
  return bytes.compare(ZEROS, 0, bytes.byteLength) === 0;
}

/** Holds extents to one flag for each chunk of the range: all of the range, or as many whole extents as were asked for. */
function match(
  what: string,
  found: StatusExtents,
  start: number,
  length: number,
  most: number,
  flags: readonly number[],
): void {
  const lengths: number[] = [];
  const expected: number[] = [];
  let at = start;
  for (const [index, flag] of flags.entries()) {
    const to = Math.min(start + length, (Math.floor(start / CHUNK) + index + 1) * CHUNK);
    if (expected.at(-1) === flag) lengths[lengths.length - 1]! += to - at;
    else if (expected.length === most) break;
    else {
      lengths.push(to - at);
      expected.push(flag);
    }
    at = to;
  }
  const text = (extents: StatusExtents): string =>
    extents.lengths.map((n, i) => `${n}:${extents.flags[i]}`).join(' ');
  const is = text(found);
  const should = text({ lengths, flags: expected });
  if (is !== should)
    throw new Error(`${what} of ${length} at ${start}, at most ${most}: ${is}, not ${should}`);
}
