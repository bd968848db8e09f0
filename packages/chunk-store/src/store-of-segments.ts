/** Which store a set of segments belongs to, as their headers say it. */
import { isPandoError, PandoError } from '@pando/common';
import { decodeFileHeader, FILE_HEADER_BYTES, FORMAT_VERSION } from './segment-format.ts';
import type { SegmentStorage } from './types.ts';

export interface StoreOfSegments {
  /** 16 bytes. */
  readonly storeId: Uint8Array;
  readonly chunkBytes: number;
}

/**
 * Reads the headers of all segments. Undefined when there is none that is whole, or when they name different stores.
 * @throws `store-newer`, and what the storage throws
 */
export async function readStoreOf(storage: SegmentStorage): Promise<StoreOfSegments | undefined> {
  let store: StoreOfSegments | undefined;
  const bytes = new Uint8Array(FILE_HEADER_BYTES);
  for (const { segment } of await storage.list()) {
    bytes.fill(0);
    await storage.read(segment, bytes, 0);
    const header = decodeFileHeader(bytes);
    if (header?.segment !== segment) continue;
    refuseNewer(segment, header.version);
    const { storeId, chunkBytes } = header;
    store ??= { storeId, chunkBytes };
    if (!Buffer.from(store.storeId).equals(storeId) || store.chunkBytes !== chunkBytes) return undefined;
  }
  return store;
}

/** Looks at the header of one segment; one that cannot be read, or is damaged, says nothing. @throws `store-newer` */
export async function refuseNewerSegment(storage: SegmentStorage, segment: number): Promise<void> {
  const bytes = new Uint8Array(FILE_HEADER_BYTES);
  try {
    await storage.read(segment, bytes, 0);
  } catch (error) {
    if (isPandoError(error)) return;
    throw error;
  }
  const header = decodeFileHeader(bytes);
  if (header !== undefined) refuseNewer(segment, header.version);
}

function refuseNewer(segment: number, version: number): void {
  if (version <= FORMAT_VERSION) return;
  throw new PandoError(
    'store-newer',
    `segment ${segment} has format version ${version}; this Pando knows up to ${FORMAT_VERSION}`,
  );
}
