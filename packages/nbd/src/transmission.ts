/**
 * The transmission phase of one connection: carries requests out on the device and answers them.
 *
 * Invariants: every request that was admitted is answered exactly once, unless the client is gone; replies
 * may overtake each other. A read is answered only when all of its data is there, so an error never has
 * to follow a good header. While `waiting`, no input is taken; what may end the wait (a reply
 * finished, the socket took bytes, the pool got buffers back) calls the host's `pump`.
 *
 * Hot path: a request whose device operation returns undefined allocates nothing but the view of a payload.
 */
import type { StatusExtents } from '@pando/block-device';
import type { Socket } from 'node:net';
import { Answers, SMALL_ANSWER_BYTES } from './answers.ts';
import type { BufferPool } from './buffer-pool.ts';
import { classBytes } from './buffer-pool.ts';
import type { OpenExport, SelectedContext } from './contexts.ts';
import { findDamage, isDamage } from './damage.ts';
import type { NbdLimits } from './limits.ts';
import { errnoOf, textOf } from './nbd-errors.ts';
import type { Session } from './negotiation.ts';
import { PendingRequest } from './pending-request.ts';
import { Command, CommandFlag, NbdErrno, PAYLOAD_BYTES_MAX } from './protocol.ts';
import { ReplyWriter } from './reply-writer.ts';
import type { RequestCounters } from './request-counters.ts';
import type { RequestSlots } from './request-slots.ts';
import { Payload, RequestParser } from './request-parser.ts';
import type { PayloadAction, Request, RequestHandler } from './request-parser.ts';
import { BAD_STATUS_PAYLOAD, SHUTTING_DOWN, refusalOf, statusRefusalOf } from './request-rules.ts';
import type { Refusal } from './request-rules.ts';
import { extentsOfEach, parseStatusPayload, tidyExtents } from './status.ts';
import type { ExportHandle, Logger } from './types.ts';

export interface TransmissionHost {
  readonly socket: Socket;
  readonly pool: BufferPool;
  readonly slots: RequestSlots;
  readonly counters: RequestCounters;
  readonly limits: NbdLimits;
  readonly logger: Logger;
  pump(): void;
  /** No request is in flight any more, and none will come: replies are on their way, release the export and close behind them. */
  finish(): void;
  violation(reason: string): void;
}

export class Transmission implements RequestHandler {
  readonly handle: ExportHandle;
  readonly #host: TransmissionHost;
  readonly #session: Session;
  readonly #parser: RequestParser;
  readonly #replies: ReplyWriter;
  readonly #answers: Answers;
  /** Reads and errors are answered in chunks. */
  readonly #structured: boolean;
  readonly #idlePending: PendingRequest[] = [];
  readonly #loggedErrors = new Set<string>();
  #requestsInFlight = 0;
  #payloadBytes = 0;
  #refusal: Refusal | undefined;
  #retiring = false;
  #finished = false;
  #aborted = false;
  #flushScheduled = false;
  #idle: (() => void) | undefined;

  constructor(host: TransmissionHost, session: Session) {
    this.handle = session.opened.handle;
    this.#host = host;
    this.#session = session;
    this.#parser = new RequestParser(this, session.replies === 'extended');
    this.#replies = new ReplyWriter(host.socket, host.pool, this.#roomFreed);
    this.#structured = session.replies !== 'simple';
    this.#answers = new Answers(this.#replies, session.replies);
  }

  get opened(): OpenExport {
    return this.#session.opened;
  }

  get waiting(): boolean {
    return this.#parser.waiting;
  }

  get requestsInFlight(): number {
    return this.#requestsInFlight;
  }

  /** Bytes of buffers that this connection holds. */
  get bufferBytes(): number {
    return this.#replies.heldBytes + this.#payloadBytes;
  }

