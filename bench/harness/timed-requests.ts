/** A client of REST that times each request. */
import { Agent, request } from 'node:http';

/** Keeps one connection open; node:http, because fetch() takes several times as long for its own part. */
export class TimedRequests {
  readonly #url: string;
  readonly #token: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });

  constructor({ url, token }: { readonly url: string; readonly token: string }) {
    this.#url = `${url}/api/v1`;
    this.#token = token;
  }

  post(path: string, body: object): Promise<number> {
    return this.send('POST', path, body);
  }

  /** Milliseconds until the whole answer is there. @throws Error with the answer when the status is no 2xx */
  send(method: string, path: string, body?: object): Promise<number> {
    const json = method === 'POST' ? JSON.stringify(body ?? {}) : '';
    const headers = {
      authorization: `Bearer ${this.#token}`,
      ...(json === ''
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) }),
    };
    const started = performance.now();
    return new Promise((resolve, reject) => {
      const sent = request(`${this.#url}${path}`, { method, agent: this.#agent, headers }, (answer) => {
        let text = '';
        answer.on('data', (data: Buffer) => (text += data.toString()));
        answer.on('error', reject);
        answer.on('end', () => {
          const milliseconds = performance.now() - started;
          const status = answer.statusCode ?? 0;
          if (status >= 200 && status < 300) resolve(milliseconds);
          else reject(new Error(`${method} ${path} answered ${status}: ${text}`));
        });
      });
      sent.on('error', reject);
      sent.end(json);
    });
  }

  /** Of one clone. */
  clone(source: string, name: string): Promise<number> {
    return this.post(`/vms/${source}/clone`, { name });
  }

  close(): void {
    this.#agent.destroy();
  }
}
