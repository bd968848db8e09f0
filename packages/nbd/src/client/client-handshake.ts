/** The client's side of the handshake. */
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
} from '../protocol.ts';
import type { ByteReader } from './byte-reader.ts';

/** Longest answer to an option that is taken. */
const REPLY_BYTES_MAX = 64 * 1024;

export interface ClientSession {
  readonly size: number;
  readonly flags: number;
  readonly preferredBytes: number;
  readonly structuredReplies: boolean;
  /** Number of base:allocation, or 0 when the server has none. */
  readonly allocationId: number;
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

interface Reply {
  readonly type: number;
  readonly data: Buffer;
}

async function readReply(reader: ByteReader, option: number): Promise<Reply> {
  const header = await reader.read(20);
  const length = header.readUInt32BE(16);
  if (
    header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC ||
    header.readUInt32BE(8) !== option ||
    length > REPLY_BYTES_MAX
  ) {
    throw new PandoError('connection-lost', 'the server does not answer as an NBD server does');
  }
  return { type: header.readUInt32BE(12), data: await reader.read(length) };
}

/** Replies to one option up to the one that ends it. */
async function ask(socket: Socket, reader: ByteReader, option: number, data: Uint8Array): Promise<Reply[]> {
  socket.write(optionBytes(option, data));
  const replies: Reply[] = [];
  for (;;) {
    const reply = await readReply(reader, option);
    replies.push(reply);
    if (reply.type === OptionReply.ack || reply.type >= 0x8000_0000) return replies;
  }
}

export async function clientHandshake(
  socket: Socket,
  reader: ByteReader,
  exportName: string,
  wantStructured: boolean,
): Promise<ClientSession> {
  const greeting = await reader.read(18);
  if (greeting.readBigUInt64BE(0) !== NBD_MAGIC || greeting.readBigUInt64BE(8) !== OPTION_MAGIC) {
    throw new PandoError('connection-lost', 'the server is not an NBD server with newstyle negotiation');
  }
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(greeting.readUInt16BE(16) & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes));
  socket.write(flags);
  let structuredReplies = false;
  let allocationId = 0;
  if (wantStructured) {
    const [answer] = await ask(socket, reader, Option.structuredReply, Buffer.alloc(0));
    structuredReplies = answer?.type === OptionReply.ack;
  }
  if (structuredReplies) {
    const one = Buffer.from([0, 0, 0, 1]);
    const data = Buffer.concat([stringBytes(exportName), one, stringBytes('base:allocation')]);
    for (const reply of await ask(socket, reader, Option.setMetaContext, data)) {
      if (reply.type === OptionReply.metaContext) allocationId = reply.data.readUInt32BE(0);
    }
  }
  const infos = Buffer.from([0, 1, 0, Info.blockSize]);
  const replies = await ask(socket, reader, Option.go, Buffer.concat([stringBytes(exportName), infos]));
  return { ...exportOf(replies, exportName), structuredReplies, allocationId };
}

function exportOf(
  replies: readonly Reply[],
  name: string,
): { size: number; flags: number; preferredBytes: number } {
  const last = replies.at(-1)!;
  if (last.type === OptionReply.unknown)
    throw new PandoError('disk-missing', `the server has no export ${name}`);
  if (last.type !== OptionReply.ack) {
    throw new PandoError('connection-lost', `the server refuses export ${name}: ${last.data.toString()}`);
  }
  let size = -1;
  let flags = 0;
  let preferredBytes = 4096;
  for (const { type, data } of replies) {
    if (type !== OptionReply.info) continue;
    const info = data.readUInt16BE(0);
    if (info === Info.export) {
      size = Number(data.readBigUInt64BE(2));
      flags = data.readUInt16BE(10);
    } else if (info === Info.blockSize) {
      preferredBytes = data.readUInt32BE(6);
    }
  }
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new PandoError('connection-lost', `the server gives no usable size of export ${name}`);
  }
  return { size, flags, preferredBytes };
}
