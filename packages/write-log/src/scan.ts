/** Reads the records of one log file in order and says where the last whole one ends. */
import type { File } from '@pando/common';
import {
  FILE_HEADER_BYTES,
  RECORD_HEADER_BYTES,
  TYPE_OPEN,
  TYPE_SYNCED,
  TYPE_WRITE,
  TYPE_ZERO,
  readNumber,
  recordCrc,
} from './format.ts';
import { WRITE_BYTES_MAX, type LogRecord } from './types.ts';

const WINDOW_BYTES = 4 * 1024 * 1024;

export interface FileScan {
  /** Bytes of the file up to the end of its last whole record. */
  readonly validBytes: number;
  /** Whether the file ends there. */
  readonly clean: boolean;
  /** Position of the last whole record; `after` when there is none. */
  readonly lastPosition: number;
  /** The greatest position that a record of the file says was synced; 0 when none does. */
  readonly syncedPosition: number;
}

/**
 * Hands every whole record to `visit`, which may be asynchronous, until the first that is not whole.
 * @param after positions up to this one come before the file: its records must have greater ones
 */
export async function scanFile(
  file: File,
  after: number,
  crcSeed: number,
  visit: (record: LogRecord) => void | Promise<void>,
): Promise<FileScan> {
  const size = await file.size();
  const window = Buffer.alloc(Math.min(WINDOW_BYTES, Math.max(size, RECORD_HEADER_BYTES)));
  let windowStart = 0;
  let windowBytes = 0;
  let at = FILE_HEADER_BYTES;
  let lastPosition = after;
  let syncedPosition = 0;

  /** Makes `bytes` bytes from `at` on available in the window, or says that the file does not have them. */
  const fill = async (bytes: number): Promise<boolean> => {
    if (at + bytes <= windowStart + windowBytes) return true;
    if (at + bytes > size) return false;
    windowStart = at;
    windowBytes = await file.read(window, at);
    return bytes <= windowBytes;
  };

  for (;;) {
    if (!(await fill(RECORD_HEADER_BYTES))) break;
    let base = at - windowStart;
    const type = window.readUInt32LE(base + 4);
    const dataBytes = type === TYPE_WRITE ? readNumber(window, base + 32) : 0;
    if (dataBytes > WRITE_BYTES_MAX) break;
    if (!(await fill(RECORD_HEADER_BYTES + dataBytes))) break;
    base = at - windowStart;
    const end = base + RECORD_HEADER_BYTES + dataBytes;
    if (recordCrc(window, base, dataBytes, crcSeed) !== window.readUInt32LE(base)) break;
    const position = readNumber(window, base + 8);
    if (position <= lastPosition) break;
    const overlay = readNumber(window, base + 16);
    const a = readNumber(window, base + 24);
    const b = readNumber(window, base + 32);
    if (type === TYPE_OPEN) await visit({ type: 'open', position, overlay, size: a, disk: b });
    else if (type === TYPE_WRITE) {
      await visit({
        type: 'write',
        position,
        overlay,
        offset: a,
        data: window.subarray(base + RECORD_HEADER_BYTES, end),
      });
    } else if (type === TYPE_ZERO) await visit({ type: 'zero', position, overlay, offset: a, length: b });
    else if (type === TYPE_SYNCED) syncedPosition = Math.max(syncedPosition, a);
    else break;
    lastPosition = position;
    at += RECORD_HEADER_BYTES + dataBytes;
  }
  return { validBytes: at, clean: at === size, lastPosition, syncedPosition };
}

/**
 * The greatest position that any `synced` record behind `from` names, whole records or not in between; 0 when
 * there is none. This is how damage in the middle of a file is told from a torn end.
 */
export async function findSyncedAfter(file: File, from: number, crcSeed: number): Promise<number> {
  const size = await file.size();
  const window = Buffer.alloc(WINDOW_BYTES);
  let synced = 0;
  for (let start = from; start + RECORD_HEADER_BYTES <= size;) {
    const count = await file.read(window, start);
    const last = count - RECORD_HEADER_BYTES;
    for (let at = 0; at <= last; at++) {
      if (window[at + 4] !== TYPE_SYNCED || window.readUInt32LE(at + 4) !== TYPE_SYNCED) continue;
      if (recordCrc(window, at, 0, crcSeed) !== window.readUInt32LE(at)) continue;
      synced = Math.max(synced, readNumber(window, at + 24));
    }
    if (last < 0) break;
    start += last + 1;
  }
  return synced;
}
