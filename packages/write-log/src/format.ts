/**
 * Bytes of the write log, format version 3 (docs/format.md, "Write log"). Little endian throughout.
 *
 * A file: one header of 64 bytes, then records. A record: a header of 40 bytes, then, for a write, its
 * data. The CRC covers the record from its fifth byte to its end and starts from the CRC of the store's id:
 * a torn or flipped record is never taken for a whole one, nor is data that a guest made to look like one.
 *
 * A check of the header alone stands beside the type. When the data of a record is damaged, it proves what was written
 * where; records of version 1 have zeros there.
 *
 * From version 3 on a file may hold anything behind its last record: what it held when it was another file of the log.
 */
import { crc32 } from 'node:zlib';
import { PandoError, readAround, type File } from '@pando/common';

export const FILE_HEADER_BYTES = 64;
export const RECORD_HEADER_BYTES = 40;
export const LOG_FORMAT_VERSION = 3;

const MAGIC = Buffer.from('PANDOLOG', 'latin1');
const STORE_ID_BYTES = 16;

/** Record types on disk. `synced` says that all records up to a position were synced before it was written. */
export const TYPE_OPEN = 1;
export const TYPE_WRITE = 2;
export const TYPE_ZERO = 3;
export const TYPE_SYNCED = 4;

export interface FileHeader {
  readonly version: number;
  readonly storeId: Uint8Array;
  /** Position of the first record that may be in this file. */
  readonly firstPosition: number;
  /** Position of the last record in the file before it; 0 when there was none. */
  readonly previousPosition: number;
}

export function encodeFileHeader(header: Omit<FileHeader, 'version'>): Buffer {
  const bytes = Buffer.alloc(FILE_HEADER_BYTES);
  MAGIC.copy(bytes, 0);
  bytes.writeUInt32LE(LOG_FORMAT_VERSION, 8);
  bytes.set(header.storeId.subarray(0, STORE_ID_BYTES), 16);
  bytes.writeBigUInt64LE(BigInt(header.firstPosition), 32);
  bytes.writeBigUInt64LE(BigInt(header.previousPosition), 40);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, FILE_HEADER_BYTES - 4)), FILE_HEADER_BYTES - 4);
  return bytes;
}

/**
 * Reads a file's header; undefined when it is torn or damaged.
 * @throws `store-newer` for a later format
 */
export function decodeFileHeader(bytes: Buffer): FileHeader | undefined {
  if (bytes.length < FILE_HEADER_BYTES || !bytes.subarray(0, 8).equals(MAGIC)) return undefined;
  if (crc32(bytes.subarray(0, FILE_HEADER_BYTES - 4)) !== bytes.readUInt32LE(FILE_HEADER_BYTES - 4))
    return undefined;
  const version = bytes.readUInt32LE(8);
  if (version > LOG_FORMAT_VERSION) {
    throw new PandoError(
      'store-newer',
      `the write log has format version ${version}; this Pando reads ${LOG_FORMAT_VERSION}`,
    );
  }
  return {
    version,
    storeId: new Uint8Array(bytes.subarray(16, 16 + STORE_ID_BYTES)),
    firstPosition: Number(bytes.readBigUInt64LE(32)),
    previousPosition: Number(bytes.readBigUInt64LE(40)),
  };
}

/** Reads the header of a file, as far as the device can. */
export async function readFileHeader(
  file: Pick<File, 'read'>,
): Promise<{ header: FileHeader | undefined; isUnreadable: boolean }> {
  const bytes = Buffer.alloc(FILE_HEADER_BYTES);
  let isUnreadable = false;
  const count = await readAround(file, bytes, 0, () => (isUnreadable = true));
  return { header: decodeFileHeader(bytes.subarray(0, count)), isUnreadable };
}

/** What the CRCs of a store's records start from. */
export function crcSeedOf(storeId: Uint8Array): number {
  return crc32(storeId);
}

/** The CRC of the record whose header stands at `at`. */
export function recordCrc(bytes: Buffer, at: number, dataBytes: number, crcSeed: number): number {
  return crc32(bytes.subarray(at + 4, at + RECORD_HEADER_BYTES + dataBytes), crcSeed);
}

/** 24 bits that prove type, position, overlay, a and b of the record whose header stands at `at`; never 0. */
function headerCheck(bytes: Buffer, at: number, type: number, crcSeed: number): number {
  return crc32(bytes.subarray(at + 8, at + RECORD_HEADER_BYTES), (crcSeed ^ type) >>> 0) >>> 8 || 1;
}

/** The type of the record whose header stands at `at`, or 0 where there can be none: of another type, or with a wrong check. */
export function typeAt(bytes: Buffer, at: number, crcSeed: number): number {
  const type = bytes[at + 4]!;
  if (type < TYPE_OPEN || type > TYPE_SYNCED) return 0;
  const check = bytes.readUIntLE(at + 5, 3);
  return check === 0 || check === headerCheck(bytes, at, type, crcSeed) ? type : 0;
}

/** Whether the header at `at`, of which `typeAt` knows the type, has a check: what it says is proven, whatever its data is. */
export function isChecked(bytes: Buffer, at: number): boolean {
  return bytes.readUIntLE(at + 5, 3) !== 0;
}

/**
 * Writes a record's header at `at` and then its CRC, which covers `dataBytes` bytes that already lie behind it.
 * `a` and `b` by type: open: size, disk · write: offset, length of data · zero: offset, length · synced: position, 0.
 */
export function encodeRecord(
  target: Buffer,
  at: number,
  type: number,
  position: number,
  overlay: number,
  a: number,
  b: number,
  dataBytes: number,
  crcSeed: number,
): void {
  writeNumber(target, at + 8, position);
  writeNumber(target, at + 16, overlay);
  writeNumber(target, at + 24, a);
  writeNumber(target, at + 32, b);
  target.writeUInt32LE(type + headerCheck(target, at, type, crcSeed) * 256, at + 4);
  target.writeUInt32LE(recordCrc(target, at, dataBytes, crcSeed), at);
}

/** Whole numbers below 2^53 as 64 bits, without a bigint per field: this is on the write path. */
function writeNumber(target: Buffer, at: number, value: number): void {
  target.writeUInt32LE(value % 2 ** 32, at);
  target.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

export function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}
