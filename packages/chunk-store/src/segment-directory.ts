/**
 * The directory of a segment: its run table and its ids by slot; and scanning a segment run by run,
 * which is how a directory is found again when there is no footer.
 */
import { CHUNK_BYTES_MAX, ID_BYTES, PandoError, unreadableCode } from '@pando/common';
import { SCAN_BYTES } from './limits.ts';
import { writePlace } from './place.ts';
import {
  decodeRunHeader,
  decodeTrailer,
  isFooterIntact,
  isRunBodyIntact,
  isWholeRun,
  RUN_ENTRY_BYTES,
  RUN_HEADER_BYTES,
  RUN_MAGIC_BYTES,
  TRAILER_BYTES,
  type RunHeader,
  type Trailer,
} from './segment-format.ts';
import { PLACE_BYTES, type SegmentStorage } from './types.ts';

/** No run is longer: the largest chunk is more than RUN_RAW_BYTES, and no run has more ids than fit into one page. */
const RUN_BYTES_MAX = CHUNK_BYTES_MAX + 4096;

export interface SegmentDirectory {
  /** Lines of RUN_ENTRY_BYTES, see docs/format.md. */
  readonly runTable: Uint8Array;
  /** Ids by slot; zeros for slots that a gap of damaged bytes took with it. */
  readonly ids: Uint8Array;
}

/** One line of a run table. */
export interface RunEntry {
  readonly offset: number;
  readonly bytes: number;
  readonly firstSlot: number;
  readonly count: number;
  readonly codec: number;
  readonly kind: number;
}

export function runEntryAt(runTable: Uint8Array, run: number): RunEntry {
  const view = new DataView(runTable.buffer, runTable.byteOffset + run * RUN_ENTRY_BYTES, RUN_ENTRY_BYTES);
  return {
    offset: view.getUint32(0, true),
    bytes: view.getUint32(4, true),
    firstSlot: view.getUint32(8, true),
    count: view.getUint16(12, true),
    codec: view.getUint8(14),
    kind: view.getUint8(15),
  };
}

/** As a read of the storage; what cannot be read is as good as damaged, and none of it is there then. */
async function readIfReadable(
  storage: SegmentStorage,
  segment: number,
  target: Uint8Array,
  position: number,
): Promise<number> {
  try {
    return await storage.read(segment, target, position);
  } catch (error) {
    if (unreadableCode(error) !== undefined) return 0;
    throw error;
  }
}

/** The trailer of a segment of `size` bytes, or undefined when it is not sealed (or its trailer is damaged). */
export async function readTrailer(
  storage: SegmentStorage,
  segment: number,
  seed: number,
  size: number,
): Promise<Trailer | undefined> {
  if (size < TRAILER_BYTES) return undefined;
  const bytes = new Uint8Array(TRAILER_BYTES);
  const read = await readIfReadable(storage, segment, bytes, size - TRAILER_BYTES);
  return read < TRAILER_BYTES ? undefined : decodeTrailer(bytes, seed, segment, size);
}

/**
 * The directory of a sealed segment of `size` bytes, from its footer.
 * @throws `segment-corrupt` when there is no whole footer
 */
export async function readDirectory(
  storage: SegmentStorage,
  segment: number,
  seed: number,
  size: number,
): Promise<SegmentDirectory> {
  const trailer = await readTrailer(storage, segment, seed, size);
  if (trailer !== undefined) {
    const tableBytes = trailer.runCount * RUN_ENTRY_BYTES;
    const footer = new Uint8Array(tableBytes + trailer.slots * ID_BYTES);
    const read = await readIfReadable(storage, segment, footer, trailer.footerOffset);
    if (read === footer.byteLength && isFooterIntact(footer, trailer, seed)) {
      return { runTable: footer.subarray(0, tableBytes), ids: footer.subarray(tableBytes) };
    }
  }
  throw new PandoError('segment-corrupt', `segment ${segment} has no whole footer`);
}

/** Called for each whole run: the run begins at `at` of `bytes`, and at `offset` of the segment. */
export type RunVisitor = (bytes: Uint8Array, at: number, header: RunHeader, offset: number) => void;

