/**
 * The REST API as the commands use it. On node:http and not on fetch, for three things that a disk of terabytes
 * needs: no deadline for an answer, an upload that asks first (100-continue), and an answer in the middle of an upload.
 */
import * as http from 'node:http';
import { readFileSync } from 'node:fs';
import * as https from 'node:https';
import { getCACertificates } from 'node:tls';
import { PandoError } from '@pando/common';
import { createParser } from 'eventsource-parser';
import { ServerRefusal, type Problem } from './failures.ts';
import { receive } from './receive.ts';
import { findToken } from './token.ts';
import type { Job, Page } from './views.ts';

const DEFAULT_URL = 'http://127.0.0.1:7400';

/** How long the server may take to invite an upload; one that does not know how to gets it anyway. */
const CONTINUE_MS_MAX = 10_000;

/** After a connection broke in the middle of an upload: how long the reason may take to arrive. */
const REASON_MS_MAX = 1_000;

/** Items that a list asks for at once. */
const PAGE_ITEMS = 1000;

export class Rest {
  readonly url: string;
  readonly #base: URL;
  /** The Unix socket, or whose certificates are good. */
  readonly #where: { readonly socketPath: string } | { readonly ca?: readonly string[] };
  readonly #signal: AbortSignal | undefined;
  /** What the header says; undefined: there is no token. */
  readonly #authorization: string | undefined;
  /** Set for `ask`, which is called again and again. */
  #agent: http.Agent | undefined;

