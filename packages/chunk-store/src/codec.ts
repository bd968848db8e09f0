/**
 * How the payload of a run is stored: as it is, or compressed with zstd when that saves bytes.
 *
 * Decoding is done in WebAssembly, with memory that is kept; node:zlib makes a native context for each call. Measured
 * on 16 KiB runs: 35–41 µs of CPU against 41–44 µs. On reads that miss the cache, one run each: 19,200 → 23,500/s at depth 32,
 * garbage collection 19.7 → 16.7 % of the main thread; what causes the rest of it has not been found out.
 */
import { constants, zstdCompressSync } from 'node:zlib';
import { ZSTDDecoder } from 'zstddec';
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

const decoder = new ZSTDDecoder();

/** Must have resolved before the first `expandRun`; once for the process. */
export function prepareCodec(): Promise<void> {
  return decoder.init();
}

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
    raw = decoder.decode(stored, rawBytes);
  } catch (error) {
    throw new PandoError('chunk-corrupt', 'a run does not decompress', { cause: error });
  }
  // Whatever is wrong with the payload, it comes out with another length: errors of zstd are lengths past all bounds.
  if (raw.byteLength !== rawBytes) {
    throw new PandoError('chunk-corrupt', `a run does not decompress to ${rawBytes} bytes`);
  }
  return raw;
}
