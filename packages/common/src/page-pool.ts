/**
 * Memory in pages of 1 MiB, with one bound for all who share a pool: those who need a page (`take`) and those who can do with less
 * (`tryTake`), which give pages back when others are short of them.
 *
 * Pages change hands without V8: a buffer that was let go is collected when enough of them have come together, so memory that moves
 * from one user to another would count twice for a while. And pages of a mebibyte come from mmap and go back to the
 * system, where small pieces leave holes in the heap of malloc.
 */
import { MiB } from './limits.ts';

export const PAGE_BYTES = MiB;

export class PagePool {
  readonly #pagesMax: number;
  readonly #free: Buffer[] = [];
  #lent = 0;
  /** Fewest free pages since the last `trim`: nobody has needed those. */
  #freeMin = 0;
  #wanted = false;
  /** Asked when somebody needs a page and there is none: whether one was given back. */
  onShortage: () => boolean = () => false;

  constructor(pagesMax = Infinity) {
    this.#pagesMax = pagesMax;
  }

  /** Pages that are in use. */
  get lent(): number {
    return this.#lent;
  }

  /** A page, with anything in it. Past the bound too, when nobody gives one back: whoever asks has bounds of his own. */
  take(): Buffer {
    if (this.#lent >= this.#pagesMax) this.onShortage();
    return this.#lend();
  }

  /** A page, unless that would pass the bound. */
  tryTake(): Buffer | undefined {
    if (this.#lent < this.#pagesMax) return this.#lend();
    this.#wanted = true;
    return undefined;
  }

  /** Whether somebody who can do with less would have taken more since this was asked last. */
  wasWanted(): boolean {
    const wanted = this.#wanted;
    this.#wanted = false;
    return wanted;
  }

  /** Takes a page back that nobody reads or writes any more. */
  give(page: Buffer): void {
    this.#lent--;
    this.#free.push(page);
  }

  /** Counts a page as given back that somebody may still read: it is left to the garbage collector. */
  leave(): void {
    this.#lent--;
  }

  /** Lets go of pages that nobody has asked for since the last call. */
  trim(): void {
    this.#free.length -= this.#freeMin;
    this.#freeMin = this.#free.length;
  }

  #lend(): Buffer {
    this.#lent++;
    const page = this.#free.pop();
    if (this.#free.length < this.#freeMin) this.#freeMin = this.#free.length;
    return page ?? Buffer.allocUnsafeSlow(PAGE_BYTES);
  }
}
