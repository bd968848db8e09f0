/** Replies as bytes: pure functions that fill a buffer and return how many bytes they used. */
import {
  CHUNK_DONE,
  CHUNK_HEADER_BYTES,
  ChunkType,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  putU16,
  putU32,
  putU64,
} from './protocol.ts';

/** Header and offset of a chunk of data; what a read reserves before its data. */
export const DATA_CHUNK_BYTES = CHUNK_HEADER_BYTES + 8;
const HOLE_CHUNK_BYTES = CHUNK_HEADER_BYTES + 12;

/**
 * Shorter holes are sent as zeros: a hole costs two chunk headers, 60 bytes, and the client a step. It must also
 * be longer than those, because they are written over the zeros of the hole.
 */
const HOLE_BYTES_MIN = 4096;

/** What identifies a request towards its client: the cookie, as two halves so that no bigint is made. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

export function putSimpleReply(buffer: Uint8Array, at: number, cookie: Cookie, errno: number): number {
  putU32(buffer, at, SIMPLE_REPLY_MAGIC);
  putU32(buffer, at + 4, errno);
  putU32(buffer, at + 8, cookie.cookieHigh);
  putU32(buffer, at + 12, cookie.cookieLow);
  return SIMPLE_REPLY_BYTES;
}

export function putChunkHeader(
  buffer: Uint8Array,
  at: number,
  cookie: Cookie,
  flags: number,
  type: number,
  length: number,
): number {
  putU32(buffer, at, STRUCTURED_REPLY_MAGIC);
  putU16(buffer, at + 4, flags);
  putU16(buffer, at + 6, type);
  putU32(buffer, at + 8, cookie.cookieHigh);
  putU32(buffer, at + 12, cookie.cookieLow);
  putU32(buffer, at + 16, length);
  return CHUNK_HEADER_BYTES;
}

/** An error chunk that ends the reply; `text` is UTF-8. */
export function putErrorChunk(
  buffer: Uint8Array,
  at: number,
  cookie: Cookie,
  errno: number,
  text: Uint8Array,
): number {
  putChunkHeader(buffer, at, cookie, CHUNK_DONE, ChunkType.error, 6 + text.byteLength);
  putU32(buffer, at + CHUNK_HEADER_BYTES, errno);
  putU16(buffer, at + CHUNK_HEADER_BYTES + 4, text.byteLength);
  buffer.set(text, at + CHUNK_HEADER_BYTES + 6);
  return CHUNK_HEADER_BYTES + 6 + text.byteLength;
}

/** One block status chunk; `flags[i]` describes `lengths[i]` bytes. */
export function putStatusChunk(
  buffer: Uint8Array,
  at: number,
  cookie: Cookie,
  chunkFlags: number,
  contextId: number,
  lengths: readonly number[],
  flags: readonly number[],
): number {
  putChunkHeader(buffer, at, cookie, chunkFlags, ChunkType.blockStatus, 4 + 8 * lengths.length);
  putU32(buffer, at + CHUNK_HEADER_BYTES, contextId);
  let to = at + CHUNK_HEADER_BYTES + 4;
  for (let i = 0; i < lengths.length; i++) {
    putU32(buffer, to, lengths[i]!);
    putU32(buffer, to + 4, flags[i]!);
    to += 8;
  }
  return to - at;
}

/**
 * Makes the structured reply of a read in place. The `length` bytes of data lie at `at + DATA_CHUNK_BYTES`; `holes`
 * are (offset on the device, length) pairs, ascending. Headers go where the zeros of holes are, and data after a
 * hole moves towards the front, so the reply is one piece and never longer than without holes.
 * @returns bytes of the reply, from `at` on
 */
export function putReadReply(
  buffer: Buffer,
  at: number,
  cookie: Cookie,
  offset: number,
  length: number,
  holes: readonly number[],
): number {
  const dataAt = at + DATA_CHUNK_BYTES;
  const end = offset + length;
  let to = at;
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
      to = putDataChunk(buffer, to, cookie, 0, from, holeFrom - from, dataAt + (from - offset));
    putChunkHeader(buffer, to, cookie, holeTo === end ? CHUNK_DONE : 0, ChunkType.offsetHole, 12);
    putU64(buffer, to + CHUNK_HEADER_BYTES, holeFrom);
    putU32(buffer, to + CHUNK_HEADER_BYTES + 8, holeTo - holeFrom);
    to += HOLE_CHUNK_BYTES;
    from = holeTo;
  }
  if (from < end)
    to = putDataChunk(buffer, to, cookie, CHUNK_DONE, from, end - from, dataAt + (from - offset));
  return to - at;
}

function putDataChunk(
  buffer: Buffer,
  at: number,
  cookie: Cookie,
  flags: number,
  offset: number,
  length: number,
  dataAt: number,
): number {
  const to = at + DATA_CHUNK_BYTES;
  if (dataAt !== to) buffer.copyWithin(to, dataAt, dataAt + length);
  putChunkHeader(buffer, at, cookie, flags, ChunkType.offsetData, 8 + length);
  putU64(buffer, at + CHUNK_HEADER_BYTES, offset);
  return to + length;
}
