/**
 * Verification: reads every segment from front to back and compares run headers, CRCs, ids, footers and
 * the index with each other. Reports; mends the index, and nothing else.
 */
import { ID_BYTES, idsEqual, idToHex, isHole, isPandoError, PandoError } from '@pando/common';
import { expandRun } from './codec.ts';
import type { DamagedRuns } from './damaged-runs.ts';
import type { Directories } from './directories.ts';
import type { Hash } from './hashing.ts';
import { checkIndexOf } from './index-check.ts';
import type { LostPlaces } from './lost-places.ts';
import { readPlace } from './place.ts';
import { scanDirectory } from './recovery.ts';
import { readDirectory, runEntryAt, type RunEntry, type SegmentDirectory } from './segment-directory.ts';
import {
  chunkBytesOf,
  decodeFileHeader,
  decodeRunHeader,
  FILE_HEADER_BYTES_MAX,
  isOfStore,
  isRunBodyIntact,
  RUN_ENTRY_BYTES,
  RUN_HEADER_BYTES,
  type StoreIdentity,
} from './segment-format.ts';
import { SCAN_BYTES } from './limits.ts';
import { VerifyWay } from './verify-way.ts';
import type { Segment, SegmentTable } from './segment-table.ts';
import type { SerialQueue } from './serial-queue.ts';
import type { ChunkIndex, SegmentStorage, VerifyOptions, VerifyReport } from './types.ts';

/** Problems that a report names; the others are counted. */
const DAMAGED_MAX = 1000;

export interface VerifyContext extends StoreIdentity {
  readonly storage: SegmentStorage;
  readonly index: ChunkIndex;
  readonly indexQueue: SerialQueue;
  readonly directories: Directories;
  readonly table: SegmentTable;
  /** What names the store's chunks. */
  readonly hash: Hash;
  /** Told of what is found, so that dedupe does not count on it. */
  readonly damaged: DamagedRuns;
  /** Told of what is found, exactly. */
  readonly lost: LostPlaces;
}

interface Damage {
  readonly segment: number;
  readonly offset: number;
  readonly problem: string;
}

/** Verifies all segments that exist when it begins, and were not verified before `from`. @throws the signal's reason */
export async function verifyStore(
  context: VerifyContext,
  options: VerifyOptions,
): Promise<Omit<VerifyReport, 'finder' | 'indexFiles'>> {
  const { signal, onProgress, onPosition, from } = options;
  const way = new VerifyWay(context.table, from, context.damaged.segments());
  const segments = context.table.all().filter((segment) => way.leadsTo(segment));
  // What is looked at once more has been counted.
  const allBytes = segments.reduce(
    (sum, segment) => sum + (way.isAgain(segment) ? 0 : segment.bytes),
    way.bytes,
  );
  const damaged: Damage[] = [];
  let moreDamaged = 0;
  let chunks = way.chunks;
  let bytes = way.bytes;
  for (const segment of segments) {
    signal?.throwIfAborted();
    const isAgain = way.isAgain(segment);
    const isSealed = segment.contents === undefined;
    const check = new SegmentCheck(context, segment, options, (done) => {
      onProgress?.(isAgain ? bytes : bytes + done, allBytes);
    });
    try {
      await check.run();
    } catch (error) {
      signal?.throwIfAborted();
      const problem = error instanceof Error ? error.message : String(error);
      check.damaged.push({ segment: segment.number, offset: 0, problem });
      context.lost.addSegment(segment.number);
      context.damaged.addSegment(segment.number);
    }
    if (!isAgain) bytes += segment.bytes;
    onProgress?.(bytes, allBytes);
    // A collection may have removed it while it was read: then nothing that was found means anything.
    const isGone = segment.condemned || context.table.get(segment.number) !== segment;
    if (!isGone) {
      if (!isAgain) chunks += check.chunks;
      const room = DAMAGED_MAX - damaged.length;
      damaged.push(...check.damaged.slice(0, room));
      moreDamaged += check.moreDamaged + Math.max(0, check.damaged.length - room);
    }
    way.pass(segment, { isSealed, isDamaged: !isGone && check.damaged.length > 0, chunks, bytes });
    onPosition?.(way.position);
  }
  return { chunks, bytes, damaged, moreDamaged, position: way.position };
}

class SegmentCheck {
  readonly damaged: Damage[] = [];
  moreDamaged = 0;
  chunks = 0;
  readonly #context: VerifyContext;
  readonly #segment: Segment;
  readonly #options: VerifyOptions;
  readonly #onProgress: (doneBytes: number) => void;

