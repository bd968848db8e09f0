/**
 * Replies off the wire and into the calls that wait for them. Every number in them is held against what was asked:
 * a server can fail a connection, but not write outside of a target, leave stale bytes in it, or make the client
 * gather more than the limits say.
 */
import { PandoError } from '@pando/common';
import {
  CHUNK_DONE,
  ChunkType,
  Command,
  EXTENDED_HEADER_BYTES,
  EXTENDED_REPLY_MAGIC,
  NbdErrno,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  getU16,
  getU32,
} from '../protocol.ts';
import type { ByteReader } from './byte-reader.ts';
import type { ClientSession } from './client-handshake.ts';
import { cleanText, protocolError } from './client-handshake.ts';
import { Coverage } from './coverage.ts';
import { CHUNK_BYTES_MAX, ERROR_CHUNKS_MAX, EXTENTS_MAX } from './limits.ts';

/** Bytes of extents that are parsed at a time. */
const EXTENT_BLOCK_BYTES = 64 * 1024;

/** A request that is on its way. */
export interface Call {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  /** READ: where the data goes. */
  readonly target: Uint8Array | undefined;
  readonly targetOffset: number;
  readonly coverage: Coverage | undefined;
  /** Holes that replies reported, as (offset, length); chunks may come in any order. */
  readonly holes: number[];
  /** BLOCK_STATUS: the context that is asked about, and what came. */
  readonly contextId: number;
  readonly lengths: number[];
  readonly flags: number[];
  readonly contextsSeen: Set<number>;
  errors: number;
  error: PandoError | undefined;
}

export function newCall(
  command: number,
  offset: number,
  length: number,
  how: { target?: Uint8Array | undefined; targetOffset?: number; contextId?: number } = {},
): Call {
  return {
    command,
    offset,
    length,
    target: how.target,
    targetOffset: how.targetOffset ?? 0,
    coverage: command === Command.read ? new Coverage(length) : undefined,
    holes: [],
    contextId: how.contextId ?? -1,
    lengths: [],
    flags: [],
    contextsSeen: new Set(),
    errors: 0,
    error: undefined,
  };
}

interface ChunkHead {
  readonly done: boolean;
  readonly type: number;
  readonly length: number;
}

/** Reads one reply or chunk of one; resolves to its cookie, and whether the reply is complete. */
export async function readReply(
  reader: ByteReader,
  session: ClientSession,
  callOf: (cookie: number) => Call | undefined,
): Promise<{ readonly cookie: number; readonly done: boolean }> {
  const head = await reader.read(session.extendedHeaders ? EXTENDED_HEADER_BYTES : 16);
  const magic = getU32(head, 0);
  const cookie = getU32(head, 8) * 0x1_0000_0000 + getU32(head, 12);
  const call = callOf(cookie);
  if (call === undefined) throw protocolError('a reply to no request');
  let done = true;
  if (session.extendedHeaders) {
    if (magic !== EXTENDED_REPLY_MAGIC) throw protocolError('a reply without the magic number');
    if (readU64(head, 16) !== call.offset) throw protocolError('a reply with another offset');
    done = await readChunk(reader, session, call, {
      done: (getU16(head, 4) & CHUNK_DONE) !== 0,
      type: getU16(head, 6),
      length: readU64(head, 24),
    });
  } else if (magic === SIMPLE_REPLY_MAGIC) {
    await readSimple(reader, session, call, getU32(head, 4));
  } else if (magic === STRUCTURED_REPLY_MAGIC && session.structuredReplies) {
    const length = getU32(await reader.read(4), 0);
    const isDone = (getU16(head, 4) & CHUNK_DONE) !== 0;
    done = await readChunk(reader, session, call, { done: isDone, type: getU16(head, 6), length });
  } else {
    throw protocolError('a reply without the magic number');
  }
  if (done && call.error === undefined) checkComplete(call);
  return { cookie, done };
}

function checkComplete(call: Call): void {
  if (call.coverage?.complete === false) throw protocolError('a reply that leaves out data');
  if (call.command === Command.blockStatus && !call.contextsSeen.has(call.contextId)) {
    throw protocolError('a block status reply that leaves out a context');
  }
}

async function readSimple(
  reader: ByteReader,
  session: ClientSession,
  call: Call,
  errno: number,
): Promise<void> {
  if (errno !== 0) {
    call.error = errorOf(errno, call, '');
  } else if (call.command === Command.read) {
    if (session.structuredReplies) throw protocolError('a simple reply to a read');
    if (call.length > 0) call.coverage!.add(0, call.length);
    await reader.readInto(call.target!, call.targetOffset, call.length);
  }
}

async function readChunk(
  reader: ByteReader,
  session: ClientSession,
  call: Call,
  { done, type, length }: ChunkHead,
): Promise<boolean> {
  switch (type) {
    case ChunkType.offsetData: {
      if (length < 9) throw protocolError('a data chunk without data');
      const at = placeOf(call, readU64(await reader.read(8), 0), length - 8);
      await reader.readInto(call.target!, at, length - 8);
      return done;
    }
    case ChunkType.blockStatus:
    case ChunkType.blockStatusExt:
      await readExtents(reader, session, call, type === ChunkType.blockStatusExt, length);
      return done;
  }
  if (length > CHUNK_BYTES_MAX) throw protocolError(`a chunk of type ${type} with ${length} bytes`);
  const payload = await reader.read(length);
  if (type === ChunkType.none) {
    if (!done || length !== 0) throw protocolError('a chunk of nothing that is not the last');
  } else if (type === ChunkType.offsetHole) {
    if (length !== 12) throw protocolError('a hole of a wrong length');
    const [offset, bytes] = [readU64(payload, 0), getU32(payload, 8)];
    const at = placeOf(call, offset, bytes);
    call.target!.fill(0, at, at + bytes);
    call.holes.push(offset, bytes);
  } else if (type >= 0x8000) {
    noteError(call, type, payload);
  } else {
    throw protocolError(`a chunk of unknown type ${type}`);
  }
  return done;
}

