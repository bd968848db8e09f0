/**
 * An NBD client that is a BlockDevice: what reads foreign NBD exports, and what tests run the conformance suite
 * through. It takes the newest form of the protocol that the server has: extended headers, structured replies, simple
 * ones. Nothing is retried: a lost connection fails what is in flight and everything after it with `connection-lost`.
 *
 * The server is not trusted: what it sends is checked against what was asked (replies.ts), memory is bounded
 * (limits.ts), and every wait on it has a deadline, or can have one (`silenceMsMax`).
 */
import { checkRange } from '@pando/block-device';
import type { BlockDevice, Extents, StatusExtents } from '@pando/block-device';
import { PandoError } from '@pando/common';
import type * as net from 'node:net';
import { TLSSocket } from 'node:tls';
import {
  AllocationFlag,
  Command,
  CommandFlag,
  EXTENDED_HEADER_BYTES,
  EXTENDED_REQUEST_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  TransmissionFlag,
  putU16,
  putU32,
  putU64,
} from '../protocol.ts';
import type { NbdAddress } from '../types.ts';
import type { ByteReader } from './byte-reader.ts';
import type { Channel, ClientSession } from './client-handshake.ts';
import { BASE_ALLOCATION, connect } from './connect.ts';
import type { NbdClientOptions } from './connect.ts';
import {
  CLOSE_MS,
  IN_FLIGHT_BYTES_MAX,
  PIECE_BYTES_MAX,
  RANGE_BYTES_MAX,
  REQUESTS_MAX,
  STATUS_REQUESTS_MAX,
} from './limits.ts';
import { newCall, readReply } from './replies.ts';
import type { Call } from './replies.ts';
import { Turns } from './turns.ts';

interface Waiting {
  readonly call: Call;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Piece {
  readonly offset: number;
  readonly length: number;
}

export class NbdClient implements BlockDevice {
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockBytes: number;
  readonly session: ClientSession;
  readonly #socket: net.Socket;
  readonly #reader: ByteReader;
  readonly #silenceMsMax: number | undefined;
  readonly #waiting = new Map<number, Waiting>();
  readonly #turns = new Turns(REQUESTS_MAX, IN_FLIGHT_BYTES_MAX);
  readonly #statusTurns = new Turns(STATUS_REQUESTS_MAX, Infinity);
  readonly #pieceBytes: number;
  readonly #rangeBytes: number;
  #silence: NodeJS.Timeout | undefined;
  #cookie = 0;
  #lost: PandoError | undefined;

  /**
   * Connects and opens an export.
   * @throws `export-missing`, `not-allowed`, `tls-failed`, `protocol-error`, `connection-lost`; the reason of the signal
   */
  static async connect(address: NbdAddress, options: NbdClientOptions): Promise<NbdClient> {
    const { channel, session } = await connect(address, options);
    return new NbdClient(channel, session, options.silenceMsMax);
  }

