/**
 * Reads the records of one log file in order, also past what is damaged: the next whole record is looked for, and what can be
 * told of those before it is. Records of what the file held before, when it was another one, are passed by: their positions
 * are lower.
 */
import { readAround, type File } from '@pando/common';
import {
  FILE_HEADER_BYTES,
  RECORD_HEADER_BYTES,
  TYPE_OPEN,
  TYPE_SYNCED,
  TYPE_WRITE,
  TYPE_ZERO,
  isChecked,
  readFileHeader,
  readNumber,
  recordCrc,
  typeAt,
} from './format.ts';
import { WRITE_BYTES_MAX, type LogRecord } from './types.ts';

const WINDOW_BYTES = 4 * 1024 * 1024;

/** Bytes of a file that are no whole records. */
export interface Gap {
  readonly offset: number;
  /** Where the next whole record begins, or the end of the file. */
  readonly end: number;
  /** Position of the last record before it, and of the next one; undefined where there is none in the file. */
  readonly after: number;
  readonly before?: number | undefined;
  /** Bytes of it of which it is not known what they said. */
  readonly unknownBytes: number;
  /** The device cannot read some of it, which no crash does. */
  readonly isUnreadable: boolean;
}

export interface FileScan {
  readonly bytes: number;
  /** Position of the last record, whole or known by its header; `after` when there is none. */
  readonly lastPosition: number;
  /** The greatest position that a record of the file says was synced; 0 when none does. */
  readonly syncedPosition: number;
  /** Where the last record ends whose position is at most `settled`; 0 when there is none. */
  readonly settledBytes: number;
  readonly gaps: readonly Gap[];
}

/**
 * Hands every whole record to `visit`, which may be asynchronous, and of those that are damaged what their headers prove: a
 * write is a `lost` one then, of which the data is not known.
 * @param after positions up to this one come before the file: its records must have greater ones
 * @param settled the position that `settledBytes` is about
 */
