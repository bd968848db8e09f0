export { openChunkStore, rebuildIndex, type ChunkStoreOptions } from './chunk-store.ts';
export { DirectorySegmentStorage, segmentFileName } from './directory-segment-storage.ts';
export { HASH_KEY_BYTES, hashChunk, hashOf, type Hash } from './hashing.ts';
export { LevelChunkIndex, type LevelChunkIndexOptions } from './level-chunk-index.ts';
export {
  CHUNK_STORE_LIMITS,
  SEGMENT_BYTES_DEFAULT,
  SEGMENT_BYTES_MAX,
  type ChunkStoreLimits,
} from './limits.ts';
export { MemoryChunkIndex } from './memory-chunk-index.ts';
export { createMemoryChunkStore } from './memory-chunk-store.ts';
export { MemorySegmentStorage } from './memory-segment-storage.ts';
export { readPlace, writePlace } from './place.ts';
export type { StoreIdentity } from './segment-format.ts';
export { readStoreOf, refuseNewerSegment } from './store-of-segments.ts';
export { openStoredChunks, type StoredChunks } from './stored-chunks.ts';
export { StoreCounters } from './store-counters.ts';
export * from './types.ts';