function noteError(call: Call, type: number, payload: Buffer): void {
  const textBytes = payload.length < 6 ? 0 : getU16(payload, 4);
  const known = type === ChunkType.error || type === ChunkType.errorOffset;
  if (payload.length < 6 || (known && payload.length < 6 + textBytes))
    throw protocolError('an error cut short');
  if (++call.errors > ERROR_CHUNKS_MAX) throw protocolError('no end of errors');
  const errno = getU32(payload, 0);
  if (errno === 0) throw protocolError('an error that is none');
  call.error ??= errorOf(errno, call, cleanText(payload.subarray(6, 6 + textBytes)));
}

/** Position in the target of data that a chunk brings. */
function placeOf(call: Call, offset: number, length: number): number {
  const inside = offset - call.offset;
  if (call.coverage?.add(inside, length) !== true)
    throw protocolError('data that was not asked for, or twice');
  return call.targetOffset + inside;
}

async function readExtents(
  reader: ByteReader,
  session: ClientSession,
  call: Call,
  extended: boolean,
  length: number,
): Promise<void> {
  const head = extended ? 8 : 4;
  const each = extended ? 16 : 8;
  const count = (length - head) / each;
  if (call.command !== Command.blockStatus || extended !== session.extendedHeaders) {
    throw protocolError('block status that was not asked for');
  }
  if (!Number.isInteger(count) || count < 1 || count > EXTENTS_MAX) {
    throw protocolError(`a block status of ${length} bytes`);
  }
  const opening = await reader.read(head);
  const id = getU32(opening, 0);
  if (extended && getU32(opening, 4) !== count) throw protocolError('a block status of another length');
  if (call.contextsSeen.has(id) || ![...session.contexts.values()].includes(id)) {
    throw protocolError('block status of a context that was not asked for, or twice');
  }
  call.contextsSeen.add(id);
  let covered = 0;
  for (let left = count * each; left > 0;) {
    const block = await reader.read(Math.min(left, EXTENT_BLOCK_BYTES));
    left -= block.length;
    for (let at = 0; at < block.length; at += each) {
      const bytes = extended ? readU64(block, at) : getU32(block, at);
      const flags = extended ? readU64(block, at + 8) : getU32(block, at + 4);
      // Only the last extent may go past what was asked.
      if (bytes === 0 || covered >= call.length) throw protocolError('an extent of nothing, or too many');
      covered += bytes;
      if (id !== call.contextId) continue;
      if (call.flags.at(-1) === flags) call.lengths[call.lengths.length - 1]! += bytes;
      else {
        call.lengths.push(bytes);
        call.flags.push(flags);
      }
    }
  }
}

/** 64 bits as a number. @throws `protocol-error` for one that is not safe */
function readU64(bytes: Uint8Array, at: number): number {
  const value = getU32(bytes, at) * 0x1_0000_0000 + getU32(bytes, at + 4);
  if (!Number.isSafeInteger(value)) throw protocolError('a number past 2^53');
  return value;
}

const COMMAND_NAMES: Readonly<Record<number, string>> = {
  [Command.read]: 'reading',
  [Command.write]: 'writing',
  [Command.flush]: 'flushing',
  [Command.trim]: 'trimming',
  [Command.cache]: 'prefetching',
  [Command.writeZeroes]: 'zeroing',
  [Command.blockStatus]: 'asking for the status of',
};

const ERRNO_NAMES: Readonly<Record<number, string>> = {
  [NbdErrno.perm]: 'EPERM',
  [NbdErrno.io]: 'EIO',
  [NbdErrno.nomem]: 'ENOMEM',
  [NbdErrno.invalid]: 'EINVAL',
  [NbdErrno.noSpace]: 'ENOSPC',
  [NbdErrno.overflow]: 'EOVERFLOW',
  [NbdErrno.notSupported]: 'ENOTSUP',
  [NbdErrno.shutdown]: 'ESHUTDOWN',
};

function errorOf(errno: number, call: Call, text: string): PandoError {
  const what = `${COMMAND_NAMES[call.command] ?? `command ${call.command} on`} ${call.length} bytes at ${call.offset}`;
  const reason = `${ERRNO_NAMES[errno] ?? `error ${errno}`}${text === '' ? '' : `: ${text}`}`;
  const message = `the NBD server says, ${what}: ${reason}`;
  switch (errno) {
    case NbdErrno.perm:
      return new PandoError('read-only', message);
    case NbdErrno.noSpace:
      return new PandoError('store-full', message);
    case NbdErrno.shutdown:
      return new PandoError('shutting-down', message);
    case NbdErrno.invalid:
      return new PandoError('request-invalid', message);
    default:
      return new PandoError('store-failed', message);
  }
}
