/**
 * The options that choose how to talk and about which export: EXPORT_NAME, LIST, INFO, GO, STRUCTURED_REPLY,
 * EXTENDED_HEADERS, LIST_META_CONTEXT and SET_META_CONTEXT.
 *
 * Owns what they agree on, and the export that SET_META_CONTEXT opened: it stays open until GO or EXPORT_NAME take it
 * over, or until something voids it (another SET, another export, a restart, the end). LIST_META_CONTEXT and INFO
 * close again what they open.
 */
import { PandoError } from '@pando/common';
import { OpenExport, listContexts } from './contexts.ts';
import type { NbdLimits } from './limits.ts';
import { textOf } from './nbd-errors.ts';
import { transmissionFlags } from './negotiation.ts';
import type { ReplyStyle, Session } from './negotiation.ts';
import { OptionDataError, decodeString, parseContextRequest, parseInfoRequest } from './option-data.ts';
import { contextReplies, exportNameAnswer, infoReplies, listReplies, optionReply } from './option-replies.ts';
import { Option, OptionReply } from './protocol.ts';
import type { ClientIdentity, ExportProvider, Logger } from './types.ts';

/** What options ask of their connection. */
export interface OptionsHost {
  readonly exports: ExportProvider;
  readonly limits: NbdLimits;
  readonly logger: Logger;
  /** Who the client is, as far as it has said: TLS makes it another one. */
  readonly client: ClientIdentity;
  readonly rotational: boolean;
  /** The kept export is revoked: the connection has to end. */
  retire(): void;
}

/** What becomes of the handshake after an option. */
export type OptionOutcome =
  /** `listed`: how many exports the client was told of, and may now ask about one by one. */
  | { readonly next: 'option'; readonly replies: Buffer; readonly listed?: number }
  | { readonly next: 'transmission'; readonly replies: Buffer; readonly session: Session }
  /** Closes without a reply: EXPORT_NAME has no errors. `reason` for the log, where nothing there says it yet. */
  | { readonly next: 'close'; readonly reason?: string };

const HANDLED = new Set<number>([
  Option.exportName,
  Option.list,
  Option.info,
  Option.go,
  Option.structuredReply,
  Option.extendedHeaders,
  Option.listMetaContext,
  Option.setMetaContext,
]);

/** Whether `ExportOptions.answer` carries the option out. */
export function isExportOption(option: number): boolean {
  return HANDLED.has(option);
}

const proceed = (replies: Buffer): OptionOutcome => ({ next: 'option', replies });
const refusal = (option: number, type: number, text: string): OptionOutcome =>
  proceed(optionReply(option, type, Buffer.from(text)));

export class ExportOptions {
  readonly #host: OptionsHost;
  #replies: ReplyStyle = 'simple';
  /** The export of the last SET_META_CONTEXT that selected something. */
  #kept: OpenExport | undefined;
  #lastContextId = 0;

  constructor(host: OptionsHost) {
    this.#host = host;
  }

  /** What SET_META_CONTEXT has opened and nothing has taken over yet. */
  get kept(): OpenExport | undefined {
    return this.#kept;
  }

  /** Forgets everything agreed on so far, as STARTTLS demands; contexts that were kept are closed. */
  async restart(): Promise<void> {
    this.#replies = 'simple';
    await this.dropContexts();
  }

  /** Closes the kept export and its contexts, if there is one: also what a SET_META_CONTEXT does that is not answered here. */
  async dropContexts(): Promise<void> {
    await this.#letGo()?.close();
  }

  /**
   * Carries an option out; `zeros`: whether the answer to EXPORT_NAME is padded.
   * @throws OptionDataError for data that is malformed or too much
   */
  async answer(option: number, data: Buffer, zeros: boolean): Promise<OptionOutcome> {
    switch (option) {
      case Option.exportName:
        return this.#exportName(data, zeros);
      case Option.list:
        return this.#list(data);
      case Option.info:
      case Option.go:
        return this.#infoOrGo(option, data);
      case Option.structuredReply:
      case Option.extendedHeaders:
        return this.#replyStyle(option, data);
      case Option.listMetaContext:
        return this.#listContexts(data);
      case Option.setMetaContext:
        return this.#setContexts(data);
      default:
        throw new Error(`option ${option} is not handled here`);
    }
  }

