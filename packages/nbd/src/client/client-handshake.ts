/** The client's side of the handshake: from the greeting to the first request. */
import { PandoError } from '@pando/common';
import type { Socket } from 'node:net';
import {
  HandshakeFlag,
  Info,
  NBD_MAGIC,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
  PAYLOAD_BYTES_MAX,
  STRING_BYTES_MAX,
} from '../protocol.ts';
import type { ByteReader } from './byte-reader.ts';
import { CONTEXTS_MAX, OPTION_REPLIES_MAX, OPTION_REPLY_BYTES_MAX } from './limits.ts';
import { tlsFailed } from './client-tls.ts';

/** The zeros after the answer to EXPORT_NAME. */
const EXPORT_NAME_ZEROS = 124;
const MINIMUM_BYTES_MAX = 64 * 1024;
const PREFERRED_BYTES_DEFAULT = 4096;

export interface ClientSession {
  readonly size: number;
  readonly flags: number;
  /** Requests start and end at multiples of this; a power of two. */
  readonly minimumBytes: number;
  readonly preferredBytes: number;
  /** Longest payload of one request or reply. */
  readonly payloadBytesMax: number;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  /** Numbers of the contexts that the server has of those that were asked for, by name. */
  readonly contexts: ReadonlyMap<string, number>;
}

export interface HandshakeWishes {
  readonly exportName: string;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly contexts: readonly string[];
}

/** A socket and who reads from it; STARTTLS puts others in their place. */
export interface Channel {
  readonly socket: Socket;
  readonly reader: ByteReader;
}

export function optionBytes(option: number, data: Uint8Array): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(OPTION_MAGIC, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.byteLength, 12);
  return Buffer.concat([header, data]);
}

/** A string with its length in front. */
export function stringBytes(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

export function protocolError(problem: string): PandoError {
  return new PandoError('protocol-error', `the NBD server breaks the protocol: ${problem}`);
}

interface Reply {
  readonly type: number;
  readonly data: Buffer;
}

const isError = ({ type }: Reply): boolean => type >= 0x8000_0000;

/** Text of an error of the server, cut and without control characters: it goes to a terminal. */
export function cleanText(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('utf8')
    .slice(0, STRING_BYTES_MAX)
    .replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, ' ')
    .trim();
}

async function readReply(reader: ByteReader, option: number): Promise<Reply> {
  const header = await reader.read(20);
  const length = header.readUInt32BE(16);
  if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC || header.readUInt32BE(8) !== option) {
    throw protocolError(`an answer to option ${option} that is none`);
  }
  if (length > OPTION_REPLY_BYTES_MAX)
    throw protocolError(`an answer of ${length} bytes to option ${option}`);
  const reply = { type: header.readUInt32BE(12), data: await reader.read(length) };
  if (reply.type === OptionReply.tlsRequired) {
    throw tlsFailed(cleanText(reply.data) || 'it serves with TLS only (use nbds)');
  }
  return reply;
}

/** Replies to one option up to the one that ends it. */
async function ask({ socket, reader }: Channel, option: number, data: Uint8Array): Promise<Reply[]> {
  socket.write(optionBytes(option, data));
  const replies: Reply[] = [];
  for (;;) {
    const reply = await readReply(reader, option);
    replies.push(reply);
    if (reply.type === OptionReply.ack || isError(reply)) return replies;
    if (replies.length > OPTION_REPLIES_MAX) throw protocolError(`no end of answers to option ${option}`);
  }
}

async function isGranted(channel: Channel, option: number): Promise<boolean> {
  return (await ask(channel, option, Buffer.alloc(0)))[0]!.type === OptionReply.ack;
}

/** Reads the greeting and answers its flags. Resolves to whether EXPORT_NAME is answered without zeros. */
export async function greet({ socket, reader }: Channel): Promise<{ readonly noZeroes: boolean }> {
  const greeting = await reader.read(18);
  if (greeting.readBigUInt64BE(0) !== NBD_MAGIC) {
    throw new PandoError('protocol-error', 'what answers there is not an NBD server');
  }
  const offered = greeting.readUInt16BE(16);
  if (greeting.readBigUInt64BE(8) !== OPTION_MAGIC || (offered & HandshakeFlag.fixedNewstyle) === 0) {
    throw new PandoError('protocol-error', 'the NBD server is too old: it has no fixed newstyle negotiation');
  }
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(offered & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes));
  socket.write(flags);
  return { noZeroes: (offered & HandshakeFlag.noZeroes) !== 0 };
}

/**
 * Asks for TLS; the caller puts it on.
 * @throws `tls-failed` when the server has none, or sent bytes in clear that could be taken for its secured ones
 */
export async function askForTls(channel: Channel): Promise<void> {
  const [reply] = await ask(channel, Option.startTls, Buffer.alloc(0));
  if (reply!.type !== OptionReply.ack) throw tlsFailed(cleanText(reply!.data) || 'it has none');
  if (channel.reader.bytes > 0) throw tlsFailed('it went on in clear text after it had agreed');
}

