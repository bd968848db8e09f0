/**
 * Which bytes of a read have come: each has to, once. Replies bring pieces in any order, nearly always ascending, so
 * the list of ranges is nearly always one range long.
 */
import { READ_RANGES_MAX } from './limits.ts';

export class Coverage {
  readonly #length: number;
  /** Start and end of each range that has come, ascending, not touching. */
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  constructor(length: number) {
    this.#length = length;
  }

  get complete(): boolean {
    return this.#length === 0 || (this.#starts[0] === 0 && this.#ends[0] === this.#length);
  }

  /** Notes `length` ≥ 1 bytes at `start`; false when they do not fit, came before, or lie too scattered. */
  add(start: number, length: number): boolean {
    const end = start + length;
    if (!(length > 0 && start >= 0 && end <= this.#length)) return false;
    let at = this.#starts.length;
    if (at > 0 && this.#ends[at - 1]! > start) at = this.#firstAfter(start);
    if (at > 0 && this.#ends[at - 1]! > start) return false;
    if (at < this.#starts.length && this.#starts[at]! < end) return false;
    const joinsBefore = at > 0 && this.#ends[at - 1] === start;
    const joinsAfter = this.#starts[at] === end;
    if (joinsBefore && joinsAfter) {
      this.#ends[at - 1] = this.#ends[at]!;
      this.#starts.splice(at, 1);
      this.#ends.splice(at, 1);
    } else if (joinsBefore) {
      this.#ends[at - 1] = end;
    } else if (joinsAfter) {
      this.#starts[at] = start;
    } else {
      if (this.#starts.length === READ_RANGES_MAX) return false;
      this.#starts.splice(at, 0, start);
      this.#ends.splice(at, 0, end);
    }
    return true;
  }

  /** Position of the first range that starts after `start`. */
  #firstAfter(start: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle]! <= start) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
