/** The REST API as a client without any library sees it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { checkEnds, checkListed } from './listed-errors.ts';
import { tokenOfServing, type Reachable } from './tokens.ts';

export interface Answer {
  readonly status: number;
  /** The parsed JSON, or the text when it is none. */
  readonly body: unknown;
}

export interface JobView {
  readonly id: string;
  readonly state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  readonly result?: unknown;
  readonly error?: { readonly code: string; readonly detail: string };
}

const JOB_MS_MAX = 600_000;
const JOB_POLL_MS = 50;

/** A client with the token that a server of this process has made. */
export function restOf(serving: Reachable): Rest {
  return new Rest(serving.addresses.http, tokenOfServing(serving));
}

export class Rest {
  readonly #base: string;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(url: string, token?: string) {
    this.#base = `${url}/api/v1`;
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** One request; `path` is below `/api/v1`, its parts encoded by the caller. */
  async call(method: string, path: string, body?: unknown): Promise<Answer> {
    const sends = method !== 'GET' && method !== 'DELETE';
    const response = await fetch(`${this.#base}${path}`, {
      method,
      headers: { ...this.#headers, ...(sends ? { 'content-type': 'application/json' } : {}) },
      ...(sends ? { body: JSON.stringify(body ?? {}) } : {}),
    });
    const text = await response.text();
    const isJson = /\bjson\b/.test(response.headers.get('content-type') ?? '');
    const answer: unknown = isJson ? JSON.parse(text) : text;
    if (response.status >= 400) checkListed(method, `/api/v1${path}`, (answer as { code?: unknown }).code);
    else checkEnds(answer);
    return { status: response.status, body: answer };
  }

  /** As `call`, for requests that have to work: @throws Error with the answer when the status is no 2xx. */
  async must(method: string, path: string, body?: unknown): Promise<unknown> {
    const answer = await this.call(method, path, body);
    if (answer.status >= 200 && answer.status < 300) return answer.body;
    throw new Error(`${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  }

  /** Starts a job with a POST and resolves to its result; `onStart` is called in between. @throws Error when it does not end well */
  async job(path: string, body?: unknown, onStart?: () => void): Promise<unknown> {
    const { id } = (await this.must('POST', path, body)) as JobView;
    onStart?.();
    const deadline = performance.now() + JOB_MS_MAX;
    for (;;) {
      const job = (await this.must('GET', `/jobs/${id}`)) as JobView;
      if (job.state === 'done') return job.result;
      if (job.state === 'failed' || job.state === 'cancelled') {
        throw new Error(`the job of POST ${path} is ${job.state}: ${JSON.stringify(job.error)}`);
      }
      if (performance.now() > deadline) throw new Error(`the job of POST ${path} takes too long`);
      await sleep(JOB_POLL_MS);
    }
  }
}
