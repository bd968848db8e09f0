/**
 * Requests out of the socket's buffers, in place: buffers are never joined. Only a header that straddles
 * two of them is copied, and only a payload that straddles is gathered, in a buffer that the
 * handler provides. What a request means is the handler's business.
 *
 * A parser takes compact requests or extended ones, never both: the size of the header and its magic number are
 * numbers of the parser.
 *
 * Hot path: one request object for the life of the connection; nothing is allocated per request but the
 * view of a payload.
 */
import {
  Command,
  CommandFlag,
  EXTENDED_HEADER_BYTES,
  EXTENDED_REQUEST_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  getU16,
  getU32,
} from './protocol.ts';
import type { ReplyTo } from './reply-format.ts';

export interface Request extends ReplyTo {
  readonly flags: number;
  readonly type: number;
  /** Exact up to 2^53; beyond it is rounded, which no device is large enough to notice. */
  readonly offset: number;
  /** As in the header, exact up to 2^53: of the payload, or else of the range (the effect length). */
  readonly length: number;
  /** What follows the header; either 0 or `length`. */
  readonly payloadBytes: number;
}

/** What to do with a payload. */
export const Payload = { store: 0, skip: 1, refuse: 2 } as const;
export type PayloadAction = (typeof Payload)[keyof typeof Payload];

export interface RequestHandler {
  /** Whether the request may start now; when not, the parser stops (`waiting`) and asks again. */
  admit(request: Request): boolean;
  /** Of a request with a payload: store it, skip it (the request will fail), or refuse (too long even to skip). */
  payload(request: Request): PayloadAction;
  /** A buffer for a payload that straddles, or undefined to wait. It comes back through `recycle`. */
  payloadBuffer(bytes: number): Buffer | undefined;
  recycle(buffer: Buffer): void;
  /** Carries it out. `data` is there when a payload was stored, and valid during the call only. */
  execute(request: Request, data: Uint8Array | undefined): void;
  /** The stream cannot be understood any further. */
  violation(reason: string): void;
}

class MutableRequest implements Request {
  flags = 0;
  type = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetHigh = 0;
  offsetLow = 0;
  offset = 0;
  length = 0;
  payloadBytes = 0;
}

const State = { header: 0, admission: 1, payload: 2, skip: 3, stopped: 4 } as const;
type StateNumber = (typeof State)[keyof typeof State];

export class RequestParser {
  readonly #handler: RequestHandler;
  readonly #request = new MutableRequest();
  readonly #headerBytes: number;
  readonly #magic: number;
  readonly #scratch: Uint8Array;
  #scratchBytes = 0;
  #state: StateNumber = State.header;
  #waiting = false;
  #buffer: Buffer | undefined;
  #payloadBytes = 0;

  constructor(handler: RequestHandler, extended: boolean) {
    this.#handler = handler;
    this.#headerBytes = extended ? EXTENDED_HEADER_BYTES : REQUEST_BYTES;
    this.#magic = extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC;
    this.#scratch = new Uint8Array(this.#headerBytes);
  }

  /** Whether the last `consume` stopped because the handler could not admit a request. */
  get waiting(): boolean {
    return this.#waiting;
  }

  get stopped(): boolean {
    return this.#state === State.stopped;
  }

  /** Whether bytes of an unfinished request have been taken. */
  get midRequest(): boolean {
    return this.#scratchBytes > 0 || (this.#state !== State.header && this.#state !== State.stopped);
  }

