/**
 * Segment formats 1 and 2, byte by byte: file header, run header, footer and trailer; 2 is that of stores whose ids are keyed, and has the
 * key in its file header. All numbers are little endian. docs/format.md is the same in words and tables; test/golden pins it.
 *
 * Pure: encodes and decodes buffers, reads no file. The CRC of every structure inside a segment starts
 * from the CRC of the segment's file header, so that bytes of another segment (or of another store) are
 * never taken for this one's.
 */
import { crc32 } from 'node:zlib';
import { ID_BYTES } from '@pando/common';
import { NODE_BYTES } from '@pando/tree';
import { HASH_KEY_BYTES } from './hashing.ts';
import type { ChunkKind } from './types.ts';

/** The newest one that is known. */
export const FORMAT_VERSION = 2;
const FORMAT_PLAIN = 1;
const FORMAT_KEYED = 2;
const PLAIN_HEADER_BYTES = 48;
const KEYED_HEADER_BYTES = 84;
/** The longest file header. */
export const FILE_HEADER_BYTES_MAX = KEYED_HEADER_BYTES;
export const RUN_HEADER_BYTES = 28;
export const RUN_ENTRY_BYTES = 16;
export const TRAILER_BYTES = 40;
export const STORE_ID_BYTES = 16;

export const CODEC_RAW = 0;
export const CODEC_ZSTD = 1;
export const KIND_DATA = 0;
export const KIND_NODE = 1;
/** Chunks by which something is found again from the segments alone, of NODE_BYTES each. */
export const KIND_ANCHOR = 2;

const FILE_MAGIC = Buffer.from('PANDOSEG', 'latin1');
const RUN_MAGIC = 0x4e555250; // "PRUN"
export const RUN_MAGIC_BYTES = Buffer.from('PRUN', 'latin1');
const TRAILER_MAGIC = Buffer.from('PANDOEND', 'latin1');

export function kindNumber(kind: ChunkKind): number {
  return kind === 'node' ? KIND_NODE : KIND_DATA;
}

/** Bytes of one chunk of a run: they are the same within a run. */
export function chunkBytesOf(kind: number, chunkBytes: number): number {
  return kind === KIND_DATA ? chunkBytes : NODE_BYTES;
}

function viewOf(bytes: Uint8Array, at: number, length: number): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset + at, length);
}

/** What the header of every segment says of its store. */
export interface StoreIdentity {
  /** 16 bytes that name the store. */
  readonly storeId: Uint8Array;
  /** Bytes of a data chunk. */
  readonly chunkBytes: number;
  /** 32 bytes with which its ids are keyed; undefined when they are not. */
  readonly hashKey?: Uint8Array | undefined;
}

export interface FileHeader extends StoreIdentity {
  readonly version: number;
  readonly segment: number;
}

/** Bytes of the file header of a store's segments: where their first run begins. */
export function fileHeaderBytes({ hashKey }: StoreIdentity): number {
  return hashKey === undefined ? PLAIN_HEADER_BYTES : KEYED_HEADER_BYTES;
}

export function encodeFileHeader(store: StoreIdentity, segment: number): Uint8Array {
  const { storeId, chunkBytes, hashKey } = store;
  const bytes = new Uint8Array(fileHeaderBytes(store));
  const view = viewOf(bytes, 0, bytes.byteLength);
  bytes.set(FILE_MAGIC, 0);
  view.setUint32(8, hashKey === undefined ? FORMAT_PLAIN : FORMAT_KEYED, true);
  view.setUint32(12, chunkBytes, true);
  bytes.set(storeId.subarray(0, STORE_ID_BYTES), 16);
  view.setBigUint64(32, BigInt(segment), true);
  view.setUint32(44, crc32(bytes.subarray(0, 44)), true);
  if (hashKey === undefined) return bytes;
  // Up to here as in version 1, so that who knows that one only finds a version that it does not know.
  bytes.set(hashKey.subarray(0, HASH_KEY_BYTES), 48);
  view.setUint32(80, keyedCrc(bytes), true);
  return bytes;
}

/**
 * What a file header says, or undefined when it is not one (torn, damaged, something else). Of a version that is not known: only what all versions
 * have alike.
 */
