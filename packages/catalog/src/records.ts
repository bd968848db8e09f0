/**
 * Records as bytes: four bytes CRC-32 (little endian) over the stored key and the rest, then msgpack.
 *
 * LevelDB checks its blocks only where it is asked to, which its binding does not do. The CRC covers
 * the key too, so that a record that turns up under another key is found.
 */
import { crc32 } from 'node:zlib';
import { PandoError } from '@pando/common';
import { Packr } from 'msgpackr';
import { describeKey, keyBytes } from './keys.ts';
import type { StoredRecord } from './types.ts';

const CRC_BYTES = 4;

/** Largest record; 10,000 clones are 10,000 records, not one. */
export const RECORD_BYTES_MAX = 1024 * 1024;

// Plain msgpack maps: readable by any msgpack tool, and nothing is remembered from record to record.
const packr = new Packr({ useRecords: false, moreTypes: false, copyBuffers: true, variableMapSize: true });

/**
 * Bytes of a record for the given stored key.
 * @throws `internal` when it is no object with a `version` of 1 or more
 */
export function encodeRecord(key: Buffer, value: unknown): Buffer {
  if (!isVersioned(value)) {
    throw new PandoError('internal', `a record without a version was to be stored: ${describeKey(key)}`);
  }
  const body = packr.pack(value);
  if (body.byteLength > RECORD_BYTES_MAX) {
    throw new PandoError(
      'internal',
      `a record of ${body.byteLength} bytes is too large: ${describeKey(key)}`,
    );
  }
  const bytes = Buffer.allocUnsafe(CRC_BYTES + body.byteLength);
  bytes.writeUInt32LE(crc32(body, crc32(key)), 0);
  bytes.set(body, CRC_BYTES);
  return bytes;
}

/** @throws `catalog-corrupt` with table and key */
export function decodeRecord(key: Buffer, bytes: Buffer): unknown {
  const body = bytes.subarray(CRC_BYTES);
  if (bytes.byteLength <= CRC_BYTES || bytes.readUInt32LE(0) !== crc32(body, crc32(key))) {
    throw new PandoError('catalog-corrupt', `the checksum of a catalog record is wrong: ${describeKey(key)}`);
  }
  let value: unknown;
  try {
    value = packr.unpack(body);
  } catch (error) {
    throw new PandoError('catalog-corrupt', `a catalog record is not msgpack: ${describeKey(key)}`, {
      cause: error,
    });
  }
  if (!isVersioned(value)) {
    throw new PandoError('catalog-corrupt', `a catalog record has no version: ${describeKey(key)}`);
  }
  return value;
}

/** What a record says that is stored so. @throws `catalog-corrupt` with table and key, when its CRC is wrong */
export function decodeStored({ table, key, value }: StoredRecord): unknown {
  return decodeRecord(keyBytes(table, key), Buffer.from(value.buffer, value.byteOffset, value.byteLength));
}

/**
 * How the owner of a table refuses what a later Pando wrote: call it on every record that is read.
 * @throws `store-newer` when the record's version is greater than `newest`; `catalog-corrupt` when it has none
 */
export function checkRecord(table: string, key: string, value: unknown, newest: number): void {
  if (!isVersioned(value)) {
    throw new PandoError(
      'catalog-corrupt',
      `a catalog record has no version: table ${table}, key ${JSON.stringify(key)}`,
    );
  }
  if (value.version > newest) {
    throw new PandoError(
      'store-newer',
      `record ${JSON.stringify(key)} of table ${table} has version ${value.version}; this Pando knows up to ${newest}`,
    );
  }
}

function isVersioned(value: unknown): value is { readonly version: number } {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const { version } = value as { version?: unknown };
  return typeof version === 'number' && Number.isSafeInteger(version) && version >= 1;
}
