/**
 * Files in LevelDB's log format (doc/log_format.md): its write-ahead logs and its manifests.
 *
 * Blocks of 32 KiB; in a block fragments, each with CRC (of type and data), length and type. A record is one fragment, or
 * a first, middle ones and a last.
 */
import { maskedCrc32c } from './crc32c.ts';

const BLOCK_BYTES = 32 * 1024;
const HEADER_BYTES = 7;
const FULL = 1;
const FIRST = 2;
const LAST = 4;

export interface LogCheck {
  /** The whole records, up to the first byte that cannot be read. */
  readonly records: readonly Buffer[];
  /** That byte, if there is one. */
  readonly endsAt: number | undefined;
  /** Whether it is damage, and not an end that a crash tore. */
  readonly isDamaged: boolean;
}

/** Whether a record, of which the first fragment is given, was written with a sync. */
export type IsSynced = (record: Buffer) => boolean;

/**
 * Reads a log. What cannot be read is damage when another record that was synced begins anywhere behind it, and else the end: what a
 * crash leaves looks like that. Only what was not synced may be missing in the middle, as the pages of a file
 * reach the disk in any order.
 */
export function checkLog(bytes: Buffer, isSynced: IsSynced = () => true): LogCheck {
  const records: Buffer[] = [];
  let parts: Buffer[] | undefined;
  for (let at = 0; at < bytes.length;) {
    const blockEnd = at - (at % BLOCK_BYTES) + BLOCK_BYTES;
    if (blockEnd - at < HEADER_BYTES) {
      at = blockEnd;
      continue;
    }
    const end = fragmentEnd(bytes, at);
    if (end === undefined) return { records, endsAt: at, isDamaged: hasRecordFrom(bytes, at + 1, isSynced) };
    const type = bytes[at + 6]!;
    const begins = type === FULL || type === FIRST;
    if (begins !== (parts === undefined))
      return { records, endsAt: at, isDamaged: hasRecordFrom(bytes, at, isSynced) };
    (parts ??= []).push(bytes.subarray(at + HEADER_BYTES, end));
    if (type === FULL || type === LAST) {
      records.push(Buffer.concat(parts));
      parts = undefined;
    }
    at = end;
  }
  return { records, endsAt: undefined, isDamaged: false };
}

/** The end of the whole fragment at `at`, or undefined when there is none. */
function fragmentEnd(bytes: Buffer, at: number): number | undefined {
  const block = at - (at % BLOCK_BYTES);
  if (at + HEADER_BYTES > Math.min(bytes.length, block + BLOCK_BYTES)) return undefined;
  const type = bytes[at + 6]!;
  const end = at + HEADER_BYTES + bytes.readUInt16LE(at + 4);
  if (type < FULL || type > LAST || end > Math.min(bytes.length, block + BLOCK_BYTES)) return undefined;
  return maskedCrc32c(bytes, at + 6, end) === bytes.readUInt32LE(at) ? end : undefined;
}

function hasRecordFrom(bytes: Buffer, from: number, isSynced: IsSynced): boolean {
  for (let at = from; at + HEADER_BYTES <= bytes.length; at++) {
    const type = bytes[at + 6]!;
    const end = type === FULL || type === FIRST ? fragmentEnd(bytes, at) : undefined;
    if (end !== undefined && isSynced(bytes.subarray(at + HEADER_BYTES, end))) return true;
  }
  return false;
}
