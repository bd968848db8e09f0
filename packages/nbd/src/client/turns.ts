/** Who may go now: a bounded number at once, with a bounded number of bytes together, first come first served. */

export class Turns {
  readonly #countMax: number;
  readonly #bytesMax: number;
  readonly #line: { readonly bytes: number; readonly go: () => void }[] = [];
  #count = 0;
  #bytes = 0;

  constructor(countMax: number, bytesMax: number) {
    this.#countMax = countMax;
    this.#bytesMax = bytesMax;
  }

  /** Runs the action in its turn. What alone is more than the bound goes alone. */
  async take<T>(bytes: number, action: () => Promise<T>): Promise<T> {
    if (this.#line.length > 0 || !this.#fits(bytes)) {
      await new Promise<void>((go) => this.#line.push({ bytes, go }));
    } else {
      this.#enter(bytes);
    }
    try {
      return await action();
    } finally {
      this.#count--;
      this.#bytes -= bytes;
      while (this.#line.length > 0 && this.#fits(this.#line[0]!.bytes)) {
        const next = this.#line.shift()!;
        this.#enter(next.bytes);
        next.go();
      }
    }
  }

  #fits(bytes: number): boolean {
    return this.#count === 0 || (this.#count < this.#countMax && this.#bytes + bytes <= this.#bytesMax);
  }

  #enter(bytes: number): void {
    this.#count++;
    this.#bytes += bytes;
  }
}
