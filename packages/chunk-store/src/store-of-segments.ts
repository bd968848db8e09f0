/** Which store a set of segments belongs to, as their headers say it. */
import { decodeFileHeader, FILE_HEADER_BYTES } from './segment-format.ts';
import type { SegmentStorage } from './types.ts';

export interface StoreOfSegments {
  /** 16 bytes. */
  readonly storeId: Uint8Array;
  readonly chunkBytes: number;
}

/**
 * Reads the headers of all segments. Undefined when there is none that is whole, or when they name different stores.
 * @throws what the storage throws
 */
export async function readStoreOf(storage: SegmentStorage): Promise<StoreOfSegments | undefined> {
  let store: StoreOfSegments | undefined;
  const bytes = new Uint8Array(FILE_HEADER_BYTES);
  for (const { segment } of await storage.list()) {
    bytes.fill(0);
    await storage.read(segment, bytes, 0);
    const header = decodeFileHeader(bytes);
    if (header?.segment !== segment) continue;
    const { storeId, chunkBytes } = header;
    store ??= { storeId, chunkBytes };
    if (!Buffer.from(store.storeId).equals(storeId) || store.chunkBytes !== chunkBytes) return undefined;
  }
  return store;
}
