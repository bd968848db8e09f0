/** How the payload of a run is stored: as it is, or compressed with zstd when that saves bytes. */
import { PandoError } from '@pando/common';
import { CODEC_RAW } from './segment-format.ts';
import { compressFrame, decompressFrame } from './zstd.ts';

/** The compressed bytes, valid until the next call, or undefined when they would not be fewer. */
export function compressRun(raw: Uint8Array): Uint8Array | undefined {
  return compressFrame(raw);
}

/**
 * The raw bytes of a payload, fresh and not shared with `stored`.
 * @throws `chunk-corrupt` when they do not come out as `rawBytes` bytes
 */
export function expandRun(stored: Uint8Array, codec: number, rawBytes: number): Uint8Array {
  const raw = new Uint8Array(rawBytes);
  expandRunInto(stored, codec, raw);
  return raw;
}

/**
 * Fills `raw` with the raw bytes of a payload; after an error it holds anything.
 * @throws `chunk-corrupt` when they are not exactly as many
 */
export function expandRunInto(stored: Uint8Array, codec: number, raw: Uint8Array): void {
  if (codec === CODEC_RAW ? copy(stored, raw) : decompressFrame(stored, raw)) return;
  throw new PandoError('chunk-corrupt', `a run does not decompress to ${raw.byteLength} bytes`);
}

function copy(stored: Uint8Array, raw: Uint8Array): boolean {
  if (stored.byteLength !== raw.byteLength) return false;
  raw.set(stored);
  return true;
}
