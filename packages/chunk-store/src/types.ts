/**
 * The chunk store: immutable chunks by id, in compressed runs inside append-only segments.
 *
 * Data flow of a write: chunks → hash (worker) → look up (this batch, pending, recent places, index)
 * → new ones in runs of neighbours → compress (worker) → append to the open segment → pending.
 * `flush`: segment durable → index updated → no longer pending. Nothing outside may count on a chunk
 * (put its id into a root that is recorded) before the flush of its session has resolved.
 *
 * Data flow of a read: node or run cache → place (kept beside the leaf, pending, recent places, index)
 * → one read of one run → CRC → decompress → id of each chunk checked before it is first handed out.
 */
import type { LevelDamage, PandoError } from '@pando/common';
import type { Hash } from './hashing.ts';
import type { StoreCounters } from './store-counters.ts';
import type { ChunkReader, ChunkWriter, TreeNode } from '@pando/tree';

/** Runs hold either nodes or data, never both. */
export type ChunkKind = 'data' | 'node';

/**
 * Where a chunk is. Segment numbers are never used twice, so a place that has gone stale (its segment
 * was compacted away) is recognised by its segment being gone; the index then has the new place.
 */
export interface Place {
  /** Number of the segment, from 1. */
  readonly segment: number;
  /** Byte offset of the run's header in the segment. */
  readonly runOffset: number;
  /** Bytes of the run in the file, header included: one read brings it all. */
  readonly runBytes: number;
  /** Number of the chunk within its segment; the run's header says the number of its first chunk. */
  readonly slot: number;
}

