/** Answers to requests, as the session agreed on them: simple, structured or extended, gathered by the reply writer. */
import type { StatusExtents } from '@pando/block-device';
import type { SelectedContext } from './contexts.ts';
import type { ReplyStyle } from './negotiation.ts';
import {
  CHUNK_DONE,
  CHUNK_HEADER_BYTES,
  ChunkType,
  Command,
  EXTENDED_HEADER_BYTES,
  SIMPLE_REPLY_BYTES,
} from './protocol.ts';
import {
  DATA_OFFSET_BYTES,
  errorChunkBytes,
  putChunkHeader,
  putErrorChunk,
  putReadReply,
  putSimpleReply,
  putStatusChunk,
  statusChunkBytes,
} from './reply-format.ts';
import type { ReplyTo } from './reply-format.ts';
import type { ReplyWriter } from './reply-writer.ts';
import type { Request } from './request-parser.ts';

/** Room for any answer that carries neither data nor extents. */
export const SMALL_ANSWER_BYTES = 1024;
/** UTF-16 units of an error's text; as UTF-8 they fit a small answer. */
const ERROR_TEXT_UNITS_MAX = 256;

export class Answers {
  /** What stands before the data of a read. */
  readonly readHeaderBytes: number;
  readonly #replies: ReplyWriter;
  /** Reads and errors are answered in chunks. */
  readonly #structured: boolean;
  /** Everything is. */
  readonly #extended: boolean;
  /** Of a chunk. */
  readonly #headerBytes: number;

  constructor(replies: ReplyWriter, style: ReplyStyle) {
    this.#replies = replies;
    this.#structured = style !== 'simple';
    this.#extended = style === 'extended';
    this.#headerBytes = this.#extended ? EXTENDED_HEADER_BYTES : CHUNK_HEADER_BYTES;
    this.readHeaderBytes = this.#structured ? this.#headerBytes + DATA_OFFSET_BYTES : SIMPLE_REPLY_BYTES;
  }

  /** Makes the reply of a read in place: its data lies at `at + readHeaderBytes`. Returns the reply's bytes. */
  putRead(buffer: Buffer, at: number, request: Request, holes: readonly number[]): number {
    if (!this.#structured) return putSimpleReply(buffer, at, request, 0) + request.length;
    return putReadReply(buffer, at, this.#headerBytes, request, request.offset, request.length, holes);
  }

  succeed(request: ReplyTo & { readonly type: number }): void {
    const at = this.#replies.reserve(EXTENDED_HEADER_BYTES);
    const { buffer } = this.#replies;
    // Once structured replies are agreed on, a READ never gets a simple one, not even of no bytes.
    const chunk = this.#extended || (this.#structured && request.type === Command.read);
    this.#replies.commit(
      chunk
        ? putChunkHeader(buffer, at, this.#headerBytes, request, CHUNK_DONE, ChunkType.none, 0)
        : putSimpleReply(buffer, at, request, 0),
    );
  }

  /** `place`: the offset where the request failed, when it is known. */
  fail(request: ReplyTo, errno: number, text: string, place?: number): void {
    if (!this.#structured) {
      const at = this.#replies.reserve(SIMPLE_REPLY_BYTES);
      this.#replies.commit(putSimpleReply(this.#replies.buffer, at, request, errno));
      return;
    }
    const bytes = Buffer.from(text.slice(0, ERROR_TEXT_UNITS_MAX));
    const at = this.#replies.reserve(errorChunkBytes(this.#headerBytes, bytes));
    const { buffer } = this.#replies;
    this.#replies.commit(putErrorChunk(buffer, at, this.#headerBytes, request, errno, bytes, place));
  }

  /** Room for a block status of so many contexts with so many extents each. */
  statusBytes(contexts: number, extents: number): number {
    return contexts * statusChunkBytes(this.#headerBytes, extents);
  }

  /** Makes the reply of a block status at `at`: one chunk for each context. Returns the reply's bytes. */
  putStatus(
    buffer: Buffer,
    at: number,
    request: ReplyTo,
    contexts: readonly SelectedContext[],
    extents: readonly StatusExtents[],
  ): number {
    let put = at;
    for (const [i, { lengths, flags }] of extents.entries()) {
      const last = i === extents.length - 1 ? CHUNK_DONE : 0;
      const { id } = contexts[i]!;
      put += putStatusChunk(buffer, put, this.#headerBytes, request, last, id, lengths, flags);
    }
    return put - at;
  }
}
