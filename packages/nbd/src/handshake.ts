/**
 * The handshake of one connection: greeting, client flags, options one after another until one of them
 * starts transmission or ends the connection.
 *
 * Each option is read whole (bounded), answered, and only then is the next one looked at. A handshake
 * holds no export open: INFO opens and closes, GO hands over.
 */
import { PandoError } from '@pando/common';
import type { Socket } from 'node:net';
import { listContexts, selectContexts } from './contexts.ts';
import type { NbdLimits } from './limits.ts';
import { Negotiation } from './negotiation.ts';
import type { Session } from './negotiation.ts';
import { OptionDataError, decodeString, parseContextRequest, parseInfoRequest } from './option-data.ts';
import { contextReplies, exportNameAnswer, infoReplies, listReplies, optionReply } from './option-replies.ts';
import {
  HandshakeFlag,
  NBD_MAGIC,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  Option,
  OptionReply,
} from './protocol.ts';
import type { ExportHandle, ExportProvider, Logger } from './types.ts';

const SERVER_FLAGS = HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes;

/** What the handshake asks of its connection. */
export interface HandshakeHost {
  readonly socket: Socket;
  readonly exports: ExportProvider;
  readonly limits: NbdLimits;
  readonly logger: Logger;
  readonly retiring: boolean;
  /** Looks for more input: an option has been answered. */
  pump(): void;
  /** Starts transmission; the handle is the connection's from now on. */
  startTransmission(handle: ExportHandle, session: Session): void;
  /** Sends what has been written, then closes. */
  finish(): void;
  /** Closes at once: the client broke a rule that leaves no way on. */
  violation(reason: string): void;
  /** Resolves when the socket has taken what was written, or is closed. */
  drained(): Promise<void>;
}

export class Handshake {
  readonly #host: HandshakeHost;
  readonly #negotiation = new Negotiation();
  #gather = Buffer.alloc(4);
  #gatherBytes = 0;
  #state: 'clientFlags' | 'header' | 'data' | 'skip' | 'ended' = 'clientFlags';
  #option = 0;
  #optionBytes = 0;
  #skipBytes = 0;
  #options = 0;
  #busy = false;

  constructor(host: HandshakeHost) {
    this.#host = host;
  }

  /** True while an option is being answered: no input is taken. */
  get waiting(): boolean {
    return this.#busy;
  }

  greet(): void {
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(NBD_MAGIC, 0);
    greeting.writeBigUInt64BE(OPTION_MAGIC, 8);
    greeting.writeUInt16BE(SERVER_FLAGS, 16);
    this.#host.socket.write(greeting);
  }

  /** Takes bytes from `start` on; returns the position of the first that was not taken. */
  consume(chunk: Buffer, start: number): number {
    let at = start;
    while (!this.#busy && this.#state !== 'ended') {
      if (this.#state === 'skip') {
        const count = Math.min(this.#skipBytes, chunk.length - at);
        at += count;
        this.#skipBytes -= count;
        if (this.#skipBytes > 0) return at;
        this.#answer(() => this.#refuseLong());
        continue;
      }
      const count = Math.min(this.#gather.length - this.#gatherBytes, chunk.length - at);
      chunk.copy(this.#gather, this.#gatherBytes, at, at + count);
      at += count;
      this.#gatherBytes += count;
      if (this.#gatherBytes < this.#gather.length) return at;
      this.#step();
    }
    return this.#state === 'ended' ? chunk.length : at;
  }

  /** Writes go out at once. */
  endTurn(): void {}

  #expect(state: 'header' | 'data', bytes: number): void {
    this.#state = state;
    this.#gather = Buffer.allocUnsafe(bytes);
    this.#gatherBytes = 0;
  }

  #end(reason?: string): void {
    this.#state = 'ended';
    if (reason === undefined) this.#host.finish();
    else this.#host.violation(reason);
  }

  #step(): void {
    const { limits } = this.#host;
    const data = this.#gather;
    if (this.#state === 'clientFlags') {
      const flags = data.readUInt32BE(0);
      if ((flags & ~SERVER_FLAGS) !== 0) {
        this.#end(`client flags ${flags} that were not offered`);
        return;
      }
      this.#negotiation.clientFlags = flags;
      this.#expect('header', OPTION_HEADER_BYTES);
      return;
    }
    if (this.#state === 'header') {
      if (data.readBigUInt64BE(0) !== OPTION_MAGIC) {
        this.#end('an option without its magic number');
        return;
      }
      if (++this.#options > limits.optionsMax) {
        this.#end(`more than ${limits.optionsMax} options`);
        return;
      }
      this.#option = data.readUInt32BE(8);
      this.#optionBytes = data.readUInt32BE(12);
      if (this.#optionBytes > limits.optionSkipBytesMax) {
        this.#end(`an option of ${this.#optionBytes} bytes`);
      } else if (this.#optionBytes > limits.optionBytesMax) {
        this.#state = 'skip';
        this.#skipBytes = this.#optionBytes;
      } else {
        this.#expect('data', this.#optionBytes);
      }
      return;
    }
    this.#answer(() => this.#handle(this.#option, data));
  }

  /** Runs the answer to an option, then goes on with the next one. */
  #answer(run: () => Promise<void> | void): void {
    this.#busy = true;
    this.#run(run).then(
      () => {
        this.#busy = false;
        // Shutdown began meanwhile, and there may be no further option to answer with ERR_SHUTDOWN.
        if (this.#host.retiring && this.#state !== 'ended') this.#end();
        this.#host.pump();
      },
      (error: unknown) => {
        this.#host.logger.error({ err: error, option: this.#option }, 'answering an NBD option failed');
        this.#busy = false;
        this.#end('an internal error');
      },
    );
  }

  async #run(run: () => Promise<void> | void): Promise<void> {
    if (this.#host.retiring && this.#option !== Option.abort) {
      if (this.#option !== Option.exportName) this.#fail(OptionReply.shutdown, 'the server is shutting down');
      this.#end();
      return;
    }
    try {
      await run();
    } catch (error) {
      if (!(error instanceof OptionDataError)) throw error;
      if (this.#option === Option.exportName) {
        this.#end('an export name that is not valid');
        return;
      }
      this.#fail(error.tooBig ? OptionReply.tooBig : OptionReply.invalid, error.message);
    }
    if (this.#state === 'ended') return;
    // A client that asks and does not read must not make answers pile up.
    if (this.#host.socket.writableLength > 0) await this.#host.drained();
    this.#expect('header', OPTION_HEADER_BYTES);
  }

  #refuseLong(): void {
    if (this.#option === Option.exportName) {
      this.#end('an export name that is too long');
    } else if (this.#option === Option.abort) {
      this.#reply(OptionReply.ack);
      this.#end();
    } else if (KNOWN_OPTIONS.has(this.#option)) {
      this.#fail(OptionReply.tooBig, `options have at most ${this.#host.limits.optionBytesMax} bytes`);
    } else {
      this.#fail(OptionReply.unsupported, 'unknown option');
    }
  }

  async #handle(option: number, data: Buffer): Promise<void> {
    switch (option) {
      case Option.exportName:
        await this.#exportName(data);
        return;
      case Option.abort:
        this.#reply(OptionReply.ack);
        this.#end();
        return;
      case Option.list:
        await this.#list(data);
        return;
      case Option.info:
      case Option.go:
        await this.#infoOrGo(option, data);
        return;
      case Option.structuredReply:
        if (data.length > 0) throw new OptionDataError('STRUCTURED_REPLY has no data');
        this.#negotiation.structuredReplies = true;
        this.#reply(OptionReply.ack);
        return;
      case Option.listMetaContext:
        this.#listContexts(data);
        return;
      case Option.setMetaContext:
        this.#setContexts(data);
        return;
      default:
        this.#fail(OptionReply.unsupported, 'unknown option');
    }
  }

  async #exportName(data: Buffer): Promise<void> {
    const name = decodeString(data);
    const handle = await this.#open(name);
    if (handle instanceof PandoError) {
      this.#host.logger.info({ exportName: name, code: handle.code }, 'NBD export refused');
      this.#end();
      return;
    }
    this.#send(exportNameAnswer(handle, this.#negotiation));
    this.#go(name, handle);
  }

  async #list(data: Buffer): Promise<void> {
    if (data.length > 0) throw new OptionDataError('LIST has no data');
    const { listedExportsMax } = this.#host.limits;
    const names = await this.#host.exports.list(listedExportsMax);
    this.#send(listReplies(this.#option, names.slice(0, listedExportsMax)));
  }