export function decodeFileHeader(bytes: Uint8Array): FileHeader | undefined {
  if (bytes.byteLength < PLAIN_HEADER_BYTES || !FILE_MAGIC.equals(bytes.subarray(0, 8))) return undefined;
  const view = viewOf(bytes, 0, bytes.byteLength);
  if (view.getUint32(44, true) !== crc32(bytes.subarray(0, 44))) return undefined;
  const header = {
    version: view.getUint32(8, true),
    chunkBytes: view.getUint32(12, true),
    storeId: bytes.slice(16, 32),
    segment: Number(view.getBigUint64(32, true)),
  };
  if (header.version !== FORMAT_KEYED) return header;
  if (bytes.byteLength < KEYED_HEADER_BYTES) return undefined;
  if (view.getUint32(80, true) !== keyedCrc(bytes)) return undefined;
  return { ...header, hashKey: bytes.slice(48, 80) };
}

/**
 * Of all that a keyed file header says. The first CRC is left out: over bytes and their own CRC it is the same number whatever they are, and
 * all segments would have one seed.
 */
function keyedCrc(header: Uint8Array): number {
  return crc32(header.subarray(48, 80), crc32(header.subarray(0, 44)));
}

/** Whether a file header is of a store with this identity; its segment may be any. */
export function isOfStore(header: StoreIdentity, { storeId, chunkBytes, hashKey }: StoreIdentity): boolean {
  if (header.chunkBytes !== chunkBytes || !Buffer.from(header.storeId).equals(storeId)) return false;
  if (header.hashKey === undefined || hashKey === undefined) return header.hashKey === hashKey;
  return Buffer.from(header.hashKey).equals(hashKey);
}

/** The CRC that all others in the segment start from: that of its file header, the key included. */
export function segmentSeed(store: StoreIdentity, segment: number): number {
  const header = encodeFileHeader(store, segment);
  return viewOf(header, header.byteLength - 4, 4).getUint32(0, true);
}

export interface RunHeader {
  readonly codec: number;
  readonly kind: number;
  readonly count: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly firstSlot: number;
  readonly bodyCrc: number;
  /** Header, ids and payload. */
  readonly runBytes: number;
}

/**
 * Writes what is known of a run's header before it has a place (all but first slot and header CRC).
 * The ids and the payload must stand behind it already: their CRC is computed here, in the worker.
 */
export function writeRunHeader(
  bytes: Uint8Array,
  at: number,
  codec: number,
  kind: number,
  count: number,
  rawBytes: number,
  storedBytes: number,
): void {
  const view = viewOf(bytes, at, RUN_HEADER_BYTES);
  const bodyAt = at + RUN_HEADER_BYTES;
  view.setUint32(0, RUN_MAGIC, true);
  view.setUint8(4, codec);
  view.setUint8(5, kind);
  view.setUint16(6, count, true);
  view.setUint32(8, rawBytes, true);
  view.setUint32(12, storedBytes, true);
  view.setUint32(16, 0, true);
  view.setUint32(20, crc32(bytes.subarray(bodyAt, bodyAt + count * ID_BYTES + storedBytes)), true);
  view.setUint32(24, 0, true);
}

/** Completes a run's header with its place: called when it is appended, on the main thread. */
export function placeRun(bytes: Uint8Array, at: number, firstSlot: number, seed: number): void {
  const view = viewOf(bytes, at, RUN_HEADER_BYTES);
  view.setUint32(16, firstSlot, true);
  view.setUint32(24, crc32(bytes.subarray(at, at + 24), seed), true);
}

/**
 * The header of a run, when those bytes are one of this segment: magic, CRC and lengths that fit
 * together. The body may still be damaged.
 */
export function decodeRunHeader(
  bytes: Uint8Array,
  at: number,
  seed: number,
  chunkBytes: number,
): RunHeader | undefined {
  if (at + RUN_HEADER_BYTES > bytes.byteLength) return undefined;
  const view = viewOf(bytes, at, RUN_HEADER_BYTES);
  if (view.getUint32(0, true) !== RUN_MAGIC) return undefined;
  if (view.getUint32(24, true) !== crc32(bytes.subarray(at, at + 24), seed)) return undefined;
  const codec = view.getUint8(4);
  const kind = view.getUint8(5);
  const count = view.getUint16(6, true);
  const rawBytes = view.getUint32(8, true);
  const storedBytes = view.getUint32(12, true);
  if (codec > CODEC_ZSTD || kind > KIND_ANCHOR || count === 0) return undefined;
  if (rawBytes !== count * chunkBytesOf(kind, chunkBytes)) return undefined;
  if (codec === CODEC_RAW ? storedBytes !== rawBytes : storedBytes >= rawBytes) return undefined;
  return {
    codec,
    kind,
    count,
    rawBytes,
    storedBytes,
    firstSlot: view.getUint32(16, true),
    bodyCrc: view.getUint32(20, true),
    runBytes: RUN_HEADER_BYTES + count * ID_BYTES + storedBytes,
  };
}