  constructor(
    context: VerifyContext,
    segment: Segment,
    options: VerifyOptions,
    onProgress: (doneBytes: number) => void,
  ) {
    this.#context = context;
    this.#segment = segment;
    this.#options = options;
    this.#onProgress = onProgress;
  }

  async run(): Promise<void> {
    await this.#checkFileHeader();
    const { contents } = this.#segment;
    // Of a segment that is not sealed yet, what is in the index: the rest is still being written.
    const indexedRuns = contents?.indexedRuns;
    const directory: SegmentDirectory =
      contents === undefined
        ? await this.#directory()
        : { runTable: contents.runTable.bytes.slice(), ids: contents.ids.bytes.slice() };
    const runs = indexedRuns ?? directory.runTable.byteLength / RUN_ENTRY_BYTES;
    await checkIndexOf(
      this.#context,
      this.#segment,
      directory,
      runs,
      (run) => this.#isWhole(run),
      (offset, problem) => this.#report(offset, problem),
    );
    if (this.#options.quick === true) {
      await this.#pause(directory.runTable.byteLength + directory.ids.byteLength);
      return;
    }
    for (let run = 0; run < runs;) run = await this.#checkPiece(directory, run, runs);
  }

  /** From the footer; where that is damaged, what the runs say of themselves, and nobody counts on the segment any more. */
  async #directory(): Promise<SegmentDirectory> {
    const { storage, damaged } = this.#context;
    const { number, seed, bytes } = this.#segment;
    try {
      return await readDirectory(storage, number, seed, bytes);
    } catch (error) {
      if (!isPandoError(error, 'segment-corrupt')) throw error;
      this.#report(bytes, error.message);
      damaged.addSegment(number);
      const { directory } = await scanDirectory(this.#context, this.#segment, bytes);
      this.#context.lost.setGaps(number, gapsOf(this.#segment, directory));
      return directory;
    }
  }

  async #checkFileHeader(): Promise<void> {
    const bytes = new Uint8Array(FILE_HEADER_BYTES_MAX);
    try {
      await this.#context.storage.read(this.#segment.number, bytes, 0);
    } catch (error) {
      // Nobody needs it to read chunks.
      if (!isPandoError(error, 'store-failed')) throw error;
      this.#report(0, error.message);
      return;
    }
    const header = decodeFileHeader(bytes);
    if (header?.segment !== this.#segment.number || !isOfStore(header, this.#context))
      this.#report(0, 'the file header is damaged');
  }