  async #infoOrGo(option: number, data: Buffer): Promise<void> {
    const { name, infos } = parseInfoRequest(data);
    const handle = await this.#open(name);
    if (handle instanceof PandoError) {
      this.#refuse(name, handle);
      return;
    }
    const replies = infoReplies(option, handle, this.#negotiation, infos);
    if (option === Option.go) {
      this.#send(replies);
      this.#go(name, handle);
      return;
    }
    await handle.close();
    this.#send(replies);
  }

  #needStructuredReplies(): void {
    if (this.#negotiation.structuredReplies) return;
    throw new OptionDataError('contexts need STRUCTURED_REPLY first');
  }

  #listContexts(data: Buffer): void {
    const { queries } = parseContextRequest(data);
    this.#needStructuredReplies();
    this.#send(contextReplies(this.#option, listContexts(queries), false));
  }

  #setContexts(data: Buffer): void {
    // Replaces the earlier set even when it fails.
    this.#negotiation.contexts = [];
    const { name, queries } = parseContextRequest(data);
    this.#needStructuredReplies();
    this.#negotiation.contexts = selectContexts(queries);
    this.#negotiation.contextsFor = name;
    this.#send(contextReplies(this.#option, this.#negotiation.contexts, true));
  }

  async #open(name: string): Promise<ExportHandle | PandoError> {
    try {
      return await this.#host.exports.open(name);
    } catch (error) {
      if (error instanceof PandoError) return error;
      throw error;
    }
  }

  #go(name: string, handle: ExportHandle): void {
    this.#state = 'ended';
    const { structuredReplies } = this.#negotiation;
    this.#host.startTransmission(handle, { structuredReplies, contexts: this.#negotiation.contextsOf(name) });
  }

  #refuse(name: string, error: PandoError): void {
    this.#host.logger.info({ exportName: name, code: error.code }, 'NBD export refused');
    // A name that can be no export's is unknown, not a malformed option.
    if (error.kind === 'missing' || error.kind === 'invalid') {
      this.#fail(OptionReply.unknown, 'no such export');
    } else if (error.code === 'shutting-down') {
      this.#fail(OptionReply.shutdown, 'the server is shutting down');
    } else if (error.kind === 'conflict' || error.code === 'too-busy') {
      this.#fail(OptionReply.policy, error.code);
    } else {
      this.#fail(OptionReply.platform, error.code);
    }
  }

  #send(bytes: Buffer): void {
    this.#host.socket.write(bytes);
  }

  #reply(type: number): void {
    this.#send(optionReply(this.#option, type));
  }

  #fail(type: number, text: string): void {
    this.#send(optionReply(this.#option, type, Buffer.from(text)));
  }
}

/** Options that are carried out when their data is not too long. */
const KNOWN_OPTIONS = new Set<number>([
  Option.list,
  Option.info,
  Option.go,
  Option.structuredReply,
  Option.listMetaContext,
  Option.setMetaContext,
]);
