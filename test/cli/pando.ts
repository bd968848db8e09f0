/** Runs the command as people do: the file that npm links, in a process of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

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
  readonly input?: Buffer;
  readonly node?: string;
  /** Standard input is not ended. */
  readonly keepInputOpen?: boolean;
  /** Called when it runs; may send signals. */
  readonly onStart?: (child: ReturnType<typeof spawn>) => void;
}

export function pando(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(options.node ?? process.execPath, [COMMAND, ...args], {
      env: { ...process.env, ...(options.url === undefined ? {} : { PANDO_URL: options.url }), TZ: 'UTC' },
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
