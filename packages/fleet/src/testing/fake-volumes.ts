/**
 * Volumes in memory, for tests of the fleet alone: contents in maps of blocks, records in the catalog in the same
 * commit as the caller's, errors where the contract says so. No log, no overlays, no destage.
 */
import { MemoryBlockDevice, type StatusExtents } from '@pando/block-device';
import type { Catalog, CatalogOperation } from '@pando/catalog';
import { DurationHistogram, HOLE_ID, PandoError, isHole } from '@pando/common';
import { heightFor, readTree, type ChunkReader, type Root } from '@pando/tree';
import type { DiskNumber, DiskRecord, ForkRequest, OpenVolume, VolumeStats, Volumes } from '@pando/volume';
import { diskKey } from '../records.ts';

type Blocks = Map<number, Uint8Array>;

interface FakeDisk {
  root: Root;
  size: number;
  blocks: Blocks;
  /** What the root holds: nothing is ever destaged. */
  readonly settled: Blocks;
  /** What it was at its newest fork. */
  forked: Blocks | undefined;
  readonly readOnly: boolean;
  handles: number;
}

type From = { readonly size: number } | { readonly root: Root };

export class FakeVolumes implements Volumes {
  readonly logLoss = undefined;
  readonly chunkBytes: number;
  readonly #catalog: Catalog;
  readonly #reader: ChunkReader;
  readonly #disks = new Map<DiskNumber, FakeDisk>();
  readonly #removing = new Set<DiskNumber>();
  #last = 0;

  constructor(catalog: Catalog, reader: ChunkReader) {
    this.#catalog = catalog;
    this.#reader = reader;
    this.chunkBytes = reader.chunkBytes;
  }

  async create(from: From, records: (disk: DiskNumber) => readonly CatalogOperation[]): Promise<DiskNumber> {
    return (await this.createMany([from], ([disk]) => records(disk!)))[0]!;
  }