  describe(): object {
    const { waiting, stopped, midRequest } = this.#parser;
    const { pool, slots } = this.#host;
    return {
      ...{ waiting, stopped, midRequest, requestsInFlight: this.#requestsInFlight },
      waitsForBuffers: pool.hasWaiting(this.#myTurn),
      waitsForSlots: slots.hasWaiting(this.#myTurn),
      ...{ payloadBytes: this.#payloadBytes, replies: this.#replies.describe() },
      ...{ retiring: this.#retiring, finished: this.#finished, aborted: this.#aborted },
      flushScheduled: this.#flushScheduled,
    };
  }

  consume(chunk: Buffer, start: number): number {
    return this.#parser.consume(chunk, start);
  }

  /** Sends what this turn's requests were answered with. */
  endTurn(): void {
    this.#replies.flush();
    this.#finishWhenIdle();
  }

  /** Requests in flight finish; later ones get ESHUTDOWN; then the connection is finished. */
  retire(): void {
    this.#retiring = true;
    this.#finishWhenIdle();
  }

  /** The client will send nothing more: answers what is in flight, then finishes. */
  inputEnded(): void {
    this.#stop();
    this.#finishWhenIdle();
  }

  /** The socket is gone: nothing is answered any more. Resolves when no request is in flight, and none will come. */
  async abort(): Promise<void> {
    if (this.#requestsInFlight > 0) this.handle.leave();
    this.#aborted = true;
    this.#parser.stop();
    this.#host.pool.stopWaiting(this.#myTurn);
    this.#host.slots.stopWaiting(this.#myTurn);
    this.#replies.close();
    if (this.#requestsInFlight > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#replies.close();
  }

  // What the parser asks for.

  admit(request: Request): boolean {
    if (request.type === Command.disconnect) {
      this.#refusal = undefined;
      return true;
    }
    const { slots, limits } = this.#host;
    if (this.#requestsInFlight >= limits.requestsInFlightMax) return false;
    if (!slots.admits()) {
      slots.wait(this.#myTurn);
      return false;
    }
    this.#refusal = this.#retiring ? SHUTTING_DOWN : refusalOf(request, this.handle, this.#session);
    const bytes = this.#refusal === undefined ? this.#answerBytes(request) : SMALL_ANSWER_BYTES;
    return this.#replies.hasRoom(bytes) || this.#admitBlock(bytes);
  }

  /** Room that the answer of a request takes that is carried out. */
  #answerBytes({ type, flags, length, payloadBytes }: Request): number {
    if (type === Command.read) return length + this.#answers.readHeaderBytes;
    if (type !== Command.blockStatus) return SMALL_ANSWER_BYTES;
    // What a payload asks for is not known yet.
    const each = this.#extentsOfEach(payloadBytes === 0 ? length : Infinity, flags);
    return Math.max(this.#statusBytes(each), SMALL_ANSWER_BYTES);
  }

  /** Extents that each context may say of so many bytes: all contexts share what a reply may have. */
  #extentsOfEach(length: number, flags: number): number {
    if ((flags & CommandFlag.reqOne) !== 0) return 1;
    return extentsOfEach(length, this.#session.opened.contexts.length, this.#host.limits.extentsMax);
  }

  /** Room for a block status in which all contexts say so many extents. */
  #statusBytes(each: number): number {
    return this.#answers.statusBytes(this.#session.opened.contexts.length, each);
  }

  /** Off the hot path: a reply needs another block. */
  #admitBlock(bytes: number): boolean {
    this.#replies.flush();
    if (this.#host.socket.writableLength > this.#host.limits.unsentBytesMax) return false;
    return this.#admitBytes(this.#replies.blockBytes(bytes));
  }

  #admitBytes(bytes: number): boolean {
    const { pool, limits } = this.#host;
    const held = this.bufferBytes;
    if (held > 0 && held + bytes > limits.connectionBufferBytesMax) return false;
    if (pool.admits(bytes)) return true;
    pool.wait(this.#myTurn);
    return false;
  }

  payload(request: Request): PayloadAction {
    const { type, payloadBytes } = request;
    if (this.#refusal === undefined && (type === Command.write || type === Command.blockStatus)) {
      return Payload.store;
    }
    // With extended headers every command may have a payload, and past the announced maximum it ends the connection.
    const extended = this.#session.replies === 'extended';
    const { payloadSkipBytesMax } = this.#host.limits;
    const skippedMax = extended ? Math.min(PAYLOAD_BYTES_MAX, payloadSkipBytesMax) : payloadSkipBytesMax;
    return payloadBytes <= skippedMax ? Payload.skip : Payload.refuse;
  }

  payloadBuffer(bytes: number): Buffer | undefined {
    if (!this.#admitBytes(classBytes(bytes))) return undefined;
    const buffer = this.#host.pool.take(bytes);
    this.#payloadBytes += buffer.byteLength;
    return buffer;
  }

  recycle(buffer: Buffer): void {
    this.#payloadBytes -= buffer.byteLength;
    this.#host.pool.give(buffer);
  }

  violation(reason: string): void {
    this.#host.violation(reason);
  }

  execute(request: Request, data: Uint8Array | undefined): void {
    const refusal = this.#refusal;
    if (request.type === Command.disconnect) {
      this.#stop();
      return;
    }
    if (refusal !== undefined) {
      this.#refuse(request, refusal);
      return;
    }
    this.#host.counters.begun(request.type, request.length);
    try {
      switch (request.type) {
        case Command.read:
          this.#read(request);
          return;
        case Command.write:
          this.#change(request, request.length === 0 ? undefined : this.handle.write(request.offset, data!));
          return;
        case Command.trim:
        case Command.writeZeroes:
          // NO_HOLE asks for space that is set aside; zeros take none here, so there is nothing to set aside.
          this.#change(
            request,
            request.length === 0 ? undefined : this.handle.zero(request.offset, request.length),
          );
          return;
        case Command.flush:
          this.#wait(this.#pendingOf(request), this.handle.flush());
          return;
        case Command.cache:
          this.#wait(this.#pendingOf(request), this.handle.prefetch(request.offset, request.length));
          return;
        default:
          this.#blockStatus(request, data);
      }
    } catch (error) {
      this.#deviceFailed(request, error);
    }
  }

  #refuse(request: Request, { errno, text }: Refusal): void {
    this.#answers.fail(request, errno, text);
  }

  #read(request: Request): void {
    const { offset, length, flags } = request;
    if (length === 0) {
      this.#answers.succeed(request);
      return;
    }
    const headerBytes = this.#answers.readHeaderBytes;
    const start = this.#replies.reserve(headerBytes + length);
    const pending = this.#idlePending.pop() ?? this.#newPending();
    const wantsHoles = this.#structured && (flags & CommandFlag.df) === 0;
    const holes = wantsHoles ? pending.holes : undefined;
    const buffer = this.#replies.buffer;
    let promise: Promise<void> | undefined;
    try {
      promise = this.handle.read(offset, length, buffer, start + headerBytes, holes);
    } catch (error) {
      if (!this.#locates(error)) {
        this.#park(pending);
        throw error;
      }
      this.#fillLater(pending, request, start, headerBytes + length);
      this.#begin(pending);
      this.#rejected(pending, error);
      return;
    }
    if (promise === undefined) {
      this.#replies.commit(this.#answers.putRead(buffer, start, request, pending.holes));
      this.#park(pending);
      return;
    }
    this.#fillLater(pending, request, start, headerBytes + length);
    this.#wait(pending, promise);
  }

  /** Leaves the reserved reply to whoever fills it. */
  #fillLater(pending: PendingRequest, request: Request, start: number, bytes: number): void {
    pending.take(request);
    pending.block = this.#replies.detach(bytes);
    pending.start = start;
  }

  /** WRITE, TRIM and WRITE_ZEROES: done, or done when the promise resolves, and with FUA when it is flushed. */
  #change(request: Request, promise: Promise<void> | undefined): void {
    const fua = (request.flags & CommandFlag.fua) !== 0;
    if (promise === undefined && !fua) {
      this.#answers.succeed(request);
      return;
    }
    const pending = this.#pendingOf(request);
    if (promise === undefined) {
      this.#wait(pending, this.handle.flush());
      return;
    }
    pending.flushNext = fua;
    this.#wait(pending, promise);
  }

  #blockStatus(request: Request, payload: Uint8Array | undefined): void {
    const selected = this.#session.opened.contexts;
    if (payload === undefined) {
      this.#describe(request, request.length, selected);
      return;
    }
    const choice = parseStatusPayload(payload, selected);
    if (choice === undefined) {
      this.#refuse(request, BAD_STATUS_PAYLOAD);
      return;
    }
    const refusal = statusRefusalOf(request.offset, choice.length, this.handle);
    if (refusal === undefined) this.#describe(request, choice.length, choice.contexts);
    else this.#refuse(request, refusal);
  }

  /** The room of the reply is taken now, so that answers in flight are within the bounds on buffers. */
  #describe(request: Request, length: number, contexts: readonly SelectedContext[]): void {
    const each = this.#extentsOfEach(length, request.flags);
    const bytes = this.#statusBytes(each);
    const start = this.#replies.reserve(bytes);
    const pending = this.#idlePending.pop() ?? this.#newPending();
    this.#fillLater(pending, request, start, bytes);
    pending.length = length;
    this.#wait(pending, this.#putStatus(pending, contexts, each));
  }

  async #putStatus(
    pending: PendingRequest,
    contexts: readonly SelectedContext[],
    each: number,
  ): Promise<void> {
    const { offset, length } = pending;
    const found: StatusExtents[] = [];
    for (const { source } of contexts) {
      const extents = tidyExtents(await source.describe(offset, length, each), length, each);
      if (extents.lengths.length === 0) throw new Error(`${source.name} described nothing at ${offset}`);
      found.push(extents);
    }
    const { buffer } = pending.block!;
    pending.replyBytes = this.#answers.putStatus(buffer, pending.start, pending, contexts, found);
  }

  // Operations in flight.

  #newPending(): PendingRequest {
    return new PendingRequest(this.#resolved, this.#rejected);
  }

  #pendingOf(request: Request): PendingRequest {
    const pending = this.#idlePending.pop() ?? this.#newPending();
    pending.take(request);
    return pending;
  }