/** What comes after the greeting and TLS. @throws `export-missing`, `connection-lost`, `protocol-error`, `tls-failed` */
export async function openExport(
  channel: Channel,
  wishes: HandshakeWishes,
  noZeroes: boolean,
): Promise<ClientSession> {
  const { exportName } = wishes;
  const structured = wishes.structuredReplies;
  const extendedHeaders =
    structured && wishes.extendedHeaders && (await isGranted(channel, Option.extendedHeaders));
  const structuredReplies =
    extendedHeaders || (structured && (await isGranted(channel, Option.structuredReply)));
  const contexts = structuredReplies ? await setContexts(channel, wishes) : new Map<string, number>();
  const infos = Buffer.from([0, 1, 0, Info.blockSize]);
  const replies = await ask(channel, Option.go, Buffer.concat([stringBytes(exportName), infos]));
  const base = { structuredReplies, extendedHeaders, contexts };
  if (replies.at(-1)!.type === OptionReply.unsupported) {
    return { ...base, ...(await openByName(channel, exportName, noZeroes)) };
  }
  return { ...base, ...exportOf(replies, exportName) };
}

async function setContexts(channel: Channel, wishes: HandshakeWishes): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  if (wishes.contexts.length === 0) return found;
  if (wishes.contexts.length > CONTEXTS_MAX) {
    throw new PandoError('request-invalid', `at most ${CONTEXTS_MAX} contexts can be asked for`);
  }
  const count = Buffer.alloc(4);
  count.writeUInt32BE(wishes.contexts.length);
  const data = Buffer.concat([stringBytes(wishes.exportName), count, ...wishes.contexts.map(stringBytes)]);
  for (const reply of await ask(channel, Option.setMetaContext, data)) {
    if (reply.type !== OptionReply.metaContext) continue;
    if (reply.data.length < 4) throw protocolError('a metadata context without a number');
    const name = reply.data.toString('utf8', 4);
    const id = reply.data.readUInt32BE(0);
    if (!wishes.contexts.includes(name) || found.has(name) || [...found.values()].includes(id)) {
      throw protocolError('a metadata context that was not asked for, or twice');
    }
    found.set(name, id);
  }
  return found;
}

type ExportFacts = Pick<
  ClientSession,
  'size' | 'flags' | 'minimumBytes' | 'preferredBytes' | 'payloadBytesMax'
>;

const FACTS_DEFAULT = {
  minimumBytes: 1,
  preferredBytes: PREFERRED_BYTES_DEFAULT,
  payloadBytesMax: PAYLOAD_BYTES_MAX,
};

/** For servers without GO. One that has no such export can only hang up. */
async function openByName(
  { socket, reader }: Channel,
  name: string,
  noZeroes: boolean,
): Promise<ExportFacts> {
  socket.write(optionBytes(Option.exportName, Buffer.from(name)));
  const answer = await reader.read(10);
  if (!noZeroes) await reader.read(EXPORT_NAME_ZEROS);
  const size = checkedSize(answer.readBigUInt64BE(0));
  return { ...FACTS_DEFAULT, size, flags: answer.readUInt16BE(8) };
}

function exportOf(replies: readonly Reply[], name: string): ExportFacts {
  const last = replies.at(-1)!;
  const label = JSON.stringify(name.slice(0, 200));
  if (last.type === OptionReply.unknown) {
    const text = cleanText(last.data);
    throw new PandoError(
      'export-missing',
      `the NBD server has no export ${label}${text === '' ? '' : `: ${text}`}`,
    );
  }
  if (last.type !== OptionReply.ack) {
    const reason = cleanText(last.data) || `error ${last.type - 0x8000_0000}`;
    const code = last.type === OptionReply.policy ? 'not-allowed' : 'connection-lost';
    throw new PandoError(code, `the NBD server refuses export ${label}: ${reason}`);
  }
  let facts: ExportFacts = { ...FACTS_DEFAULT, size: -1, flags: 0 };
  for (const { type, data } of replies) {
    if (type !== OptionReply.info || data.length < 2) continue;
    const info = data.readUInt16BE(0);
    if (info === Info.export) {
      if (data.length !== 12) throw protocolError('an export information of a wrong length');
      facts = { ...facts, size: checkedSize(data.readBigUInt64BE(2)), flags: data.readUInt16BE(10) };
    } else if (info === Info.blockSize) {
      facts = { ...facts, ...blockSizes(data) };
    }
  }
  if (facts.size < 0) throw protocolError('an export without a size');
  return facts;
}

function checkedSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw protocolError(`an export of ${size} bytes`);
  return Number(size);
}

function blockSizes(data: Buffer): Omit<ExportFacts, 'size' | 'flags'> {
  if (data.length !== 14) throw protocolError('block sizes of a wrong length');
  const [minimumBytes, preferred, payload] = [2, 6, 10].map((at) => data.readUInt32BE(at)) as [
    number,
    number,
    number,
  ];
  if (!isPowerOfTwo(minimumBytes) || minimumBytes > MINIMUM_BYTES_MAX || payload < minimumBytes) {
    throw protocolError(`block sizes ${minimumBytes}, ${preferred}, ${payload}`);
  }
  return {
    minimumBytes,
    preferredBytes:
      isPowerOfTwo(preferred) && preferred >= minimumBytes
        ? preferred
        : Math.max(PREFERRED_BYTES_DEFAULT, minimumBytes),
    payloadBytesMax: payload,
  };
}

function isPowerOfTwo(count: number): boolean {
  return count > 0 && Number.isInteger(Math.log2(count));
}