export async function scanFile(
  file: Pick<File, 'size' | 'read'>,
  after: number,
  crcSeed: number,
  visit: (record: LogRecord) => void | Promise<void>,
  settled = 0,
): Promise<FileScan> {
  const size = await file.size();
  const window = Buffer.alloc(Math.min(WINDOW_BYTES, Math.max(size, RECORD_HEADER_BYTES)));
  const gaps: Gap[] = [];
  let windowStart = 0;
  let windowBytes = 0;
  let at = FILE_HEADER_BYTES;
  let lastPosition = after;
  let syncedPosition = 0;
  let settledBytes = 0;
  let gap: { offset: number; after: number; unknownBytes: number } | undefined;
  /** Where the last record ended of which only the header was whole, and how much of the gap before was unknown. */
  let known = { end: 0, unknownBytes: 0 };
  /** Where the device could not read, in order; the same place may come again. */
  const unreadable: [from: number, to: number][] = [];
  const isUnreadable = (from: number, to: number): boolean =>
    unreadable.some((place) => place[0] < to && place[1] > from);

  /** Makes `count` bytes from `from` on available in the window, or says that the file does not have them. */
  const fill = async (from: number, count: number): Promise<boolean> => {
    if (from >= windowStart && from + count <= windowStart + windowBytes) return true;
    if (from + count > size) return false;
    windowStart = from;
    const target = window.subarray(0, Math.min(window.byteLength, size - from));
    windowBytes = await readAround(file, target, from, (offset, bytes) =>
      unreadable.push([offset, offset + bytes]),
    );
    return count <= windowBytes;
  };

  /**
   * Without a check of their headers there are only records of version 1. Elsewhere what has none is not even looked at: guests
   * could make it up, and have a megabyte checked for each eight bytes of what the file held before.
   */
  const areAllChecked = ((await readFileHeader(file)).header?.version ?? 1) > 1;
  const typeOf = (base: number): number =>
    areAllChecked && !isChecked(window, base) ? 0 : typeAt(window, base, crcSeed);

  /** Bytes of data of the record at `from`, when its header is one, of this file's life or not. The header is in the window then. */
  const dataAt = async (from: number, isOld = false): Promise<number | undefined> => {
    if (!(await fill(from, RECORD_HEADER_BYTES))) return undefined;
    const base = from - windowStart;
    const type = typeOf(base);
    if (type === 0 || readNumber(window, base + 8) <= lastPosition !== isOld) return undefined;
    const dataBytes = type === TYPE_WRITE ? readNumber(window, base + 32) : 0;
    return dataBytes <= WRITE_BYTES_MAX ? dataBytes : undefined;
  };

  /** Whether a whole record stands at `from`. All of it is in the window then. */
  const isWhole = async (from: number, isOld = false): Promise<boolean> => {
    const dataBytes = await dataAt(from, isOld);
    if (dataBytes === undefined || !(await fill(from, RECORD_HEADER_BYTES + dataBytes))) return false;
    const base = from - windowStart;
    return recordCrc(window, base, dataBytes, crcSeed) === window.readUInt32LE(base);
  };

  /** Bytes of the whole record at `from` that the file held before its life began; 0 for none. */
  const oldBytesAt = async (from: number): Promise<number> =>
    (await isWhole(from, true)) ? RECORD_HEADER_BYTES + (await dataAt(from, true))! : 0;

  const take = async (whole: boolean): Promise<void> => {
    const base = at - windowStart;
    const type = window[base + 4]!;
    const position = readNumber(window, base + 8);
    const overlay = readNumber(window, base + 16);
    const a = readNumber(window, base + 24);
    const b = readNumber(window, base + 32);
    lastPosition = position;
    at += RECORD_HEADER_BYTES + (type === TYPE_WRITE ? b : 0);
    if (position <= settled) settledBytes = at;
    if (type === TYPE_OPEN) await visit({ type: 'open', position, overlay, size: a, disk: b });
    else if (type === TYPE_ZERO) await visit({ type: 'zero', position, overlay, offset: a, length: b });
    else if (type === TYPE_SYNCED) syncedPosition = Math.max(syncedPosition, a);
    else if (!whole) await visit({ type: 'lost', position, overlay, offset: a, length: b });
    else {
      const data = window.subarray(base + RECORD_HEADER_BYTES, base + RECORD_HEADER_BYTES + b);
      await visit({ type: 'write', position, overlay, offset: a, data });
    }
  };

  while (at < size) {
    if (await isWhole(at)) {
      if (gap !== undefined) {
        const before = readNumber(window, at - windowStart + 8);
        gaps.push({ ...gap, end: at, before, isUnreadable: isUnreadable(gap.offset, at) });
      }
      gap = undefined;
      await take(true);
      continue;
    }
    gap ??= { offset: at, after: lastPosition, unknownBytes: 0 };
    const dataBytes = await dataAt(at);
    // The header is proven: what is wrong is the data, or the CRC.
    if (
      dataBytes !== undefined &&
      isChecked(window, at - windowStart) &&
      at + RECORD_HEADER_BYTES + dataBytes <= size
    ) {
      await take(false);
      known = { end: at, unknownBytes: gap.unknownBytes };
      continue;
    }
    const from = at;
    do at += (mayBegin(at) && (await oldBytesAt(at))) || 1;
    while (at < size && !(mayBegin(at) && (await isWhole(at))));
    gap.unknownBytes += Math.min(at, size) - from;
  }
  if (gap !== undefined) {
    // What stands behind the last record may be none of this file's life: it is a gap of its own.
    const { offset } = gap;
    const end = known.end > offset ? known.end : offset;
    if (end > offset)
      gaps.push({ ...gap, end, unknownBytes: known.unknownBytes, isUnreadable: isUnreadable(offset, end) });
    if (end < size)
      gaps.push({
        ...{ offset: end, end: size, after: lastPosition, unknownBytes: size - end },
        isUnreadable: isUnreadable(end, size),
      });
  }
  return { bytes: size, lastPosition, syncedPosition, settledBytes, gaps };

  /** Asked at every byte, so without a promise: false where no record can begin. */
  function mayBegin(from: number): boolean {
    const base = from - windowStart;
    const isInWindow = base >= 0 && base + RECORD_HEADER_BYTES <= windowBytes;
    return !isInWindow || typeOf(base) !== 0;
  }
}
