/**
 * The protocol as the fuzzer knows it: numbers and message builders, written from the protocol description (with its
 * extended-headers branch) and not shared with the server, so that the two can disagree.
 */

export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const EXTENDED_REPLY_MAGIC = 0x6e8a278c;

export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;
export const STRING_BYTES_MAX = 4096;

export const Opt = {
  exportName: 1,
  abort: 2,
  list: 3,
  peek: 4,
  startTls: 5,
  info: 6,
  go: 7,
  structured: 8,
  listContexts: 9,
  setContexts: 10,
  extended: 11,
} as const;

export const Rep = {
  ack: 1,
  server: 2,
  info: 3,
  context: 4,
  unsupported: 0x8000_0001,
  policy: 0x8000_0002,
  invalid: 0x8000_0003,
  platform: 0x8000_0004,
  tlsRequired: 0x8000_0005,
  unknown: 0x8000_0006,
  shutdown: 0x8000_0007,
  tooBig: 0x8000_0009,
  extendedRequired: 0x8000_000a,
} as const;

export const Cmd = {
  read: 0,
  write: 1,
  disc: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  zeroes: 6,
  status: 7,
} as const;

export const Flag = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16, payloadLen: 32 } as const;

export const Chunk = {
  none: 0,
  data: 1,
  hole: 2,
  status: 5,
  statusExt: 6,
  error: 0x8001,
  errorOffset: 0x8002,
};

export const Errno = {
  perm: 1,
  io: 5,
  nomem: 12,
  invalid: 22,
  noSpace: 28,
  overflow: 75,
  notSupported: 95,
  shutdown: 108,
} as const;

export function optionMessage(option: number, data: Uint8Array, length = data.byteLength): Buffer {
  const bytes = Buffer.allocUnsafe(16 + data.byteLength);
  bytes.writeBigUInt64BE(OPTION_MAGIC, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(length, 12);
  bytes.set(data, 16);
  return bytes;
}

function counted(bytes: Uint8Array): Buffer {
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32BE(bytes.byteLength);
  return Buffer.concat([length, bytes]);
}

export function infoData(name: Uint8Array, infos: readonly number[]): Buffer {
  const list = Buffer.allocUnsafe(2 + 2 * infos.length);
  list.writeUInt16BE(infos.length, 0);
  infos.forEach((info, i) => list.writeUInt16BE(info, 2 + 2 * i));
  return Buffer.concat([counted(name), list]);
}

export function contextData(name: Uint8Array, queries: readonly Uint8Array[]): Buffer {
  const count = Buffer.allocUnsafe(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([counted(name), count, ...queries.map(counted)]);
}

export interface RequestFields {
  readonly type: number;
  readonly flags: number;
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly length: bigint;
}

/** The bytes of a request's header; a compact one keeps the low 32 bits of the length. */
export function requestHeader(request: RequestFields, extended: boolean): Buffer {
  const bytes = Buffer.allocUnsafe(extended ? 32 : 28);
  bytes.writeUInt32BE(extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(request.flags, 4);
  bytes.writeUInt16BE(request.type, 6);
  bytes.writeBigUInt64BE(request.cookie, 8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, request.offset), 16);
  if (extended) bytes.writeBigUInt64BE(BigInt.asUintN(64, request.length), 24);
  else bytes.writeUInt32BE(Number(BigInt.asUintN(32, request.length)), 24);
  return bytes;
}

/** Bytes that came in pieces, taken in whole messages. */
export class ByteQueue {
  #chunks: Buffer[] = [];
  #at = 0;
  length = 0;

  push(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#chunks.push(bytes);
    this.length += bytes.length;
  }

  /** The first `bytes` without taking them, or undefined when they are not all there. */
  peek(bytes: number): Buffer | undefined {
    if (this.length < bytes) return undefined;
    const first = this.#chunks[0];
    if (first === undefined) return Buffer.alloc(0);
    if (first.length - this.#at < bytes) {
      // Join as much as is asked for, so that a stream of single bytes stays linear.
      const parts = [first.subarray(this.#at)];
      let joined = first.length - this.#at;
      let count = 1;
      while (joined < bytes) {
        const next = this.#chunks[count++]!;
        parts.push(next);
        joined += next.length;
      }
      this.#chunks.splice(0, count, Buffer.concat(parts));
      this.#at = 0;
    }
    return this.#chunks[0]!.subarray(this.#at, this.#at + bytes);
  }

  take(bytes: number): Buffer | undefined {
    const result = this.peek(bytes);
    if (result === undefined) return undefined;
    this.length -= bytes;
    this.#at += bytes;
    if (this.#chunks.length > 0 && this.#at === this.#chunks[0]!.length) {
      this.#chunks.shift();
      this.#at = 0;
    }
    return result;
  }
}
