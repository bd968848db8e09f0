/**
 * One bit for each (segment, slot): the memory of a mark.
 *
 * A bitmap is made when a segment's first bit is set. Segments that were sealed when the walk began get
 * the right size at once; bitmaps of others grow by doubling.
 */

const BITMAP_BYTES_MIN = 16;
const NONE = new Uint8Array(0);

export class SlotBits {
  readonly #bitmaps = new Map<number, Uint8Array>();
  readonly #slotsOf: (segment: number) => number;
  /** The bitmap used last: neighbours on disk are neighbours in a segment. */
  #lastSegment = 0;
  #lastBitmap: Uint8Array = NONE;

  /** @param slotsOf slots of a segment, 0 when not known */
  constructor(slotsOf: (segment: number) => number) {
    this.#slotsOf = slotsOf;
  }

  /** Sets a bit; true when it was not set before. */
  set(segment: number, slot: number): boolean {
    const at = slot >>> 3;
    if (segment !== this.#lastSegment || at >= this.#lastBitmap.length) this.#open(segment, at);
    const bit = 1 << (slot & 7);
    const byte = this.#lastBitmap[at]!;
    if ((byte & bit) !== 0) return false;
    this.#lastBitmap[at] = byte | bit;
    return true;
  }

  has(segment: number, slot: number): boolean {
    // Asked for every slot of a segment in one turn of the event loop: a look-up in the map for each takes six times as long.
    if (segment !== this.#lastSegment) this.#look(segment);
    return (this.#lastBitmap[slot >>> 3]! & (1 << (slot & 7))) !== 0; // nothing behind its end
  }

  /** The bitmap of a segment, if any bit of it was ever set; shorter than its slots when the rest is clear. */
  bitmap(segment: number): Uint8Array | undefined {
    return this.#bitmaps.get(segment);
  }

  segments(): Iterable<number> {
    return this.#bitmaps.keys();
  }

  /** Forgets a segment. */
  delete(segment: number): void {
    this.#bitmaps.delete(segment);
    if (segment === this.#lastSegment) this.#lastSegment = 0;
  }

  #look(segment: number): void {
    this.#lastSegment = segment;
    this.#lastBitmap = this.#bitmaps.get(segment) ?? NONE;
  }

  #open(segment: number, at: number): void {
    let bitmap = this.#bitmaps.get(segment);
    if (bitmap === undefined || at >= bitmap.length) {
      const known = Math.ceil(this.#slotsOf(segment) / 8);
      let bytes = Math.max(BITMAP_BYTES_MIN, (bitmap?.length ?? 0) * 2);
      while (bytes <= at) bytes *= 2;
      const larger = new Uint8Array(known > at ? known : bytes);
      if (bitmap !== undefined) larger.set(bitmap);
      this.#bitmaps.set(segment, (bitmap = larger));
    }
    this.#lastSegment = segment;
    this.#lastBitmap = bitmap;
  }
}