  #replyStyle(option: number, data: Buffer): OptionOutcome {
    if (data.length > 0) throw new OptionDataError('this option has no data');
    if (option === Option.extendedHeaders) {
      this.#replies = 'extended';
    } else if (this.#replies === 'extended') {
      return refusal(option, OptionReply.extendedHeadersRequired, 'extended headers are agreed on already');
    } else {
      this.#replies = 'structured';
    }
    return proceed(optionReply(option, OptionReply.ack));
  }

  async #list(data: Buffer): Promise<OptionOutcome> {
    if (data.length > 0) throw new OptionDataError('LIST has no data');
    const { exports, limits, client } = this.#host;
    const names = await exports.list(limits.listedExportsMax, client);
    const listed = names.slice(0, limits.listedExportsMax);
    return { next: 'option', replies: listReplies(Option.list, listed), listed: listed.length };
  }

  async #exportName(data: Buffer, zeros: boolean): Promise<OptionOutcome> {
    if (this.#replies === 'extended') return { next: 'close', reason: 'EXPORT_NAME after extended headers' };
    const name = decodeString(data);
    const opened = await this.#open(name);
    if (opened instanceof PandoError) {
      this.#logRefusal(name, opened);
      return { next: 'close' };
    }
    const replies = exportNameAnswer(opened.handle, this.#flagsOf(opened), zeros);
    return { next: 'transmission', replies, session: await this.#handOver(opened) };
  }

  async #infoOrGo(option: number, data: Buffer): Promise<OptionOutcome> {
    const { name, infos } = parseInfoRequest(data);
    const opened = await this.#open(name);
    if (opened instanceof PandoError) return this.#refuse(option, name, opened);
    const replies = infoReplies(option, opened.handle, this.#flagsOf(opened), infos);
    if (option === Option.go) return { next: 'transmission', replies, session: await this.#handOver(opened) };
    if (opened !== this.#kept) await opened.close();
    return proceed(replies);
  }

  #flagsOf({ handle, contexts }: OpenExport): number {
    return transmissionFlags(handle, this.#replies, contexts.length, this.#host.rotational);
  }

  /** The opened export is the session's; one that was kept for another name is closed. */
  async #handOver(opened: OpenExport): Promise<Session> {
    if (opened === this.#kept) {
      this.#letGo();
    } else {
      try {
        await this.dropContexts();
      } catch (error) {
        await opened.close();
        throw error;
      }
    }
    return { opened, replies: this.#replies };
  }

  #parseContexts(data: Buffer): { name: string; queries: string[] } {
    const request = parseContextRequest(data);
    if (this.#replies === 'simple') {
      throw new OptionDataError('contexts need STRUCTURED_REPLY or EXTENDED_HEADERS first');
    }
    const { contextQueriesMax } = this.#host.limits;
    if (request.queries.length > contextQueriesMax) {
      throw new OptionDataError(`more than ${contextQueriesMax} queries`, true);
    }
    return request;
  }

  async #listContexts(data: Buffer): Promise<OptionOutcome> {
    const option = Option.listMetaContext;
    const { name, queries } = this.#parseContexts(data);
    const opened = await this.#open(name);
    if (opened instanceof PandoError) return this.#refuse(option, name, opened);
    try {
      const names = await listContexts(opened.handle, queries, this.#host.limits.listedContextsMax);
      return proceed(
        contextReplies(
          option,
          names.map((context) => ({ id: 0, name: context })),
        ),
      );
    } catch (error) {
      return this.#refuse(option, name, error);
    } finally {
      if (opened !== this.#kept) await opened.close();
    }
  }

  async #setContexts(data: Buffer): Promise<OptionOutcome> {
    const option = Option.setMetaContext;
    // Replaces the earlier set even when it fails.
    await this.dropContexts();
    const { name, queries } = this.#parseContexts(data);
    const opened = await this.#open(name);
    if (opened instanceof PandoError) return this.#refuse(option, name, opened);
    const { contextsMax } = this.#host.limits;
    let fits;
    try {
      fits = await opened.select(queries, contextsMax, () => ++this.#lastContextId);
    } catch (error) {
      await opened.close();
      return this.#refuse(option, name, error);
    }
    const chosen = opened.contexts.map(({ id, source }) => ({ id, name: source.name }));
    if (!fits || chosen.length === 0) await opened.close();
    if (!fits) throw new OptionDataError(`more than ${contextsMax} contexts`, true);
    if (chosen.length > 0) this.#keep(opened);
    return proceed(contextReplies(option, chosen));
  }

  #keep(opened: OpenExport): void {
    this.#kept = opened;
    const { revoked } = opened.handle;
    if (revoked.aborted) this.#host.retire();
    else revoked.addEventListener('abort', this.#onRevoked, { once: true });
  }

  #letGo(): OpenExport | undefined {
    const kept = this.#kept;
    this.#kept = undefined;
    kept?.handle.revoked.removeEventListener('abort', this.#onRevoked);
    return kept;
  }

  readonly #onRevoked = (): void => {
    this.#host.retire();
  };

  /** The kept export when it is that one, else one that the caller must close. */
  async #open(name: string): Promise<OpenExport | PandoError> {
    if (this.#kept?.name === name) return this.#kept;
    try {
      return new OpenExport(name, await this.#host.exports.open(name, this.#host.client));
    } catch (error) {
      if (error instanceof PandoError) return error;
      throw error;
    }
  }

  #logRefusal(name: string, error: PandoError): void {
    const { logger, client } = this.#host;
    logger.info({ exportName: name, code: error.code, peer: client.peer }, 'NBD export refused');
  }

  #refuse(option: number, name: string, error: unknown): OptionOutcome {
    if (!(error instanceof PandoError)) throw error;
    this.#logRefusal(name, error);
    // A name that can be no export's is unknown, not a malformed option.
    if (error.kind === 'missing' || error.kind === 'invalid') {
      return refusal(option, OptionReply.unknown, 'no such export');
    }
    if (error.code === 'shutting-down') {
      return refusal(option, OptionReply.shutdown, 'the server is shutting down');
    }
    if (error.kind === 'conflict' || error.code === 'too-busy') {
      return refusal(option, OptionReply.policy, textOf(error));
    }
    return refusal(option, OptionReply.platform, textOf(error));
  }
}