/**
 * Visits the whole and valid runs of a segment from `start` up to `end`, ascending. Damaged bytes between runs are stepped
 * over: the next run is found by its magic and proven by its CRCs, which no other bytes satisfy.
 * Resolves to the offset behind the last run visited. Reads in large pieces.
 */
export async function scanRuns(
  storage: SegmentStorage,
  segment: number,
  seed: number,
  chunkBytes: number,
  start: number,
  end: number,
  visit: RunVisitor,
): Promise<number> {
  const piece = Buffer.alloc(SCAN_BYTES);
  let offset = start;
  let wholeEnd = offset;
  let slot = 0;
  while (offset < end) {
    const pieceStart = offset;
    const length = await storage.read(
      segment,
      piece.subarray(0, Math.min(SCAN_BYTES, end - pieceStart)),
      pieceStart,
    );
    if (length === 0) break;
    const bytes = piece.subarray(0, length);
    const isLastPiece = pieceStart + length >= end || length < SCAN_BYTES;
    const stopAt = isLastPiece ? length : length - RUN_BYTES_MAX;
    while (offset - pieceStart < stopAt) {
      const at = offset - pieceStart;
      const header = decodeRunHeader(bytes, at, seed, chunkBytes);
      const whole = header !== undefined && header.firstSlot >= slot && at + header.runBytes <= length;
      if (whole && isRunBodyIntact(bytes, at, header)) {
        visit(bytes, at, header, offset);
        offset += header.runBytes;
        wholeEnd = offset;
        slot = header.firstSlot + header.count;
        continue;
      }
      const next = bytes.indexOf(RUN_MAGIC_BYTES, at + 1);
      offset = pieceStart + (next < 0 ? Math.max(at + 1, stopAt) : next);
    }
    if (isLastPiece) break;
  }
  return wholeEnd;
}

/**
 * Whether there is a whole run anywhere in a segment of `size` bytes, of whichever store. What cannot be read may hold one, so it is no answer.
 * @throws the system's errors of reading
 */
export async function holdsRuns(storage: SegmentStorage, segment: number, size: number): Promise<boolean> {
  const piece = Buffer.alloc(Math.min(SCAN_BYTES, size));
  for (let start = 0; start < size; start += SCAN_BYTES - RUN_BYTES_MAX) {
    const length = await storage.read(segment, piece, start);
    const bytes = piece.subarray(0, length);
    for (let at = bytes.indexOf(RUN_MAGIC_BYTES); at >= 0; at = bytes.indexOf(RUN_MAGIC_BYTES, at + 1))
      if (isWholeRun(bytes, at)) return true;
    if (length < SCAN_BYTES) return false;
  }
  return false;
}

/** The ids of a run that begins at `at` of `bytes`. */
export function idsOfRun(bytes: Uint8Array, at: number, header: RunHeader): Uint8Array {
  return bytes.subarray(at + RUN_HEADER_BYTES, at + RUN_HEADER_BYTES + header.count * ID_BYTES);
}

export interface IndexBatch {
  readonly ids: Uint8Array;
  readonly places: Uint8Array;
  readonly count: number;
}

/** The index entries of runs `fromRun … toRun − 1` in batches of about `entriesMax`. */
export function* indexBatches(
  segment: number,
  directory: SegmentDirectory,
  fromRun: number,
  toRun: number,
  entriesMax: number,
): Generator<IndexBatch> {
  for (let run = fromRun; run < toRun;) {
    let count = 0;
    let end = run;
    while (end < toRun && count < entriesMax) count += runEntryAt(directory.runTable, end++).count;
    const ids = new Uint8Array(count * ID_BYTES);
    const places = new Uint8Array(count * PLACE_BYTES);
    let at = 0;
    for (; run < end; run++) {
      const entry = runEntryAt(directory.runTable, run);
      const endSlot = entry.firstSlot + entry.count; // the next run may begin later: slots of a damaged run are missing
      ids.set(directory.ids.subarray(entry.firstSlot * ID_BYTES, endSlot * ID_BYTES), at * ID_BYTES);
      for (let slot = entry.firstSlot; slot < endSlot; slot++) {
        writePlace(places, at++ * PLACE_BYTES, segment, entry.offset, entry.bytes, slot);
      }
    }
    yield { ids, places, count };
  }
}
