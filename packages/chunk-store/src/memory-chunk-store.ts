/** A chunk store that lives in memory, with everything else as it is: for tests of what stands above it. */
import { openChunkStore } from './chunk-store.ts';
import type { ChunkStoreLimits } from './limits.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import { MemorySegmentStorage } from './memory-segment-storage.ts';
import type { ChunkStore } from './types.ts';

/** Opens an empty store in memory. It works on the calling thread unless `limits` asks for workers. */
export function createMemoryChunkStore(
  chunkBytes: number,
  limits: Partial<ChunkStoreLimits> = {},
  hashKey?: Uint8Array,
): Promise<ChunkStore> {
  return openChunkStore({
    storage: new MemorySegmentStorage(),
    index: new MemoryChunkIndex(),
    storeId: new Uint8Array(16).fill(1),
    chunkBytes,
    hashKey,
    limits: { workers: 0, ...limits },
  });
}
