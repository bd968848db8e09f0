/**
 * The handshake of one connection: greeting, client flags, options one after another until one of them
 * starts transmission or ends the connection.
 *
 * Each option is read whole (bounded), answered, and only then is the next one looked at. What the options
 * that speak of exports mean is in options.ts.
 */
import type { Socket } from 'node:net';
import type { OpenExport } from './contexts.ts';
import type { Session } from './negotiation.ts';
import { OptionDataError } from './option-data.ts';
import { optionReply } from './option-replies.ts';
import { ExportOptions, isExportOption } from './options.ts';
import type { OptionsHost } from './options.ts';
import {
  HandshakeFlag,
  NBD_MAGIC,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  Option,
  OptionReply,
} from './protocol.ts';
import { TlsHandshakeError } from './tls.ts';
import type { TlsMode } from './types.ts';

const TLS_REQUIRED = 'this server serves over TLS only';
const SERVER_FLAGS = HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes;

/** What the handshake asks of its connection. */
export interface HandshakeHost extends OptionsHost {
  readonly socket: Socket;
  readonly retiring: boolean;
  /** Why the first option is refused, whatever it is; undefined for clients that are served. */
  readonly refusal: string | undefined;
  readonly tlsMode: TlsMode;
  /** Whether TLS is spoken. */
  readonly secured: boolean;
  /** Whether bytes have arrived that were not taken, or the client has closed its side. */
  readonly hasUnreadInput: boolean;
  /** Speaks TLS from here on: `socket` and `client` are others afterwards. Rejects when that fails; the socket is gone then. */
  startTls(): Promise<void>;
  /** Lets the handshake take so long, from its start, unless it may take longer already. */
  allowHandshake(ms: number): void;
  /** Looks for more input: an option has been answered. */
  pump(): void;
  /** Starts transmission; the opened export is the connection's from now on. */
  startTransmission(session: Session): void;
  /** Sends what has been written, then closes. */
  finish(): void;
  /** Closes at once: the client broke a rule that leaves no way on. */
  violation(reason: string): void;
  /** As `finish`, and says why in the log. */
  dismiss(reason: string): void;
  /** Resolves when the socket has taken what was written, or is closed. */
  drained(): Promise<void>;
}

export class Handshake {
  readonly #host: HandshakeHost;
  readonly #options: ExportOptions;
  #noZeroes = false;
  #gather = Buffer.alloc(4);
  #gatherBytes = 0;
  #state: 'clientFlags' | 'header' | 'data' | 'skip' | 'ended' = 'clientFlags';
  #option = 0;
  #optionBytes = 0;
  #skipBytes = 0;
  #optionCount = 0;
  #optionsMax: number;
  #busy = false;
  #answered: Promise<void> = Promise.resolve();

  constructor(host: HandshakeHost) {
    this.#host = host;
    this.#optionsMax = host.limits.optionsMax;
    this.#options = new ExportOptions(host);
  }

  /** True while an option is being answered: no input is taken. */
  get waiting(): boolean {
    return this.#busy;
  }

  /** The export that SET_META_CONTEXT has opened. */
  get kept(): OpenExport | undefined {
    return this.#options.kept;
  }

