/**
 * How the payload of a run is stored: as it is, or compressed with zstd when that saves bytes.
 *
 * Decoding is done in WebAssembly, with memory that is kept, and into a buffer of the caller: see ADR 0006 for what else
 * was measured. node:zlib makes a native context for each call, and fresh buffers are what the garbage collector is busy with.
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

/** What of the decoder's module is called here; numbers are addresses and counts in its memory. */
interface Zstd {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly malloc: (bytes: number) => number;
  readonly free: (address: number) => void;
  readonly ZSTD_decompress: (to: number, toBytes: number, from: number, fromBytes: number) => number;
}

let zstd: Zstd | undefined;
/** Its memory: another buffer each time it has grown. */
let heap = new Uint8Array();
/** Room in it for a payload, and behind it for what comes out. */
let room = 0;
let roomBytes = 0;

/** `decode` of the package gives a fresh buffer for each run; the module itself writes where it is told to. */
class Decoder extends ZSTDDecoder {
  override _init(result: { readonly instance: { readonly exports: unknown } }): void {
    super._init(result);
    zstd = result.instance.exports as Zstd;
  }
}

const decoder = new Decoder();

/** Must have resolved before the first run is expanded; once for the process. */
export async function prepareCodec(): Promise<void> {
  await decoder.init();
  if (zstd === undefined) throw new PandoError('internal', 'the zstd decoder did not start');
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
  const raw = new Uint8Array(rawBytes);
  expandRunInto(stored, codec, raw);
  return raw;
}

/**
 * Fills `raw` with the raw bytes of a payload; after an error it holds anything.
 * @throws `chunk-corrupt` when they are not exactly as many
 */
export function expandRunInto(stored: Uint8Array, codec: number, raw: Uint8Array): void {
  const length = codec === CODEC_RAW ? copy(stored, raw) : decompress(stored, raw);
  // Whatever is wrong with the payload, it comes out with another length: errors of zstd are negative ones.
  if (length !== raw.byteLength) {
    throw new PandoError('chunk-corrupt', `a run does not decompress to ${raw.byteLength} bytes`);
  }
}

function copy(stored: Uint8Array, raw: Uint8Array): number {
  if (stored.byteLength === raw.byteLength) raw.set(stored);
  return stored.byteLength;
}

function decompress(stored: Uint8Array, raw: Uint8Array): number {
  const { memory, malloc, free, ZSTD_decompress } = zstd!;
  const bytes = stored.byteLength + raw.byteLength;
  if (bytes > roomBytes) {
    free(room);
    roomBytes = 0;
    room = malloc(bytes);
    if (room === 0) throw new PandoError('internal', `no memory to decompress ${raw.byteLength} bytes`);
    roomBytes = bytes;
  }
  if (heap.buffer !== memory.buffer) heap = new Uint8Array(memory.buffer);
  heap.set(stored, room);
  const to = room + stored.byteLength;
  let length: number;
  try {
    length = ZSTD_decompress(to, raw.byteLength, room, stored.byteLength);
  } catch (error) {
    throw new PandoError('chunk-corrupt', 'a run does not decompress', { cause: error });
  }
  if (heap.buffer !== memory.buffer) heap = new Uint8Array(memory.buffer);
  if (length === raw.byteLength) raw.set(heap.subarray(to, to + length));
  return length;
}
