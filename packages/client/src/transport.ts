/**
 * Requests and answers over HTTP, HTTPS or a Unix socket. On node:http and not on fetch, for three things that a disk of terabytes needs: no
 * deadline for an answer, an upload that asks first (100-continue), and an answer in the middle of an upload.
 */
import * as http from 'node:http';
import * as https from 'node:https';
import { PandoError } from '@pando/common';
import { parseAddress, type Address } from './address.ts';
import { patiently } from './patience.ts';
import { problemFrom, ServerRefusal } from './problem.ts';

/** How long the server may take to invite an upload; one that does not know how to gets it anyway. */
const CONTINUE_MS_MAX = 10_000;

/** After a connection broke in the middle of an upload: how long the reason may take to arrive. */
const REASON_MS_MAX = 1_000;

export interface TransportOptions {
  /** `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`. */
  readonly url: string;
  readonly token?: string | undefined;
  /** For HTTPS: whose certificates are good. Absent: those that Node trusts. */
  readonly ca?: string | readonly string[] | undefined;
  /** Ends every request. */
  readonly signal?: AbortSignal | undefined;
}

/** One request; the path has its parts encoded, and begins with a slash. */
export interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers?: http.OutgoingHttpHeaders;
}

export interface ReceivedBytes {
  readonly headers: http.IncomingHttpHeaders;
  /** Pieces are valid until the next one is asked for. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

export class Transport {
  readonly url: string;
  readonly #address: Address;
  readonly #ca: string | string[] | undefined;
  readonly #signal: AbortSignal | undefined;
  /** What the header says; undefined: there is no token. */
  readonly #authorization: string | undefined;
  /** Set for `exchange`, which is called again and again. */
  #agent: http.Agent | undefined;

  /** @throws `address-invalid` */
  constructor({ url, token, ca, signal }: TransportOptions) {
    this.url = url;
    this.#address = parseAddress(url);
    this.#ca = ca as string | string[] | undefined;
    this.#signal = signal;
    // Whoever may open a Unix socket needs none.
    this.#authorization =
      token === undefined || this.#address.socketPath !== undefined ? undefined : `Bearer ${token}`;
  }

  /** An answer to be read as it comes, to a request with this body or none. @throws ServerRefusal, `server-unreachable` */
  send(sent: Sent, body?: string): Promise<http.IncomingMessage> {
    return patiently(this.#signal, async () => {
      const request = this.#request(sent);
      const answer = this.#answer(request);
      request.end(body);
      return checked(await answer);
    });
  }

  /** As `send`, for small bodies of bytes: one connection serves many such calls. */
  exchange(sent: Sent, bytes: Uint8Array): Promise<http.IncomingMessage> {
    return patiently(this.#signal, () => this.#exchange(sent, bytes));
  }

  async #exchange(sent: Sent, bytes: Uint8Array): Promise<http.IncomingMessage> {
    this.#agent ??= new (this.#address.base.protocol === 'https:' ? https : http).Agent({ keepAlive: true });
    const headers = { ...sent.headers, 'content-length': bytes.byteLength };
    const request = this.#request({ ...sent, headers }, this.#agent);
    const answer = this.#answer(request);
    request.end(bytes);
    return checked(await answer);
  }

  /** Closes what `exchange` keeps open. */
  close(): void {
    this.#agent?.destroy();
  }

  /** As `send`, on a connection of its own past HTTP where the server can do that. */
  async download(sent: Sent, protocol: string): Promise<ReceivedBytes> {
    // Only here: what shares a buffer with the socket is not needed for anything else.
    const { receive } = await import('./receive.ts');
    const headers = { ...sent.headers, connection: 'Upgrade', upgrade: protocol };
    const request = this.#request({ ...sent, headers });
    const answer = this.#answer(request);
    const upgraded = new Promise<ReceivedBytes>((resolve) => {
      request.once('upgrade', ({ headers: said }, connection, head) => {
        // The signal is the request's, which has ended.
        const stop = (): void => void connection.destroy(this.#signal!.reason as Error);
        this.#signal?.addEventListener('abort', stop, { once: true });
        connection.once('close', () => this.#signal?.removeEventListener('abort', stop));
        resolve({ headers: said, bytes: receive(connection, head) });
      });
    });
    request.end();
    const first = await Promise.race([upgraded, answer]);
    if ('bytes' in first) return first;
    return { headers: first.headers, bytes: await checked(first) };
  }

  /**
   * Sends a body of unknown length as it comes, once the server has agreed. The server may answer, and end it, any time.
   * @throws ServerRefusal, `server-unreachable`, and what the body throws
   */
  async upload(sent: Sent, body: AsyncIterable<Uint8Array>): Promise<string> {
    const request = this.#request({ ...sent, headers: { ...sent.headers, expect: '100-continue' } });
    const answer = this.#answer(request);
    answer.catch(() => undefined);
    const invited = new Promise<'continue'>((resolve) => {
      request.once('continue', () => resolve('continue'));
      setTimeout(() => resolve('continue'), CONTINUE_MS_MAX).unref();
    });
    request.flushHeaders();
    if ((await Promise.race([invited, answer])) !== 'continue') return readText(await checked(await answer));

    const stop = new AbortController();
    const done = sendAll(request, body, stop.signal);
    done.catch(() => undefined);
    const first = await Promise.race([answer, done.then(() => undefined)]).catch((error: unknown) => {
      // The server may have said why before it hung up.
      const late = new Promise<never>((_resolve, reject) => {
        setTimeout(() => reject(error as Error), REASON_MS_MAX);
      });
      return Promise.race([answer.catch(() => late), late]);
    });
    if (first === undefined) return readText(await checked(await answer));
    stop.abort();
    try {
      return await readText(await checked(first));
    } finally {
      request.destroy();
    }
  }

  #request({ method, path, headers = {} }: Sent, agent: http.Agent | false = false): http.ClientRequest {
    const { base, socketPath } = this.#address;
    const url = new URL(`${base.pathname.replace(/\/$/, '')}${path}`, base);
    const { request } = url.protocol === 'https:' ? https : http;
    const options: https.RequestOptions = {
      method,
      headers:
        this.#authorization === undefined ? headers : { ...headers, authorization: this.#authorization },
      agent,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(this.#ca === undefined ? {} : { ca: this.#ca }),
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
    };
    return request(url, options);
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
async function sendAll(
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
  throw new ServerRefusal(problemFrom(status, await readText(answer), answer.headers['retry-after']));
}

export async function readText(answer: http.IncomingMessage): Promise<string> {
  return (await readBytes(answer)).toString();
}

export async function readBytes(answer: http.IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of answer) parts.push(part as Buffer);
  return Buffer.concat(parts);
}
