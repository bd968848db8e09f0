/**
 * Holding the index against the segments: every chunk that a footer lists has to be found there, or at another copy that
 * is there. What is not so is mended, because the index is nothing but what the footers say.
 */
import { ID_BYTES, idToHex, isHole } from '@pando/common';
import type { Directories } from './directories.ts';
import { readPlace, writePlace } from './place.ts';
import { saveSuspects } from './recovery.ts';
import { runEntryAt, type RunEntry, type SegmentDirectory } from './segment-directory.ts';
import type { Segment, SegmentTable } from './segment-table.ts';
import type { SerialQueue } from './serial-queue.ts';
import { PLACE_BYTES, type ChunkIndex } from './types.ts';

/** Ids that are looked up in one turn of the event loop: 10 µs each. */
const IDS_A_TURN = 256;

export interface IndexCheckParts {
  readonly index: ChunkIndex;
  /** All changes of the index go through it. */
  readonly indexQueue: SerialQueue;
  readonly table: SegmentTable;
  readonly directories: Directories;
}

/**
 * Checks the entries of the first `runs` runs of a segment. `isWhole` says whether a run can be read: the index is made to
 * name no other. `report` is told of each entry that was wrong, with the run's offset.
 */
export async function checkIndexOf(
  parts: IndexCheckParts,
  segment: Segment,
  directory: SegmentDirectory,
  runs: number,
  isWhole: (run: RunEntry) => Promise<boolean>,
  report: (offset: number, problem: string) => void,
): Promise<void> {
  const { index } = parts;
  let looked = 0;
  for (let number = 0; number < runs; number++) {
    const run = runEntryAt(directory.runTable, number);
    if ((looked += run.count) > IDS_A_TURN) {
      await new Promise((resolve) => setImmediate(resolve));
      looked = run.count;
    }
    if (index.ready?.() !== undefined) await index.ready();
    let readable: boolean | undefined;
    for (let slot = run.firstSlot; slot < run.firstSlot + run.count; slot++) {
      if (isHole(directory.ids, slot * ID_BYTES)) continue;
      const id = directory.ids.subarray(slot * ID_BYTES, (slot + 1) * ID_BYTES);
      const problem = await problemOf(parts, segment, run, slot, id);
      if (problem === undefined) continue;
      readable ??= await isWhole(run);
      // Of a run that cannot be read, that is what there is to report.
      if (!readable) continue;
      if (await mend(parts, segment, run, slot, id))
        report(run.offset, `${problem} for chunk ${idToHex(id)}; mended`);
    }
  }
}

async function problemOf(
  { index, table, directories }: IndexCheckParts,
  segment: Segment,
  run: RunEntry,
  slot: number,
  id: Uint8Array,
): Promise<string | undefined> {
  const value = index.get(id, 0);
  if (value === undefined) return 'the index has no place';
  const place = readPlace(value);
  const { runOffset, runBytes } = place;
  if (place.segment === segment.number && place.slot === slot)
    return runOffset === run.offset && runBytes === run.bytes ? undefined : 'the index has a wrong place';
  if (table.get(place.segment) === undefined) return 'the index has a place in a segment that is gone';
  // Stored twice: the copy that the index names is the one that counts.
  const holds = await directories.holds(place, id, 0);
  if (holds === false) return 'the index has a wrong place';
  return segment.suspect ? undefined : 'the index has another place';
}

/** Makes the index name this copy, or where it names another that is there, this segment a suspect. Whether it did. */
function mend(
  parts: IndexCheckParts,
  segment: Segment,
  run: RunEntry,
  slot: number,
  id: Uint8Array,
): Promise<boolean> {
  const { index, indexQueue, table } = parts;
  return indexQueue.run(async () => {
    // It may have been stored again or moved meanwhile.
    const problem = await problemOf(parts, segment, run, slot, id);
    if (problem === undefined || segment.condemned || table.get(segment.number) !== segment) return false;
    if (problem === 'the index has another place') {
      segment.suspect = true;
      await saveSuspects(index, table);
      return true;
    }
    const places = new Uint8Array(PLACE_BYTES);
    writePlace(places, 0, segment.number, run.offset, run.bytes, slot);
    await index.write({ ids: id, places, count: 1 }, true);
    return true;
  });
}