  async createMany(
    from: readonly From[],
    records: (disks: readonly DiskNumber[]) => readonly CatalogOperation[],
  ): Promise<readonly DiskNumber[]> {
    const made = await Promise.all(from.map((state) => this.#make(state)));
    const numbers = made.map(() => ++this.#last);
    await this.#catalog.commit([...made.map((disk, i) => this.#put(numbers[i]!, disk)), ...records(numbers)]);
    for (const [i, disk] of made.entries()) this.#disks.set(numbers[i]!, disk);
    return numbers;
  }

  async fork({
    sources,
    copies,
    readOnly,
    records,
  }: ForkRequest): Promise<readonly (readonly DiskNumber[])[]> {
    const frozen = sources
      .map((number) => this.#find(number))
      .map((disk) => ({ ...disk, blocks: copy(disk.blocks), forked: copy(disk.blocks) }));
    const made = Array.from({ length: copies }, () =>
      frozen.map((disk) => ({
        number: ++this.#last,
        disk: { ...disk, blocks: copy(disk.blocks), readOnly, handles: 0 } satisfies FakeDisk,
      })),
    );
    const numbers = made.map((ofCopy) => ofCopy.map(({ number }) => number));
    const all = made.flat();
    await this.#catalog.commit([
      ...all.map(({ number, disk }) => this.#put(number, disk)),
      ...records(numbers),
    ]);
    for (const { number, disk } of all) this.#disks.set(number, disk);
    for (const [i, number] of sources.entries()) this.#find(number).forked = frozen[i]!.forked;
    return numbers;
  }

  async replace(
    pairs: readonly { readonly target: DiskNumber; readonly source: DiskNumber }[],
    records: () => readonly CatalogOperation[],
  ): Promise<void> {
    const changes = pairs.map(({ target, source }) => {
      this.#refuseOpen(target);
      const from = this.#find(source);
      return {
        target,
        disk: {
          ...from,
          blocks: copy(from.blocks),
          forked: copy(from.blocks),
          readOnly: false,
          handles: 0,
        } satisfies FakeDisk,
      };
    });
    await this.#catalog.commit([...changes.map(({ target, disk }) => this.#put(target, disk)), ...records()]);
    for (const { target, disk } of changes) this.#disks.set(target, disk);
  }

  async resize(number: DiskNumber, size: number, records: () => readonly CatalogOperation[]): Promise<void> {
    const disk = this.#find(number);
    if (size < disk.size) this.#refuseOpen(number);
    await this.#catalog.commit([this.#put(number, { ...disk, size }), ...records()]);
    if (size < disk.size) {
      await new MemoryBlockDevice({ size: disk.size, blockBytes: this.chunkBytes }, disk.blocks).zero(
        size,
        disk.size - size,
      );
    }
    disk.size = size;
  }

  async remove(numbers: readonly DiskNumber[], records: () => readonly CatalogOperation[]): Promise<void> {
    for (const number of numbers) {
      this.#find(number);
      this.#refuseOpen(number);
    }
    for (const number of numbers) this.#removing.add(number);
    const gone = numbers.map((number) => ({ type: 'delete', table: 'disk', key: diskKey(number) }) as const);
    try {
      await this.#catalog.commit([...gone, ...records()]);
      for (const number of numbers) this.#disks.delete(number);
    } finally {
      for (const number of numbers) this.#removing.delete(number);
    }
  }

  async open(number: DiskNumber): Promise<OpenVolume> {
    const disk = this.#find(number);
    if (this.#removing.has(number)) throw new PandoError('disk-in-use', `disk ${number} is being removed`);
    disk.handles++;
    return new FakeHandle(number, disk, this.chunkBytes, () => disk.handles--);
  }

  isOpen(number: DiskNumber): boolean {
    return this.#find(number).handles > 0;
  }

  async settle(number: DiskNumber): Promise<Root> {
    return this.#find(number).root;
  }

  settleAll(): Promise<void> {
    return Promise.resolve();
  }

  get stats(): VolumeStats {
    const zeros = {
      overlayBytes: 0,
      overlays: 0,
      writtenBytes: 0,
      destagedBytes: 0,
      logBytes: 12_345,
      logDiskBytes: 12_345,
      logBytesMax: 2 ** 30,
    };
    const none = new DurationHistogram();
    const noLog = { files: 0, records: 0, appendedBytes: 0, groups: 0, syncs: 0 };
    const log = { ...noLog, reusedFiles: 0, groupTimes: none, syncTimes: none };
    return {
      ...zeros,
      log,
      destageTimes: none,
      full: false,
      failure: undefined,
      logRewrites: 0,
      damaged: [],
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #make(from: From): Promise<FakeDisk> {
    if ('size' in from) {
      const root = { id: HOLE_ID, height: heightFor(from.size, this.chunkBytes), size: from.size };
      return {
        root,
        size: from.size,
        blocks: new Map(),
        settled: new Map(),
        forked: undefined,
        readOnly: false,
        handles: 0,
      };
    }
    const { root } = from;
    const blocks: Blocks = new Map();
    for (let at = 0; at < root.size && !isHole(root.id); at += this.chunkBytes) {
      const block = new Uint8Array(this.chunkBytes);
      await readTree(this.#reader, root, at, Math.min(this.chunkBytes, root.size - at), block, 0);
      if (block.some((byte) => byte !== 0)) blocks.set(at / this.chunkBytes, block);
    }
    return {
      root,
      size: root.size,
      blocks,
      settled: copy(blocks),
      forked: undefined,
      readOnly: false,
      handles: 0,
    };
  }

  #find(number: DiskNumber): FakeDisk {
    const disk = this.#disks.get(number);
    if (disk === undefined) throw new PandoError('disk-missing', `no disk ${number}`);
    return disk;
  }

  #refuseOpen(number: DiskNumber): void {
    if (this.#find(number).handles > 0) throw new PandoError('disk-in-use', `disk ${number} is open`);
  }

  #put(number: DiskNumber, disk: FakeDisk): CatalogOperation {
    const value: DiskRecord = {
      version: 1,
      rootId: disk.root.id,
      rootHeight: disk.root.height,
      rootSize: disk.root.size,
      size: disk.size,
      overlays: [],
      overlayFloor: 0,
      readOnly: disk.readOnly,
    };
    return { type: 'put', table: 'disk', key: diskKey(number), value };
  }
}

function copy(blocks: Blocks): Blocks {
  return new Map([...blocks].map(([index, bytes]) => [index, bytes.slice()]));
}

class FakeHandle extends MemoryBlockDevice implements OpenVolume {
  readonly disk: DiskNumber;
  readonly #disk: FakeDisk;
  #onClose: (() => void) | undefined;

  constructor(number: DiskNumber, disk: FakeDisk, blockBytes: number, onClose: () => void) {
    super({ size: disk.size, blockBytes, readOnly: disk.readOnly }, disk.blocks);
    this.disk = number;
    this.#disk = disk;
    this.#onClose = onClose;
  }

  get root(): Root {
    return this.#disk.root;
  }

  async differences(other: FakeHandle, ...range: Parameters<OpenVolume['depths']>): Promise<StatusExtents> {
    if (other.#onClose === undefined) throw new PandoError('shutting-down', 'the other disk is closed');
    return this.#flags(range, (block) => (this.#isAs(block, other.#disk.blocks) ? 0 : 1));
  }

  async depths(...range: Parameters<OpenVolume['depths']>): Promise<StatusExtents> {
    const { forked } = this.#disk;
    return this.#flags(range, (block) => {
      if (this.#isAs(block, new Map())) return 0;
      return forked !== undefined && this.#isAs(block, forked) ? 2 : 1;
    });
  }

  async pending(...range: Parameters<OpenVolume['depths']>): Promise<StatusExtents> {
    return this.#flags(range, (block) => (this.#isAs(block, this.#disk.settled) ? 0 : 1));
  }

  close(): Promise<void> {
    this.#onClose?.();
    this.#onClose = undefined;
    return Promise.resolve();
  }

  #isAs(block: number, others: Blocks): boolean {
    const zeros = new Uint8Array(this.blockBytes);
    return Buffer.compare(this.#disk.blocks.get(block) ?? zeros, others.get(block) ?? zeros) === 0;
  }

  #flags(
    [offset, length, extentsMax]: Parameters<OpenVolume['depths']>,
    flagOf: (block: number) => number,
  ): StatusExtents {
    if (this.#onClose === undefined) throw new PandoError('shutting-down', 'the disk is closed');
    const lengths: number[] = [];
    const flags: number[] = [];
    for (let at = offset; at < offset + length;) {
      const block = Math.floor(at / this.blockBytes);
      const end = Math.min(offset + length, (block + 1) * this.blockBytes);
      const flag = flagOf(block);
      if (flags.at(-1) === flag) lengths[lengths.length - 1]! += end - at;
      else if (flags.length === extentsMax) break;
      else {
        lengths.push(end - at);
        flags.push(flag);
      }
      at = end;
    }
    return { lengths, flags };
  }
}
