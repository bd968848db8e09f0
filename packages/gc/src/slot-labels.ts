/**
 * Whose each slot is: nobody's, one owner's, or several owners'. The memory of the accounts.
 *
 * Two bytes a slot, four from the 65,534th owner on; a segment's labels are made when its first slot
 * is labelled.
 */

/** No owner. */
export const NOBODY = 0;
/** Several owners. */
export const SHARED = 0xffffffff;

const SHARED_NARROW = 0xffff;
const LABELS_MIN = 64;

export class SlotLabels {
  readonly #segments = new Map<number, Uint16Array | Uint32Array>();
  readonly #slotsOf: (segment: number) => number;
  #wide = false;
  #lastSegment = 0;
  #lastLabels: Uint16Array | Uint32Array = new Uint16Array(0);

  /** @param slotsOf slots of a segment, 0 when not known */
  constructor(slotsOf: (segment: number) => number) {
    this.#slotsOf = slotsOf;
  }

  /** Notes that `owner` (1 or more) has the slot. */
  add(segment: number, slot: number, owner: number): void {
    if (owner >= SHARED_NARROW && !this.#wide) this.#widen();
    if (segment !== this.#lastSegment || slot >= this.#lastLabels.length) this.#open(segment, slot);
    const old = this.#lastLabels[slot]!;
    if (old === NOBODY) this.#lastLabels[slot] = owner;
    else if (old !== owner) this.#lastLabels[slot] = this.#wide ? SHARED : SHARED_NARROW;
  }

  get(segment: number, slot: number): number {
    const label = this.#segments.get(segment)?.[slot] ?? NOBODY;
    return label === SHARED_NARROW && !this.#wide ? SHARED : label;
  }

  segments(): Iterable<number> {
    return this.#segments.keys();
  }

  #make(length: number): Uint16Array | Uint32Array {
    return this.#wide ? new Uint32Array(length) : new Uint16Array(length);
  }

  #open(segment: number, slot: number): void {
    let labels = this.#segments.get(segment);
    if (labels === undefined || slot >= labels.length) {
      const known = this.#slotsOf(segment);
      let length = Math.max(LABELS_MIN, (labels?.length ?? 0) * 2);
      while (length <= slot) length *= 2;
      const larger = this.#make(known > slot ? known : length);
      if (labels !== undefined) larger.set(labels);
      this.#segments.set(segment, (labels = larger));
    }
    this.#lastSegment = segment;
    this.#lastLabels = labels;
  }

  #widen(): void {
    this.#wide = true;
    this.#lastSegment = 0;
    for (const [segment, labels] of this.#segments) {
      this.#segments.set(
        segment,
        Uint32Array.from(labels, (label) => (label === SHARED_NARROW ? SHARED : label)),
      );
    }
  }
}