  /** Reads as many runs as fit into one piece and checks them; returns the number of the next run. */
  async #checkPiece(directory: SegmentDirectory, firstRun: number, runs: number): Promise<number> {
    this.#options.signal?.throwIfAborted();
    const start = runEntryAt(directory.runTable, firstRun).offset;
    let end = start;
    let next = firstRun;
    for (; next < runs; next++) {
      const entry = runEntryAt(directory.runTable, next);
      if (next > firstRun && entry.offset + entry.bytes - start > SCAN_BYTES) break;
      end = entry.offset + entry.bytes;
    }
    const bytes = new Uint8Array(end - start);
    const { storage } = this.#context;
    const { number } = this.#segment;
    const length = await storage.read(number, bytes, start).catch(() => undefined);
    await this.#context.index.ready?.();
    for (let run = firstRun; run < next; run++) {
      if (length === undefined) await this.#checkRunAlone(directory, run);
      else this.#checkRun(directory, run, bytes.subarray(0, length), start);
    }
    this.#onProgress(end);
    await this.#pause(end - start);
    return next;
  }

  async #pause(bytes: number): Promise<void> {
    await this.#options.pace?.(bytes, this.#options.signal);
    // Reading yields already where there is a disk; in memory a promise alone would hold the event loop.
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Of a piece that cannot be read, each run is read by itself: a bad sector is not to take its neighbours along. */
  async #checkRunAlone(directory: SegmentDirectory, run: number): Promise<void> {
    const entry = runEntryAt(directory.runTable, run);
    const bytes = new Uint8Array(entry.bytes);
    try {
      const length = await this.#context.storage.read(this.#segment.number, bytes, entry.offset);
      await this.#context.index.ready?.();
      this.#checkRun(directory, run, bytes.subarray(0, length), entry.offset);
    } catch (error) {
      if (!(error instanceof PandoError)) throw error;
      this.#reportRun(directory, entry, error.message);
    }
  }

  #checkRun(directory: SegmentDirectory, run: number, bytes: Uint8Array, start: number): void {
    const entry = runEntryAt(directory.runTable, run);
    const at = entry.offset - start;
    const header = decodeRunHeader(bytes, at, this.#segment.seed, this.#context.chunkBytes);
    if (header === undefined) {
      this.#reportRun(directory, entry, 'the header of the run is damaged');
      return;
    }
    const { firstSlot, count, codec, kind, runBytes } = header;
    const same =
      firstSlot === entry.firstSlot && count === entry.count && codec === entry.codec && kind === entry.kind;
    if (!same || runBytes !== entry.bytes) {
      this.#reportRun(directory, entry, 'the run is not what the footer says');
      return;
    }
    if (at + runBytes > bytes.byteLength) {
      this.#reportRun(directory, entry, 'the run is cut off');
      return;
    }
    if (!isRunBodyIntact(bytes, at, header)) {
      this.#reportRun(directory, entry, 'the CRC of the run does not match');
      return;
    }
    let raw: Uint8Array;
    try {
      raw = expandRun(
        bytes.subarray(at + runBytes - header.storedBytes, at + runBytes),
        codec,
        header.rawBytes,
      );
    } catch (error) {
      if (!(error instanceof PandoError)) throw error;
      this.#reportRun(directory, entry, error.message);
      return;
    }
    const chunkBytes = chunkBytesOf(kind, this.#context.chunkBytes);
    for (let k = 0; k < count; k++) {
      this.chunks++;
      const idAt = at + RUN_HEADER_BYTES + k * ID_BYTES;
      const id = this.#context.hash(raw.subarray(k * chunkBytes, (k + 1) * chunkBytes));
      const hex = idToHex(bytes, idAt);
      if (!idsEqual(id, 0, bytes, idAt)) {
        this.#reportRun(directory, entry, `chunk ${hex} does not match its id`, firstSlot + k);
      } else if (!idsEqual(id, 0, directory.ids, (firstSlot + k) * ID_BYTES)) {
        this.#report(entry.offset, `chunk ${hex} is not what the footer lists in slot ${firstSlot + k}`);
      }
    }
  }

  /** Whether a run can be read and is not damaged. */
  async #isWhole({ offset, bytes: length }: RunEntry): Promise<boolean> {
    const { storage, chunkBytes } = this.#context;
    const bytes = new Uint8Array(length);
    const read = await storage.read(this.#segment.number, bytes, offset).catch(() => 0);
    const header = decodeRunHeader(bytes, 0, this.#segment.seed, chunkBytes);
    return read === length && header?.runBytes === length && isRunBodyIntact(bytes, 0, header);
  }

  /** `slot`: only the chunk there is damaged. */
  #reportRun(directory: SegmentDirectory, entry: RunEntry, problem: string, slot?: number): void {
    if (!this.#counts(directory, entry)) return;
    const { damaged, lost } = this.#context;
    const { number } = this.#segment;
    damaged.add(number, entry.offset);
    if (slot === undefined) lost.addRun(number, entry.offset);
    else lost.addSlot(number, slot);
    this.#report(entry.offset, problem);
  }

  /** Whether any chunk of the run is not stored elsewhere: the index names this copy, or none. */
  #counts({ ids }: SegmentDirectory, { firstSlot, count }: RunEntry): boolean {
    for (let slot = firstSlot; slot < firstSlot + count; slot++) {
      if (isHole(ids, slot * ID_BYTES)) continue;
      const value = this.#context.index.get(ids, slot * ID_BYTES);
      const place = value === undefined ? undefined : readPlace(value);
      if (place === undefined || this.#context.table.get(place.segment) === undefined) return true;
      if (place.segment === this.#segment.number && place.slot === slot) return true;
    }
    return false;
  }

  #report(offset: number, problem: string): void {
    if (this.damaged.length < DAMAGED_MAX)
      this.damaged.push({ segment: this.#segment.number, offset, problem });
    else this.moreDamaged++;
  }
}

/** What lies between and behind the runs of a directory that a scan found; the file may have been longer once. */
function gapsOf({ runsAt }: Segment, { runTable }: SegmentDirectory): { start: number; end: number }[] {
  const gaps: { start: number; end: number }[] = [];
  let start = runsAt;
  for (let run = 0; run < runTable.byteLength / RUN_ENTRY_BYTES; run++) {
    const entry = runEntryAt(runTable, run);
    if (entry.offset > start) gaps.push({ start, end: entry.offset });
    start = entry.offset + entry.bytes;
  }
  gaps.push({ start, end: Infinity });
  return gaps;
}
