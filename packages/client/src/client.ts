/** Calls of the REST API by the names that its OpenAPI document gives them. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { PandoError } from '@pando/common';
import type { Job, JobResults, StreamedEvents } from './generated/schema.ts';
import { ServerRefusal } from './problem.ts';
import { operation, requestOf } from './request.ts';
import {
  readBytes,
  readText,
  Transport,
  type ReceivedBytes,
  type Sent,
  type TransportOptions,
} from './transport.ts';
import type {
  AnswerOf,
  Arguments,
  ArgumentsOf,
  BytesId,
  CallId,
  ItemOf,
  JobId,
  ListId,
  OperationId,
  StreamId,
  UploadArgumentsOf,
  UploadId,
  UploadTypeOf,
} from './types.ts';

/** Items that a list is asked for at once. */
const PAGE_ITEMS = 1000;

const JSON_TYPE = 'application/json';

/** What changes something says that it is JSON also when nothing has to be said: pages of others cannot do that in a browser. */
const SENDS_BODY = new Set(['POST', 'PUT', 'PATCH']);

/** What a job is begun with: it runs, or it was done at once. */
export type Started<Result> = { readonly job: Job } | { readonly result: Result };

/**
 * Every method takes the name of an operation, and its parameters and JSON body as one object: `call('cloneVm', { vm: 'web', body: { name: 'web2' } })`.
 * All of them throw ServerRefusal when the server says no, and PandoError (`server-unreachable`, `tls-failed`) when there is no answer.
 */
export class Client {
  readonly #transport: Transport;

  /** Connects when it has something to ask. @throws `address-invalid` */
  constructor(options: TransportOptions) {
    this.#transport = new Transport(options);
  }

  get url(): string {
    return this.#transport.url;
  }

