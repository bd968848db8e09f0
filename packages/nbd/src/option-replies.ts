/** Replies to options as bytes. */
import { blockSizes, describeExport } from './negotiation.ts';
import { Info, OPTION_REPLY_HEADER_BYTES, OPTION_REPLY_MAGIC, OptionReply } from './protocol.ts';
import type { ExportHandle } from './types.ts';

/** Zeros after the answer to EXPORT_NAME, for clients that did not ask to leave them out. */
const EXPORT_NAME_ZEROS = 124;

export function optionReply(option: number, type: number, ...payload: readonly Buffer[]): Buffer {
  const header = Buffer.alloc(OPTION_REPLY_HEADER_BYTES);
  header.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(
    payload.reduce((sum, part) => sum + part.length, 0),
    16,
  );
  return Buffer.concat([header, ...payload]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** One SERVER reply for each name, then ACK. */
export function listReplies(option: number, names: readonly string[]): Buffer {
  const replies: Buffer[] = [];
  for (const name of names) {
    const bytes = Buffer.from(name);
    replies.push(optionReply(option, OptionReply.server, u32(bytes.length), bytes));
  }
  return Buffer.concat([...replies, optionReply(option, OptionReply.ack)]);
}

/** The infos of an export, then ACK. */
export function infoReplies(
  option: number,
  handle: ExportHandle,
  transmissionFlags: number,
  asked: ReadonlySet<number>,
): Buffer {
  const info = (type: number, ...payload: readonly Buffer[]): Buffer =>
    optionReply(option, OptionReply.info, u16(type), ...payload);
  const { minimum, preferred, payloadMax } = blockSizes(handle);
  const replies = [
    info(Info.export, u64(handle.size), u16(transmissionFlags)),
    // Block sizes are sent to everyone: clients that did not ask have been seen to guess wrong.
    info(Info.blockSize, u32(minimum), u32(preferred), u32(payloadMax)),
  ];
  if (asked.has(Info.name)) replies.push(info(Info.name, Buffer.from(handle.exportName)));
  if (asked.has(Info.description)) replies.push(info(Info.description, Buffer.from(describeExport(handle))));
  return Buffer.concat([...replies, optionReply(option, OptionReply.ack)]);
}

/** One META_CONTEXT reply for each context, with its number when it was selected, else 0, then ACK. */
export function contextReplies(
  option: number,
  contexts: Iterable<{ readonly id: number; readonly name: string }>,
): Buffer {
  const replies: Buffer[] = [];
  for (const { id, name } of contexts) {
    replies.push(optionReply(option, OptionReply.metaContext, u32(id), Buffer.from(name)));
  }
  return Buffer.concat([...replies, optionReply(option, OptionReply.ack)]);
}

/** The answer to EXPORT_NAME, which has no header. */
export function exportNameAnswer(handle: ExportHandle, transmissionFlags: number, zeros: boolean): Buffer {
  const padding = Buffer.alloc(zeros ? EXPORT_NAME_ZEROS : 0);
  return Buffer.concat([u64(handle.size), u16(transmissionFlags), padding]);
}
