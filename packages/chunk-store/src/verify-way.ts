/** How far a verification has come, and what one that goes on from there looks at: see VerifyPosition. */
import type { Segment, SegmentTable } from './segment-table.ts';
import type { VerifyPosition } from './types.ts';

/** Segments with damage that a position names; past it, it does not move on. */
const DAMAGED_SEGMENTS_MAX = 10_000;

export class VerifyWay {
  chunks: number;
  bytes: number;
  readonly #known: ReadonlySet<number>;
  readonly #from: number;
  readonly #damaged: Set<number>;
  #next: number;
  #ended = false;

  /** `known`: segments with damage that is known already. */
  constructor(table: SegmentTable, from: VerifyPosition | undefined, known: ReadonlySet<number>) {
    this.#known = known;
    this.#from = from?.next ?? 0;
    this.#next = this.#from;
    this.#damaged = new Set(from?.damagedSegments.filter((number) => table.get(number) !== undefined));
    this.chunks = from?.chunks ?? 0;
    this.bytes = from?.bytes ?? 0;
  }

  get position(): VerifyPosition {
    const damagedSegments = [...this.#damaged].sort((a, b) => a - b);
    return { next: this.#next, damagedSegments, chunks: this.chunks, bytes: this.bytes };
  }

  leadsTo({ number }: Segment): boolean {
    return number >= this.#from || this.#damaged.has(number) || this.#known.has(number);
  }

  /** Whether it was verified before. */
  isAgain({ number }: Segment): boolean {
    return number < this.#from;
  }

  /** After a segment has been looked at: `chunks` and `bytes` are all so far. */
  pass(
    { number }: Segment,
    found: { isSealed: boolean; isDamaged: boolean; chunks: number; bytes: number },
  ): void {
    if (number >= this.#from) {
      // More comes into a segment that is not sealed: whoever goes on looks at it, and all after it, again.
      const isFull = found.isDamaged && this.#damaged.size >= DAMAGED_SEGMENTS_MAX;
      this.#ended ||= !found.isSealed || isFull;
      if (this.#ended) return;
      this.#next = number + 1;
      this.chunks = found.chunks;
      this.bytes = found.bytes;
    }
    if (found.isDamaged) this.#damaged.add(number);
    else this.#damaged.delete(number);
  }
}
