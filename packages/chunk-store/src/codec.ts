/** How the payload of a run is stored: as it is, or compressed with zstd when that saves bytes. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { PandoError } from '@pando/common';
import { ZSTD_LEVEL } from './limits.ts';
import { CODEC_RAW } from './segment-format.ts';

const COMPRESS_OPTIONS = {
  params: {
    [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL,
    // The run's CRC covers the payload already, and its header has the length.
    [constants.ZSTD_c_checksumFlag]: 0,
  },
};

/** The compressed bytes, or undefined when they would not be fewer. */
export function compressRun(raw: Uint8Array): Uint8Array | undefined {
  const stored = zstdCompressSync(raw, COMPRESS_OPTIONS);
  return stored.byteLength < raw.byteLength ? stored : undefined;
}

/**
 * The raw bytes of a payload, fresh and not shared with `stored`.
 * @throws `chunk-corrupt` when they do not come out as `rawBytes` bytes
 */
export function expandRun(stored: Uint8Array, codec: number, rawBytes: number): Uint8Array {
  if (codec === CODEC_RAW) return stored.slice();
  let raw: Uint8Array;
  try {
    raw = zstdDecompressSync(stored, { chunkSize: Math.max(64, rawBytes), maxOutputLength: rawBytes });
  } catch (error) {
    throw new PandoError('chunk-corrupt', 'a run does not decompress', { cause: error });
  }
  if (raw.byteLength !== rawBytes) {
    throw new PandoError('chunk-corrupt', `a run decompresses to ${raw.byteLength} bytes, not ${rawBytes}`);
  }
  return new Uint8Array(raw.buffer, raw.byteOffset, rawBytes); // not a Buffer, whose slice() is a view
}
