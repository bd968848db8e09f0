/**
 * What a walk has found alive, and what the barrier has seen used since.
 *
 * A slot has a bit for each *level* it was found at: level 0 says "alive" and no more, level n that the
 * chunk was walked as a node of level n, its whole subtree with it. They are told apart because
 * one chunk can be both: anyone can write a data chunk whose bytes are those of somebody's node, and
 * such a chunk, met as data first, must not keep the node's children from being marked. A hit of the barrier sets level 0:
 * alive, but no walk stops there.
 *
 * Nodes that are in no candidate (on their way into the open segment when the collection began, so few) are told
 * apart by id, as they may have no slot yet.
 *
 * Memory: one bit a slot, and one more for each level of which a segment holds a node (in practice two
 * more: leaves and the level above).
 */
import type { SegmentInfo } from '@pando/chunk-store';
import { IdSet } from '@pando/common';
import { SlotBits } from './slot-bits.ts';

/** Levels a tree can have: chunks (0) and nodes up to a disk of 128 ** 7 chunks. */
export const LEVELS_MAX = 8;

/** How many bits of a byte are set. */
const BITS_OF = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

export class Marks {
  readonly #levels: SlotBits[] = [];
  readonly #candidates: ReadonlyMap<number, number>;
  readonly #walkedElsewhere: IdSet[] = [];

  constructor(candidates: readonly SegmentInfo[]) {
    const slots = new Map(candidates.map((info) => [info.segment, info.slots]));
    const slotsOf = (segment: number): number => slots.get(segment) ?? 0;
    this.#candidates = slots;
    for (let level = 0; level < LEVELS_MAX; level++) {
      this.#levels.push(new SlotBits(slotsOf));
      this.#walkedElsewhere.push(new IdSet());
    }
  }

  /** Marks a chunk that a walk has come to at `level`; true when none had come to it at that level before. */
  meet(segment: number, slot: number, level: number, ids: Uint8Array, offset: number): boolean {
    const isNew = this.mark(segment, slot, level);
    if (level === 0 || this.#candidates.has(segment)) return isNew;
    const walked = this.#walkedElsewhere[level]!;
    const before = walked.size;
    walked.add(ids, offset);
    return walked.size > before;
  }

  /** Sets the bit of a slot for `level`; true when it was not set before. */
  mark(segment: number, slot: number, level: number): boolean {
    return this.#levels[level]!.set(segment, slot);
  }

  /** Whether the bit of a slot is set for `level`. */
  isMarked(segment: number, slot: number, level: number): boolean {
    return this.#levels[level]!.has(segment, slot);
  }

  isLive(segment: number, slot: number): boolean {
    for (const level of this.#levels) {
      if (level.has(segment, slot)) return true;
    }
    return false;
  }

  /** How many of the first `slots` slots of a segment are alive. */
  liveSlots(segment: number, slots: number): number {
    const bitmaps = this.#levels
      .map((level) => level.bitmap(segment))
      .filter((bitmap) => bitmap !== undefined);
    const [first = new Uint8Array(0), ...others] = bitmaps.sort((a, b) => b.length - a.length);
    const end = Math.min(first.length, Math.ceil(slots / 8));
    let live = 0;
    for (let at = 0; at < end; at++) {
      let byte = first[at]!;
      for (let i = 0; i < others.length; i++) byte |= others[i]![at] ?? 0;
      live += BITS_OF[byte]!;
    }
    return live;
  }

  /** Every segment with a marked slot. */
  segments(): Set<number> {
    const all = new Set<number>();
    for (const level of this.#levels) for (const segment of level.segments()) all.add(segment);
    return all;
  }

  /** Forgets a segment that is gone. */
  delete(segment: number): void {
    for (const level of this.#levels) level.delete(segment);
  }
}
