/**
 * Memory for runs: slots of one size in pages of a pool that others share (`PagePool`). A slot is free, out (taken, and neither in the
 * cache nor given back), live (in the cache) or lost: what was in it has been evicted, but somebody may still
 * read it. A page of which half is lost goes as a whole, with the runs that are still live in it.
 */
import { ID_BYTES, PAGE_BYTES, type PagePool } from '@pando/common';
import { NODE_BYTES } from '@pando/tree';
import { CachedRun } from './cached-run.ts';
import { RUN_RAW_BYTES } from './limits.ts';

/** Memory of a run besides its bytes and ids, roughly. */
const ENTRY_OVERHEAD_BYTES = 200;

export class RunPage {
  readonly memory: Buffer;
  readonly buffer: ArrayBufferLike;
  /** By slot: what is, or was, there. */
  readonly runs: CachedRun[] = [];
  live = 0;
  lost = 0;
  out = 0;
  /** It is no longer one of the pages. */
  gone = false;

  constructor(memory: Buffer) {
    this.memory = memory;
    this.buffer = memory.buffer;
  }
}

export class RunMemory {
  readonly #pool: PagePool;
  readonly #slotBytes: number;
  readonly #idsBytes: number;
  readonly #slotsPerPage: number;
  readonly #pagesMax: number;
  readonly #pages: RunPage[] = [];
  readonly #free: CachedRun[] = [];
  /** Told of each live run of a page that goes. */
  onGone: (run: CachedRun) => void = () => undefined;

  /** Where there is less than a page to have, a page has fewer slots. */
  constructor(bytesMax: number, chunkBytes: number, pool: PagePool) {
    this.#pool = pool;
    this.#idsBytes = (RUN_RAW_BYTES / NODE_BYTES) * ID_BYTES;
    this.#slotBytes = Math.max(RUN_RAW_BYTES, chunkBytes) + this.#idsBytes;
    const cost = this.#slotBytes + ENTRY_OVERHEAD_BYTES;
    this.#slotsPerPage = Math.min(Math.floor(PAGE_BYTES / this.#slotBytes), Math.floor(bytesMax / cost));
    this.#pagesMax = this.#slotsPerPage === 0 ? 0 : Math.floor(bytesMax / (this.#slotsPerPage * cost));
  }

  get bytes(): number {
    return this.#pages.length * this.#slotsPerPage * (this.#slotBytes + ENTRY_OVERHEAD_BYTES);
  }

  get pages(): number {
    return this.#pages.length;
  }

  /** Whether a run of that size has a place in a slot, and there are any. */
  fits(rawBytes: number, idsBytes: number): boolean {
    return this.#pagesMax > 0 && rawBytes + idsBytes <= this.#slotBytes;
  }

  /** A free slot as memory for a run of that size, from another page if there may be one; undefined when there is none. */
  take(rawBytes: number, idsBytes: number): CachedRun | undefined {
    if (this.#free.length === 0) this.#grow();
    let run = this.#free.pop();
    if (run === undefined) return undefined;
    const page = run.page!;
    if (run.raw.byteLength !== rawBytes || run.ids.byteLength !== idsBytes) {
      run = page.runs[run.slot] = this.#runAt(page, run.slot, rawBytes, idsBytes);
    }
    page.out++;
    return run;
  }

  /** A slot that was out is live. False when its page is gone. */
  use(run: CachedRun): boolean {
    const page = run.page;
    if (page === undefined || page.gone) return false;
    page.out--;
    page.live++;
    return true;
  }

  /** Takes back a slot that is out, or that is live and no longer in the cache. */
  give(run: CachedRun, wasLive: boolean): void {
    const page = run.page;
    if (page === undefined || page.gone) return;
    if (wasLive) page.live--;
    else page.out--;
    if (!run.kept) this.#free.push(run);
    else if (++page.lost * 2 > this.#slotsPerPage) this.#drop(page);
  }

  /** Gives up the page whose runs were used least. */
  shrink(): void {
    let least: RunPage | undefined;
    let leastUsed = Infinity;
    for (const page of this.#pages) {
      const used = page.runs.reduce((count, run) => count + (run.at >= 0 && run.used ? 1 : 0), 0);
      if (used < leastUsed) [least, leastUsed] = [page, used];
    }
    if (least !== undefined) this.#drop(least);
  }

  #grow(): void {
    if (this.#pages.length >= this.#pagesMax) return;
    const memory = this.#pool.tryTake();
    if (memory === undefined) return;
    const page = new RunPage(memory);
    for (let slot = 0; slot < this.#slotsPerPage; slot++) {
      page.runs.push(this.#runAt(page, slot, this.#slotBytes - this.#idsBytes, this.#idsBytes));
    }
    for (let slot = this.#slotsPerPage - 1; slot >= 0; slot--) this.#free.push(page.runs[slot]!);
    this.#pages.push(page);
  }

  #runAt(page: RunPage, slot: number, rawBytes: number, idsBytes: number): CachedRun {
    return new CachedRun(rawBytes, idsBytes, page, slot, slot * this.#slotBytes);
  }

  #drop(page: RunPage): void {
    page.gone = true;
    this.#pages.splice(this.#pages.indexOf(page), 1);
    let isHeld = page.lost > 0 || page.out > 0;
    for (const run of page.runs) {
      if (run.at < 0) continue;
      isHeld ||= run.kept;
      this.onGone(run);
    }
    const others = this.#free.filter((run) => run.page !== page);
    this.#free.length = 0;
    for (const run of others) this.#free.push(run);
    if (isHeld) this.#pool.leave();
    else this.#pool.give(page.memory);
  }
}
