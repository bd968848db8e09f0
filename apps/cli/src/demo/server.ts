/** A server of the demo's own: another process, free ports, a folder of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const COMMAND = fileURLToPath(new URL('../../bin/pando.js', import.meta.url));
const START_MS_MAX = 60_000;
const STOP_MS_MAX = 60_000;
const LOG_BYTES_MAX = 64 * 1024;

/** What it prints once it listens. */
interface Ready {
  readonly http: string;
  readonly nbd: string;
  readonly adminTokenFile: string;
}

export class DemoServer {
  readonly url: string;
  readonly tokenFile: string;
  readonly nbd: { readonly host: string; readonly port: number };
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;

  private constructor(child: ChildProcess, ended: Promise<number | null>, ready: Ready) {
    this.#child = child;
    this.#ended = ended;
    this.url = ready.http;
    this.tokenFile = ready.adminTokenFile;
    const { hostname, port } = new URL(ready.nbd);
    this.nbd = { host: hostname, port: Number(port) };
  }

  static async start(data: string, config: string): Promise<DemoServer> {
    const args = [
      'serve',
      '--data',
      data,
      '--http',
      '127.0.0.1:0',
      '--nbd',
      '127.0.0.1:0',
      '--json',
      '--log-level',
      'warn',
    ];
    const child = spawn(process.execPath, [COMMAND, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // What it leaves for the command goes with the folder of the demo.
      env: { ...process.env, XDG_CONFIG_HOME: config },
    });
    let log = '';
    child.stderr.on('data', (text: Buffer) => {
      log = (log + text.toString()).slice(-LOG_BYTES_MAX);
    });
    const ended = new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), START_MS_MAX);
    const first = new Promise<string>((resolve) =>
      createInterface({ input: child.stdout }).once('line', resolve),
    );
    const line = await Promise.race([first, ended.then(() => undefined)]);
    clearTimeout(timer);
    if (line === undefined) throw new Error(`the server did not start:\n${log}`);
    return new DemoServer(child, ended, JSON.parse(line) as Ready);
  }

  /** Asks it to end, and makes sure that it ends well. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS_MAX);
    const status = await this.#ended;
    clearTimeout(timer);
    if (status !== 0) throw new Error(`the server ended with status ${String(status)}`);
  }
}
