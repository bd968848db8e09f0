/** Runs the command as people do: the file that npm links, in a process of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { tokenOf } from '../support/tokens.ts';

export const COMMAND = fileURLToPath(new URL('../../apps/cli/bin/pando.js', import.meta.url));

const RUN_MS_MAX = 60_000;

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output as JSON. */
  json<T = Record<string, unknown>>(): T;
}

export interface RunOptions {
  readonly url?: string;
  /** Default: that of an admin, of a server that the test has started. */
  readonly token?: string | undefined;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: Buffer;
  readonly node?: string;
  /** Standard input is not ended. */
  readonly keepInputOpen?: boolean;
  /** Called when it runs; may send signals. */
  readonly onStart?: (child: ReturnType<typeof spawn>) => void;
}

export function pando(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const { url, token = url === undefined ? undefined : tokenOf(url) } = options;
    const child = spawn(options.node ?? process.execPath, [COMMAND, ...args], {
      env: {
        ...process.env,
        ...(url === undefined ? {} : { PANDO_URL: url }),
        ...(token === undefined ? {} : { PANDO_TOKEN: token }),
        ...options.env,
        TZ: 'UTC',
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    const timer = setTimeout(() => child.kill('SIGKILL'), RUN_MS_MAX);
    child.stdout.on('data', (data: Buffer) => out.push(data));
    child.stderr.on('data', (data: Buffer) => err.push(data));
    child.stdin.on('error', () => undefined);
    if (options.keepInputOpen !== true) child.stdin.end(options.input);
    child.on('error', reject);
    child.on('close', (status) => {
      clearTimeout(timer);
      const stdout = Buffer.concat(out).toString();
      const stderr = Buffer.concat(err).toString();
      resolve({ status, stdout, stderr, json: <T>() => JSON.parse(stdout) as T });
    });
    options.onStart?.(child);
  });
}
