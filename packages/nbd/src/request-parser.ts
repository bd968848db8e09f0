/**
 * Requests out of the socket's buffers, in place: buffers are never joined. Only a header that straddles
 * two of them is copied (28 bytes), and only a payload that straddles is gathered, in a buffer that the
 * handler provides. What a request means is the handler's business.
 *
 * Hot path: one request object for the life of the connection; nothing is allocated per request but the
 * view of a payload.
 */
import { Command, REQUEST_BYTES, REQUEST_MAGIC, getU16, getU32 } from './protocol.ts';
import type { Cookie } from './reply-format.ts';

export interface Request extends Cookie {
  readonly flags: number;
  readonly type: number;
  /** Exact up to 2^53; beyond it is rounded, which no device is large enough to notice. */
  readonly offset: number;
  readonly length: number;
}

/** What to do with a payload. */
export const Payload = { store: 0, skip: 1, refuse: 2 } as const;
export type PayloadAction = (typeof Payload)[keyof typeof Payload];

export interface RequestHandler {
  /** Whether the request may start now; when not, the parser stops (`waiting`) and asks again. */
  admit(request: Request): boolean;
  /** For WRITE: store the payload, skip it (the request will fail), or refuse (too long even to skip). */
  payload(request: Request): PayloadAction;
  /** A buffer for a payload that straddles, or undefined to wait. It comes back through `recycle`. */
  payloadBuffer(bytes: number): Buffer | undefined;
  recycle(buffer: Buffer): void;
  /** Carries it out. `data` is there for a WRITE whose payload was stored, and valid during the call only. */
  execute(request: Request, data: Uint8Array | undefined): void;
  /** The stream cannot be understood any further. */
  violation(reason: string): void;
}

class MutableRequest implements Request {
  flags = 0;
  type = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offset = 0;
  length = 0;
}

const State = { header: 0, admission: 1, payload: 2, skip: 3, stopped: 4 } as const;
type StateNumber = (typeof State)[keyof typeof State];

export class RequestParser {
  readonly #handler: RequestHandler;
  readonly #request = new MutableRequest();
  readonly #scratch = new Uint8Array(REQUEST_BYTES);
  #scratchBytes = 0;
  #state: StateNumber = State.header;
  #waiting = false;
  #buffer: Buffer | undefined;
  #payloadBytes = 0;

  constructor(handler: RequestHandler) {
    this.#handler = handler;
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
    const end = chunk.length;
    let at = start;
    this.#waiting = false;
    for (;;) {
      if (this.#state === State.header) {
        if (this.#scratchBytes === 0 && end - at >= REQUEST_BYTES) {
          if (!this.#decode(chunk, at)) return end;
          at += REQUEST_BYTES;
        } else {
          at = this.#fillScratch(chunk, at);
          if (this.#scratchBytes < REQUEST_BYTES) return end;
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
        if (request.type === Command.write) {
          const action = handler.payload(request);
          if (action === Payload.refuse) {
            this.stop();
            handler.violation(`a payload of ${request.length} bytes`);
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
        if (this.#payloadBytes === 0 && end - at >= request.length) {
          const data = chunk.subarray(at, at + request.length);
          at += request.length;
          this.#state = State.header;
          handler.execute(request, data);
          continue;
        }
        // Nothing of the payload is here yet: it may still come in one piece.
        if (at === end) return end;
        this.#buffer ??= handler.payloadBuffer(request.length);
        if (this.#buffer === undefined) {
          this.#waiting = true;
          return at;
        }
        const count = Math.min(request.length - this.#payloadBytes, end - at);
        chunk.copy(this.#buffer, this.#payloadBytes, at, at + count);
        at += count;
        this.#payloadBytes += count;
        if (this.#payloadBytes < request.length) return end;
        const buffer = this.#buffer;
        this.#buffer = undefined;
        this.#state = State.header;
        handler.execute(request, buffer.subarray(0, request.length));
        handler.recycle(buffer);
        continue;
      }
      if (this.#state === State.skip) {
        const count = Math.min(request.length - this.#payloadBytes, end - at);
        at += count;
        this.#payloadBytes += count;
        if (this.#payloadBytes < request.length) return end;
        this.#state = State.header;
        handler.execute(request, undefined);
        continue;
      }
      return end;
    }
  }

  #fillScratch(chunk: Buffer, at: number): number {
    const count = Math.min(REQUEST_BYTES - this.#scratchBytes, chunk.length - at);
    chunk.copy(this.#scratch, this.#scratchBytes, at, at + count);
    this.#scratchBytes += count;
    return at + count;
  }

  #decode(bytes: Uint8Array, at: number): boolean {
    if (getU32(bytes, at) !== REQUEST_MAGIC) {
      this.stop();
      this.#handler.violation('a request without its magic number');
      return false;
    }
    const request = this.#request;
    request.flags = getU16(bytes, at + 4);
    request.type = getU16(bytes, at + 6);
    request.cookieHigh = getU32(bytes, at + 8);
    request.cookieLow = getU32(bytes, at + 12);
    request.offset = getU32(bytes, at + 16) * 0x1_0000_0000 + getU32(bytes, at + 20);
    request.length = getU32(bytes, at + 24);
    return true;
  }
}