  describe(): object {
    return { state: this.#state, option: this.#option, answering: this.#busy, keeps: this.kept?.name };
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

  /** The socket is gone. Resolves when no option is being answered any more and no export is kept open. */
  async close(): Promise<void> {
    await this.#answered;
    this.#state = 'ended';
    await this.#options.dropContexts();
  }

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

  /** EXPORT_NAME has no errors but the end. Answers to options before it still reach the client. */
  #dismiss(reason?: string): void {
    this.#state = 'ended';
    if (reason === undefined) this.#host.finish();
    else this.#host.dismiss(reason);
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
      this.#noZeroes = (flags & HandshakeFlag.noZeroes) !== 0;
      this.#expect('header', OPTION_HEADER_BYTES);
      return;
    }
    if (this.#state === 'header') {
      if (data.readBigUInt64BE(0) !== OPTION_MAGIC) {
        this.#end('an option without its magic number');
        return;
      }
      if (++this.#optionCount > this.#optionsMax) {
        this.#end(`more than ${this.#optionsMax} options`);
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
    this.#answered = this.#run(run).then(
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
    const { refusal } = this.#host;
    if (refusal !== undefined) {
      if (this.#option !== Option.exportName) this.#fail(OptionReply.policy, refusal);
      this.#end();
      return;
    }
    try {
      await run();
    } catch (error) {
      if (!(error instanceof OptionDataError)) throw error;
      if (this.#option === Option.exportName) {
        this.#dismiss('an export name that is not valid');
        return;
      }
      this.#fail(error.tooBig ? OptionReply.tooBig : OptionReply.invalid, error.message);
    }
    if (this.#state === 'ended') return;
    // A client that asks and does not read must not make answers pile up.
    if (this.#host.socket.writableLength > 0) await this.#host.drained();
    this.#expect('header', OPTION_HEADER_BYTES);
  }

  async #refuseLong(): Promise<void> {
    // It replaces the earlier set even when it fails.
    if (this.#option === Option.setMetaContext) await this.#options.dropContexts();
    if (this.#option === Option.exportName) {
      this.#dismiss('an export name that is too long');
    } else if (this.#option === Option.abort) {
      this.#reply(OptionReply.ack);
      this.#end();
    } else if (this.#option === Option.startTls) {
      this.#fail(OptionReply.invalid, 'STARTTLS has no data');
    } else if (this.#needsTls) {
      this.#fail(OptionReply.tlsRequired, TLS_REQUIRED);
    } else if (isExportOption(this.#option)) {
      this.#fail(OptionReply.tooBig, `options have at most ${this.#host.limits.optionBytesMax} bytes`);
    } else {
      this.#fail(OptionReply.unsupported, 'unknown option');
    }
  }

  async #handle(option: number, data: Buffer): Promise<void> {
    if (option === Option.abort) {
      this.#reply(OptionReply.ack);
      this.#end();
      return;
    }
    if (option === Option.startTls) {
      await this.#startTls(data);
      return;
    }
    if (this.#needsTls) {
      if (option === Option.exportName) this.#dismiss('EXPORT_NAME without TLS');
      else this.#fail(OptionReply.tlsRequired, TLS_REQUIRED);
      return;
    }
    if (!isExportOption(option)) {
      this.#fail(OptionReply.unsupported, 'unknown option');
      return;
    }
    const outcome = await this.#options.answer(option, data, !this.#noZeroes);
    if (outcome.next === 'close') {
      this.#dismiss(outcome.reason);
    } else {
      this.#send(outcome.replies);
      if (outcome.next === 'option') {
        this.#allowOptionsFor(outcome.listed ?? 0);
        return;
      }
      this.#state = 'ended';
      this.#host.startTransmission(outcome.session);
    }
  }

  /** Whoever was shown many exports may ask about each of them, as `nbdinfo --list` does on one connection. */
  #allowOptionsFor(exports: number): void {
    const { optionsMax, optionsPerListedExportMax, handshakeMsMax, handshakeMsPerListedExportMax } =
      this.#host.limits;
    this.#optionsMax = Math.max(this.#optionsMax, optionsMax + exports * optionsPerListedExportMax);
    this.#host.allowHandshake(handshakeMsMax + exports * handshakeMsPerListedExportMax);
  }

  get #needsTls(): boolean {
    return this.#host.tlsMode === 'require' && !this.#host.secured;
  }

  async #startTls(data: Buffer): Promise<void> {
    const host = this.#host;
    if (host.tlsMode === 'off') {
      this.#fail(OptionReply.unsupported, 'this server does not speak TLS');
      return;
    }
    if (data.length > 0) throw new OptionDataError('STARTTLS has no data');
    if (host.secured) throw new OptionDataError('TLS is spoken already');
    await this.#options.restart();
    // Whoever is between could have put them there, to be taken for the client's own once TLS protects it.
    if (host.hasUnreadInput) {
      this.#end('bytes in clear behind STARTTLS');
      return;
    }
    // Nothing may run between these two: what arrives after the answer is for TLS.
    this.#reply(OptionReply.ack);
    try {
      await host.startTls();
    } catch (error) {
      this.#state = 'ended';
      if (!(error instanceof TlsHandshakeError)) throw error;
      host.logger.info(
        { reason: error.message, peer: host.client.peer },
        'an NBD client did not agree on TLS',
      );
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
