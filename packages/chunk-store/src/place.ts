/** The 18 bytes of a place in the index: segment u48, run offset u32, run bytes u32, slot u32, little endian. */
import { PLACE_BYTES, type Place } from './types.ts';

export function writePlace(
  target: Uint8Array,
  at: number,
  segment: number,
  runOffset: number,
  runBytes: number,
  slot: number,
): void {
  const view = new DataView(target.buffer, target.byteOffset + at, PLACE_BYTES);
  view.setUint32(0, segment % 2 ** 32, true);
  view.setUint16(4, Math.floor(segment / 2 ** 32), true);
  view.setUint32(6, runOffset, true);
  view.setUint32(10, runBytes, true);
  view.setUint32(14, slot, true);
}

export function readPlace(bytes: Uint8Array, at = 0): Place {
  return {
    segment: u32(bytes, at) + (bytes[at + 4]! | (bytes[at + 5]! << 8)) * 2 ** 32,
    runOffset: u32(bytes, at + 6),
    runBytes: u32(bytes, at + 10),
    slot: u32(bytes, at + 14),
  };
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}
