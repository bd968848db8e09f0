/**
 * An NBD client that is a BlockDevice: what tests run the conformance suite through, and what reads
 * foreign NBD exports. Structured and simple replies; requests in flight are bounded; nothing is
 * retried: a lost connection fails what is in flight and everything after it with `connection-lost`.
 */
import { checkRange } from '@pando/block-device';
import type { BlockDevice, Extents } from '@pando/block-device';
import { PandoError } from '@pando/common';
import * as net from 'node:net';
import {
  AllocationFlag,
  CHUNK_DONE,
  ChunkType,
  Command,
  CommandFlag,
  NbdErrno,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  TransmissionFlag,
  putU16,
  putU32,
  putU64,
} from '../protocol.ts';
import type { NbdAddress } from '../types.ts';
import { ByteReader } from './byte-reader.ts';
import { clientHandshake } from './client-handshake.ts';
import type { ClientSession } from './client-handshake.ts';

/** Longest read or write that is sent as one request. */
const PIECE_BYTES_MAX = 4 * 1024 * 1024;
/** Longest zeroing and block status request: the largest multiple of 64 KiB in 32 bits. */
const RANGE_BYTES_MAX = 0xffff_0000;
/** Requests in flight; more wait here. */
const IN_FLIGHT_MAX = 64;
/** Longest payload of a chunk that is not data: 2^20 extents. */
const CHUNK_BYTES_MAX = 8 * 1024 * 1024 + 4;

interface Call {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  readonly target: Uint8Array | undefined;
  readonly targetOffset: number;
  /** Holes that replies reported, as (offset, length); chunks may come in any order. */
  readonly holes: number[];
  extents: Buffer | undefined;
  error: PandoError | undefined;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface NbdClientOptions {
  readonly exportName: string;
  /** Default true: ask for structured replies and base:allocation. */
  readonly structuredReplies?: boolean;
}

export class NbdClient implements BlockDevice {
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockBytes: number;
  readonly session: ClientSession;
  readonly #socket: net.Socket;
  readonly #reader: ByteReader;
  readonly #calls = new Map<number, Call>();
  readonly #line: (() => void)[] = [];
  #inFlight = 0;
  #cookie = 0;
  #lost: PandoError | undefined;

  /** Connects and opens an export. @throws `disk-missing` for an unknown one, `connection-lost` */
  static async connect(address: NbdAddress, options: NbdClientOptions): Promise<NbdClient> {
    const socket = 'path' in address ? net.connect({ path: address.path }) : net.connect(address);
    const reader = new ByteReader(socket);
    socket.setNoDelay(true);
    try {
      const session = await clientHandshake(
        socket,
        reader,
        options.exportName,
        options.structuredReplies ?? true,
      );
      return new NbdClient(socket, reader, session);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  private constructor(socket: net.Socket, reader: ByteReader, session: ClientSession) {
    this.#socket = socket;
    this.#reader = reader;
    this.session = session;
    this.size = session.size;
    this.readOnly = (session.flags & TransmissionFlag.readOnly) !== 0;
    this.blockBytes = session.preferredBytes;
    this.#receive().catch((error: unknown) => {
      this.#fail(error);
    });
  }

  async read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> {
    checkRange(this.size, offset, length);
    const pieces = piecesOf(offset, length, PIECE_BYTES_MAX).map(async (piece) => {
      const into = targetOffset + (piece.offset - offset);
      const call = await this.#call(Command.read, 0, piece.offset, piece.length, undefined, target, into);
      return call.holes;
    });
    for (const found of await Promise.all(pieces)) holes?.push(...ascendingPairs(found));
  }

