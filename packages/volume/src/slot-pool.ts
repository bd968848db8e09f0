/**
 * Memory for overlays: slots of one chunk each, in slabs of 1 MiB, and the bound on all of them.
 *
 * The bound is what makes writers wait, not a hard limit: a writer that was let in may take what its
 * request needs, so the pool can pass the bound by the writes in flight, which their senders bound.
 */
import { PAGE_BYTES, PagePool } from '@pando/common';

const SLAB_BYTES = PAGE_BYTES;

export class SlotPool {
  readonly chunkBytes: number;
  readonly #bytesMax: number;
  readonly pages: PagePool;
  readonly #slotsPerSlab: number;
  readonly #slabs: (Buffer | undefined)[] = [];
  readonly #freeInSlab: number[] = [];
  readonly #free: number[] = [];
  readonly #zeros: Buffer;
  #used = 0;
  #charged = 0;
  /** Fewest free slots since the last `trim`: the others were needed in the meantime. */
  #freeMin = 0;
  /** Called after slots were given back. */
  onFreed: () => void = () => undefined;

  constructor(chunkBytes: number, bytesMax: number, pages = new PagePool()) {
    this.chunkBytes = chunkBytes;
    this.#bytesMax = bytesMax;
    this.pages = pages;
    this.#slotsPerSlab = SLAB_BYTES / chunkBytes;
    this.#zeros = Buffer.alloc(chunkBytes);
  }

  get usedBytes(): number {
    return this.#used * this.chunkBytes + this.#charged;
  }

  /** Counts `bytes` of bookkeeping, or fewer when negative: what zeroed chunks take without a slot. */
  charge(bytes: number): void {
    this.#charged += bytes;
  }

  get bytesMax(): number {
    return this.#bytesMax;
  }

  /** Whether writers have to wait. */
  get exhausted(): boolean {
    return this.usedBytes >= this.#bytesMax;
  }

  /** A slot with undefined contents. */
  take(): number {
    this.#used++;
    const slot = this.#free.pop() ?? this.#grow();
    if (this.#free.length < this.#freeMin) this.#freeMin = this.#free.length;
    const slab = Math.floor(slot / this.#slotsPerSlab);
    this.#freeInSlab[slab] = this.#freeInSlab[slab]! - 1;
    return slot;
  }

  give(slot: number): void {
    this.#used--;
    this.#free.push(slot);
    const slab = Math.floor(slot / this.#slotsPerSlab);
    this.#freeInSlab[slab] = this.#freeInSlab[slab]! + 1;
  }

  /** Call after slots were given back: tells who waits for room. */
  settle(): void {
    this.onFreed();
  }

  /**
   * Returns slabs to the system when most slots were free ever since the last call: under a load that comes and goes with
   * each destage they are kept, because fresh memory is work for the kernel and for the garbage collector.
   */
  trim(): void {
    if (this.#used * 4 < this.#freeMin) this.#shrink(Math.floor(this.#freeMin / this.#slotsPerSlab));
    this.#freeMin = this.#free.length;
  }

  /** The slab that holds a slot, to be used with `offsetOf`; plain copies, no view per chunk. */
  slabOf(slot: number): Buffer {
    return this.#slabs[Math.floor(slot / this.#slotsPerSlab)]!;
  }

  offsetOf(slot: number): number {
    return (slot % this.#slotsPerSlab) * this.chunkBytes;
  }

  /** Whether a slot holds nothing but zeros. */
  isZero(slot: number): boolean {
    const at = this.offsetOf(slot);
    return this.slabOf(slot).compare(this.#zeros, 0, this.chunkBytes, at, at + this.chunkBytes) === 0;
  }

  #grow(): number {
    let slab = this.#slabs.indexOf(undefined);
    if (slab < 0) slab = this.#slabs.length;
    this.#slabs[slab] = this.pages.take();
    this.#freeInSlab[slab] = this.#slotsPerSlab;
    const first = slab * this.#slotsPerSlab;
    for (let slot = first + this.#slotsPerSlab - 1; slot > first; slot--) this.#free.push(slot);
    return first;
  }

  /** Drops at most so many slabs, of those that are all free. Costs the length of the free list. */
  #shrink(slabsMax: number): void {
    const empty = new Set<number>();
    for (const [slab, free] of this.#freeInSlab.entries()) {
      if (empty.size === slabsMax) break;
      if (free === this.#slotsPerSlab && this.#slabs[slab] !== undefined) empty.add(slab);
    }
    if (empty.size < 2) return;
    const kept = this.#free.filter((slot) => !empty.has(Math.floor(slot / this.#slotsPerSlab)));
    this.#free.length = 0;
    for (const slot of kept) this.#free.push(slot);
    for (const slab of empty) {
      this.pages.give(this.#slabs[slab]!);
      this.#slabs[slab] = undefined;
      this.#freeInSlab[slab] = 0;
    }
  }
}
