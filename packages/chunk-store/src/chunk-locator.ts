/**
 * Finding a chunk by its id: fresh chunks, recent places, index, in this order. Synchronous.
 *
 * What it finds is always the copy that counts (see segment-table.ts): recent places of suspect
 * segments are passed over, and so are those of segments that are gone.
 */
import type { FreshChunks } from './fresh-chunks.ts';
import { SEGMENT_LOAD_HITS } from './limits.ts';
import { PlaceHints } from './place-hints.ts';
import { readPlace } from './place.ts';
import { RecentPlaces } from './recent-places.ts';
import { offsetOfKey, segmentOfKey } from './run-cache.ts';
import { readDirectory } from './segment-directory.ts';
import type { Segment, SegmentTable } from './segment-table.ts';
import type { LookUpCounters } from './store-counters.ts';
import type { ChunkIndex, SegmentStorage } from './types.ts';

export const MISSING = 0;
export const IN_FLIGHT = 1;
export const FOUND = 2;
export type Found = typeof MISSING | typeof IN_FLIGHT | typeof FOUND;

/** Segments whose hits are counted at the same time. */
const COUNTED_SEGMENTS_MAX = 64;

export class ChunkLocator {
  readonly #fresh: FreshChunks;
  readonly #recent: RecentPlaces;
  readonly #hints: PlaceHints;
  readonly #index: ChunkIndex;
  readonly #table: SegmentTable;
  readonly #storage: SegmentStorage;
  readonly #writerCounts: LookUpCounters;
  readonly #readerCounts: LookUpCounters;
  readonly #hits = new Map<number, number>();
  #loading: Promise<void> | undefined;

  /** Where the last `find` that returned FOUND found its chunk. */
  segment: Segment | undefined;
  runOffset = 0;
  runBytes = 0;
  slot = 0;
  /** Whether it was the index that said so, and not the segment itself. */
  isFromIndex = false;
  /** After IN_FLIGHT: settles when the chunk has been appended or given up. */
  settled: Promise<void> | undefined;

  constructor(
    storage: SegmentStorage,
    index: ChunkIndex,
    table: SegmentTable,
    fresh: FreshChunks,
    recentPlacesMax: number,
    placeHintsMax: number,
    writerCounts: LookUpCounters,
    readerCounts: LookUpCounters,
  ) {
    this.#writerCounts = writerCounts;
    this.#readerCounts = readerCounts;
    this.#storage = storage;
    this.#index = index;
    this.#table = table;
    this.#fresh = fresh;
    this.#recent = new RecentPlaces(recentPlacesMax);
    this.#hints = new PlaceHints(placeHintsMax);
  }

  /** A promise while ids cannot be looked up for a moment; `find` must then not be called before it settles. */
  ready(): Promise<void> | undefined {
    return this.#index.ready?.();
  }

  /** The load of a segment's ids under way, if any. Never rejects. */
  get loading(): Promise<void> | undefined {
    return this.#loading;
  }

  /**
   * Where a chunk most likely is, for a reader, who must find its id in that run before he relies on anything; the fields then say which run.
   * Never one of a segment whose copies may not be those that count.
   */
  hint(ids: Uint8Array, offset: number): boolean {
    if (!this.#hints.find(ids, offset)) return false;
    const key = this.#hints.runKey;
    const segment = this.#table.get(segmentOfKey(key));
    if (segment === undefined || segment.suspect || segment.condemned) return false;
    this.segment = segment;
    this.runOffset = offsetOfKey(key);
    this.runBytes = this.#hints.runBytes;
    return true;
  }

  /** Counts a look-up that a hint has answered. */
  hintHeld(): void {
    this.#readerCounts.all++;
  }

  /**
   * Looks an id up; the fields then say where the chunk is. Its segment may be condemned. What is known of other segments makes way
   * for that of the one that a writer hits; readers, who go anywhere, gather hints instead. `mayMiss`: for
   * who stores a chunk that is not found, and may do so in vain: then a chunk that is nowhere is so without asking the index.
   */
  find(ids: Uint8Array, offset: number, isWriter = true, mayMiss = false): Found {
    this.isFromIndex = false;
    const counts = isWriter ? this.#writerCounts : this.#readerCounts;
    counts.all++;
    const entry = this.#fresh.indexOf(ids, offset);
    if (entry >= 0) {
      const number = this.#fresh.segmentOf(entry);
      if (number === 0) {
        this.settled = this.#fresh.settledOf(entry);
        return IN_FLIGHT;
      }
      const place = this.#fresh.placeOf(entry);
      return this.#found(this.#table.get(number), place.runOffset, place.runBytes, place.slot);
    }
    if (this.#recent.find(ids, offset)) {
      const segment = this.#table.get(this.#recent.segment);
      if (segment !== undefined && !segment.suspect && !segment.condemned) {
        return this.#found(segment, this.#recent.runOffset, this.#recent.runBytes, this.#recent.slot);
      }
    }
    if (mayMiss && this.#index.mayHave?.(ids, offset) === false) return MISSING;
    counts.index++;
    const value = this.#index.get(ids, offset);
    if (value === undefined) return MISSING;
    this.isFromIndex = true;
    const place = readPlace(value);
    const found = this.#found(this.#table.get(place.segment), place.runOffset, place.runBytes, place.slot);
    if (found === FOUND && (isWriter || this.#hints.mayAdd(this.segment!.slots)))
      this.#countHit(this.segment!, isWriter);
    return found;
  }

  /** Ends loads under way. */
  async close(): Promise<void> {
    await this.#loading;
  }

  #found(segment: Segment | undefined, runOffset: number, runBytes: number, slot: number): Found {
    if (segment === undefined) return MISSING;
    this.segment = segment;
    this.runOffset = runOffset;
    this.runBytes = runBytes;
    this.slot = slot;
    return FOUND;
  }

  #countHit(segment: Segment, isWriter: boolean): void {
    const hits = (this.#hits.get(segment.number) ?? 0) + 1;
    if (this.#hits.size >= COUNTED_SEGMENTS_MAX && hits === 1) this.#hits.clear();
    this.#hits.set(segment.number, hits);
    if (hits < SEGMENT_LOAD_HITS || this.#loading !== undefined) return;
    this.#hits.delete(segment.number);
    const places = isWriter ? this.#recent : this.#hints;
    if (!this.#mayLoad(segment) || places.has(segment.number)) return;
    if (isWriter && !this.#recent.fits(segment.slots)) return;
    this.#loading = this.#load(segment, places).finally(() => {
      this.#loading = undefined;
    });
  }

  #mayLoad(segment: Segment): boolean {
    return segment.state === 'sealed' && !segment.suspect && !segment.condemned;
  }

  async #load(segment: Segment, places: RecentPlaces | PlaceHints): Promise<void> {
    try {
      const directory = await readDirectory(this.#storage, segment.number, segment.seed, segment.bytes);
      if (!this.#mayLoad(segment)) return;
      const adding = places.add(segment.number, directory);
      while (adding.next().done !== true) await new Promise((resolve) => setImmediate(resolve));
    } catch {
      // The ids are an aid: without them look-ups go on in the index. `verify` reports a damaged footer.
    }
  }
}