  /** What the operation answers with. */
  async call<Id extends CallId>(id: Id, ...given: Arguments<ArgumentsOf<Id>>): Promise<AnswerOf<Id>> {
    return parse(await readText(await this.#send(id, given[0])));
  }

  /** The pages of a list, from `cursor` on if that is given; `limit` items each. */
  async *pages<Id extends ListId>(
    id: Id,
    ...given: Arguments<ArgumentsOf<Id>>
  ): AsyncGenerator<AnswerOf<Id>, void, undefined> {
    const isInQuery = operation(id).query?.includes('cursor') === true;
    const begun = (given[0] ?? {}) as { readonly body?: object };
    for (let cursor: object = {}; ;) {
      const next = isInQuery ? { ...begun, ...cursor } : { ...begun, body: { ...begun.body, ...cursor } };
      const page = parse<AnswerOf<Id>>(await readText(await this.#send(id, next)));
      yield page;
      const { nextCursor } = page as Page<Id>;
      if (nextCursor === undefined) return;
      cursor = { cursor: nextCursor };
    }
  }

  /** A list as one page, however many it has: all items, and what else the last page says. */
  async whole<Id extends ListId>(id: Id, ...given: Arguments<ArgumentsOf<Id>>): Promise<AnswerOf<Id>> {
    const items: ItemOf<Id>[] = [];
    let last: Partial<Page<Id>> = {};
    for await (const page of this.pages(id, ...largePages(id, given))) {
      last = page as Page<Id>;
      items.push(...(last as Page<Id>).items);
    }
    return { ...last, items } as AnswerOf<Id>;
  }

  /** All items of a list, however many pages. */
  async all<Id extends ListId>(id: Id, ...given: Arguments<ArgumentsOf<Id>>): Promise<readonly ItemOf<Id>[]> {
    return ((await this.whole(id, ...given)) as Page<Id>).items;
  }

  /** The first so many items of a list. */
  async first<Id extends ListId>(
    count: number,
    id: Id,
    ...given: Arguments<ArgumentsOf<Id>>
  ): Promise<readonly ItemOf<Id>[]> {
    const items: ItemOf<Id>[] = [];
    const asked = Object.assign({}, given[0], { limit: Math.min(count, PAGE_ITEMS) });
    for await (const page of this.pages(id, ...([asked] as typeof given))) {
      items.push(...(page as Page<Id>).items);
      if (items.length >= count) break;
    }
    return items.slice(0, count);
  }

  /** Begins what may take long. */
  async start<Id extends JobId>(
    id: Id,
    ...given: Arguments<ArgumentsOf<Id>>
  ): Promise<Started<JobResults[Id]>> {
    const answer = await this.#send(id, given[0]);
    const text = await readText(answer);
    return answer.statusCode === 202 ? { job: parse<Job>(text) } : { result: parse<JobResults[Id]>(text) };
  }

  /** The states of a job, the last one with its end. */
  follow(id: string): AsyncGenerator<Job, void, undefined> {
    return this.stream('followJob', { id });
  }

  /**
   * Begins what may take long, and waits for its end. To give up waiting does not end the job: `call('cancelJob', { id })` does.
   * @throws ServerRefusal also with the error of the job
   */
  async run<Id extends JobId>(id: Id, ...given: Arguments<ArgumentsOf<Id>>): Promise<JobResults[Id]> {
    const started = await this.start(id, ...given);
    if ('result' in started) return started.result;
    let last = started.job;
    for await (const job of this.follow(last.id)) last = job;
    return resultOf<Id>(last);
  }

  /** The events that an operation streams, without an end or to that of what they are about. */
  async *stream<Id extends StreamId>(
    id: Id,
    ...given: Arguments<ArgumentsOf<Id>>
  ): AsyncGenerator<StreamedEvents[Id], void, undefined> {
    const names = operation(id).events;
    const answer = await this.#send(id, given[0]);
    // Only here: most programs follow nothing.
    const { createParser } = await import('eventsource-parser');
    const found: StreamedEvents[Id][] = [];
    const parser = createParser({
      onEvent: ({ event = '', data }) => {
        if (names?.includes(event) === true) found.push(parse(data));
      },
    });
    answer.setEncoding('utf8');
    for await (const text of answer) {
      parser.feed(text as string);
      yield* found.splice(0);
    }
  }

  /** The answer of any operation, to be read as it comes. */
  async open<Id extends OperationId>(id: Id, ...given: Arguments<ArgumentsOf<Id>>): Promise<IncomingMessage> {
    return this.#send(id, given[0]);
  }

  /** Bytes that fit into memory. */
  async bytes<Id extends BytesId>(
    id: Id,
    ...given: Arguments<ArgumentsOf<Id>>
  ): Promise<{ headers: IncomingHttpHeaders; bytes: Buffer }> {
    const answer = await this.#send(id, given[0]);
    return { headers: answer.headers, bytes: await readBytes(answer) };
  }

  /** Bytes for bytes, both few: one connection serves many such calls, until `close`. */
  async exchange(
    id: 'lookUpChunks',
    bytes: Uint8Array,
  ): Promise<{ headers: IncomingHttpHeaders; bytes: Buffer }> {
    const sent = withHeader(requestOf(id, {}), 'content-type', operation(id).body![0]!);
    const answer = await this.#transport.exchange(sent, bytes);
    return { headers: answer.headers, bytes: await readBytes(answer) };
  }

  /**
   * The bytes of a disk as they come, in this media type; on a connection of their own past HTTP where the server can do that.
   * `protocol` is what that connection is called. Pieces are valid until the next one is asked for.
   */
  async download<Id extends 'readBackupDisk' | 'readVmDisk'>(
    id: Id,
    { accept, protocol, ...given }: ArgumentsOf<Id> & { readonly accept: string; readonly protocol: string },
  ): Promise<ReceivedBytes> {
    return this.#transport.download(withHeader(requestOf(id, given), 'accept', accept), protocol);
  }

  /**
   * Sends bytes of unknown length as they come, once the server has agreed; it may answer, and end the upload, any time.
   * @throws also what the body throws
   */
  async upload<Id extends UploadId>(
    id: Id,
    mediaType: UploadTypeOf<Id>,
    given: UploadArgumentsOf<Id>,
  ): Promise<AnswerOf<Id>> {
    const sent = withHeader(requestOf(id, given), 'content-type', mediaType as string);
    return parse(await this.#transport.upload(sent, given.body));
  }

  /** Closes what `exchange` keeps open. */
  close(): void {
    this.#transport.close();
  }

  #send(id: OperationId, given: object = {}): Promise<IncomingMessage> {
    const { method, answers: [accept] = [] } = operation(id);
    const asked = requestOf(id, given);
    const sent = accept === undefined ? asked : withHeader(asked, 'accept', accept);
    if (!SENDS_BODY.has(method)) return this.#transport.send(sent);
    const { body = {} } = given as { readonly body?: unknown };
    return this.#transport.send(withHeader(sent, 'content-type', JSON_TYPE), JSON.stringify(body));
  }
}

/** What a job has ended with. @throws ServerRefusal with its error, `server-unreachable` when it has not ended */
export function resultOf<Id extends JobId>({ state, result, error }: Job): JobResults[Id] {
  if (state === 'done') return result as JobResults[Id];
  if (error !== undefined) throw new ServerRefusal({ status: 0, ...error });
  throw new PandoError('server-unreachable', 'the server stopped telling about the job');
}

interface Page<Id extends ListId> {
  readonly items: readonly ItemOf<Id>[];
  readonly nextCursor?: string;
}

/** As large as a page of any list in a query can be, unless something else is asked for. */
function largePages<Id extends ListId>(
  id: Id,
  [given]: Arguments<ArgumentsOf<Id>>,
): Arguments<ArgumentsOf<Id>> {
  const isInQuery = operation(id).query?.includes('limit') === true;
  return [isInQuery ? Object.assign({ limit: PAGE_ITEMS }, given) : given] as Arguments<ArgumentsOf<Id>>;
}

function withHeader(sent: Sent, name: string, value: string): Sent {
  return { ...sent, headers: { ...sent.headers, [name]: value } };
}

function parse<T>(text: string): T {
  return (text === '' ? undefined : JSON.parse(text)) as T;
}
