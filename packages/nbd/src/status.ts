/**
 * Block status as a reply may carry it: what a source says is made to hold to the protocol's rules, whatever the source
 * does, and payloads that choose contexts are taken apart. Pure.
 */
import type { StatusExtents } from '@pando/block-device';
import type { SelectedContext } from './contexts.ts';
import { getU32 } from './protocol.ts';

/** Effect length in front of the context ids of a payload. */
const EFFECT_LENGTH_BYTES = 8;

/**
 * Extents with equal neighbours merged, none empty, cut to `length` bytes in all and to `extentsMax`: so all but the last
 * end before the request does, and lengths of a compact request fit 32 bits. Empty when nothing was described.
 */
export function tidyExtents(found: StatusExtents, length: number, extentsMax: number): StatusExtents {
  const lengths: number[] = [];
  const flags: number[] = [];
  let rest = length;
  for (let i = 0; i < found.lengths.length && rest > 0; i++) {
    const bytes = Math.min(found.lengths[i]!, rest);
    if (bytes <= 0) continue;
    if (flags.length > 0 && flags.at(-1) === found.flags[i]) {
      lengths[lengths.length - 1]! += bytes;
    } else {
      if (lengths.length === extentsMax) break;
      lengths.push(bytes);
      flags.push(found.flags[i]!);
    }
    rest -= bytes;
  }
  return { lengths, flags };
}

/** Shortest extents that are expected: for `length` bytes, more of them than that are not asked for. */
const EXTENT_BYTES_MIN = 512;

/** Extents that each of so many contexts may say of `length` bytes, when all of a reply has `extentsMax`. */
export function extentsOfEach(length: number, contexts: number, extentsMax: number): number {
  return Math.max(1, Math.min(Math.floor(extentsMax / contexts), Math.floor(length / EXTENT_BYTES_MIN) + 2));
}

/** Whether a BLOCK_STATUS payload of so many bytes can name some of `contexts` contexts, each once. */
export function isStatusPayload(payloadBytes: number, contexts: number): boolean {
  const ids = (payloadBytes - EFFECT_LENGTH_BYTES) / 4;
  return Number.isInteger(ids) && ids >= 1 && ids <= contexts;
}

export interface StatusChoice {
  /** The range that is asked about. */
  readonly length: number;
  readonly contexts: readonly SelectedContext[];
}

/** What a payload that `isStatusPayload` asks for; undefined when it names a context twice or one that was not selected. */
export function parseStatusPayload(
  payload: Uint8Array,
  selected: readonly SelectedContext[],
): StatusChoice | undefined {
  const length = getU32(payload, 0) * 0x1_0000_0000 + getU32(payload, 4);
  const contexts: SelectedContext[] = [];
  for (let at = EFFECT_LENGTH_BYTES; at < payload.length; at += 4) {
    const id = getU32(payload, at);
    const context = selected.find((candidate) => candidate.id === id);
    if (context === undefined || contexts.includes(context)) return undefined;
    contexts.push(context);
  }
  return { length, contexts };
}