  /** The data is copied before this returns. */
  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#change(offset, data.byteLength, () => {
      const copy = Buffer.from(data);
      return piecesOf(offset, copy.length, PIECE_BYTES_MAX).map((piece) => {
        const from = piece.offset - offset;
        return this.#call(
          Command.write,
          0,
          piece.offset,
          piece.length,
          copy.subarray(from, from + piece.length),
        );
      });
    });
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, () =>
      piecesOf(offset, length, RANGE_BYTES_MAX).map((piece) =>
        this.#call(Command.writeZeroes, 0, piece.offset, piece.length),
      ),
    );
  }

  async #change(offset: number, length: number, send: () => Promise<unknown>[]): Promise<void> {
    if (this.readOnly) throw new PandoError('read-only', 'the export is read-only');
    checkRange(this.size, offset, length);
    await Promise.all(send());
  }

  async flush(): Promise<void> {
    await this.#call(Command.flush, 0, 0, 0);
  }

  async prefetch(offset: number, length: number): Promise<void> {
    checkRange(this.size, offset, length);
    const pieces = piecesOf(offset, length, RANGE_BYTES_MAX);
    await Promise.all(pieces.map((piece) => this.#call(Command.cache, 0, piece.offset, piece.length)));
  }

  /** Without base:allocation all of the request is one extent of data. */
  async allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    checkRange(this.size, offset, length);
    const lengths: number[] = [];
    const holes: boolean[] = [];
    if (length === 0) return { lengths, holes };
    if (this.session.allocationId === 0) return { lengths: [length], holes: [false] };
    let at = offset;
    while (at < offset + length) {
      const asked = Math.min(offset + length - at, RANGE_BYTES_MAX);
      const flags = extentsMax === 1 ? CommandFlag.reqOne : 0;
      const { extents } = await this.#call(Command.blockStatus, flags, at, asked);
      if (extents === undefined || extents.length < 12) {
        throw new PandoError('connection-lost', 'a block status reply without extents');
      }
      for (let i = 4; i + 8 <= extents.length; i += 8) {
        // The last extent may describe more than was asked for.
        const count = Math.min(extents.readUInt32BE(i), offset + length - at);
        const hole = (extents.readUInt32BE(i + 4) & AllocationFlag.zero) !== 0;
        if (count === 0) break;
        if (holes.at(-1) === hole) {
          lengths[lengths.length - 1]! += count;
        } else {
          if (lengths.length === extentsMax) return { lengths, holes };
          lengths.push(count);
          holes.push(hole);
        }
        at += count;
      }
    }
    return { lengths, holes };
  }

  /** Says goodbye and waits until the server has closed. Idempotent. */
  async close(): Promise<void> {
    if (this.#socket.destroyed) return;
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    this.#lost ??= new PandoError('connection-lost', 'the NBD client is closed');
    this.#socket.end(requestBytes(Command.disconnect, 0, 0, 0, 0));
    this.#socket.resume();
    await closed;
  }

  /** Resets the connection, as a dying machine would. */
  destroy(): void {
    this.#socket.resetAndDestroy();
  }

  async #call(
    command: number,
    flags: number,
    offset: number,
    length: number,
    data?: Buffer,
    target?: Uint8Array,
    targetOffset = 0,
  ): Promise<Call> {
    while (this.#inFlight >= IN_FLIGHT_MAX) await new Promise<void>((resolve) => this.#line.push(resolve));
    if (this.#lost !== undefined) throw this.#lost;
    this.#inFlight++;
    try {
      return await new Promise<Call>((resolve, reject) => {
        const holes: number[] = [];
        const call: Call = {
          command,
          offset,
          length,
          target,
          targetOffset,
          holes,
          extents: undefined,
          error: undefined,
          resolve: () => {
            resolve(call);
          },
          reject,
        };
        const cookie = ++this.#cookie;
        this.#calls.set(cookie, call);
        const header = requestBytes(command, flags, cookie, offset, length);
        this.#socket.cork();
        this.#socket.write(header);
        if (data !== undefined) this.#socket.write(data);
        this.#socket.uncork();
      });
    } finally {
      this.#inFlight--;
      this.#line.shift()?.();
    }
  }

  async #receive(): Promise<void> {
    for (;;) {
      const header = await this.#reader.read(16);
      const magic = header.readUInt32BE(0);
      const cookie = header.readUInt32BE(8) * 0x1_0000_0000 + header.readUInt32BE(12);
      const call = this.#calls.get(cookie);
      if (call === undefined) throw new PandoError('connection-lost', `a reply to no request (${cookie})`);
      let done = true;
      if (magic === SIMPLE_REPLY_MAGIC) await this.#receiveSimple(call, header.readUInt32BE(4));
      else if (magic === STRUCTURED_REPLY_MAGIC) done = await this.#receiveChunk(call, header);
      else throw new PandoError('connection-lost', 'a reply without its magic number');
      if (!done) continue;
      this.#calls.delete(cookie);
      if (call.error === undefined) call.resolve();
      else call.reject(call.error);
    }
  }

  async #receiveSimple(call: Call, errno: number): Promise<void> {
    if (errno !== 0) call.error = errorOf(errno, call, '');
    else if (call.command === Command.read) {
      if (this.session.structuredReplies) throw new PandoError('connection-lost', 'a simple reply to a READ');
      await this.#reader.readInto(call.target!, call.targetOffset, call.length);
    }
  }

  /** Whether the chunk was the last of its reply. */
  async #receiveChunk(call: Call, header: Buffer): Promise<boolean> {
    const flags = header.readUInt16BE(4);
    const type = header.readUInt16BE(6);
    const length = (await this.#reader.read(4)).readUInt32BE(0);
    if (type === ChunkType.offsetData) {
      const at = this.#placeOf(call, Number((await this.#reader.read(8)).readBigUInt64BE(0)), length - 8);
      await this.#reader.readInto(call.target!, at, length - 8);
      return (flags & CHUNK_DONE) !== 0;
    }
    if (length > CHUNK_BYTES_MAX) throw new PandoError('connection-lost', `a chunk of ${length} bytes`);
    const payload = await this.#reader.read(length);
    if (type === ChunkType.offsetHole) {
      const offset = Number(payload.readBigUInt64BE(0));
      const bytes = payload.readUInt32BE(8);
      const at = this.#placeOf(call, offset, bytes);
      call.target!.fill(0, at, at + bytes);
      call.holes.push(offset, bytes);
    } else if (type === ChunkType.blockStatus) {
      if (payload.readUInt32BE(0) === this.session.allocationId) call.extents = payload;
    } else if (type === ChunkType.error || type === ChunkType.errorOffset) {
      call.error ??= errorOf(
        payload.readUInt32BE(0),
        call,
        payload.toString('utf8', 6, 6 + payload.readUInt16BE(4)),
      );
    } else if (type !== ChunkType.none) {
      throw new PandoError('connection-lost', `a chunk of unknown type ${type}`);
    }
    return (flags & CHUNK_DONE) !== 0;
  }

  #placeOf(call: Call, offset: number, length: number): number {
    const inside = offset - call.offset;
    if (call.target === undefined || length <= 0 || inside < 0 || length > call.length - inside) {
      throw new PandoError('connection-lost', 'data that was not asked for');
    }
    return call.targetOffset + inside;
  }

  #fail(error: unknown): void {
    this.#lost ??=
      error instanceof PandoError
        ? error
        : new PandoError('connection-lost', 'the client failed', { cause: error });
    this.#socket.destroy();
    for (const call of this.#calls.values()) call.reject(this.#lost);
    this.#calls.clear();
    for (const next of this.#line.splice(0)) next();
  }
}

