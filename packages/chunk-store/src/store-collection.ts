/**
 * One collection's view of the store: candidates, pins and barrier of one instant, and the two ways to get
 * rid of a segment. Who is live is the caller's knowledge; that nothing live is lost meanwhile is ours.
 *
 * The point of no return is one synchronous step: the caller is asked for liveness once more, and in the
 * same turn the segment is *condemned*: a dedupe hit no longer counts on it. Hits before that step were
 * reported through the barrier, hits after it do not happen.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ID_BYTES, idToHex, isHole, isLost, PandoError } from '@pando/common';
import { FOUND, IN_FLIGHT, MISSING, type ChunkLocator } from './chunk-locator.ts';
import type { BatchWriter } from './batch-writer.ts';
import type { Hash } from './hashing.ts';
import { saveSuspects } from './recovery.ts';
import type { DamagedRuns } from './damaged-runs.ts';
import type { RunReader } from './run-reader.ts';
import { readDirectory, runEntryAt, type SegmentDirectory } from './segment-directory.ts';
import { KIND_NODE, RUN_ENTRY_BYTES } from './segment-format.ts';
import { copySlots } from './segment-copy.ts';
import type { SegmentLog } from './segment-log.ts';
import type { Segment, SegmentTable } from './segment-table.ts';
import type { SerialQueue } from './serial-queue.ts';
import type { StaleEntries } from './stale-entries.ts';
import { writeNumbers } from './store-marks.ts';
import type { ChunkIndex, Collection, SegmentInfo, SegmentStorage } from './types.ts';
import type { WorkerPool } from './worker-pool.ts';

/** Rounds of copying what became live meanwhile; each round copies less, and the last one is checked like all others. */
const COMPACT_ROUNDS_MAX = 1000;

/** Ids that are looked up in one turn of the event loop. */
const IDS_A_TURN = 2048;

/** Slots that are looked at in one turn of the event loop. */
const SLOTS_A_TURN = 8192;

interface SlotsToCopy {
  readonly segment: Segment;
  readonly directory: SegmentDirectory;
  readonly isLive: (slot: number) => boolean;
  /** 1 for what has been copied, or needs not be. */
  readonly copied: Uint8Array;
  /** Whether some of it may have copies elsewhere that count instead. */
  readonly areOthers: boolean;
}

export interface CollectionParts {
  readonly chunkBytes: number;
  /** What names the store's chunks. */
  readonly hash: Hash;
  readonly storage: SegmentStorage;
  readonly index: ChunkIndex;
  readonly indexQueue: SerialQueue;
  readonly table: SegmentTable;
  /** Of this collection alone: its loads must not push out what sessions use. */
  readonly locator: ChunkLocator;
  readonly runs: RunReader;
  readonly writer: BatchWriter;
  readonly log: SegmentLog;
  readonly pool: WorkerPool;
  readonly damaged: DamagedRuns;
  readonly stale: StaleEntries;
  readonly onEnd: () => void;
}

export class StoreCollection implements Collection {
  readonly candidates: readonly SegmentInfo[];
  readonly pins: Collection['pins'];
  readonly #parts: CollectionParts;
  #ended = false;

  constructor(parts: CollectionParts, candidates: readonly SegmentInfo[], pins: Collection['pins']) {
    this.#parts = parts;
    this.candidates = candidates;
    this.pins = pins;
  }

  async resolve(ids: Uint8Array, count: number, segments: Float64Array, slots: Uint32Array): Promise<void> {
    const { locator } = this.#parts;
    for (let i = 0; i < count; i++) {
      const at = i * ID_BYTES;
      segments[i] = 0;
      slots[i] = 0;
      if (i % IDS_A_TURN === IDS_A_TURN - 1) await nextTurn();
      if (isHole(ids, at) || isLost(ids, at)) continue;
      if (locator.ready() !== undefined) await this.#ready();
      let found = locator.find(ids, at);
      while (found === IN_FLIGHT) {
        // Should its append fail, an older copy may be the one that counts.
        await locator.settled;
        await this.#ready();
        found = locator.find(ids, at);
      }
      if (found === MISSING) {
        throw new PandoError('chunk-missing', `chunk ${idToHex(ids, at)} is not in the store`);
      }
      segments[i] = locator.segment!.number;
      slots[i] = locator.slot;
      // A segment that hits accumulate in is loaded now, so that the next ids find it in memory.
      const loading = locator.loading;
      if (loading !== undefined) await loading;
    }
  }

  async contents(number: number): ReturnType<Collection['contents']> {
    const segment = this.#segment(number);
    const directory = await this.#directory(segment);
    const slots = directory.ids.byteLength / ID_BYTES;
    const storedBytes = new Uint32Array(slots);
    const isNode = new Uint8Array(slots);
    const runs = directory.runTable.byteLength / RUN_ENTRY_BYTES;
    let overhead = segment.bytes;
    for (let run = 0; run < runs; run++) {
      const entry = runEntryAt(directory.runTable, run);
      share(storedBytes, entry.firstSlot, entry.count, entry.bytes);
      isNode.fill(entry.kind === KIND_NODE ? 1 : 0, entry.firstSlot, entry.firstSlot + entry.count);
      overhead -= entry.bytes;
    }
    share(storedBytes, 0, slots, overhead);
    return { ids: directory.ids.slice(), storedBytes, isNode };
  }