  private constructor(channel: Channel, session: ClientSession, silenceMsMax: number | undefined) {
    this.#socket = channel.socket;
    this.#reader = channel.reader;
    this.#silenceMsMax = silenceMsMax;
    this.session = session;
    this.size = session.size;
    this.readOnly = (session.flags & TransmissionFlag.readOnly) !== 0;
    this.blockBytes = session.preferredBytes;
    const pieceMax = Math.min(PIECE_BYTES_MAX, session.payloadBytesMax);
    this.#pieceBytes = pieceMax - (pieceMax % session.minimumBytes);
    this.#rangeBytes = session.extendedHeaders ? Number.MAX_SAFE_INTEGER : RANGE_BYTES_MAX;
    this.#reader.onData = () => this.#silence?.refresh();
    this.#receive().catch((error: unknown) => {
      this.#fail(error);
    });
  }

  /** Names of the metadata contexts that the server has of those that were asked for. */
  get contexts(): readonly string[] {
    return [...this.session.contexts.keys()];
  }

  async read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> {
    checkRange(this.size, offset, length);
    const pieces = this.#piecesOf(offset, length).map((piece) =>
      this.#readPiece(piece, target, targetOffset + (piece.offset - offset)),
    );
    for (const found of await all(pieces)) holes?.push(...found);
  }

  /** Resolves to the holes that the server reported inside the piece. */
  async #readPiece(piece: Piece, target: Uint8Array, targetOffset: number): Promise<number[]> {
    const { offset, length } = this.#aligned(piece);
    if (offset === piece.offset && length === piece.length) {
      const call = await this.#call(newCall(Command.read, offset, length, { target, targetOffset }));
      return ascendingPairs(call.holes, piece);
    }
    // The server takes whole blocks only.
    const scratch = new Uint8Array(length);
    const call = await this.#call(newCall(Command.read, offset, length, { target: scratch }));
    const from = piece.offset - offset;
    target.set(scratch.subarray(from, from + piece.length), targetOffset);
    return ascendingPairs(call.holes, piece);
  }

  /** The data is copied before this returns. @throws `request-invalid` for a range that is not whole blocks of the server */
  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#change(offset, data.byteLength, () => {
      const copy = Buffer.from(data);
      return this.#piecesOf(offset, copy.length).map((piece) => {
        const from = piece.offset - offset;
        const bytes = copy.subarray(from, from + piece.length);
        return this.#call(newCall(Command.write, piece.offset, piece.length), 0, bytes);
      });
    });
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, () =>
      this.#rangesOf(offset, length).map((piece) =>
        this.#call(newCall(Command.writeZeroes, piece.offset, piece.length)),
      ),
    );
  }

  async #change(offset: number, length: number, send: () => Promise<unknown>[]): Promise<void> {
    if (this.readOnly) throw new PandoError('read-only', 'the export is read-only');
    checkRange(this.size, offset, length);
    const whole = this.#aligned({ offset, length });
    if (whole.offset !== offset || whole.length !== length) {
      throw new PandoError(
        'request-invalid',
        `the NBD server takes only multiples of ${this.session.minimumBytes} bytes`,
      );
    }
    await all(send());
  }

  async flush(): Promise<void> {
    if ((this.session.flags & TransmissionFlag.sendFlush) === 0) return;
    await this.#call(newCall(Command.flush, 0, 0));
  }

  /** Does nothing where the server has no such command. */
  async prefetch(offset: number, length: number): Promise<void> {
    checkRange(this.size, offset, length);
    if ((this.session.flags & TransmissionFlag.sendCache) === 0) return;
    const whole = this.#aligned({ offset, length });
    await all(
      this.#rangesOf(whole.offset, whole.length).map((piece) =>
        this.#call(newCall(Command.cache, piece.offset, piece.length)),
      ),
    );
  }

  /** Without base:allocation all of the request is one extent of data. */
  async allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    checkRange(this.size, offset, length);
    if (length === 0) return { lengths: [], holes: [] };
    if (!this.session.contexts.has(BASE_ALLOCATION)) return { lengths: [length], holes: [false] };
    return asExtents(await this.#status(BASE_ALLOCATION, offset, length, extentsMax, zeroFlag));
  }

  /**
   * As `allocation`, but what one answer of the server says, however little of the range that is: for those who would
   * rather read than ask often.
   */
  async allocationAnswer(offset: number, length: number): Promise<Extents> {
    checkRange(this.size, offset, length);
    if (length === 0 || !this.session.contexts.has(BASE_ALLOCATION))
      return this.allocation(offset, length, 1);
    return asExtents(await this.#status(BASE_ALLOCATION, offset, length, Infinity, zeroFlag, 1));
  }

  /**
   * What a metadata context says about a range.
   * @throws `request-invalid` for a context that the connection has not
   */
  async status(name: string, offset: number, length: number, extentsMax = Infinity): Promise<StatusExtents> {
    checkRange(this.size, offset, length);
    return this.#status(name, offset, length, extentsMax, (flags) => flags);
  }

  /** As `status`, of what `pick` makes of the flags; from at most `answersMax` answers. */
  async #status(
    name: string,
    offset: number,
    length: number,
    extentsMax: number,
    pick: (flags: number) => number,
    answersMax = Infinity,
  ): Promise<StatusExtents> {
    const contextId = this.session.contexts.get(name);
    if (contextId === undefined)
      throw new PandoError('request-invalid', `the connection has no context ${name}`);
    const found: StatusExtents = { lengths: [], flags: [] };
    const end = offset + length;
    let at = offset;
    for (let answers = 0; at < end && answers < answersMax; answers++) {
      const asked = this.#aligned({ offset: at, length: Math.min(end - at, this.#rangeBytes) });
      const wish = extentsMax === 1 ? CommandFlag.reqOne : 0;
      const call = newCall(Command.blockStatus, asked.offset, asked.length, { contextId });
      await this.#statusTurns.take(0, () => this.#call(call, wish));
      let from = asked.offset;
      for (const [i, bytes] of call.lengths.entries()) {
        // The last extent may describe more than was asked for, and the first begin before it.
        const to = Math.min(from + bytes, end);
        from += bytes;
        if (to <= at) continue;
        const flags = pick(call.flags[i]!);
        if (found.flags.at(-1) === flags) {
          found.lengths[found.lengths.length - 1]! += to - at;
        } else {
          if (found.lengths.length === extentsMax) return found;
          found.lengths.push(to - at);
          found.flags.push(flags);
        }
        at = to;
      }
    }
    return found;
  }

  /** Says goodbye and waits until the server has closed, but not for ever. Idempotent. */
  async close(): Promise<void> {
    if (this.#socket.destroyed) return;
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    if (this.#lost === undefined) {
      this.#lost = new PandoError('connection-lost', 'the NBD client is closed');
      this.#socket.end(this.#requestBytes(newCall(Command.disconnect, 0, 0), 0, 0));
      this.#socket.resume();
    }
    const deadline = setTimeout(() => this.#socket.destroy(), CLOSE_MS);
    await closed;
    clearTimeout(deadline);
  }

  /** Cuts the connection, as a dying machine would: plain TCP is reset. */
  destroy(): void {
    const isTcp = this.#socket.remoteFamily !== undefined;
    if (isTcp && !(this.#socket instanceof TLSSocket)) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  #call(call: Call, flags = 0, data?: Buffer): Promise<Call> {
    const bytes = call.command === Command.read || call.command === Command.write ? call.length : 0;
    return this.#turns.take(bytes, async () => {
      if (this.#lost !== undefined) throw this.#lost;
      await new Promise<void>((resolve, reject) => {
        const cookie = ++this.#cookie;
        this.#waiting.set(cookie, { call, resolve, reject });
        this.#watchSilence();
        this.#socket.cork();
        this.#socket.write(this.#requestBytes(call, flags, cookie));
        if (data !== undefined) this.#socket.write(data);
        this.#socket.uncork();
      });
      return call;
    });
  }

  async #receive(): Promise<never> {
    const callOf = (cookie: number): Call | undefined => this.#waiting.get(cookie)?.call;
    for (;;) {
      const { cookie, done } = await readReply(this.#reader, this.session, callOf);
      if (!done) continue;
      const { call, resolve, reject } = this.#waiting.get(cookie)!;
      this.#waiting.delete(cookie);
      this.#watchSilence();
      if (call.error === undefined) resolve();
      else reject(call.error);
    }
  }

  /** Keeps the timer running while somebody waits. */
  #watchSilence(): void {
    const ms = this.#silenceMsMax;
    if (ms === undefined) return;
    if (this.#waiting.size === 0) {
      clearTimeout(this.#silence);
      this.#silence = undefined;
    } else {
      this.#silence ??= setTimeout(() => {
        this.#fail(new PandoError('connection-lost', `the NBD server said nothing for ${ms} ms`));
      }, ms);
    }
  }

  #fail(error: unknown): void {
    this.#lost ??=
      error instanceof PandoError
        ? error
        : new PandoError('internal', 'the NBD client failed', { cause: error });
    clearTimeout(this.#silence);
    this.#reader.fail(this.#lost); // nothing is written to targets from here on
    this.#socket.destroy();
    for (const { reject } of this.#waiting.values()) reject(this.#lost);
    this.#waiting.clear();
  }

  /** The range widened to whole blocks of the server; its end may be the device's. */
  #aligned({ offset, length }: Piece): Piece {
    const block = this.session.minimumBytes;
    if (block === 1 || length === 0) return { offset, length };
    const start = offset - (offset % block);
    const end = Math.min(this.size, Math.ceil((offset + length) / block) * block);
    return { offset: start, length: end - start };
  }

  #piecesOf(offset: number, length: number): Piece[] {
    return piecesOf(offset, length, this.#pieceBytes, this.session.minimumBytes > 1);
  }

  #rangesOf(offset: number, length: number): Piece[] {
    return piecesOf(offset, length, this.#rangeBytes, false);
  }

  #requestBytes(call: Call, flags: number, cookie: number): Buffer {
    const extended = this.session.extendedHeaders;
    const bytes = Buffer.alloc(extended ? EXTENDED_HEADER_BYTES : REQUEST_BYTES);
    const isPayload = extended && call.command === Command.write;
    putU32(bytes, 0, extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
    putU16(bytes, 4, isPayload ? flags | CommandFlag.payloadLen : flags);
    putU16(bytes, 6, call.command);
    putU64(bytes, 8, cookie);
    putU64(bytes, 16, call.offset);
    if (extended) putU64(bytes, 24, call.length);
    else putU32(bytes, 24, call.length);
    return bytes;
  }
}

