/**
 * Buffers for the data of writes that have to wait, used again: a writer that is faster than destage waits with every write, and
 * fresh buffers of a mebibyte for each would be dead as fast as V8 lets them be.
 */
const SHIFT_MIN = 12;
const SHIFT_MAX = 25;
/** Buffers that are kept for reuse. */
const KEPT_BYTES_MAX = 8 * 1024 * 1024;

export class CopyPool {
  readonly #kept: Buffer[][] = Array.from({ length: SHIFT_MAX + 1 }, () => []);
  #keptBytes = 0;

  /** A copy of `data`, to be given back. */
  copy(data: Uint8Array): Buffer {
    const shift = Math.max(SHIFT_MIN, 32 - Math.clz32(data.byteLength - 1));
    const kept = shift <= SHIFT_MAX ? this.#kept[shift]!.pop() : undefined;
    if (kept !== undefined) this.#keptBytes -= kept.byteLength;
    const buffer = kept ?? Buffer.allocUnsafeSlow(shift <= SHIFT_MAX ? 1 << shift : data.byteLength);
    buffer.set(data);
    return buffer.subarray(0, data.byteLength);
  }

  /** Takes a copy back that nobody reads any more. */
  give(copy: Buffer): void {
    const whole = Buffer.from(copy.buffer);
    const shift = 31 - Math.clz32(whole.byteLength);
    if (shift > SHIFT_MAX || this.#keptBytes + whole.byteLength > KEPT_BYTES_MAX) return;
    this.#kept[shift]!.push(whole);
    this.#keptBytes += whole.byteLength;
  }
}
