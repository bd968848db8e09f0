/**
 * A block device in memory: a sparse map from block number to the bytes of that block.
 *
 * Blocks that nobody wrote to do not exist, so a device of any size costs what was written to it.
 * Reads, writes and zeroing finish before they return. `flush` has nothing to do: there is no
 * machine to survive.
 */
import { PandoError } from '@pando/common';
import { checkRange } from './range.ts';
import type { BlockDevice, Extents } from './types.ts';

export interface MemoryBlockDeviceOptions {
  readonly size: number;
  /** Grain of allocation: a power of two, default 4096. */
  readonly blockBytes?: number;
  readonly readOnly?: boolean;
}

export class MemoryBlockDevice implements BlockDevice {
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockBytes: number;
  readonly #blocks: Map<number, Uint8Array>;

  constructor(options: MemoryBlockDeviceOptions, blocks = new Map<number, Uint8Array>()) {
    const blockBytes = options.blockBytes ?? 4096;
    if (!Number.isSafeInteger(options.size) || options.size < 0) {
      throw new PandoError('size-invalid', `${options.size} is no size of a device`);
    }
    if (blockBytes < 1 || Math.log2(blockBytes) % 1 !== 0) {
      throw new PandoError('request-invalid', `blockBytes is a power of two, not ${blockBytes}`);
    }
    this.size = options.size;
    this.readOnly = options.readOnly ?? false;
    this.blockBytes = blockBytes;
    this.#blocks = blocks;
  }

  /** Another handle on the same bytes, for example a read-only one. */
  handle(options?: { readonly readOnly?: boolean }): MemoryBlockDevice {
    const readOnly = options?.readOnly ?? this.readOnly;
    return new MemoryBlockDevice({ size: this.size, blockBytes: this.blockBytes, readOnly }, this.#blocks);
  }

  /** Bytes of memory that the blocks hold. */
  get allocatedBytes(): number {
    return this.#blocks.size * this.blockBytes;
  }

  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined {
    checkRange(this.size, offset, length);
    const blockBytes = this.blockBytes;
    let at = offset;
    const end = offset + length;
    let holeFrom = -1;
    while (at < end) {
      const index = Math.floor(at / blockBytes);
      const inside = at - index * blockBytes;
      const count = Math.min(blockBytes - inside, end - at);
      const block = this.#blocks.get(index);
      const to = targetOffset + (at - offset);
      if (block === undefined) {
        target.fill(0, to, to + count);
        if (holeFrom < 0) holeFrom = at;
      } else {
        target.set(count === blockBytes ? block : block.subarray(inside, inside + count), to);
        if (holeFrom >= 0) {
          holes?.push(holeFrom, at - holeFrom);
          holeFrom = -1;
        }
      }
      at += count;
    }
    if (holeFrom >= 0) holes?.push(holeFrom, end - holeFrom);
    return undefined;
  }

  write(offset: number, data: Uint8Array): Promise<void> | undefined {
    this.#checkWritable();
    checkRange(this.size, offset, data.byteLength);
    const blockBytes = this.blockBytes;
    let done = 0;
    while (done < data.byteLength) {
      const at = offset + done;
      const index = Math.floor(at / blockBytes);
      const inside = at - index * blockBytes;
      const count = Math.min(blockBytes - inside, data.byteLength - done);
      let block = this.#blocks.get(index);
      if (block === undefined) {
        block = new Uint8Array(blockBytes);
        this.#blocks.set(index, block);
      }
      block.set(data.subarray(done, done + count), inside);
      done += count;
    }
    return undefined;
  }

  zero(offset: number, length: number): Promise<void> | undefined {
    this.#checkWritable();
    checkRange(this.size, offset, length);
    if (length === 0) return undefined;
    const blockBytes = this.blockBytes;
    const end = offset + length;
    // A block goes when nothing of it that lies on the device stays outside the range.
    const firstWhole = Math.ceil(offset / blockBytes);
    const endWhole = end === this.size ? Math.ceil(end / blockBytes) : Math.floor(end / blockBytes);
    if (endWhole > firstWhole) {
      if (endWhole - firstWhole <= this.#blocks.size) {
        for (let index = firstWhole; index < endWhole; index++) this.#blocks.delete(index);
      } else {
        for (const index of this.#blocks.keys()) {
          if (index >= firstWhole && index < endWhole) this.#blocks.delete(index);
        }
      }
    }
    this.#clear(offset, Math.min(end, firstWhole * blockBytes));
    this.#clear(Math.max(offset, endWhole * blockBytes), end);
    return undefined;
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  prefetch(offset: number, length: number): Promise<void> {
    return Promise.resolve().then(() => checkRange(this.size, offset, length));
  }

  allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    return Promise.resolve().then(() => this.#allocation(offset, length, extentsMax));
  }

  #allocation(offset: number, length: number, extentsMax: number): Extents {
    checkRange(this.size, offset, length);
    const lengths: number[] = [];
    const holes: boolean[] = [];
    const end = offset + length;
    let at = offset;
    for (const index of this.#presentBlocks(offset, end)) {
      const from = Math.max(at, index * this.blockBytes);
      const to = Math.min(end, (index + 1) * this.blockBytes);
      if (from > at) {
        if (lengths.length === extentsMax) return { lengths, holes };
        lengths.push(from - at);
        holes.push(true);
      }
      if (holes.at(-1) === false) {
        lengths[lengths.length - 1]! += to - from;
      } else {
        if (lengths.length === extentsMax) return { lengths, holes };
        lengths.push(to - from);
        holes.push(false);
      }
      at = to;
    }
    if (at < end && lengths.length < extentsMax) {
      lengths.push(end - at);
      holes.push(true);
    }
    return { lengths, holes };
  }

  /** Numbers of the blocks that exist between two offsets, ascending; costs the lesser of range and map. */
  #presentBlocks(offset: number, end: number): number[] {
    if (end <= offset) return [];
    const first = Math.floor(offset / this.blockBytes);
    const last = Math.floor((end - 1) / this.blockBytes);
    const found: number[] = [];
    if (last - first < this.#blocks.size) {
      for (let index = first; index <= last; index++) {
        if (this.#blocks.has(index)) found.push(index);
      }
      return found;
    }
    for (const index of this.#blocks.keys()) {
      if (index >= first && index <= last) found.push(index);
    }
    return found.sort((a, b) => a - b);
  }

  #clear(from: number, to: number): void {
    if (to <= from) return;
    const index = Math.floor(from / this.blockBytes);
    this.#blocks.get(index)?.fill(0, from - index * this.blockBytes, to - index * this.blockBytes);
  }

  #checkWritable(): void {
    if (this.readOnly) throw new PandoError('read-only', 'the device is read-only');
  }
}
