/**
 * Copying slots of a segment into the open one, for compaction. Runs that are whole and full are copied as they are, which takes
 * a tenth of packing their chunks anew; what stands in other runs is packed with its neighbours into new ones.
 *
 * Damage is not copied under a new CRC: of a run that is copied as it is the CRC is checked and stays; of all others each chunk is hashed.
 */
import { ID_BYTES } from '@pando/common';
import type { BatchWriter } from './batch-writer.ts';
import type { DamagedRuns } from './damaged-runs.ts';
import type { Hash } from './hashing.ts';
import { RUN_RAW_BYTES } from './limits.ts';
import type { RunReader } from './run-reader.ts';
import { idsOfRun, runEntryAt, type RunEntry, type SegmentDirectory } from './segment-directory.ts';
import {
  chunkBytesOf,
  decodeRunHeader,
  isRunBodyIntact,
  KIND_ANCHOR,
  KIND_DATA,
  KIND_NODE,
  RUN_ENTRY_BYTES,
  type RunHeader,
} from './segment-format.ts';
import type { SegmentLog } from './segment-log.ts';
import type { Segment } from './segment-table.ts';
import { batchChunks, type Slab } from './slab.ts';
import type { SegmentStorage } from './types.ts';
import type { WorkerPool } from './worker-pool.ts';

export interface CopyParts {
  readonly chunkBytes: number;
  readonly storage: SegmentStorage;
  readonly runs: RunReader;
  readonly writer: BatchWriter;
  readonly log: SegmentLog;
  readonly damaged: DamagedRuns;
  readonly pool: WorkerPool;
  /** What names the store's chunks. */
  readonly hash: Hash;
}

/**
 * Appends copies of slots (ascending), neither durable nor in the index when it resolves, to the bytes appended.
 * @throws `chunk-corrupt` when any of them is damaged
 */
export async function copySlots(
  parts: CopyParts,
  segment: Segment,
  directory: SegmentDirectory,
  slots: readonly number[],
): Promise<number> {
  const rest = await copyWholeRuns(parts, segment, directory, slots);
  return rest.bytes + (await copyPacked(parts, segment, directory, rest.slots));
}

/**
 * Appends the runs of which all slots are to be copied and from which packing them anew would gain nothing. Resolves to the slots that are left to be
 * copied in the other way, those of runs that look damaged among them, and to the bytes appended.
 */
async function copyWholeRuns(
  parts: CopyParts,
  segment: Segment,
  directory: SegmentDirectory,
  slots: readonly number[],
): Promise<{ slots: number[]; bytes: number }> {
  const { pool, damaged } = parts;
  const toCopy = new Uint8Array(segment.slots);
  for (const slot of slots) toCopy[slot] = 1;
  const runs = directory.runTable.byteLength / RUN_ENTRY_BYTES;
  let bytes = 0;
  const slab = await pool.acquire();
  try {
    for (let run = 0; run < runs;) {
      // Runs that stand one after another in the old segment do so in the new one.
      let count = 0;
      let size = 0;
      const first = runEntryAt(directory.runTable, run);
      for (; run < runs && count < slab.runs.length; run++) {
        const entry = runEntryAt(directory.runTable, run);
        const isNext = entry.offset === first.offset + size && size + entry.bytes <= slab.output.byteLength;
        if (!isNext || !isWorthKeeping(parts, entry, toCopy)) break;
        if (damaged.has(segment.number, entry.offset)) break;
        slab.runs[count++] = entry.bytes;
        size += entry.bytes;
      }
      if (count === 0) {
        run++;
        continue;
      }
      bytes += await copyRuns(parts, segment, directory, run - count, count, size, slab, toCopy);
    }
  } finally {
    pool.release(slab);
  }
  return { slots: slots.filter((slot) => toCopy[slot] === 1), bytes };
}

function isWorthKeeping(parts: CopyParts, { firstSlot, count, kind }: RunEntry, toCopy: Uint8Array): boolean {
  if (count * chunkBytesOf(kind, parts.chunkBytes) < RUN_RAW_BYTES) return false;
  for (let slot = firstSlot; slot < firstSlot + count; slot++) if (toCopy[slot] === 0) return false;
  return true;
}

