/** A byte buffer that grows at its end and can be cut. */
export class GrowingBytes {
  #bytes: Uint8Array;
  #length = 0;

  constructor(expected = 1024) {
    this.#bytes = new Uint8Array(expected);
  }

  get length(): number {
    return this.#length;
  }

  /** What was appended so far; a view that is valid until the next `append`. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  append(part: Uint8Array): void {
    const end = this.#length + part.byteLength;
    if (end > this.#bytes.byteLength) {
      const larger = new Uint8Array(Math.max(end, this.#bytes.byteLength * 2));
      larger.set(this.bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(part, this.#length);
    this.#length = end;
  }

  cut(length: number): void {
    this.#length = Math.min(this.#length, length);
  }
}
