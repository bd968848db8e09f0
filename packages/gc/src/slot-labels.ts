/**
 * Whose each slot is: for each the number of a set of owners. The memory of the accounts.
 *
 * Two bytes a slot, four once a set's number is past 65,535; a segment's labels are made when its first slot
 * is labelled.
 */
import { NOBODY, type OwnerSets } from './owner-sets.ts';

const NARROW_MAX = 0xffff;
const LABELS_MIN = 64;

export class SlotLabels {
  readonly #segments = new Map<number, Uint16Array | Uint32Array>();
  readonly #slotsOf: (segment: number) => number;
  readonly #sets: OwnerSets;
  #wide = false;
  #lastSegment = 0;
  #lastLabels: Uint16Array | Uint32Array = new Uint16Array(0);

  /** @param slotsOf slots of a segment, 0 when not known */
  constructor(sets: OwnerSets, slotsOf: (segment: number) => number) {
    this.#sets = sets;
    this.#slotsOf = slotsOf;
  }

  /** Notes that the owners of the set, who are somebody, have the slot, too. */
  add(segment: number, slot: number, set: number): void {
    if (segment !== this.#lastSegment || slot >= this.#lastLabels.length) this.#open(segment, slot);
    const old = this.#lastLabels[slot]!;
    if (old === set) return;
    const union = this.#sets.union(old, set);
    if (union > NARROW_MAX && !this.#wide) {
      this.#widen();
      this.#open(segment, slot);
    }
    this.#lastLabels[slot] = union;
  }

  get(segment: number, slot: number): number {
    return this.#segments.get(segment)?.[slot] ?? NOBODY;
  }

  segments(): Iterable<number> {
    return this.#segments.keys();
  }

  /** The labels of all segments, to be renumbered where they are: to numbers that are none greater. */
  all(): Iterable<Uint16Array | Uint32Array> {
    return this.#segments.values();
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
    for (const [segment, labels] of this.#segments) this.#segments.set(segment, Uint32Array.from(labels));
  }
}