function requestBytes(
  command: number,
  flags: number,
  cookie: number,
  offset: number,
  length: number,
): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES);
  putU32(bytes, 0, REQUEST_MAGIC);
  putU16(bytes, 4, flags);
  putU16(bytes, 6, command);
  putU64(bytes, 8, cookie);
  putU64(bytes, 16, offset);
  putU32(bytes, 24, length);
  return bytes;
}

/** Cuts a range into requests; a range of no bytes is one request, so that its errors are the server's. */
function piecesOf(offset: number, length: number, max: number): { offset: number; length: number }[] {
  const pieces = [{ offset, length: Math.min(length, max) }];
  for (let done = max; done < length; done += max) {
    pieces.push({ offset: offset + done, length: Math.min(max, length - done) });
  }
  return pieces;
}

function ascendingPairs(pairs: readonly number[]): number[] {
  const order: number[] = [];
  for (let i = 0; i < pairs.length; i += 2) order.push(i);
  order.sort((a, b) => pairs[a]! - pairs[b]!);
  return order.flatMap((i) => [pairs[i]!, pairs[i + 1]!]);
}

function errorOf(errno: number, call: Call, text: string): PandoError {
  const message =
    `NBD command ${call.command} at ${call.offset} + ${call.length}: error ${errno} ${text}`.trimEnd();
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
