/** A client for tests that says exactly what it is told to, right or wrong, and shows what comes back. */
import * as net from 'node:net';
import * as tls from 'node:tls';
import {
  EXTENDED_HEADER_BYTES,
  EXTENDED_REQUEST_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  putU16,
  putU32,
  putU64,
} from '../protocol.ts';
import type { NbdAddress } from '../types.ts';
import { ByteReader } from '../client/byte-reader.ts';
import { optionBytes, stringBytes } from '../client/client-handshake.ts';

export interface OptionAnswer {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export interface RawChunk {
  /** Structured or extended. */
  readonly structured: boolean;
  /** Of a simple reply: the error. */
  readonly errno: number;
  readonly flags: number;
  readonly type: number;
  readonly cookie: number;
  /** Of an extended chunk: the offset that it echoes. */
  readonly offset?: bigint;
  readonly payload: Buffer;
}

export interface RawRequest {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: number;
  readonly offset?: number | bigint;
  readonly length?: number | bigint;
  readonly magic?: number;
  readonly payload?: Uint8Array;
}

/** The bytes of a request, payload included; PAYLOAD_LEN is among the flags only when the request says so. */
export function rawRequest(request: RawRequest, extended = false): Buffer {
  const header = Buffer.alloc(extended ? EXTENDED_HEADER_BYTES : REQUEST_BYTES);
  putU32(header, 0, request.magic ?? (extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC));
  putU16(header, 4, request.flags ?? 0);
  putU16(header, 6, request.type);
  putU64(header, 8, request.cookie ?? 1);
  header.writeBigUInt64BE(BigInt(request.offset ?? 0), 16);
  const length = request.length ?? request.payload?.byteLength ?? 0;
  if (extended) header.writeBigUInt64BE(BigInt(length), 24);
  else putU32(header, 24, Number(length));
  return request.payload === undefined ? header : Buffer.concat([header, request.payload]);
}

/** Data of INFO and GO. */
export function infoRequest(name: string, infos: readonly number[] = []): Buffer {
  const list = Buffer.alloc(2 + 2 * infos.length);
  list.writeUInt16BE(infos.length, 0);
  infos.forEach((info, i) => list.writeUInt16BE(info, 2 + 2 * i));
  return Buffer.concat([stringBytes(name), list]);
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextRequest(name: string, queries: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([stringBytes(name), count, ...queries.map(stringBytes)]);
}

export class RawClient {
  /** The TLS socket, once TLS is spoken. */
  socket: net.Socket;
  tlsSocket: tls.TLSSocket | undefined;
  reader: ByteReader;
  /** Resolves when the connection is gone, however it went. */
  readonly closed: Promise<void>;
  readonly #tcp: boolean;
  readonly #raw: net.Socket;
  #extended = false;

  constructor(address: NbdAddress) {
    this.#tcp = 'port' in address;
    const where = 'path' in address ? { path: address.path } : { host: address.host, port: address.port };
    this.#raw = net.connect({ ...where, allowHalfOpen: true, noDelay: true });
    this.socket = this.#raw;
    this.reader = new ByteReader(this.socket);
    this.closed = new Promise((resolve) => this.socket.once('close', () => resolve()));
    this.socket.on('error', () => undefined);
    // Half-open is for the tests that ask for it with `halfClose`; once the server has ended, so has this side.
    this.socket.on('end', () => this.socket.end());
  }

  /** Reads the greeting and sends client flags. */
  async greet(clientFlags = 3): Promise<Buffer> {
    const greeting = await this.reader.read(18);
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(clientFlags >>> 0);
    this.send(flags);
    return greeting;
  }

  /** Asks for TLS and speaks it from here on. @throws what is wrong with the server's answer or with TLS */
  async startTls(options: tls.ConnectionOptions): Promise<void> {
    const [answer] = await this.ask(5);
    if (answer!.type !== 1) throw new Error(`STARTTLS was answered with ${answer!.type.toString(16)}`);
    await this.speakTls(options);
  }

  /** TLS on what is left of the connection, whatever was agreed on. */
  async speakTls(options: tls.ConnectionOptions): Promise<void> {
    this.reader.detach();
    const secure = tls.connect({ ca: [], servername: 'localhost', ...options, socket: this.#raw });
    secure.on('end', () => secure.end());
    this.socket = secure;
    this.tlsSocket = secure;
    await new Promise<void>((resolve, reject) => {
      secure.once('secureConnect', resolve);
      secure.on('error', reject);
      secure.once('close', () => reject(new Error('the server closed the connection')));
    });
    this.reader = new ByteReader(secure);
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  sendOption(option: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(optionBytes(option, data));
  }

  async readAnswer(): Promise<OptionAnswer> {
    const header = await this.reader.read(20);
    if (header.readBigUInt64BE(0) !== 0x0003e889045565a9n)
      throw new Error('an answer without its magic number');
    const data = await this.reader.read(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** Sends an option and reads answers up to the one that ends it. */
  async ask(option: number, data?: Uint8Array): Promise<OptionAnswer[]> {
    this.sendOption(option, data);
    const answers: OptionAnswer[] = [];
    for (;;) {
      const answer = await this.readAnswer();
      answers.push(answer);
      if (answer.type === 1 || answer.type >= 0x8000_0000) return answers;
    }
  }

  /** The whole handshake with GO. */
  async open(
    name: string,
    options: { structured?: boolean; extended?: boolean; contexts?: readonly string[] } = {},
  ): Promise<void> {
    await this.greet();
    if (options.structured === true) await this.ask(8);
    if (options.extended === true) await this.useExtendedHeaders();
    if (options.contexts !== undefined) await this.ask(10, contextRequest(name, options.contexts));
    await this.ask(7, infoRequest(name));
  }

  /** EXTENDED_HEADERS; from now on `request` makes extended requests. */
  async useExtendedHeaders(): Promise<OptionAnswer[]> {
    this.#extended = true;
    return this.ask(11);
  }

  request(request: RawRequest): void {
    this.send(rawRequest(request, this.#extended));
  }

  /** Reads one simple reply (with `dataBytes` of data when it carries no error), or one structured or extended chunk. */
  async readReply(dataBytes = 0): Promise<RawChunk> {
    const header = await this.reader.read(16);
    const cookie = header.readUInt32BE(12);
    if (header.readUInt32BE(0) === 0x67446698) {
      const errno = header.readUInt32BE(4);
      const payload = await this.reader.read(errno === 0 ? dataBytes : 0);
      return { structured: false, errno, flags: 0, type: 0, cookie, payload };
    }
    const flags = header.readUInt16BE(4);
    const type = header.readUInt16BE(6);
    const chunk = { structured: true, flags, type, cookie };
    if (header.readUInt32BE(0) === 0x6e8a278c) {
      const rest = await this.reader.read(16);
      const payload = await this.reader.read(Number(rest.readBigUInt64BE(8)));
      return { ...chunk, errno: errnoOf(type, payload), offset: rest.readBigUInt64BE(0), payload };
    }
    if (header.readUInt32BE(0) !== 0x668e33ef) throw new Error('a reply without its magic number');
    const payload = await this.reader.read((await this.reader.read(4)).readUInt32BE(0));
    return { ...chunk, errno: errnoOf(type, payload), payload };
  }

  /** Whether the server closes without another byte. */
  async endsNow(): Promise<boolean> {
    try {
      await this.reader.read(1);
      return false;
    } catch {
      return true;
    }
  }

  halfClose(): void {
    this.socket.end();
  }

  /** TCP resets; over a Unix socket the nearest thing is to close with replies unread. */
  reset(): void {
    if (this.#tcp) this.#raw.resetAndDestroy();
    else this.socket.destroy();
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** Of an error chunk its error, of others 0. */
function errnoOf(type: number, payload: Buffer): number {
  return type >= 0x8000 ? payload.readUInt32BE(0) : 0;
}
