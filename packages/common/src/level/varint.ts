/** Reads LevelDB's encodings one after another. Past the end, or of what is none, everything is 0 and `failed` set. */
export class LevelReader {
  readonly #bytes: Buffer;
  at: number;
  failed = false;

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }

  get done(): boolean {
    return this.failed || this.at >= this.#bytes.length;
  }

  varint(): number {
    let value = 0;
    for (let shift = 1; shift < 2 ** 50; shift *= 128) {
      const byte = this.#bytes[this.at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * shift;
      if (byte < 0x80) return value;
    }
    this.failed = true;
    return 0;
  }

  /** A length and so many bytes: a view. */
  slice(): Buffer {
    return this.take(this.varint());
  }

  take(bytes: number): Buffer {
    const end = this.at + bytes;
    if (end > this.#bytes.length) this.failed = true;
    const part = this.#bytes.subarray(this.at, end);
    this.at = end;
    return part;
  }
}