/** One named, append-only file (or, later, object) of the store. */
export interface SegmentWriter {
  readonly segment: number;
  /** Bytes written so far. */
  readonly size: number;
  /** Appends all parts, or rejects; after a rejection the writer must be dropped. Parts are not kept. */
  append(parts: readonly Uint8Array[]): Promise<void>;
  /** Makes all that was appended, and the segment's name, durable. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Where segments live: a local directory now, an object store later. Bytes that were appended can be
 * read at once, synced or not. Implementations never interpret bytes.
 */
export interface SegmentStorage {
  /** Numbers and sizes of all segments, ascending. */
  list(): Promise<{ segment: number; size: number }[]>;
  /** @throws `internal` when the segment exists */
  create(segment: number): Promise<SegmentWriter>;
  /**
   * Fills `target` from `position`; resolves to the bytes read (fewer only at the segment's end).
   * @throws `chunk-missing` when the segment does not exist
   */
  read(segment: number, target: Uint8Array, position: number): Promise<number>;
  /**
   * As `read`, in this turn; undefined when that may take long, or fails: then `read` says what is the matter. Absent where
   * nothing is that quick.
   */
  readNow?(segment: number, target: Uint8Array, position: number): number | undefined;
  /** Cuts a torn tail off (recovery only); durable when it resolves. */
  truncate(segment: number, size: number): Promise<void>;
  /**
   * Writes everything from `from` on again, where it is (recovery only): syncs of an earlier process may have failed.
   * Durable when it resolves, the segment's name included.
   */
  rewrite(segment: number, from: number): Promise<void>;
  /** Opens an existing segment to append at its end (recovery: to write the footer of a torn segment). */
  reopen(segment: number): Promise<SegmentWriter>;
  /** Durable when it resolves. A missing segment is no error. Reads under way still finish. */
  remove(segment: number): Promise<void>;
  close(): Promise<void>;
}

/** Bytes of a place in the index: see docs/format.md. */
export const PLACE_BYTES = 18;

/** id → place. Derived data: rebuildable from the segments. */
export interface ChunkIndex {
  /**
   * The place (PLACE_BYTES bytes) of the id at `ids[offset…]`, or undefined; also when what is stored for it is damaged.
   * Synchronous: one look-up of about 10 µs.
   */
  get(ids: Uint8Array, offset: number): Uint8Array | undefined;
  /**
   * False when the index most likely does not have the id, without looking: for writers, who store a chunk once more where that is wrong,
   * and for nobody else. Where an index cannot say, it is not there.
   */
  mayHave?(ids: Uint8Array, offset: number): boolean;
  /**
   * A promise while the index cannot answer for a moment (it is opened again after the disk was full), else
   * undefined; `get` throws meanwhile.
   */
  ready?(): Promise<void> | undefined;
  /**
   * Applies all puts (count × 32 bytes of ids, count × PLACE_BYTES of places) and deletes (ids) in one
   * atomic batch; `durable` waits for the disk. Batches become visible in the order of the calls.
   */
  write(
    batch: { ids: Uint8Array; places: Uint8Array; count: number; deletes?: Uint8Array },
    durable: boolean,
  ): Promise<void>;
  /**
   * Looks at up to `max` entries that come behind `after` in an order of the index's own (an empty id: from the first one), and
   * resolves to the ids of those whose segment `isGone`, one after another, and to the id to go on behind; none: that was the last one.
   * What is written meanwhile may be seen or not.
   */
  findStale(
    isGone: (segment: number) => boolean,
    after: Uint8Array,
    max: number,
  ): Promise<{ ids: Uint8Array; next: Uint8Array | undefined }>;
  /** A small named value beside the ids (the checkpoint), written durably. */
  setMark(name: string, value: Uint8Array): Promise<void>;
  getMark(name: string): Promise<Uint8Array | undefined>;
  /** Set for good once writes are refused because one failed. */
  readonly failure?: PandoError | undefined;
  /** Damaged places in the files of the index; then the next opening makes it anew. Absent where there are no files. */
  verify?(): Promise<LevelDamage[]>;
  /** Ids in the index. May scan; for tests and reports. */
  count(): Promise<number>;
  /** Bytes on disk, roughly; absent where nobody can tell. */
  bytes?(): Promise<number>;
  /** What it did behind its answers since it was opened; absent where nothing is done there. */
  compactions?(): IndexCompactions | undefined;
  /** Removes everything, marks included. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** Work of the index on its files, rounded as its database says it. */
export interface IndexCompactions {
  readonly seconds: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** What a session pins: the subtree of `level` under the id (level 0: just that chunk). */
export interface PinSource {
  forEachPin(visit: (ids: Uint8Array, offset: number, level: number) => void): void;
}

/**
 * A writer with a life: everything it stores or finds already stored stays alive, whatever collections
 * run, until `release`. One destage or one import is one session.
 */
export interface WriteSession extends ChunkWriter {
  /**
   * Tells the session that the subtrees from `source` are what must stay alive of what it wrote so
   * far, so that it need not remember every id. Bounded memory for imports of any size: the tree
   * builder is the source. Without one, the session remembers every id it handed out.
   */
  setPinSource(source: PinSource): void;
  /**
   * Stores one chunk of 4,096 bytes that `ChunkStore.anchors` finds again, also in a store of which nothing but the
   * segments is left. Resolves to its id.
   */
  writeAnchor(anchor: Uint8Array): Promise<Uint8Array>;
  /**
   * Takes data chunks into the session by their ids, as if their bytes had been handed in and found to be stored already; zeros
   * stand for a hole. No bytes are stored, and nothing is hashed: who asks for this has to be somebody who may read every chunk.
   * Only where data chunks are as long as nodes, because nothing else tells here whether an id is one of data.
   * @throws `chunk-unknown` when one of them is not stored, is on its way out, or is known to be damaged
   */
  claimChunks(ids: Uint8Array, count: number): Promise<void>;
  /** Every chunk of this session so far is durable and in the index when it resolves. @throws store-full, store-failed */
  flush(): Promise<void>;
  /** Ends the session: after the root is in the catalog, or when it is given up. Idempotent. */
  release(): void;
  /** What this session did so far. */
  readonly counts: SessionCounts;
}

export interface SessionCounts {
  /** Chunks handed in, by outcome; nodes and data together. */
  readonly chunks: number;
  readonly zeroChunks: number;
  readonly knownChunks: number;
  readonly newChunks: number;
  /** Bytes of new chunks before and after compression (run headers included in the latter). */
  readonly newBytes: number;
  readonly storedBytes: number;
  readonly data: DataCounts;
}

/** What a session did with data alone: nodes are hashes, which nothing compresses. */
export interface DataCounts {
  readonly chunks: number;
  readonly zeroChunks: number;
  readonly knownChunks: number;
  readonly newBytes: number;
  /** Those of them, counted when their runs are appended, of which `rawBytes` came to runs that zstd could not make shorter. */
  readonly storedBytes: number;
  readonly rawBytes: number;
}

/** A sealed segment as gc sees it. */
export interface SegmentInfo {
  readonly segment: number;
  /** Bytes of the file. */
  readonly bytes: number;
  /** Chunks in it. */
  readonly slots: number;
}

/**
 * One collection's view of the store, begun by `ChunkStore.beginCollection`. From that instant until
 * `end`, every dedupe hit on a candidate segment is reported to `onHit` before the writer goes on
 * (the barrier), and new chunks are in segments that are no candidates (born live).
 */
export interface Collection {
  /** Segments that were sealed at the instant of the beginning, ascending. */
  readonly candidates: readonly SegmentInfo[];
  /** What sessions in flight had pinned at that instant: id and level, one after another. */
  readonly pins: { readonly ids: Uint8Array; readonly levels: Uint8Array; readonly count: number };

