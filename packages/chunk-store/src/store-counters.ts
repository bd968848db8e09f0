/** What a store counts since it was opened: plain numbers, added to where the work is done. */
import { DurationHistogram } from '@pando/common';

export class StoreCounters {
  /** Chunks that writers handed in: holes, those that were stored already or on their way, and new ones. */
  zeroChunks = 0;
  knownChunks = 0;
  newChunks = 0;
  /** Bytes of the new ones, and of the runs that they came to. */
  newBytes = 0;
  storedBytes = 0;
  /** Bytes appended to segments: runs, those that compaction copies too, and footers. */
  segmentWrittenBytes = 0;
  readonly segmentSyncTimes = new DurationHistogram();
}