  /** Ignores everything from now on. */
  stop(): void {
    this.#state = State.stopped;
    this.#waiting = false;
    if (this.#buffer !== undefined) this.#handler.recycle(this.#buffer);
    this.#buffer = undefined;
  }

  /**
   * Takes bytes of `chunk` from `start` on. Returns the position of the first byte that was not taken,
   * which is the end of the chunk unless `waiting`. Call again (an empty chunk will do) when the handler
   * has room.
   */
  consume(chunk: Buffer, start: number): number {
    const handler = this.#handler;
    const request = this.#request;
    const headerBytes = this.#headerBytes;
    const end = chunk.length;
    let at = start;
    this.#waiting = false;
    for (;;) {
      if (this.#state === State.header) {
        if (this.#scratchBytes === 0 && end - at >= headerBytes) {
          if (!this.#decode(chunk, at)) return end;
          at += headerBytes;
        } else {
          at = this.#fillScratch(chunk, at);
          if (this.#scratchBytes < headerBytes) return end;
          this.#scratchBytes = 0;
          if (!this.#decode(this.#scratch, 0)) return end;
        }
        this.#state = State.admission;
      }
      if (this.#state === State.admission) {
        if (!handler.admit(request)) {
          this.#waiting = true;
          return at;
        }
        if (request.payloadBytes > 0) {
          const action = handler.payload(request);
          if (action === Payload.refuse) {
            this.stop();
            handler.violation(`a payload of ${request.payloadBytes} bytes`);
            return end;
          }
          this.#payloadBytes = 0;
          this.#state = action === Payload.store ? State.payload : State.skip;
        } else {
          this.#state = State.header;
          handler.execute(request, undefined);
          continue;
        }
      }
      if (this.#state === State.payload) {
        if (this.#payloadBytes === 0 && end - at >= request.payloadBytes) {
          const data = chunk.subarray(at, at + request.payloadBytes);
          at += request.payloadBytes;
          this.#state = State.header;
          handler.execute(request, data);
          continue;
        }
        // Nothing of the payload is here yet: it may still come in one piece.
        if (at === end) return end;
        this.#buffer ??= handler.payloadBuffer(request.payloadBytes);
        if (this.#buffer === undefined) {
          this.#waiting = true;
          return at;
        }
        const count = Math.min(request.payloadBytes - this.#payloadBytes, end - at);
        chunk.copy(this.#buffer, this.#payloadBytes, at, at + count);
        at += count;
        this.#payloadBytes += count;
        if (this.#payloadBytes < request.payloadBytes) return end;
        const buffer = this.#buffer;
        this.#buffer = undefined;
        this.#state = State.header;
        handler.execute(request, buffer.subarray(0, request.payloadBytes));
        handler.recycle(buffer);
        continue;
      }
      if (this.#state === State.skip) {
        const count = Math.min(request.payloadBytes - this.#payloadBytes, end - at);
        at += count;
        this.#payloadBytes += count;
        if (this.#payloadBytes < request.payloadBytes) return end;
        this.#state = State.header;
        handler.execute(request, undefined);
        continue;
      }
      return end;
    }
  }

  #fillScratch(chunk: Buffer, at: number): number {
    const count = Math.min(this.#headerBytes - this.#scratchBytes, chunk.length - at);
    chunk.copy(this.#scratch, this.#scratchBytes, at, at + count);
    this.#scratchBytes += count;
    return at + count;
  }

  #decode(bytes: Uint8Array, at: number): boolean {
    if (getU32(bytes, at) !== this.#magic) {
      this.stop();
      this.#handler.violation('a request without its magic number');
      return false;
    }
    const request = this.#request;
    const flags = getU16(bytes, at + 4);
    const type = getU16(bytes, at + 6);
    request.flags = flags;
    request.type = type;
    request.cookieHigh = getU32(bytes, at + 8);
    request.cookieLow = getU32(bytes, at + 12);
    const offsetHigh = getU32(bytes, at + 16);
    const offsetLow = getU32(bytes, at + 20);
    request.offset = offsetHigh * 0x1_0000_0000 + offsetLow;
    const length = getU32(bytes, at + 24);
    // One way for the life of a parser: the processor predicts it.
    if (this.#headerBytes === REQUEST_BYTES) {
      request.length = length;
      request.payloadBytes = type === Command.write ? length : 0;
    } else {
      // Only extended replies say them again.
      request.offsetHigh = offsetHigh;
      request.offsetLow = offsetLow;
      request.length = length * 0x1_0000_0000 + getU32(bytes, at + 28);
      // A WRITE must have the flag. QEMU's client (10.0) leaves it out and sends the payload all the same.
      const hasPayload = (flags & CommandFlag.payloadLen) !== 0 || type === Command.write;
      request.payloadBytes = hasPayload ? request.length : 0;
    }
    return true;
  }
}
