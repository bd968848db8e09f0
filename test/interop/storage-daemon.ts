/** One qemu-storage-daemon, commanded by QMP over its standard input and output. */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const JOB_MS_MAX = 60_000;

interface QmpMessage {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: { readonly device?: string; readonly error?: string };
}

export class StorageDaemon {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #answers: ((message: QmpMessage) => void)[] = [];
  readonly #events: QmpMessage[] = [];
  #wake: () => void = () => undefined;
  #printed = '';

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stderr.on('data', (data: Buffer) => (this.#printed += data.toString()));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const message = JSON.parse(line) as QmpMessage;
      if (message.event !== undefined) this.#events.push(message);
      else if ('return' in message || 'error' in message) this.#answers.shift()?.(message);
      this.#wake();
    });
    child.on('close', () => {
      for (const answer of this.#answers.splice(0)) {
        answer({ error: { class: 'Gone', desc: `the daemon ended: ${this.#printed}` } });
      }
      this.#wake();
    });
  }

  /** Starts a daemon. The caller must `close` it. */
  static async start(): Promise<StorageDaemon> {
    const child = spawn('qemu-storage-daemon', ['--chardev', 'stdio,id=c', '--monitor', 'chardev=c']);
    const daemon = new StorageDaemon(child);
    await daemon.execute('qmp_capabilities');
    return daemon;
  }

  /** @throws Error with what the daemon says when it refuses */
  async execute(command: string, args: object = {}): Promise<unknown> {
    const answered = new Promise<QmpMessage>((resolve) => this.#answers.push(resolve));
    this.#child.stdin.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const { error, ...answer } = await answered;
    if (error !== undefined) throw new Error(`${command}: ${error.desc}`);
    return answer.return;
  }

  /** Resolves to the data of the first event of this name about a block job, now or later. */
  async event(name: string, job: string): Promise<NonNullable<QmpMessage['data']>> {
    const deadline = performance.now() + JOB_MS_MAX;
    for (;;) {
      const found = this.#events.find((message) => message.event === name && message.data?.device === job);
      if (found?.data !== undefined) return found.data;
      const left = deadline - performance.now();
      if (left <= 0 || this.#child.exitCode !== null) {
        throw new Error(`no ${name} of ${job}: ${JSON.stringify(this.#events)} ${this.#printed}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Ends the daemon; what it writes to is closed by then. */
  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const closed = once(this.#child, 'close');
    this.#child.stdin.write('{"execute":"quit"}\n');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), JOB_MS_MAX);
    await closed;
    clearTimeout(timer);
  }
}