  constructor(
    options: {
      readonly url?: string | undefined;
      readonly signal?: AbortSignal;
      readonly token?: string;
    } = {},
  ) {
    this.url = options.url ?? process.env['PANDO_URL'] ?? DEFAULT_URL;
    this.#signal = options.signal;
    const given = parseUrl(this.url);
    if (given.protocol === 'unix:' || given.protocol === 'http+unix:') {
      // Whoever may open it needs no token.
      this.#where = { socketPath: decodeURIComponent(given.pathname) };
      this.#base = new URL('http://localhost');
    } else {
      this.#where = given.protocol === 'https:' ? trusted() : {};
      this.#base = given;
    }
    const token = options.token ?? ('socketPath' in this.#where ? undefined : findToken(this.#base));
    this.#authorization = token === undefined ? undefined : `Bearer ${token}`;
  }

  get<T>(path: string): Promise<T> {
    return this.#call('GET', path);
  }

  post<T>(path: string, body: object = {}): Promise<T> {
    return this.#call('POST', path, body);
  }

  put<T>(path: string, body: object): Promise<T> {
    return this.#call('PUT', path, body);
  }

  patch<T>(path: string, body: object): Promise<T> {
    return this.#call('PATCH', path, body);
  }

  async delete<T = void>(path: string): Promise<T> {
    return this.#call('DELETE', path);
  }

  /** All items of a list, however many pages. */
  async all<T>(path: string): Promise<T[]> {
    const items: T[] = [];
    let cursor: string | undefined;
    do {
      const next = `${path.includes('?') ? '&' : '?'}limit=${PAGE_ITEMS}`;
      const after = cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`;
      const page = await this.get<Page<T>>(`${path}${next}${after}`);
      items.push(...page.items);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return items;
  }

  /** A small body of bytes, and the answer's. One connection serves many such calls. @throws ServerRefusal, `server-unreachable` */
  async ask(path: string, bytes: Uint8Array): Promise<{ headers: http.IncomingHttpHeaders; bytes: Buffer }> {
    this.#agent ??= new (this.#base.protocol === 'https:' ? https : http).Agent({ keepAlive: true });
    const headers = { 'content-type': 'application/octet-stream', 'content-length': bytes.byteLength };
    const request = this.#request('POST', path, headers, this.#agent);
    const coming = this.#answer(request);
    request.end(bytes);
    const answer = await checked(await coming);
    return { headers: answer.headers, bytes: await readBytes(answer) };
  }

  /** Closes what `ask` keeps open. */
  close(): void {
    this.#agent?.destroy();
  }

  /** An answer to be read as it comes. @throws ServerRefusal, `server-unreachable` */
  async stream(path: string, accept: string): Promise<http.IncomingMessage> {
    const request = this.#request('GET', path, { accept });
    request.end();
    return checked(await this.#answer(request));
  }

  /**
   * As `stream`, on a connection of its own past HTTP where the server can do that. Pieces are valid until the next one is asked
   * for.
   */
  async download(
    path: string,
    accept: string,
    protocol: string,
  ): Promise<{ headers: http.IncomingHttpHeaders; bytes: AsyncIterable<Uint8Array> }> {
    const request = this.#request('GET', path, { accept, connection: 'Upgrade', upgrade: protocol });
    const answer = this.#answer(request);
    const upgraded = new Promise<{ headers: http.IncomingHttpHeaders; bytes: AsyncIterable<Uint8Array> }>(
      (resolve) => {
        request.once('upgrade', ({ headers }, connection, head) => {
          // The signal is the request's, which has ended.
          const stop = (): void => void connection.destroy(this.#signal!.reason as Error);
          this.#signal?.addEventListener('abort', stop, { once: true });
          connection.once('close', () => this.#signal?.removeEventListener('abort', stop));
          resolve({ headers, bytes: receive(connection, head) });
        });
      },
    );
    request.end();
    const first = await Promise.race([upgraded, answer]);
    if ('bytes' in first) return first;
    return { headers: first.headers, bytes: await checked(first) };
  }

  /**
   * Sends a body of unknown length as it comes, once the server has agreed. The server may answer, and end it, any time.
   * @throws ServerRefusal, `server-unreachable`, and what the body throws
   */
  async upload<T>(path: string, mediaType: string, body: AsyncIterable<Uint8Array>): Promise<T> {
    const request = this.#request('POST', path, { 'content-type': mediaType, 'expect': '100-continue' });
    const answer = this.#answer(request);
    answer.catch(() => undefined);
    const invited = new Promise<'continue'>((resolve) => {
      request.once('continue', () => resolve('continue'));
      setTimeout(() => resolve('continue'), CONTINUE_MS_MAX).unref();
    });
    request.flushHeaders();
    if ((await Promise.race([invited, answer])) !== 'continue')
      return readJson<T>(await checked(await answer));

    const stop = new AbortController();
    const sent = send(request, body, stop.signal);
    sent.catch(() => undefined);
    const first = await Promise.race([answer, sent.then(() => undefined)]).catch((error: unknown) => {
      // The server may have said why before it hung up.
      const late = new Promise<never>((_resolve, reject) => {
        setTimeout(() => reject(error as Error), REASON_MS_MAX);
      });
      return Promise.race([answer.catch(() => late), late]);
    });
    if (first === undefined) return readJson<T>(await checked(await answer));
    stop.abort();
    try {
      return await readJson<T>(await checked(first));
    } finally {
      request.destroy();
    }
  }

  /** The states of a job, the last one with its end. */
  async *follow(id: string): AsyncGenerator<Job, void, undefined> {
    const answer = await this.stream(`/jobs/${encodeURIComponent(id)}/events`, 'text/event-stream');
    const found: Job[] = [];
    const parser = createParser({
      onEvent: ({ event, data }) => {
        if (event === 'job') found.push(JSON.parse(data) as Job);
      },
    });
    answer.setEncoding('utf8');
    for await (const text of answer) {
      parser.feed(text as string);
      yield* found.splice(0);
    }
  }

  async #call<T>(method: string, path: string, body?: object): Promise<T> {
    const request = this.#request(
      method,
      path,
      body === undefined ? {} : { 'content-type': 'application/json' },
    );
    const answer = this.#answer(request);
    request.end(body === undefined ? undefined : JSON.stringify(body));
    return readJson<T>(await checked(await answer));
  }

  #request(
    method: string,
    path: string,
    headers: http.OutgoingHttpHeaders,
    agent: http.Agent | false = false,
  ): http.ClientRequest {
    const url = new URL(`${this.#base.pathname.replace(/\/$/, '')}/api/v1${path}`, this.#base);
    const { request } = url.protocol === 'https:' ? https : http;
    return request(url, {
      method,
      headers:
        this.#authorization === undefined ? headers : { ...headers, authorization: this.#authorization },
      agent,
      ...(this.#where as https.RequestOptions),
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
    });
  }

  #answer(request: http.ClientRequest): Promise<http.IncomingMessage> {
    return new Promise((resolve, reject) => {
      request.on('response', resolve);
      request.on('error', (error: NodeJS.ErrnoException) => {
        if (this.#signal?.aborted === true) reject(this.#signal.reason as Error);
        else reject(unreachable(this.url, error));
      });
    });
  }
}

/**
 * Sends all parts and the end. The next part is asked for when the system has taken the one before, because its buffer may be
 * used again then. Rejects when the connection ends before that, with what the body throws, and when it is stopped.
 */
async function send(
  request: http.ClientRequest,
  body: AsyncIterable<Uint8Array>,
  stop: AbortSignal,
): Promise<void> {
  let fail: (error: Error) => void = () => undefined;
  const taken = (start: (done: (error?: Error | null) => void) => void): Promise<void> =>
    new Promise((resolve, reject) => {
      fail = reject;
      if (request.destroyed || stop.aborted) reject(new Error('the connection ended'));
      else start((error) => (error instanceof Error ? reject(error) : resolve()));
    });
  const ended = (): void => fail(new Error('the connection ended'));
  request.once('close', ended);
  stop.addEventListener('abort', ended, { once: true });
  try {
    for await (const part of body) await taken((done) => request.write(part, done));
    await taken((done) => request.end(() => done()));
  } catch (error) {
    // Without its end the server does not take the body for a whole one.
    if (!stop.aborted) request.destroy();
    throw error;
  } finally {
    request.off('close', ended);
    stop.removeEventListener('abort', ended);
  }
}

/** @throws `address-invalid` */
function parseUrl(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new PandoError('address-invalid', `PANDO_URL ${JSON.stringify(text)} is not a URL`);
  }
  const isSocket = url.protocol === 'unix:' || url.protocol === 'http+unix:';
  if (isSocket ? url.host !== '' || url.pathname.length < 2 : !/^https?:$/.test(url.protocol)) {
    const forms = 'http://HOST:PORT, https://HOST:PORT or unix:/PATH';
    throw new PandoError('address-invalid', `PANDO_URL ${JSON.stringify(text)} is not ${forms}`);
  }
  return url;
}

/** Whose certificates are good: those that Node trusts, and those in the file PANDO_CA. @throws `server-file-unreadable` */
function trusted(): { ca?: string[] } {
  const path = process.env['PANDO_CA'];
  if (path === undefined || path === '') return {};
  try {
    return { ca: [...getCACertificates('default'), readFileSync(path, 'utf8')] };
  } catch (error) {
    const message = `cannot read PANDO_CA: ${(error as Error).message}`;
    throw new PandoError('server-file-unreadable', message, { cause: error });
  }
}

function unreachable(url: string, error: NodeJS.ErrnoException): PandoError {
  if (/CERT|^ERR_TLS|^EPROTO$|^UNABLE_TO/.test(error.code ?? ''))
    return new PandoError('tls-failed', `no TLS with ${url} (${error.code!})`, { cause: error });
  const none =
    error.code === 'ECONNREFUSED' ||
    error.code === 'ENOTFOUND' ||
    error.code === 'ENOENT' ||
    error.code === 'EAI_AGAIN';
  const what = none ? 'no server answers' : `the connection broke (${error.code ?? error.message})`;
  return new PandoError('server-unreachable', `${what} at ${url}`, { cause: error });
}

async function checked(answer: http.IncomingMessage): Promise<http.IncomingMessage> {
  const status = answer.statusCode ?? 0;
  if (status >= 200 && status < 300) return answer;
  const text = await readText(answer);
  throw new ServerRefusal(problemFrom(status, text));
}

function problemFrom(status: number, text: string): Problem {
  try {
    const problem = JSON.parse(text) as Partial<Problem> | null;
    if (typeof problem?.code === 'string') {
      const { code, detail = code, remedy = '' } = problem;
      return { status, code, detail, remedy };
    }
  } catch {
    // Not one of ours: something else listens there.
  }
  return {
    status,
    code: 'server-unreachable',
    detail: `what answers there is no Pando server (status ${status})`,
    remedy: 'Check PANDO_URL.',
  };
}

async function readJson<T>(answer: http.IncomingMessage): Promise<T> {
  const text = await readText(answer);
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

async function readText(answer: http.IncomingMessage): Promise<string> {
  return (await readBytes(answer)).toString();
}

async function readBytes(answer: http.IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of answer) parts.push(part as Buffer);
  return Buffer.concat(parts);
}
