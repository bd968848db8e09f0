/** A request whose device operation has not finished: kept in a pool, so that none is made per request. */
import type { ReplyBlock } from './reply-writer.ts';
import type { Request } from './request-parser.ts';

export class PendingRequest implements Request {
  flags = 0;
  type = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetHigh = 0;
  offsetLow = 0;
  offset = 0;
  length = 0;
  payloadBytes = 0;
  /** Of a read or block status: where its reply is being made. */
  block: ReplyBlock | undefined;
  start = 0;
  /** Of a block status: bytes of the reply, once it is made. */
  replyBytes = 0;
  readonly holes: number[] = [];
  /** When it came, by the monotonic clock. */
  since = 0;
  /** A flush follows (FUA) before the reply. */
  flushNext = false;

  /** For `then`, made once. */
  readonly resolved: () => void;
  readonly rejected: (error: unknown) => void;

  constructor(
    resolved: (pending: PendingRequest) => void,
    rejected: (pending: PendingRequest, error: unknown) => void,
  ) {
    this.resolved = () => {
      resolved(this);
    };
    this.rejected = (error) => {
      rejected(this, error);
    };
  }

  take(request: Request): void {
    this.flags = request.flags;
    this.type = request.type;
    this.cookieHigh = request.cookieHigh;
    this.cookieLow = request.cookieLow;
    this.offsetHigh = request.offsetHigh;
    this.offsetLow = request.offsetLow;
    this.offset = request.offset;
    this.length = request.length;
    this.payloadBytes = request.payloadBytes;
    this.flushNext = false;
  }
}
