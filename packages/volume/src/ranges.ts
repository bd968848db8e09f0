/** A set of whole numbers kept as sorted ranges that neither overlap nor touch: [start, end) pairs. */
export class Ranges {
  #starts: number[] = [];
  #ends: number[] = [];

  get count(): number {
    return this.#starts.length;
  }

  startOf(index: number): number {
    return this.#starts[index]!;
  }

  endOf(index: number): number {
    return this.#ends[index]!;
  }

  /** Adds [start, end); joins it with what it overlaps or touches. */
  add(start: number, end: number): void {
    if (end <= start) return;
    const first = lowerBound(this.#ends, start);
    let last = first;
    let from = start;
    let to = end;
    while (last < this.#starts.length && this.#starts[last]! <= end) {
      from = Math.min(from, this.#starts[last]!);
      to = Math.max(to, this.#ends[last]!);
      last++;
    }
    this.#starts.splice(first, last - first, from);
    this.#ends.splice(first, last - first, to);
  }

  clear(): void {
    this.#starts.length = 0;
    this.#ends.length = 0;
  }

  has(value: number): boolean {
    const index = lowerBound(this.#ends, value + 1);
    return index < this.#starts.length && this.#starts[index]! <= value;
  }

  /** The first range that ends after `value`, or `count`. */
  indexAfter(value: number): number {
    return lowerBound(this.#ends, value + 1);
  }

  /** All ranges as start, end pairs. */
  toPairs(): Float64Array {
    const pairs = new Float64Array(this.#starts.length * 2);
    for (let i = 0; i < this.#starts.length; i++) {
      pairs[2 * i] = this.#starts[i]!;
      pairs[2 * i + 1] = this.#ends[i]!;
    }
    return pairs;
  }
}

/** Index of the first element that is at least `value`. */
function lowerBound(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
