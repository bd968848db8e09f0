/**
 * The bounds of the chunk store, by name, and the grains of its format. Every queue, cache and buffer
 * of this package is bounded by one of them.
 */
import { KiB, MiB } from '@pando/common';

/** Raw bytes of a run: four 4 KiB chunks. The measurement behind it is in docs/format.md. */
export const RUN_RAW_BYTES = 16 * KiB;

/** zstd level of runs: level 3 stores 2 % less than level 1, and takes a third longer. */
export const ZSTD_LEVEL = 1;

/** A segment is sealed before it would grow past this. */
export const SEGMENT_BYTES_DEFAULT = 64 * MiB;

/** Largest segment: cache keys pack a segment number and an offset of 27 bits into one exact number. */
export const SEGMENT_BYTES_MAX = 128 * MiB;

/** Largest segment number, for the same reason: 67 million segments, 4 PiB ever written. */
export const SEGMENT_NUMBER_MAX = 2 ** 26 - 1;

/** Bytes of chunks that travel to a worker together. */
export const BATCH_BYTES = 1 * MiB;

/** Most chunks in one batch. */
export const BATCH_CHUNKS_MAX = 256;

/** Batches of at most so many chunks are hashed and packed on the calling thread: a trip to a worker costs more. */
export const INLINE_CHUNKS_MAX = 8;

/** Entries in one write to the index: bounds the time that one call holds the main thread. */
export const INDEX_BATCH_ENTRIES = 2048;

/** Index entries that are looked at, and deleted when they are stale, in one turn of the event loop: a millisecond. */
export const INDEX_SWEEP_ENTRIES = 1024;

/** Ids that are looked up for a client in one turn of the event loop: three milliseconds when all of them are asked of the index. */
export const CLAIMS_A_TURN = 256;

/** Index hits of one batch in one segment after which the ids of the whole segment are loaded. */
export const SEGMENT_LOAD_HITS = 8;

/** Look-ups in the index by readers, while there is no room for what is known of a further segment, after which the others make room. */
export const HINT_MISSES_MAX = 262_144;

/** Bytes that a scan of a segment reads at once. */
export const SCAN_BYTES = 1 * MiB;

/** Runs that are read in one turn of the event loop, over all readers: a millisecond or three. */
export const READS_A_TURN_MAX = 64;

/** The longest run that is read in the turn of the call: one of the largest chunk size fits. */
export const READ_NOW_BYTES_MAX = 68 * KiB;

/** Runs that are read before the thread that decompresses them is started: who reads less than that has no use for it. */
export const DECODE_AFTER_RUNS = 16;

/** Segments whose ends are read at the same time when a store is opened. */
export const OPEN_CONCURRENCY = 16;

/** Segment files that a directory keeps open. */
export const OPEN_FILES_DEFAULT = 128;

/** The bounds that whoever opens a store can set. */
export interface ChunkStoreLimits {
  /** Segments are sealed before they would grow past this; at most SEGMENT_BYTES_MAX. */
  readonly segmentBytesMax: number;
  /** Decompressed runs in memory. */
  readonly runCacheBytes: number;
  /** Nodes in memory. */
  readonly nodeCacheBytes: number;
  /** Appended bytes that are not in the index yet; past it writers wait for a flush. */
  readonly pendingBytesMax: number;
  /** Ids whose places are remembered for look-ups without the index. */
  readonly recentPlacesMax: number;
  /** So many index entries of segments that are gone may stay, however small the store is. */
  readonly staleEntriesFew: number;
  /** Entries of the table that tells readers where chunks most likely are, a power of two: 4 bytes each, and half as much for runs. */
  readonly placeHintsMax: number;
  /** Threads that hash and compress; 0 does it on the calling thread, and so does what reads. */
  readonly workers: number;
  /** Batches being hashed, packed or appended, over all sessions: each holds about 2.2 MiB. */
  readonly batchesInFlightMax: number;
  /** Runs being read from storage at the same time. */
  readonly runReadsMax: number;
}

export const CHUNK_STORE_LIMITS: ChunkStoreLimits = {
  segmentBytesMax: SEGMENT_BYTES_DEFAULT,
  runCacheBytes: 144 * MiB,
  nodeCacheBytes: 32 * MiB,
  pendingBytesMax: 64 * MiB,
  recentPlacesMax: 262_144,
  staleEntriesFew: 65_536,
  placeHintsMax: 2_097_152,
  workers: 1,
  batchesInFlightMax: 8,
  runReadsMax: 16,
};
