/**
 * Chunks that are on their way: handed in and not yet appended (*in flight*), or appended and not
 * yet in the index (*pending*). The first place to look for a duplicate, and where a reader finds what
 * the index does not know yet.
 *
 * Bounded by the batches in flight and by `pendingBytesMax`.
 */
import { IdTable } from './id-table.ts';
import type { Place } from './types.ts';

export class FreshChunks {
  readonly #table = new IdTable(1024);
  /** Settles (never rejects) when an in-flight chunk has been appended or given up. */
  #settled: (Promise<void> | undefined)[] = [];
  #segments = new Float64Array(this.#table.capacity); // 0: in flight
  #runOffsets: Uint32Array = new Uint32Array(this.#table.capacity);
  #runBytes: Uint32Array = new Uint32Array(this.#table.capacity);
  #slots: Uint32Array = new Uint32Array(this.#table.capacity);

  get size(): number {
    return this.#table.size;
  }

  /** The entry of an id, or -1; valid until the next change of the table. */
  indexOf(ids: Uint8Array, offset: number): number {
    return this.#table.indexOf(ids, offset);
  }

  /** The segment of an entry; 0 while it is in flight. */
  segmentOf(entry: number): number {
    return this.#segments[entry]!;
  }

  slotOf(entry: number): number {
    return this.#slots[entry]!;
  }

  placeOf(entry: number): Place {
    return {
      segment: this.#segments[entry]!,
      runOffset: this.#runOffsets[entry]!,
      runBytes: this.#runBytes[entry]!,
      slot: this.#slots[entry]!,
    };
  }

  settledOf(entry: number): Promise<void> | undefined {
    return this.#settled[entry];
  }

  addInFlight(ids: Uint8Array, offset: number, settled: Promise<void>): void {
    const entry = this.#table.add(ids, offset);
    this.#reserve();
    this.#segments[entry] = 0;
    this.#settled[entry] = settled;
  }

  /** An in-flight chunk has been appended; one that came from elsewhere (a compaction) is added. */
  setPlace(
    ids: Uint8Array,
    offset: number,
    segment: number,
    runOffset: number,
    runBytes: number,
    slot: number,
  ): void {
    const entry = this.#table.add(ids, offset);
    this.#reserve();
    this.#segments[entry] = segment;
    this.#runOffsets[entry] = runOffset;
    this.#runBytes[entry] = runBytes;
    this.#slots[entry] = slot;
    this.#settled[entry] = undefined;
  }

  /** Gives an in-flight chunk up. */
  removeInFlight(ids: Uint8Array, offset: number): void {
    const entry = this.#table.indexOf(ids, offset);
    if (entry >= 0 && this.#segments[entry] === 0) this.#remove(ids, offset);
  }

  /** Removes a chunk that is pending at exactly this place; a newer one of the same id stays. */
  removePlaced(ids: Uint8Array, offset: number, segment: number, slot: number): void {
    const entry = this.#table.indexOf(ids, offset);
    if (entry >= 0 && this.#segments[entry] === segment && this.#slots[entry] === slot)
      this.#remove(ids, offset);
  }

  #remove(ids: Uint8Array, offset: number): void {
    const entry = this.#table.remove(ids, offset);
    this.#settled[entry] = undefined;
  }

  #reserve(): void {
    const capacity = this.#table.capacity;
    if (capacity === this.#segments.length) return;
    const segments = new Float64Array(capacity);
    segments.set(this.#segments);
    this.#segments = segments;
    this.#runOffsets = grown(this.#runOffsets, capacity);
    this.#runBytes = grown(this.#runBytes, capacity);
    this.#slots = grown(this.#slots, capacity);
  }
}

function grown(old: Uint32Array, capacity: number): Uint32Array {
  const larger = new Uint32Array(capacity);
  larger.set(old);
  return larger;
}