const zeroFlag = (flags: number): number => flags & AllocationFlag.zero;

function asExtents({ lengths, flags }: StatusExtents): Extents {
  return { lengths, holes: flags.map((flag) => flag !== 0) };
}

/**
 * Cuts a range into requests; a range of no bytes is one request, so that its errors are the server's. On a grid:
 * at multiples of `max` on the device, so that pieces that are widened to whole blocks do not get longer than it.
 */
function piecesOf(offset: number, length: number, max: number, onGrid: boolean): Piece[] {
  const first = onGrid ? max - (offset % max) : max;
  const pieces = [{ offset, length: Math.min(length, first) }];
  for (let done = first; done < length; done += max) {
    pieces.push({ offset: offset + done, length: Math.min(max, length - done) });
  }
  return pieces;
}

/** (offset, length) pairs in order, cut to the piece. */
function ascendingPairs(pairs: readonly number[], piece: Piece): number[] {
  const order: number[] = [];
  for (let i = 0; i < pairs.length; i += 2) order.push(i);
  order.sort((a, b) => pairs[a]! - pairs[b]!);
  return order.flatMap((i) => {
    const start = Math.max(pairs[i]!, piece.offset);
    const end = Math.min(pairs[i]! + pairs[i + 1]!, piece.offset + piece.length);
    return end > start ? [start, end - start] : [];
  });
}

/** Waits for all to end, then rejects with the first error: nothing may write to a target any more by then. */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(promises);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