/** Copies `count` runs that stand one after another, `size` bytes, up to the first one that is not whole; clears their slots of `toCopy`. */
async function copyRuns(
  parts: CopyParts,
  segment: Segment,
  directory: SegmentDirectory,
  firstRun: number,
  count: number,
  size: number,
  slab: Slab,
  toCopy: Uint8Array,
): Promise<number> {
  const { storage, log, chunkBytes } = parts;
  const first = runEntryAt(directory.runTable, firstRun);
  const output = slab.output.subarray(0, size);
  const read = await storage.read(segment.number, output, first.offset).catch(() => 0);
  let at = 0;
  let whole = 0;
  for (; whole < count; whole++) {
    const entry = runEntryAt(directory.runTable, firstRun + whole);
    const header = decodeRunHeader(output, at, segment.seed, chunkBytes);
    if (header === undefined || at + entry.bytes > read || !isSameRun(header, entry)) break;
    if (!isRunBodyIntact(output, at, header)) break;
    const from = entry.firstSlot * ID_BYTES;
    const listed = directory.ids.subarray(from, from + entry.count * ID_BYTES);
    if (Buffer.compare(idsOfRun(output, at, header), listed) !== 0) break;
    at += entry.bytes;
  }
  if (whole === 0) return 0;
  await log.append(slab.output, slab.runs, whole);
  for (let run = firstRun; run < firstRun + whole; run++) {
    const entry = runEntryAt(directory.runTable, run);
    toCopy.fill(0, entry.firstSlot, entry.firstSlot + entry.count);
  }
  return at;
}

/** Appends copies of slots in new runs, each kind by itself. Resolves to the bytes appended. */
async function copyPacked(
  parts: CopyParts,
  segment: Segment,
  directory: SegmentDirectory,
  slots: readonly number[],
): Promise<number> {
  const runs = directory.runTable.byteLength / RUN_ENTRY_BYTES;
  let bytes = 0;
  for (const kind of [KIND_DATA, KIND_NODE, KIND_ANCHOR]) {
    const chunkBytes = chunkBytesOf(kind, parts.chunkBytes);
    const batchMax = batchChunks(chunkBytes);
    let batch: { slot: number; run: number }[] = [];
    let next = 0;
    for (let run = 0; run < runs; run++) {
      const entry = runEntryAt(directory.runTable, run);
      while (next < slots.length && slots[next]! < entry.firstSlot) next++;
      for (; next < slots.length && slots[next]! < entry.firstSlot + entry.count; next++) {
        if (entry.kind === kind) batch.push({ slot: slots[next]!, run });
        if (batch.length < batchMax) continue;
        bytes += await copyBatch(parts, segment, directory, batch, chunkBytes, kind);
        batch = [];
      }
    }
    if (batch.length > 0) bytes += await copyBatch(parts, segment, directory, batch, chunkBytes, kind);
  }
  return bytes;
}

async function copyBatch(
  parts: CopyParts,
  segment: Segment,
  directory: SegmentDirectory,
  batch: readonly { readonly slot: number; readonly run: number }[],
  chunkBytes: number,
  kind: number,
): Promise<number> {
  const { pool, runs, writer, hash } = parts;
  const slab = await pool.acquire();
  try {
    let at = -1;
    let run: Awaited<ReturnType<RunReader['read']>> | undefined;
    for (let i = 0; i < batch.length; i++) {
      const item = batch[i]!;
      if (run === undefined || item.run !== at) {
        const entry = runEntryAt(directory.runTable, item.run);
        run = await runs.read(segment.number, entry.offset, entry.bytes);
        at = item.run;
      }
      // Checks the bytes against the id: damage must not be copied under a new CRC.
      const chunk = run.chunkAt(item.slot, directory.ids, item.slot * ID_BYTES, hash);
      slab.input.set(run.raw.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes), i * chunkBytes);
      slab.ids.set(directory.ids.subarray(item.slot * ID_BYTES, (item.slot + 1) * ID_BYTES), i * ID_BYTES);
      slab.order[i] = i;
    }
    return await writer.store(slab, batch.length, chunkBytes, kind);
  } finally {
    pool.release(slab);
  }
}

function isSameRun(header: RunHeader, entry: RunEntry): boolean {
  const { firstSlot, count, codec, kind, runBytes } = header;
  const isSame = firstSlot === entry.firstSlot && count === entry.count && codec === entry.codec;
  return isSame && kind === entry.kind && runBytes === entry.bytes;
}