  /**
   * Resolves `count` ids to (segment, slot), in memory-friendly bulk: one index hit loads the ids of the whole
   * segment around it. A hole, and what is lost for good, gets segment 0; an id that lies in a segment that is no candidate (written since)
   * gets that segment's number.
   * @throws `chunk-missing` naming the first id that is in no segment at all
   */
  resolve(ids: Uint8Array, count: number, segments: Float64Array, slots: Uint32Array): Promise<void>;

  /**
   * Ids (slots × 32 bytes), bytes of the stored share of each slot, and kind of each slot of a segment: from its
   * footer, or for the open segment from memory. The shares of a sealed segment add up to the bytes of its
   * file, headers and footer included.
   */
  contents(segment: number): Promise<{ ids: Uint8Array; storedBytes: Uint32Array; isNode: Uint8Array }>;

  /**
   * Removes a candidate whose chunks are dead. `isLive(slot)` is asked once more, synchronously, at the
   * point after which a dedupe hit no longer counts; if any slot is live then, nothing is done and it
   * resolves to false. Order: no more hits → its number is used up for good → file gone; the index entries stay, and are none.
   */
  drop(segment: number, isLive: (slot: number) => boolean): Promise<boolean>;

  /**
   * Moves the live chunks of a candidate into the open segment, recompressed in runs of neighbours, and
   * removes the old one. Chunks that become live meanwhile are moved too. Order: copies durable → index
   * points at them → old file gone. Resolves to the bytes freed (old file minus copies).
   * @throws `chunk-corrupt` when a live chunk is damaged: the segment stays
   */
  compact(segment: number, isLive: (slot: number) => boolean): Promise<number>;

