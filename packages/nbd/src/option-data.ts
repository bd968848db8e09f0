/**
 * The data of options, parsed inside the slice that the option announced: an inner length that leaves
 * it is an error of that option, never a loss of sync.
 */
import { STRING_BYTES_MAX } from './protocol.ts';

/** What is wrong with an option's data: becomes ERR_INVALID or ERR_TOO_BIG. */
export class OptionDataError extends Error {
  readonly tooBig: boolean;

  constructor(message: string, tooBig = false) {
    super(message);
    this.tooBig = tooBig;
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Decodes a string of the protocol: UTF-8 without NUL, at most 4096 bytes. */
export function decodeString(bytes: Uint8Array): string {
  if (bytes.byteLength > STRING_BYTES_MAX)
    throw new OptionDataError('a string of more than 4096 bytes', true);
  if (bytes.includes(0)) throw new OptionDataError('a string with a NUL byte');
  try {
    return utf8.decode(bytes);
  } catch {
    throw new OptionDataError('a string that is not UTF-8');
  }
}

class Cursor {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  #take(bytes: number): Buffer {
    if (bytes > this.#data.length - this.#at)
      throw new OptionDataError('an inner length that leaves the option');
    const slice = this.#data.subarray(this.#at, this.#at + bytes);
    this.#at += bytes;
    return slice;
  }

  u16(): number {
    return this.#take(2).readUInt16BE(0);
  }

  u32(): number {
    return this.#take(4).readUInt32BE(0);
  }

  string(): string {
    return decodeString(this.#take(this.u32()));
  }

  end(): void {
    if (this.#at !== this.#data.length) throw new OptionDataError('bytes after the end of the option');
  }
}

/** INFO and GO: the name of the export and the infos that the client asks for. */
export function parseInfoRequest(data: Buffer): { name: string; infos: Set<number> } {
  const cursor = new Cursor(data);
  const name = cursor.string();
  const count = cursor.u16();
  const infos = new Set<number>();
  for (let i = 0; i < count; i++) infos.add(cursor.u16());
  cursor.end();
  return { name, infos };
}

/** LIST_META_CONTEXT and SET_META_CONTEXT: the name of the export and the queries. */
export function parseContextRequest(data: Buffer): { name: string; queries: string[] } {
  const cursor = new Cursor(data);
  const name = cursor.string();
  const count = cursor.u32();
  const queries: string[] = [];
  // Each takes at least four bytes of the option, so the loop ends with the data whatever the count says.
  for (let i = 0; i < count; i++) queries.push(cursor.string());
  cursor.end();
  return { name, queries };
}