  async drop(number: number, isLive: (slot: number) => boolean): Promise<boolean> {
    const segment = this.#candidate(number);
    if (anyLive(segment, isLive)) return false;
    segment.condemned = true;
    await removeSegment(this.#parts, segment, segment.slots);
    return true;
  }

  async compact(number: number, isLive: (slot: number) => boolean): Promise<number> {
    const segment = this.#candidate(number);
    const { index, indexQueue, table, log } = this.#parts;
    const directory = await this.#directory(segment);
    const areOthers = segment.suspect;
    // From the first copy on, the old one is no longer what the index names; that must survive a crash.
    segment.suspect = true;
    await indexQueue.run(() => saveSuspects(index, table));
    const copied = new Uint8Array(segment.slots);
    const whole: SlotsToCopy = { segment, directory, isLive, copied, areOthers };
    let copiedBytes = 0;
    for (let round = 0; ; round++) {
      if (round === COMPACT_ROUNDS_MAX)
        throw new PandoError('too-busy', `segment ${number} is in constant use`);
      // Most of what is live is found in turns that are not long, and what became so meanwhile in the last one.
      let slots = await this.#slotsInPieces(whole);
      await this.#ready();
      this.#throwIfEnded();
      // One turn of the event loop from the last question to the sentence.
      if (slots.length === 0) slots = this.#slotsToCopy(whole, 0, segment.slots);
      if (slots.length === 0) break;
      copiedBytes += await copySlots(this.#parts, segment, directory, slots);
      for (const slot of slots) copied[slot] = 1;
      await log.flush();
    }
    segment.condemned = true;
    const freed = segment.bytes - copiedBytes;
    // What was copied has its entry there.
    await removeSegment(
      this.#parts,
      segment,
      copied.reduce((stale, isCopied) => stale - isCopied, segment.slots),
    );
    return freed;
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const { segment } of this.candidates) {
      const still = this.#parts.table.get(segment);
      if (still !== undefined) still.candidate = false;
    }
    this.#parts.onEnd();
  }

  async #ready(): Promise<void> {
    const { locator } = this.#parts;
    for (let wait = locator.ready(); wait !== undefined; wait = locator.ready())
      await wait.catch(() => undefined);
  }

  async #slotsInPieces(of: SlotsToCopy): Promise<number[]> {
    const slots: number[] = [];
    const { segment } = of;
    for (let from = 0; from < segment.slots; from += SLOTS_A_TURN) {
      await nextTurn();
      await this.#ready();
      this.#throwIfEnded();
      slots.push(...this.#slotsToCopy(of, from, Math.min(segment.slots, from + SLOTS_A_TURN)));
    }
    return slots;
  }

  /** Those of the slots `from … to − 1` that are live, are not copied, and are the copy that counts; ascending. */
  #slotsToCopy(of: SlotsToCopy, from: number, to: number): number[] {
    const { locator, damaged } = this.#parts;
    const { segment, directory, isLive, copied } = of;
    const { ids } = directory;
    const slots: number[] = [];
    // As long as neither other copies nor damage were known of, it is this copy that counts: a hit on it is a hit. To look up in the
    // index what has just become suspect takes 10 µs for each of tens of thousands.
    const areOthers = of.areOthers || damaged.hasAnyOf(segment.number);
    for (let slot = from; slot < to; slot++) {
      if (copied[slot] === 1 || !isLive(slot)) continue;
      if (areOthers) {
        const found = locator.find(ids, slot * ID_BYTES);
        if (found !== FOUND || locator.segment !== segment || locator.slot !== slot) {
          copied[slot] = 1; // it counts elsewhere, or (never) nowhere
          continue;
        }
      }
      slots.push(slot);
    }
    return slots;
  }

  #directory(segment: Segment): Promise<SegmentDirectory> {
    const contents = segment.contents;
    if (contents !== undefined) {
      return Promise.resolve({ runTable: contents.runTable.bytes.slice(), ids: contents.ids.bytes.slice() });
    }
    return readDirectory(this.#parts.storage, segment.number, segment.seed, segment.bytes);
  }

  #segment(number: number): Segment {
    const segment = this.#parts.table.get(number);
    if (segment === undefined) throw new PandoError('internal', `segment ${number} does not exist`);
    return segment;
  }

  #candidate(number: number): Segment {
    this.#throwIfEnded();
    const segment = this.#segment(number);
    if (!segment.candidate || segment.condemned) {
      throw new PandoError('internal', `segment ${number} is no candidate of this collection`);
    }
    return segment;
  }

  #throwIfEnded(): void {
    if (this.#ended) throw new PandoError('internal', 'this collection has ended');
  }
}

/**
 * Order: no more hits (done by the caller) → its number is used up and the segment on the list of those to be removed, durably → file gone.
 * Up to `entries` of the index name it: they stay, and are none from now on.
 */
async function removeSegment(parts: CollectionParts, segment: Segment, entries: number): Promise<void> {
  const { index, indexQueue, stale, storage, table } = parts;
  const { number } = segment;
  await indexQueue.run(async () => {
    // Should we stop in the middle, opening the store finishes it.
    table.removing.add(number);
    await stale.add(number, entries);
    await writeNumbers(index, 'removing', [...table.removing]);
  });
  table.remove(number);
  parts.damaged.forget(number);
  await storage.remove(number);
  table.removing.delete(number);
}

function anyLive(segment: Segment, isLive: (slot: number) => boolean): boolean {
  for (let slot = 0; slot < segment.slots; slot++) {
    if (isLive(slot)) return true;
  }
  return false;
}

/** Adds `bytes` to the shares of slots, as evenly as whole bytes go. */
function share(shares: Uint32Array, first: number, count: number, bytes: number): void {
  const each = Math.floor(bytes / count);
  const more = bytes - each * count;
  for (let i = 0; i < count; i++) shares[first + i] = shares[first + i]! + each + (i < more ? 1 : 0);
}
