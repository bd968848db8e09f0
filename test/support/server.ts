/**
 * The real server as a child process, for every test that crosses packages: on random ports, with a data directory of
 * its own, and with the ends that tests need: an orderly stop, kill -9, and a start on what is left.
 *
 * The addresses are read from what the server prints when it is ready: the first `http://HOST:PORT` and the first
 * `nbd://HOST:PORT` (`nbds://` where TLS is required) on its output.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Rest } from './rest.ts';
import { noteToken } from './tokens.ts';

export interface ServerOptions {
  /** Default: a temporary one, removed by `close`. */
  readonly dataDirectory?: string;
  /** More flags, such as `--import-dir DIR`. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A command and its arguments in front of the server's own, such as `prlimit --fsize=…`. */
  readonly wrapper?: readonly string[];
}

/** As `npm start` and the command start it, with the flag below. */
const MALLOC = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '524288',
  MALLOC_TRIM_THRESHOLD_: '1048576',
};
const MAIN = fileURLToPath(new URL('../../apps/server/src/main.ts', import.meta.url));
const START_MS_MAX = 60_000;
const STOP_MS_MAX = 60_000;
const LOG_CHARACTERS_MAX = 200_000;

export class TestServer {
  readonly dataDirectory: string;
  readonly #scratch: string;
  readonly #options: ServerOptions;
  #child: ChildProcess | undefined;
  #log = '';
  #url = '';
  #nbdPort = 0;

  private constructor(options: ServerOptions, scratch: string) {
    this.#options = options;
    this.#scratch = scratch;
    this.dataDirectory = options.dataDirectory ?? join(scratch, 'data');
  }

  /** Starts a server and resolves when it listens. The caller must `close` it. */
  static async start(options: ServerOptions = {}): Promise<TestServer> {
    const server = new TestServer(options, await mkdtemp(join(tmpdir(), 'pando-server-')));
    try {
      await server.restart();
      return server;
    } catch (error) {
      await server.close();
      throw error;
    }
  }

  /** `http://127.0.0.1:PORT`. Changes with every start, as the NBD port does; the socket's path does not. */
  get url(): string {
    return this.#url;
  }

  /** Of an admin: the one that the server has made at its first start. */
  get token(): string {
    return readFileSync(join(this.dataDirectory, 'admin-token'), 'utf8').trim();
  }

  /** What goes with every request that is not made by `rest` or `fetch`. */
  get authorization(): { authorization: string } {
    return { authorization: `Bearer ${this.token}` };
  }

  get rest(): Rest {
    return new Rest(this.#url, this.token);
  }

  /** As the global one, of a path on this server, with the token. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set('authorization', this.authorization.authorization);
    return fetch(this.#url + path, { ...init, headers });
  }

  get nbdPort(): number {
    return this.#nbdPort;
  }

  get nbdSocket(): string {
    return join(this.#scratch, 'nbd.sock');
  }

  /** Everything that the server printed, over all its starts; the newest part when it is long. */
  get log(): string {
    return this.#log;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** The NBD URI of an export: over TCP, or over the Unix socket. */
  nbdUri(exportName: string, transport: 'tcp' | 'unix' = 'tcp'): string {
    const path = exportName.split('/').map(encodeURIComponent).join('/');
    return transport === 'tcp'
      ? `nbd://127.0.0.1:${this.#nbdPort}/${path}`
      : `nbd+unix:///${path}?socket=${encodeURIComponent(this.nbdSocket)}`;
  }

  /** Starts the server on its data directory again, after `stop`, `kill` or a death of its own. */
  async restart(): Promise<void> {
    if (this.#isRunning()) throw new Error('the server still runs');
    const [command, ...args] = [
      ...(this.#options.wrapper ?? []),
      ...[process.execPath, '--max-semi-space-size=8', MAIN, '--data', this.dataDirectory],
      ...['--http', '127.0.0.1:0', '--nbd', '127.0.0.1:0', '--nbd-socket', this.nbdSocket],
      ...(this.#options.args ?? []),
    ];
    const child = spawn(command!, args, {
      env: {
        ...process.env,
        ...MALLOC,
        // Its token is left for the command, but not among those of whoever runs the tests.
        XDG_CONFIG_HOME: join(this.#scratch, 'config'),
        ...this.#options.env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    const from = this.#log.length;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`the server did not start in time:\n${this.#log.slice(from)}`));
      }, START_MS_MAX);
      let own = '';
      const read = (data: Buffer): void => {
        this.#log = (this.#log + data.toString()).slice(-LOG_CHARACTERS_MAX);
        if (own.length > LOG_CHARACTERS_MAX) return;
        own += data.toString();
        const http = /http:\/\/[\w.[\]:]*?:(\d+)\b/.exec(own);
        const nbd = /nbds?:\/\/[\w.[\]:]*?:(\d+)\b/.exec(own);
        if (http === null || nbd === null) return;
        this.#url = `http://127.0.0.1:${http[1]!}`;
        this.#nbdPort = Number(nbd[1]);
        noteToken(this.#url, this.token);
        clearTimeout(timer);
        resolve();
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.on('error', reject);
      child.on('close', (status, signal) => {
        clearTimeout(timer);
        this.#log += `(ended with ${signal ?? String(status)})\n`;
        reject(new Error(`the server ended with ${signal ?? String(status)}:\n${own}`));
      });
    });
  }

  /** Asks the server to end (SIGTERM) and resolves to its exit status. */
  async stop(): Promise<number | null> {
    const child = this.#child;
    if (child === undefined || !this.#isRunning()) return child?.exitCode ?? null;
    const closed = once(child, 'close');
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
    await closed;
    clearTimeout(timer);
    return child.exitCode;
  }

  /** kill -9: whatever is not in the page cache by now is lost. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.#isRunning()) return;
    const closed = once(child, 'close');
    child.kill('SIGKILL');
    await closed;
  }

  /** Ends the server and removes its temporary files. Idempotent. */
  async close(): Promise<void> {
    await this.kill();
    await rm(this.#scratch, { recursive: true, force: true });
  }

  #isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }
}
