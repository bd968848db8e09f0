/**
 * Replies as bytes: pure functions that fill a buffer and return how many bytes they used. `headerBytes` tells structured
 * chunks (CHUNK_HEADER_BYTES) from extended ones (EXTENDED_HEADER_BYTES); a connection has one or the other.
 */
import {
  CHUNK_DONE,
  CHUNK_HEADER_BYTES,
  ChunkType,
  EXTENDED_HEADER_BYTES,
  EXTENDED_REPLY_MAGIC,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  putU16,
  putU32,
  putU64,
} from './protocol.ts';

/** What stands before the data of a chunk of data, after its header: the offset. */
export const DATA_OFFSET_BYTES = 8;
/** The payload of a chunk that describes a hole. */
const HOLE_PAYLOAD_BYTES = 12;
/** The payload of an error chunk without its text; ERROR_OFFSET adds 8 behind it. */
const ERROR_PAYLOAD_BYTES = 6;

/**
 * Shorter holes are sent as zeros: a hole costs two chunk headers, up to 84 bytes, and the client a step. It must also
 * be longer than those, because they are written over the zeros of the hole.
 */
const HOLE_BYTES_MIN = 4096;

/**
 * What a reply says of its request: cookie and, extended, the offset (0 for compact requests), as halves so that no bigint
 * is made and none is rounded.
 */
export interface ReplyTo {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
}

export function putSimpleReply(buffer: Uint8Array, at: number, to: ReplyTo, errno: number): number {
  putU32(buffer, at, SIMPLE_REPLY_MAGIC);
  putU32(buffer, at + 4, errno);
  putU32(buffer, at + 8, to.cookieHigh);
  putU32(buffer, at + 12, to.cookieLow);
  return SIMPLE_REPLY_BYTES;
}

export function putChunkHeader(
  buffer: Uint8Array,
  at: number,
  headerBytes: number,
  to: ReplyTo,
  flags: number,
  type: number,
  length: number,
): number {
  putU16(buffer, at + 4, flags);
  putU16(buffer, at + 6, type);
  putU32(buffer, at + 8, to.cookieHigh);
  putU32(buffer, at + 12, to.cookieLow);
  if (headerBytes === CHUNK_HEADER_BYTES) {
    putU32(buffer, at, STRUCTURED_REPLY_MAGIC);
    putU32(buffer, at + 16, length);
  } else {
    putU32(buffer, at, EXTENDED_REPLY_MAGIC);
    putU32(buffer, at + 16, to.offsetHigh);
    putU32(buffer, at + 20, to.offsetLow);
    putU64(buffer, at + 24, length);
  }
  return headerBytes;
}

/**
 * An error chunk that ends the reply; `text` is UTF-8. With `place`, the offset where the request met the error, it is
 * an ERROR_OFFSET.
 */
export function putErrorChunk(
  buffer: Uint8Array,
  at: number,
  headerBytes: number,
  to: ReplyTo,
  errno: number,
  text: Uint8Array,
  place?: number,
): number {
  const type = place === undefined ? ChunkType.error : ChunkType.errorOffset;
  const length = ERROR_PAYLOAD_BYTES + text.byteLength + (place === undefined ? 0 : 8);
  const payload = at + putChunkHeader(buffer, at, headerBytes, to, CHUNK_DONE, type, length);
  putU32(buffer, payload, errno);
  putU16(buffer, payload + 4, text.byteLength);
  buffer.set(text, payload + ERROR_PAYLOAD_BYTES);
  if (place !== undefined) putU64(buffer, payload + ERROR_PAYLOAD_BYTES + text.byteLength, place);
  return headerBytes + length;
}

/** Bytes that `putErrorChunk` needs at most. */
export function errorChunkBytes(headerBytes: number, text: Uint8Array): number {
  return headerBytes + ERROR_PAYLOAD_BYTES + text.byteLength + 8;
}