/** Whether ids and payload of a run are what its header says. */
export function isRunBodyIntact(bytes: Uint8Array, at: number, header: RunHeader): boolean {
  return crc32(bytes.subarray(at + RUN_HEADER_BYTES, at + header.runBytes)) === header.bodyCrc;
}

/**
 * Whether a whole run stands at `at`, of whichever segment, store and size of chunks: by its lengths, and by the CRC of its body, which starts
 * from no seed. It is not known whose it is.
 */
export function isWholeRun(bytes: Uint8Array, at: number): boolean {
  if (at + RUN_HEADER_BYTES > bytes.byteLength) return false;
  const view = viewOf(bytes, at, RUN_HEADER_BYTES);
  if (view.getUint32(0, true) !== RUN_MAGIC) return false;
  const count = view.getUint16(6, true);
  const bodyBytes = count * ID_BYTES + view.getUint32(12, true);
  const bodyAt = at + RUN_HEADER_BYTES;
  if (count === 0 || bodyAt + bodyBytes > bytes.byteLength) return false;
  return crc32(bytes.subarray(bodyAt, bodyAt + bodyBytes)) === view.getUint32(20, true);
}

export interface Trailer {
  readonly segment: number;
  readonly footerOffset: number;
  readonly runCount: number;
  readonly slots: number;
  readonly footerCrc: number;
}

/** Run table, ids and trailer as one buffer: the end of a sealed segment. */
export function encodeFooter(
  segment: number,
  seed: number,
  footerOffset: number,
  runTable: Uint8Array,
  ids: Uint8Array,
): Uint8Array {
  const footerBytes = runTable.byteLength + ids.byteLength;
  const bytes = new Uint8Array(footerBytes + TRAILER_BYTES);
  bytes.set(runTable, 0);
  bytes.set(ids, runTable.byteLength);
  const view = viewOf(bytes, footerBytes, TRAILER_BYTES);
  bytes.set(TRAILER_MAGIC, footerBytes);
  view.setBigUint64(8, BigInt(segment), true);
  view.setUint32(16, footerOffset, true);
  view.setUint32(20, runTable.byteLength / RUN_ENTRY_BYTES, true);
  view.setUint32(24, ids.byteLength / ID_BYTES, true);
  view.setUint32(28, crc32(bytes.subarray(0, footerBytes), seed), true);
  view.setUint32(36, crc32(bytes.subarray(footerBytes, footerBytes + 36), seed), true);
  return bytes;
}

/** What the last TRAILER_BYTES bytes of a segment of `size` bytes say, when it is sealed and they are whole. */
export function decodeTrailer(
  bytes: Uint8Array,
  seed: number,
  segment: number,
  size: number,
): Trailer | undefined {
  if (bytes.byteLength < TRAILER_BYTES || !TRAILER_MAGIC.equals(bytes.subarray(0, 8))) return undefined;
  const view = viewOf(bytes, 0, TRAILER_BYTES);
  if (view.getUint32(36, true) !== crc32(bytes.subarray(0, 36), seed)) return undefined;
  const trailer = {
    segment: Number(view.getBigUint64(8, true)),
    footerOffset: view.getUint32(16, true),
    runCount: view.getUint32(20, true),
    slots: view.getUint32(24, true),
    footerCrc: view.getUint32(28, true),
  };
  const footerBytes = trailer.runCount * RUN_ENTRY_BYTES + trailer.slots * ID_BYTES;
  if (trailer.segment !== segment || trailer.footerOffset + footerBytes + TRAILER_BYTES !== size)
    return undefined;
  return trailer;
}

/** Whether run table and ids are what the trailer says. */
export function isFooterIntact(bytes: Uint8Array, trailer: Trailer, seed: number): boolean {
  return crc32(bytes, seed) === trailer.footerCrc;
}

/** Writes one line of the run table. */
export function writeRunEntry(bytes: Uint8Array, at: number, offset: number, header: RunHeader): void {
  const view = viewOf(bytes, at, RUN_ENTRY_BYTES);
  view.setUint32(0, offset, true);
  view.setUint32(4, header.runBytes, true);
  view.setUint32(8, header.firstSlot, true);
  view.setUint16(12, header.count, true);
  view.setUint8(14, header.codec);
  view.setUint8(15, header.kind);
}
