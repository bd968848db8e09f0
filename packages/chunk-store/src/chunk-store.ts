/** Opening a chunk store and putting its parts together: see types.ts for what it promises. */
import {
  CHUNK_BYTES_MAX,
  CHUNK_BYTES_MIN,
  fromIoError,
  ID_BYTES,
  PandoError,
  type PagePool,
  type SpaceGuard,
} from '@pando/common';
import type { TreeNode } from '@pando/tree';
import { listAnchors } from './anchors.ts';
import { BatchWriter, type OnHit } from './batch-writer.ts';
import { ChunkLocator } from './chunk-locator.ts';
import { ChunkSource } from './chunk-source.ts';
import { DamagedRuns } from './damaged-runs.ts';
import { Directories } from './directories.ts';
import { FreshChunks } from './fresh-chunks.ts';
import { GrowingBytes } from './growing-bytes.ts';
import { HASH_KEY_BYTES, hashOf, type Hash } from './hashing.ts';
import { CHUNK_STORE_LIMITS, SEGMENT_BYTES_MAX, type ChunkStoreLimits } from './limits.ts';
import { LostPlaces, VerifiedFinder } from './lost-places.ts';
import { recover } from './recovery.ts';
import { RunLoads } from './run-loads.ts';
import { RunReader } from './run-reader.ts';
import { STORE_ID_BYTES, type StoreIdentity } from './segment-format.ts';
import { SegmentLog } from './segment-log.ts';
import { SegmentTable } from './segment-table.ts';
import { SerialQueue } from './serial-queue.ts';
import { readStaleEntries, StaleEntries } from './stale-entries.ts';
import { StoreCollection } from './store-collection.ts';
import { verifyStore } from './verify-store.ts';
import { StoreCounters, type LookUpCounters } from './store-counters.ts';
import { WorkerPool } from './worker-pool.ts';
import { StoreWriteSession } from './write-session.ts';
import type {
  ChunkIndex,
  ChunkStore,
  Collection,
  SegmentStorage,
  StoreStats,
  VerifyOptions,
  VerifyReport,
  WriteSession,
} from './types.ts';

export interface ChunkStoreOptions {
  readonly storage: SegmentStorage;
  readonly index: ChunkIndex;
  /** 16 bytes that name this store; in the header of every segment. */
  readonly storeId: Uint8Array;
  /** A power of two from 4 KiB to 64 KiB, the same every time. */
  readonly chunkBytes: number;
  /** 32 bytes with which ids are keyed, the same every time; absent for ids that are plain BLAKE3. */
  readonly hashKey?: Uint8Array | undefined;
  readonly limits?: Partial<ChunkStoreLimits>;
  /** While it refuses, sessions take no more chunks, unless they may use the reserve; compaction goes on. */
  readonly space?: SpaceGuard;
  /** Where memory for cached runs comes from; it may be shared with volumes. */
  readonly pages?: PagePool;
}

/**
 * Opens a store and recovers it from a crash where there was one. The store owns storage and index from
 * now on: `close` closes them. When opening fails they are still the caller's.
 * @throws `store-foreign`, `store-newer`, `store-failed`, `store-full`
 */
export async function openChunkStore(options: ChunkStoreOptions): Promise<ChunkStore> {
  const limits: ChunkStoreLimits = { ...CHUNK_STORE_LIMITS, ...options.limits };
  checkOptions(options, limits);
  const table = new SegmentTable(options);
  try {
    await recover({ ...options, table });
  } catch (error) {
    throw fromIoError(error, 'opening the chunk store', 'store-failed');
  }
  return new LocalChunkStore(options, limits, table, await readStaleEntries(options.index));
}

/**
 * Empties the index and fills it again from the segments alone. The store must not be open.
 * @throws as openChunkStore
 */
export async function rebuildIndex(
  storage: SegmentStorage,
  index: ChunkIndex,
  options: StoreIdentity,
): Promise<void> {
  checkOptions({ ...options, storage, index }, CHUNK_STORE_LIMITS);
  try {
    await index.clear();
    await recover({ ...options, storage, index, table: new SegmentTable(options) });
  } catch (error) {
    throw fromIoError(error, 'rebuilding the index', 'store-failed');
  }
}

function checkOptions(options: ChunkStoreOptions, limits: ChunkStoreLimits): void {
  const { chunkBytes, storeId, hashKey } = options;
  const isPowerOfTwo = Number.isInteger(chunkBytes) && (chunkBytes & (chunkBytes - 1)) === 0;
  if (!isPowerOfTwo || chunkBytes < CHUNK_BYTES_MIN || chunkBytes > CHUNK_BYTES_MAX) {
    throw new PandoError(
      'request-invalid',
      `chunkBytes is a power of two from 4 KiB to 64 KiB, not ${chunkBytes}`,
    );
  }
  if (storeId.byteLength !== STORE_ID_BYTES) throw new PandoError('internal', 'a store id has 16 bytes');
  if (hashKey !== undefined && hashKey.byteLength !== HASH_KEY_BYTES) {
    throw new PandoError('internal', `a key of ids has ${HASH_KEY_BYTES} bytes`);
  }
  if (limits.segmentBytesMax > SEGMENT_BYTES_MAX) {
    throw new PandoError('request-invalid', `segments have at most ${SEGMENT_BYTES_MAX} bytes`);
  }
}