/** Bytes of a block status chunk. */
export function statusChunkBytes(headerBytes: number, extents: number): number {
  return headerBytes === EXTENDED_HEADER_BYTES
    ? headerBytes + 8 + 16 * extents
    : headerBytes + 4 + 8 * extents;
}

/**
 * One block status chunk; `flags[i]` describes `lengths[i]` bytes. Structured chunks take lengths below 2^32, which the
 * length of a compact request is.
 */
export function putStatusChunk(
  buffer: Uint8Array,
  at: number,
  headerBytes: number,
  to: ReplyTo,
  chunkFlags: number,
  contextId: number,
  lengths: readonly number[],
  flags: readonly number[],
): number {
  const bytes = statusChunkBytes(headerBytes, lengths.length);
  const extended = headerBytes === EXTENDED_HEADER_BYTES;
  const type = extended ? ChunkType.blockStatusExt : ChunkType.blockStatus;
  let put = at + putChunkHeader(buffer, at, headerBytes, to, chunkFlags, type, bytes - headerBytes);
  putU32(buffer, put, contextId);
  put += 4;
  if (!extended) {
    for (let i = 0; i < lengths.length; i++) {
      putU32(buffer, put, lengths[i]!);
      putU32(buffer, put + 4, flags[i]!);
      put += 8;
    }
    return bytes;
  }
  putU32(buffer, put, lengths.length);
  put += 4;
  for (let i = 0; i < lengths.length; i++) {
    putU64(buffer, put, lengths[i]!);
    putU64(buffer, put + 8, flags[i]!);
    put += 16;
  }
  return bytes;
}

/**
 * Makes the chunks of a read's reply in place. The `length` bytes of data lie at `at + headerBytes + DATA_OFFSET_BYTES`;
 * `holes` are (offset on the device, length) pairs, ascending. Headers go where the zeros of holes are, and data after
 * a hole moves towards the front, so the reply is one piece and never longer than without holes.
 * @returns bytes of the reply, from `at` on
 */
export function putReadReply(
  buffer: Buffer,
  at: number,
  headerBytes: number,
  to: ReplyTo,
  offset: number,
  length: number,
  holes: readonly number[],
): number {
  const dataAt = at + headerBytes + DATA_OFFSET_BYTES;
  const end = offset + length;
  let put = at;
  let from = offset;
  let i = 0;
  while (i < holes.length) {
    const holeFrom = holes[i]!;
    let holeTo = holeFrom + holes[i + 1]!;
    i += 2;
    while (i < holes.length && holes[i] === holeTo) {
      holeTo += holes[i + 1]!;
      i += 2;
    }
    if (holeTo - holeFrom < HOLE_BYTES_MIN) continue;
    if (holeFrom > from)
      put = putDataChunk(buffer, put, headerBytes, to, 0, from, holeFrom - from, dataAt + (from - offset));
    const flags = holeTo === end ? CHUNK_DONE : 0;
    put += putChunkHeader(buffer, put, headerBytes, to, flags, ChunkType.offsetHole, HOLE_PAYLOAD_BYTES);
    putU64(buffer, put, holeFrom);
    putU32(buffer, put + 8, holeTo - holeFrom);
    put += HOLE_PAYLOAD_BYTES;
    from = holeTo;
  }
  if (from < end)
    put = putDataChunk(buffer, put, headerBytes, to, CHUNK_DONE, from, end - from, dataAt + (from - offset));
  return put - at;
}

/** Returns where the chunk ends. */
function putDataChunk(
  buffer: Buffer,
  at: number,
  headerBytes: number,
  to: ReplyTo,
  flags: number,
  offset: number,
  length: number,
  dataAt: number,
): number {
  const put = at + headerBytes + DATA_OFFSET_BYTES;
  if (dataAt !== put) buffer.copyWithin(put, dataAt, dataAt + length);
  putChunkHeader(buffer, at, headerBytes, to, flags, ChunkType.offsetData, DATA_OFFSET_BYTES + length);
  putU64(buffer, at + headerBytes, offset);
  return put + length;
}