  #park(pending: PendingRequest): void {
    pending.holes.length = 0;
    pending.block = undefined;
    this.#idlePending.push(pending);
  }

  #wait(pending: PendingRequest, promise: Promise<void>): void {
    this.#begin(pending);
    promise.then(pending.resolved, pending.rejected);
  }

  #begin(pending: PendingRequest): void {
    pending.since = performance.now();
    this.#requestsInFlight++;
    this.#host.slots.take();
  }

  readonly #resolved = (pending: PendingRequest): void => {
    try {
      if (pending.flushNext) {
        pending.flushNext = false;
        this.handle.flush().then(pending.resolved, pending.rejected);
        return;
      }
      this.#answer(pending);
    } catch (error) {
      this.#rejected(pending, error);
      return;
    }
    this.#done(pending);
  };

  #answer(pending: PendingRequest): void {
    const { block, start } = pending;
    if (block !== undefined) {
      const isRead = pending.type === Command.read && !this.#aborted;
      const bytes = isRead
        ? this.#answers.putRead(block.buffer, start, pending, pending.holes)
        : pending.replyBytes;
      pending.block = undefined;
      if (this.#aborted) this.#replies.release(block);
      else this.#replies.attach(block, start, bytes);
    } else if (!this.#aborted) {
      this.#answers.succeed(pending);
    }
  }

  readonly #rejected = (pending: PendingRequest, error: unknown): void => {
    const { block } = pending;
    const isRead = pending.type === Command.read;
    if (!isRead || block === undefined || this.#aborted || !this.#locates(error)) {
      this.#failed(pending, error);
      return;
    }
    const at = pending.start + this.#answers.readHeaderBytes;
    findDamage(this.handle, pending.offset, pending.length, block.buffer, at).then(
      (place) => this.#failed(pending, error, place),
      () => this.#failed(pending, error),
    );
  };

  /** Whether the answer to a read that failed names the offset: a simple reply has no place for one. */
  #locates(error: unknown): boolean {
    return this.#structured && isDamage(error);
  }

  #failed(pending: PendingRequest, error: unknown, place?: number): void {
    if (pending.block !== undefined) this.#replies.release(pending.block);
    if (!this.#aborted) this.#deviceFailed(pending, error, place);
    this.#done(pending);
  }

  #done(pending: PendingRequest): void {
    this.#host.counters.waited(pending.type, performance.now() - pending.since);
    this.#park(pending);
    this.#requestsInFlight--;
    this.#host.slots.give();
    if (this.#aborted) {
      if (this.#requestsInFlight === 0) this.#idle?.();
      return;
    }
    // Replies that become ready in one turn of the event loop leave in one write.
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      setImmediate(this.#flushLater);
    }
  }

  readonly #flushLater = (): void => {
    this.#flushScheduled = false;
    if (this.#aborted) return;
    if (this.#parser.waiting) this.#host.pump();
    this.endTurn();
  };

  readonly #roomFreed = (): void => {
    if (this.#parser.waiting && !this.#aborted) this.#host.pump();
  };

  /** Buffers or slots that others had are free, and this connection is next. */
  readonly #myTurn = (): void => {
    if (!this.#aborted) this.#host.pump();
  };

  /** The client asks for nothing more. */
  #stop(): void {
    this.#parser.stop();
    if (this.#requestsInFlight > 0) this.handle.leave();
  }

  #finishWhenIdle(): void {
    const ending = this.#retiring || this.#parser.stopped;
    if (!ending || this.#finished || this.#aborted || this.#requestsInFlight > 0) return;
    this.#finished = true;
    this.#parser.stop();
    this.#replies.flush();
    this.#host.finish();
  }

  #deviceFailed(request: Request, error: unknown, place?: number): void {
    const errno = errnoOf(error);
    this.#host.counters.failed(request.type);
    this.#answers.fail(request, errno, textOf(error), place);
    // Once a connection and kind of error: a guest on a full disk retries thousands of times.
    const key = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
    if (errno === NbdErrno.invalid || this.#loggedErrors.has(key)) return;
    this.#loggedErrors.add(key);
    const fields = {
      err: error,
      exportName: this.handle.exportName,
      command: request.type,
      offset: request.offset,
    };
    this.#host.logger.warn(
      fields,
      'an NBD request failed; further ones of this kind on this connection are not logged',
    );
  }
}