  /** Ends the collection and its barrier. Idempotent. */
  end(): void;
}

export interface StoreStats {
  /** Bytes of segment files, open segment included. */
  readonly segmentBytes: number;
  readonly segments: number;
  /** Bytes of the index on disk (approximate while it is written). */
  readonly indexBytes: number;
  /** At most so many entries of the index name segments that are gone: they take room, and wait to be deleted. */
  readonly staleIndexEntries: number;
  /** Absent where the index does no such work, or is closed for a moment. */
  readonly indexCompactions?: IndexCompactions | undefined;
  readonly runCacheBytes: number;
  readonly nodeCacheBytes: number;
  /** Runs that were found damaged since the store was opened and have not been removed since. */
  readonly damagedRuns: number;
  readonly counters: Readonly<StoreCounters>;
}

/** How far a verification has come: small plain values, to be kept somewhere and handed to another one. */
export interface VerifyPosition {
  /** Segments with lower numbers have been verified. */
  readonly next: number;
  /** Those of them in which something was found; whoever goes on looks at them again, so what it was need not be kept. */
  readonly damagedSegments: readonly number[];
  /** Chunks that were hashed so far, and bytes of the segments. */
  readonly chunks: number;
  readonly bytes: number;
}

export interface VerifyOptions {
  /** Read headers and footers only: no chunk is read or hashed. */
  readonly quick?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, allBytes: number) => void;
  /**
   * Go on where another one was: what it has verified and found good is not read again, unless damage in it has become
   * known since. Segments that are gone by now are no problem, what was moved out of them is in later ones.
   */
  readonly from?: VerifyPosition;
  /** Called after each segment with how far it is. */
  readonly onPosition?: (position: VerifyPosition) => void;
  /** Awaited after so many bytes were read: whoever wants verification to go slowly takes its time here. */
  readonly pace?: (bytes: number, signal?: AbortSignal) => Promise<void>;
}

export interface VerifyReport {
  /** Chunks that were hashed, those before `from` included. */
  readonly chunks: number;
  /** Bytes of the segments that were verified. */
  readonly bytes: number;
  readonly damaged: readonly { segment: number; offset: number; problem: string }[];
  /** Damaged places that are not named. */
  readonly moreDamaged: number;
  /** Damaged places in the files of the index. */
  readonly indexFiles: readonly LevelDamage[];
  /** For one that is to go on from here: with what came since, and what is damaged. */
  readonly position: VerifyPosition;
  /** Looks chunks up and knows which of them were found damaged. Valid until the next collection frees something. */
  readonly finder: ChunkFinder;
}

/** Stands for the segment of a chunk that is in no segment. */
export const CHUNK_MISSING = -2;
/** Stands for the segment of a chunk whose stored bytes are damaged. */
export const CHUNK_DAMAGED = -1;

export interface ChunkFinder {
  /**
   * Finds the segment and slot of each of `count` ids. The segment is 0 for a hole, CHUNK_MISSING or CHUNK_DAMAGED for a
   * chunk that is lost. Reads no chunk.
   */
  find(ids: Uint8Array, count: number, segments: Float64Array, slots: Uint32Array): Promise<void>;
}

export interface ChunkStore extends ChunkReader {
  /** What names chunks and nodes: their id is this hash of their bytes. 32 bytes, fresh. */
  readonly hash: Hash;
  /** Whether that hash is keyed: then nobody outside of the store can tell the id of some bytes, and its ids and roots mean nothing elsewhere. */
  readonly isKeyed: boolean;

  /**
   * Starts a session of writes. One that `usesReserve` also writes while writers are refused so that room stays free:
   * destage, which gives the room of the log back.
   */
  openSession(options?: { readonly usesReserve?: boolean }): WriteSession;

  /** Seals the open segment, so that all chunks are in candidates of the next collection. */
  seal(): Promise<void>;

  /**
   * Begins a collection: candidates, pins and barrier are of one instant, and synchronously so: the
   * caller takes its list of roots in the same turn of the event loop. One at a time. `onHit` gets the place
   * and id of the chunk that was found, and how it is used: the level given to writeNodes, 0 for a data chunk.
   */
  beginCollection(
    onHit: (
      segment: number,
      slot: number,
      ids: Uint8Array,
      offset: number,
      isNode: boolean,
      level: number,
    ) => void,
  ): Collection;

  /**
   * Which of `count` data chunks a session could claim at the moment: a byte for each, 1 or 0. Nothing keeps them there until
   * it does. None where data chunks are not as long as nodes.
   */
  knownChunks(ids: Uint8Array, count: number): Promise<Uint8Array>;

  /** Ids of all anchors in the segments, count × 32 bytes, as a rule the oldest first. Reads the ends of all segments. */
  anchors(): Promise<Uint8Array>;

  /** Reads one chunk of any kind by id (tools, verification). A fresh copy, owned by the caller. */
  readChunk(ids: Uint8Array, offset: number): Promise<Uint8Array>;

  /**
   * Hashes every chunk of every segment and checks footers and index; reports, and mends the index. Damage to a run none of
   * whose chunks count any more (all have been stored again) is no damage. What it finds, dedupe no longer counts on.
   */
  verify(options?: VerifyOptions): Promise<VerifyReport>;

  stats(): Promise<StoreStats>;

  /** Set for good once nothing is written any more because a sync, or a write to the index, failed. */
  readonly failure?: PandoError | undefined;

  /** Waits for writes under way, seals the open segment, closes files, workers and index. */
  close(): Promise<void>;
}

export type { ChunkReader, ChunkWriter, TreeNode };
