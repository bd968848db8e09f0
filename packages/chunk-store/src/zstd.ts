/**
 * zstd frames with contexts that are kept: one for each direction in each thread, made when first needed.
 *
 * `node:zlib` has no synchronous call that keeps one. `zstdCompressSync` and its sister make a context and a stream object
 * around it for each call, which is half of the time for a run of 16 KiB (adr/0007). Below them is the native handle that
 * every stream of `node:zlib` drives; npm's own tar reader drives it by hand too. It is no documented
 * interface, so it is tried once before it is used: where it does not give back what went in, the documented calls do it all.
 */
import {
  constants,
  createZstdCompress,
  createZstdDecompress,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib';
import { ZSTD_LEVEL } from './limits.ts';

const OPTIONS = {
  params: {
    [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL,
    // The run's CRC covers the payload already, and its header has the length.
    [constants.ZSTD_c_checksumFlag]: 0,
  },
};

const MAGIC = 0xfd2fb528;
/** Fields of the frame header descriptor and block types: RFC 8878, 3.1.1. */
const SINGLE_SEGMENT = 0x20;
const RESERVED_CHECKSUM_DICTIONARY = 0x08 | 0x04 | 0x03;
const BLOCK_RLE = 1;
const BLOCK_RESERVED = 3;

/** What of the native handle is called here. */
interface NativeHandle {
  /** Called within `writeSync`; the context is of no use afterwards. */
  onerror: (message: string, code: number, name: string) => void;
  writeSync(
    flush: number,
    from: Uint8Array,
    fromOffset: number,
    fromLength: number,
    to: Uint8Array,
    toOffset: number,
    toLength: number,
  ): void;
}

/** What of the stream around it. */
interface NativeStream {
  readonly _handle: NativeHandle | null;
  /** After a call: bytes not filled of `to`, bytes not taken of `from`. */
  readonly _writeState: Uint32Array;
  destroy(): void;
}

class Context {
  readonly #make: () => NativeStream;
  #stream: NativeStream | undefined;
  #failures = 0;

  constructor(make: () => unknown) {
    this.#make = make as () => NativeStream;
  }

  /** Bytes of `to` that one whole frame filled; undefined when it was refused, not all taken, or more would have come. */
  run(from: Uint8Array, to: Uint8Array): number | undefined {
    const { _handle: handle, _writeState: state } = (this.#stream ??= this.#open());
    const failures = this.#failures;
    handle!.writeSync(constants.ZSTD_e_end, from, 0, from.byteLength, to, 0, to.byteLength);
    if (failures === this.#failures && state[1] === 0) return to.byteLength - state[0]!;
    // It may stand in the middle of a frame.
    this.close();
    return undefined;
  }

  close(): void {
    this.#stream?.destroy();
    this.#stream = undefined;
  }

  #open(): NativeStream {
    const stream = this.#make();
    // Instead of the stream's own, which would emit `error` later.
    stream._handle!.onerror = () => this.#failures++;
    return stream;
  }
}

const compressor = new Context(() => createZstdCompress(OPTIONS));
const decompressor = new Context(() => createZstdDecompress());
let scratch = new Uint8Array();
let isNativeKept: boolean | undefined;

/**
 * The frame of `raw`, or undefined when it would not be shorter. Valid until the next call.
 * Without a checksum, and with the length of what is in it.
 */
export function compressFrame(raw: Uint8Array): Uint8Array | undefined {
  let frame: Uint8Array | undefined;
  if ((isNativeKept ??= canKeep())) frame = compressKept(raw);
  frame ??= zstdCompressSync(raw, OPTIONS);
  return frame.byteLength < raw.byteLength ? frame : undefined;
}

/** Fills `raw` with what is in the frame; false when it is not one frame of exactly so many bytes: then `raw` holds anything. */
export function decompressFrame(frame: Uint8Array, raw: Uint8Array): boolean {
  // A frame that is whole and of that length leaves a context between frames, whatever else is wrong with it.
  if ((isNativeKept ??= canKeep()) && isWholeFrame(frame, raw.byteLength)) {
    return decompressor.run(frame, raw) === raw.byteLength;
  }
  return decompressOnce(frame, raw);
}

/** With the documented calls alone. */
export function decompressOnce(frame: Uint8Array, raw: Uint8Array): boolean {
  try {
    const bytes = zstdDecompressSync(frame, { maxOutputLength: Math.max(1, raw.byteLength) });
    if (bytes.byteLength !== raw.byteLength) return false;
    raw.set(bytes);
    return true;
  } catch {
    return false;
  }
}

function compressKept(raw: Uint8Array): Uint8Array | undefined {
  // The bound of zstd, ZSTD_compressBound, and a little.
  const bound = raw.byteLength + (raw.byteLength >> 7) + 512;
  if (scratch.byteLength < bound) scratch = new Uint8Array(bound);
  const length = compressor.run(raw, scratch);
  if (length === undefined || length < scratch.byteLength)
    return length === undefined ? undefined : scratch.subarray(0, length);
  compressor.close(); // by its bound that cannot be: more would have come
  return undefined;
}

/** Whether the handles are what this file takes them for. */
function canKeep(): boolean {
  try {
    const sample = Uint8Array.from({ length: 5000 }, (_, at) => (at % 7) + (at >> 8));
    // Twice: what is kept must not show.
    for (let time = 0; time < 2; time++) {
      const frame = compressKept(sample)?.slice();
      const back = new Uint8Array(sample.byteLength);
      if (frame === undefined || frame.byteLength >= sample.byteLength) return false;
      if (!isWholeFrame(frame, sample.byteLength) || !isSame(sample, frame)) return false;
      if (decompressor.run(frame, back) !== back.byteLength || Buffer.compare(back, sample) !== 0)
        return false;
    }
    return true;
  } catch {
    return false;
  }
}

function isSame(raw: Uint8Array, frame: Uint8Array): boolean {
  const back = new Uint8Array(raw.byteLength);
  return decompressOnce(frame, back) && Buffer.compare(back, raw) === 0;
}

/** Whether `frame` says that `rawBytes` are in it, and ends with its last block (RFC 8878, 3.1.1). */
function isWholeFrame(frame: Uint8Array, rawBytes: number): boolean {
  const bytes = frame.byteLength;
  if (bytes < 9 || word(frame, 0) !== MAGIC) return false;
  const descriptor = frame[4]!;
  if ((descriptor & RESERVED_CHECKSUM_DICTIONARY) !== 0) return false;
  const isSingle = (descriptor & SINGLE_SEGMENT) !== 0;
  let at = isSingle ? 5 : 6;
  let says: number;
  switch (descriptor >> 6) {
    case 0:
      if (!isSingle) return false;
      says = frame[at]!;
      at += 1;
      break;
    case 1:
      says = frame[at]! + frame[at + 1]! * 256 + 256;
      at += 2;
      break;
    case 2:
      says = word(frame, at);
      at += 4;
      break;
    default:
      return false;
  }
  if (says !== rawBytes) return false;
  for (;;) {
    if (at + 3 > bytes) return false;
    const header = frame[at]! + frame[at + 1]! * 256 + frame[at + 2]! * 65536;
    const type = (header >> 1) & 3;
    if (type === BLOCK_RESERVED) return false;
    at += 3 + (type === BLOCK_RLE ? 1 : header >>> 3);
    if ((header & 1) === 1) return at === bytes;
  }
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}
