/** Finding anchors: chunks in runs of their own kind, by the run tables of all segments. */
import { ID_BYTES, isHole, isPandoError } from '@pando/common';
import { GrowingBytes } from './growing-bytes.ts';
import { scanDirectory, type RecoveryContext } from './recovery.ts';
import { readDirectory, runEntryAt, type SegmentDirectory } from './segment-directory.ts';
import { KIND_ANCHOR, RUN_ENTRY_BYTES } from './segment-format.ts';
import type { Segment } from './segment-table.ts';

/** Ids of all anchors that segments list, in the order in which they were written; one that was moved may be there twice. */
export async function listAnchors(context: RecoveryContext): Promise<Uint8Array> {
  const found = new GrowingBytes();
  for (const segment of context.table.all()) {
    const { runTable, ids } = await directoryOf(context, segment);
    for (let run = 0; run < runTable.byteLength / RUN_ENTRY_BYTES; run++) {
      const { kind, firstSlot, count } = runEntryAt(runTable, run);
      if (kind !== KIND_ANCHOR) continue;
      for (let slot = firstSlot; slot < firstSlot + count; slot++) {
        const at = slot * ID_BYTES;
        if (!isHole(ids, at)) found.append(ids.subarray(at, at + ID_BYTES));
      }
    }
  }
  return found.bytes.slice();
}

/** From memory or the footer; where that is damaged, what the runs say of themselves. */
async function directoryOf(context: RecoveryContext, segment: Segment): Promise<SegmentDirectory> {
  const { contents, number, seed, bytes } = segment;
  if (contents !== undefined) return { runTable: contents.runTable.bytes, ids: contents.ids.bytes };
  try {
    return await readDirectory(context.storage, number, seed, bytes);
  } catch (error) {
    if (!isPandoError(error, 'segment-corrupt')) throw error;
    return (await scanDirectory(context, segment, bytes)).directory;
  }
}
