/** Answers to requests, as the session agreed on them: simple or structured, gathered by the reply writer. */
import type { StatusExtents } from '@pando/block-device';
import type { SelectedContext } from './contexts.ts';
import type { ReplyStyle } from './negotiation.ts';
import { CHUNK_DONE, CHUNK_HEADER_BYTES, ChunkType, Command, SIMPLE_REPLY_BYTES } from './protocol.ts';
import {
  DATA_CHUNK_BYTES,
  putChunkHeader,
  putErrorChunk,
  putReadReply,
  putSimpleReply,
  putStatusChunk,
} from './reply-format.ts';
import type { Cookie } from './reply-format.ts';
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
  readonly #structured: boolean;

  constructor(replies: ReplyWriter, style: ReplyStyle) {
    const structured = style !== 'simple';
    this.#replies = replies;
    this.#structured = structured;
    this.readHeaderBytes = structured ? DATA_CHUNK_BYTES : SIMPLE_REPLY_BYTES;
  }

  /** Makes the reply of a read in place: its data lies at `at + readHeaderBytes`. Returns the reply's bytes. */
  putRead(buffer: Buffer, at: number, request: Request, holes: readonly number[]): number {
    if (!this.#structured) return putSimpleReply(buffer, at, request, 0) + request.length;
    return putReadReply(buffer, at, request, request.offset, request.length, holes);
  }

  succeed(request: Cookie & { readonly type: number }): void {
    const at = this.#replies.reserve(CHUNK_HEADER_BYTES);
    const { buffer } = this.#replies;
    // Once structured replies are agreed on, a READ never gets a simple one, not even of no bytes.
    const structured = this.#structured && request.type === Command.read;
    this.#replies.commit(
      structured
        ? putChunkHeader(buffer, at, request, CHUNK_DONE, ChunkType.none, 0)
        : putSimpleReply(buffer, at, request, 0),
    );
  }

  fail(request: Cookie, errno: number, text: string): void {
    if (!this.#structured) {
      const at = this.#replies.reserve(SIMPLE_REPLY_BYTES);
      this.#replies.commit(putSimpleReply(this.#replies.buffer, at, request, errno));
      return;
    }
    const bytes = Buffer.from(text.slice(0, ERROR_TEXT_UNITS_MAX));
    const at = this.#replies.reserve(CHUNK_HEADER_BYTES + 6 + bytes.length);
    this.#replies.commit(putErrorChunk(this.#replies.buffer, at, request, errno, bytes));
  }

  /** Block status: one chunk for each context; the last one ends the reply. */
  status(request: Cookie, contexts: readonly SelectedContext[], extents: readonly StatusExtents[]): void {
    for (const [i, { lengths, flags }] of extents.entries()) {
      const at = this.#replies.reserve(CHUNK_HEADER_BYTES + 4 + 8 * lengths.length);
      const last = i === extents.length - 1 ? CHUNK_DONE : 0;
      const { buffer } = this.#replies;
      this.#replies.commit(putStatusChunk(buffer, at, request, last, contexts[i]!.id, lengths, flags));
    }
  }
}
