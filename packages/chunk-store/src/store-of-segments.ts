/** Which store a set of segments belongs to, as their headers say it. */
import { isPandoError, PandoError } from '@pando/common';
import {
  decodeFileHeader,
  FILE_HEADER_BYTES_MAX,
  FORMAT_VERSION,
  isOfStore,
  type FileHeader,
  type StoreIdentity,
} from './segment-format.ts';
import type { SegmentStorage } from './types.ts';

/**
 * Reads the headers of all segments. Undefined when there is none that is whole, or when they name different stores, or one store with different
 * keys.
 * @throws `store-newer`, and what the storage throws
 */
export async function readStoreOf(storage: SegmentStorage): Promise<StoreIdentity | undefined> {
  let store: StoreIdentity | undefined;
  const bytes = new Uint8Array(FILE_HEADER_BYTES_MAX);
  for (const { segment } of await storage.list()) {
    bytes.fill(0);
    await storage.read(segment, bytes, 0);
    const header = decodeFileHeader(bytes);
    if (header?.segment !== segment) continue;
    refuseNewer(segment, header.version);
    const { storeId, chunkBytes, hashKey } = header;
    store ??= { storeId, chunkBytes, ...(hashKey === undefined ? {} : { hashKey }) };
    if (!isOfStore(header, store)) return undefined;
  }
  return store;
}

/** What the header of one segment says; one that cannot be read, or is damaged, says nothing. @throws `store-newer` */
export async function refuseNewerSegment(
  storage: SegmentStorage,
  segment: number,
): Promise<FileHeader | undefined> {
  const bytes = new Uint8Array(FILE_HEADER_BYTES_MAX);
  try {
    await storage.read(segment, bytes, 0);
  } catch (error) {
    if (isPandoError(error)) return undefined;
    throw error;
  }
  const header = decodeFileHeader(bytes);
  if (header !== undefined) refuseNewer(segment, header.version);
  return header;
}

function refuseNewer(segment: number, version: number): void {
  if (version <= FORMAT_VERSION) return;
  throw new PandoError(
    'store-newer',
    `segment ${segment} has format version ${version}; this Pando knows up to ${FORMAT_VERSION}`,
  );
}
