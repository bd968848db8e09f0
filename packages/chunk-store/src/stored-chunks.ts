/**
 * The chunks of a store that is not open, out of its segments alone: no index, no lock, and nothing is written. For whoever
 * looks for some of them, such as a repair with the copy of a store.
 */
import { type DiskPart, PandoError } from '@pando/common';
import { expandRun } from './codec.ts';
import { scanDirectory } from './recovery.ts';
import { readDirectory, runEntryAt, type RunEntry, type SegmentDirectory } from './segment-directory.ts';
import {
  chunkBytesOf,
  decodeRunHeader,
  isRunBodyIntact,
  KIND_ANCHOR,
  RUN_ENTRY_BYTES,
} from './segment-format.ts';
import { type Segment, SegmentTable } from './segment-table.ts';
import { readStoreOf } from './store-of-segments.ts';
import type { SegmentStorage } from './types.ts';

export interface StoredChunks {
  /** Of data chunks. */
  readonly chunkBytes: number;
  /** Bytes of all parts together. */
  readonly sizeBytes: number;
  /** Runs that the last `parts` could not read: they came as holes. */
  readonly lostRuns: number;
  /**
   * All data chunks and nodes, in no order that means anything, dead ones included; each begins at a multiple of its
   * length, and data chunks at multiples of `chunkBytes`. Buffers are the reader's. Ends early with the reason of the signal.
   */
  parts(signal: AbortSignal): AsyncGenerator<DiskPart, void, undefined>;
}

/**
 * Opens the segments of one store; undefined where there are none that say whose they are. The storage stays the
 * caller's. What is damaged is left out.
 * @throws what the storage throws
 */
export async function openStoredChunks(storage: SegmentStorage): Promise<StoredChunks | undefined> {
  const store = await readStoreOf(storage);
  if (store === undefined) return undefined;
  const table = new SegmentTable(store);
  for (const { segment, size } of await storage.list()) table.add(segment, 'sealed', size);
  const reader = new Reader(storage, table, store.chunkBytes);
  await reader.measure();
  return reader;
}

class Reader implements StoredChunks {
  readonly chunkBytes: number;
  sizeBytes = 0;
  lostRuns = 0;
  readonly #storage: SegmentStorage;
  readonly #table: SegmentTable;
  /** By segment: a store that somebody writes to meanwhile must not make more of it than was said. */
  readonly #bytes = new Map<number, number>();

  constructor(storage: SegmentStorage, table: SegmentTable, chunkBytes: number) {
    this.#storage = storage;
    this.#table = table;
    this.chunkBytes = chunkBytes;
  }

  async measure(): Promise<void> {
    for (const segment of this.#table.all()) {
      const bytes = runsOf(await this.#directory(segment)).reduce(
        (sum, run) => sum + this.#partBytes(run),
        0,
      );
      this.#bytes.set(segment.number, bytes);
      this.sizeBytes += bytes;
    }
  }

  async *parts(signal: AbortSignal): AsyncGenerator<DiskPart, void, undefined> {
    this.lostRuns = 0;
    for (const segment of this.#table.all()) {
      let left = this.#bytes.get(segment.number)!;
      for (const run of runsOf(await this.#directory(segment))) {
        signal.throwIfAborted();
        const bytes = this.#partBytes(run);
        if (bytes > left) break;
        left -= bytes;
        const raw = await this.#read(segment, run);
        if (raw === undefined) this.lostRuns++;
        yield raw ?? { holeBytes: bytes };
        const padding = raw === undefined ? 0 : bytes - raw.byteLength;
        if (padding > 0) yield { holeBytes: padding };
      }
      if (left > 0) yield { holeBytes: left };
    }
  }

  /** Nodes are shorter than large data chunks: what comes behind them begins where it should. */
  #partBytes({ kind, count }: RunEntry): number {
    const bytes = count * chunkBytesOf(kind, this.chunkBytes);
    return Math.ceil(bytes / this.chunkBytes) * this.chunkBytes;
  }

  async #directory(segment: Segment): Promise<SegmentDirectory | undefined> {
    const { number, seed, bytes } = segment;
    try {
      return await readDirectory(this.#storage, number, seed, bytes);
    } catch (error) {
      if (!(error instanceof PandoError)) throw error;
    }
    try {
      const about = { storage: this.#storage, chunkBytes: this.chunkBytes };
      return (await scanDirectory(about, segment, bytes)).directory;
    } catch (error) {
      if (!(error instanceof PandoError)) throw error;
      return undefined;
    }
  }

  async #read({ number, seed }: Segment, run: RunEntry): Promise<Uint8Array | undefined> {
    const bytes = new Uint8Array(run.bytes);
    try {
      if ((await this.#storage.read(number, bytes, run.offset)) < run.bytes) return undefined;
      const header = decodeRunHeader(bytes, 0, seed, this.chunkBytes);
      if (header?.runBytes !== run.bytes || header.kind !== run.kind || header.count !== run.count)
        return undefined;
      if (!isRunBodyIntact(bytes, 0, header)) return undefined;
      return expandRun(bytes.subarray(run.bytes - header.storedBytes), header.codec, header.rawBytes);
    } catch (error) {
      if (!(error instanceof PandoError)) throw error;
      return undefined;
    }
  }
}

function runsOf(directory: SegmentDirectory | undefined): RunEntry[] {
  if (directory === undefined) return [];
  const { runTable } = directory;
  const count = runTable.byteLength / RUN_ENTRY_BYTES;
  return Array.from({ length: count }, (_, run) => runEntryAt(runTable, run)).filter(
    ({ kind }) => kind !== KIND_ANCHOR,
  );
}