class LocalChunkStore implements ChunkStore {
  readonly chunkBytes: number;
  readonly hash: Hash;
  readonly isKeyed: boolean;
  readonly #options: ChunkStoreOptions;
  readonly #limits: ChunkStoreLimits;
  readonly #table: SegmentTable;
  readonly #fresh = new FreshChunks();
  readonly #indexQueue = new SerialQueue();
  readonly #stale: StaleEntries;
  readonly #locator: ChunkLocator;
  readonly #damaged: DamagedRuns;
  readonly #runs: RunReader;
  readonly #loads: RunLoads;
  readonly #source: ChunkSource;
  readonly #pool: WorkerPool;
  readonly #log: SegmentLog;
  readonly #writer: BatchWriter;
  readonly #counters = new StoreCounters();
  readonly #sessions = new Set<StoreWriteSession>();
  #collection: Collection | undefined;
  #closing: Promise<void> | undefined;

  constructor(
    options: ChunkStoreOptions,
    limits: ChunkStoreLimits,
    table: SegmentTable,
    staleEntries: number,
  ) {
    const { storage, index, chunkBytes, storeId, hashKey } = options;
    this.chunkBytes = chunkBytes;
    this.hash = hashOf(hashKey);
    this.isKeyed = hashKey !== undefined;
    this.#options = options;
    this.#limits = limits;
    this.#table = table;
    this.#stale = new StaleEntries(index, this.#indexQueue, table, limits.staleEntriesFew, staleEntries);
    const { writerLookUps, readerLookUps } = this.#counters;
    this.#locator = this.#makeLocator(writerLookUps, readerLookUps);
    this.#damaged = new DamagedRuns(table);
    const { runCacheBytes, runReadsMax } = limits;
    this.#runs = new RunReader(
      storage,
      table,
      chunkBytes,
      runCacheBytes,
      runReadsMax,
      this.#damaged,
      this.#counters,
      options.pages,
    );
    const { workers } = limits;
    this.#loads = new RunLoads(storage, table, this.#runs, chunkBytes, workers, this.#counters, hashKey);
    this.#source = new ChunkSource(
      chunkBytes,
      limits.nodeCacheBytes,
      this.#locator,
      this.#runs,
      this.#loads,
      (segment) => table.get(segment) === undefined,
      this.#damaged,
      this.#counters,
      this.hash,
    );
    this.#pool = new WorkerPool(limits.workers, limits.batchesInFlightMax, this.#counters, hashKey);
    this.#log = new SegmentLog({
      storage,
      index,
      indexQueue: this.#indexQueue,
      table,
      fresh: this.#fresh,
      damaged: this.#damaged,
      storeId: storeId.slice(),
      hashKey: hashKey?.slice(),
      chunkBytes,
      limits,
      counters: this.#counters,
      onAppendFailed: (error) => this.#failSessions(error),
    });
    this.#writer = new BatchWriter({
      chunkBytes,
      locator: this.#locator,
      fresh: this.#fresh,
      damaged: this.#damaged,
      nodes: this.#source.nodes,
      log: this.#log,
      pool: this.#pool,
      counters: this.#counters,
      onFailure: (error) => this.#failSessions(fromIoError(error, 'storing chunks', 'internal')),
    });
  }

  get failure(): PandoError | undefined {
    return this.#log.failure ?? this.#options.index.failure;
  }

  peekNode(ids: Uint8Array, offset: number): TreeNode | undefined {
    return this.#source.peekNode(ids, offset);
  }

  readNode(ids: Uint8Array, offset: number): Promise<TreeNode> {
    return this.#source.readNode(ids, offset);
  }

  readChunks(
    leaf: TreeNode,
    first: number,
    count: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> | undefined {
    return this.#source.readChunks(leaf, first, count, target, targetOffset);
  }

  readChunk(ids: Uint8Array, offset: number): Promise<Uint8Array> {
    return this.#source.readChunk(ids, offset);
  }

  anchors(): Promise<Uint8Array> {
    return listAnchors({ ...this.#options, table: this.#table });
  }

  openSession(options?: { readonly usesReserve?: boolean }): WriteSession {
    this.#throwIfClosing();
    const space = options?.usesReserve === true ? undefined : this.#options.space;
    const session = new StoreWriteSession(this.chunkBytes, this.#writer, this.#log, space, (released) => {
      this.#sessions.delete(released);
    });
    this.#sessions.add(session);
    return session;
  }

  async seal(): Promise<void> {
    this.#throwIfClosing();
    await this.#writer.idle();
    await this.#log.seal();
  }

  knownChunks(ids: Uint8Array, count: number): Promise<Uint8Array> {
    this.#throwIfClosing();
    return this.#writer.known(ids, count);
  }

  beginCollection(onHit: OnHit): Collection {
    this.#throwIfClosing();
    if (this.#collection !== undefined) throw new PandoError('internal', 'a collection is under way already');
    const candidates = this.#table
      .all()
      .filter((segment) => segment.state === 'sealed' && !segment.condemned);
    for (const segment of candidates) segment.candidate = true;
    this.#writer.onHit = onHit;
    const { collectionLookUps } = this.#counters;
    const collection = new StoreCollection(
      {
        chunkBytes: this.chunkBytes,
        hash: this.hash,
        storage: this.#options.storage,
        index: this.#options.index,
        indexQueue: this.#indexQueue,
        table: this.#table,
        locator: this.#makeLocator(collectionLookUps),
        runs: this.#runs,
        writer: this.#writer,
        log: this.#log,
        pool: this.#pool,
        damaged: this.#damaged,
        stale: this.#stale,
        onEnd: () => {
          this.#collection = undefined;
          this.#writer.onHit = undefined;
          this.#stale.sweepIfMany();
        },
      },
      candidates.map((segment) => ({ segment: segment.number, bytes: segment.bytes, slots: segment.slots })),
      this.#pins(),
    );
    this.#collection = collection;
    return collection;
  }

  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    const lost = new LostPlaces();
    const { quick = false } = options;
    const { index, storage } = this.#options;
    // First: LevelDB may end the process when it comes upon a damaged block, and then the next start has to know of it.
    const indexFiles = (await index.verify?.()) ?? [];
    const table = this.#table;
    const directories = new Directories(storage, table);
    const found = await verifyStore(
      {
        ...{ ...this.#options, hash: this.hash, indexQueue: this.#indexQueue, directories, table, lost },
        damaged: this.#damaged,
      },
      options,
    );
    // Ids loaded from footers hide what the index lacks: only a full verification has compared the two before.
    const { verifyLookUps } = this.#counters;
    const locator = this.#makeLocator(verifyLookUps, verifyLookUps, quick ? 0 : this.#limits.recentPlacesMax);
    return { ...found, indexFiles, finder: new VerifiedFinder(locator, lost, directories) };
  }

  async stats(): Promise<StoreStats> {
    const segmentBytes = this.#table.all().reduce((sum, segment) => sum + segment.bytes, 0);
    return {
      segmentBytes,
      segments: this.#table.size,
      indexBytes: (await this.#options.index.bytes?.()) ?? 0,
      staleIndexEntries: this.#stale.count,
      indexCompactions: this.#options.index.compactions?.(),
      runCacheBytes: this.#runs.cache.bytes,
      nodeCacheBytes: this.#source.nodes.bytes,
      damagedRuns: this.#damaged.count,
      counters: this.#counters,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.allSettled([...this.#sessions].map((session) => session.settled()));
    await this.#writer.idle();
    for (const session of [...this.#sessions]) session.release();
    this.#collection?.end();
    await this.#stale.close();
    const ends = await Promise.allSettled([this.#log.close(), this.#locator.close()]);
    await this.#indexQueue.idle();
    const closed = [
      this.#pool.close(),
      this.#loads.close(),
      this.#options.index.close(),
      this.#options.storage.close(),
    ];
    ends.push(...(await Promise.allSettled(closed)));
    for (const end of ends) {
      if (end.status === 'rejected') throw end.reason as Error;
    }
  }

  #makeLocator(
    writerCounts: LookUpCounters,
    readerCounts = writerCounts,
    recentPlacesMax = this.#limits.recentPlacesMax,
  ): ChunkLocator {
    const { storage, index } = this.#options;
    return new ChunkLocator(
      storage,
      index,
      this.#table,
      this.#fresh,
      recentPlacesMax,
      this.#limits.placeHintsMax,
      writerCounts,
      readerCounts,
    );
  }

  #failSessions(error: PandoError): void {
    for (const session of this.#sessions) session.failUnflushed(error);
  }

  #pins(): Collection['pins'] {
    const ids = new GrowingBytes();
    const levels = new GrowingBytes();
    const level = new Uint8Array(1);
    for (const session of this.#sessions) {
      session.pins.forEach((source, offset, pinLevel) => {
        ids.append(source.subarray(offset, offset + ID_BYTES));
        level[0] = pinLevel;
        levels.append(level);
      });
    }
    return { ids: ids.bytes, levels: levels.bytes, count: levels.length };
  }

  #throwIfClosing(): void {
    if (this.#closing !== undefined) throw new PandoError('shutting-down', 'the chunk store is closed');
  }
}
