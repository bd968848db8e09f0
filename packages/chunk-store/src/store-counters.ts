/** What a store counts since it was opened: plain numbers, added to where the work is done. */
import { DurationHistogram } from '@pando/common';

/** Look-ups of ids by somebody: all of them, and those that neither fresh chunks nor recent places could answer. */
export class LookUpCounters {
  all = 0;
  /** Those that asked the index: 3 to 12 µs each. */
  index = 0;
}

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
  /** Nodes that were asked for: in the node cache, or not. */
  nodeHits = 0;
  nodeMisses = 0;
  /** Chunks, and nodes that were not in their cache: their run was in the run cache or on its way there, or it was read for them. */
  runHits = 0;
  runMisses = 0;
  /** Runs read from storage, checked and decompressed, by whomever: compaction too. Failed reads are not counted. */
  readonly runLoadTimes = new DurationHistogram();
  loadedBytes = 0;
  readonly readerLookUps = new LookUpCounters();
  readonly writerLookUps = new LookUpCounters();
  readonly collectionLookUps = new LookUpCounters();
  readonly verifyLookUps = new LookUpCounters();
  /** Batches that were hashed, and compressed into runs: in threads, or on the main thread where they are small. */
  readonly hashTimes = new DurationHistogram();
  readonly packTimes = new DurationHistogram();
}
