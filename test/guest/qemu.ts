/**
 * A guest under QEMU, driven over its serial console: boot, run commands with their output and status, power off.
 *
 * Emulation only (`-accel tcg`): it works everywhere, also inside other virtual machines. The kernel is given to QEMU
 * directly; the disk is whatever `-drive` opens, usually an export of a Pando server.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import type { GuestImage } from './build-image.ts';

export interface GuestOptions {
  readonly image: GuestImage;
  /** The value of QEMU's `file=`: a path, or `nbd://127.0.0.1:10809/web-1/disk0`, or `nbd+unix:///…?socket=…`. */
  readonly drive: string;
  readonly memoryMegabytes?: number;
}

export interface CommandResult {
  readonly status: number;
  /** What the command printed, with \n line ends, without the trailing one. */
  readonly output: string;
}

const BOOT_MS_MAX = 240_000;
const COMMAND_MS_MAX = 120_000;
const POWER_OFF_MS_MAX = 120_000;
/** A line on a terminal may be no longer than this (N_TTY's canonical mode). */
const COMMAND_BYTES_MAX = 4000;
const CONSOLE_CHARACTERS_MAX = 4 * 1024 * 1024;

export class Guest {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #exited: Promise<unknown>;
  /** Everything that came over the console and over QEMU's stderr. */
  #console = '';
  #errors = '';
  #waiting: (() => void)[] = [];
  #commands = 0;

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    const wake = (): void => {
      for (const waiter of this.#waiting.splice(0)) waiter();
    };
    // latin1 keeps one character a byte, however the pipe cuts the stream.
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      this.#console += text;
      if (this.#console.length > CONSOLE_CHARACTERS_MAX) child.kill('SIGKILL');
      wake();
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-10_000);
    });
    child.stdin.on('error', () => undefined); // A dead QEMU is reported by whoever waits for its console.
    this.#exited = once(child, 'close').finally(wake);
  }

  /** Starts QEMU and resolves when root's shell answers on the console. The caller must `close` the guest. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const { image, drive, memoryMegabytes = 512 } = options;
    const kernelArguments = 'root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off panic=-1';
    const child = spawn(
      'qemu-system-x86_64',
      [
        ...['-accel', 'tcg', '-cpu', 'max', '-m', String(memoryMegabytes)],
        ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
        ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', kernelArguments],
        ...['-drive', `file=${drive.replaceAll(',', ',,')},format=raw,if=virtio,discard=unmap`],
      ],
      { stdio: 'pipe' },
    );
    const guest = new Guest(child);
    try {
      const prompt = await guest.#expect(/(?:^|\n)# $/, 0, BOOT_MS_MAX);
      // No echo, so that what comes back is output only; no kernel messages in between.
      guest.#type("stty -echo -onlcr; PS1=''; PS2=''; dmesg -n 1; printf '@@%s@@\\n' up");
      await guest.#expect(/@@up@@\n/, prompt, COMMAND_MS_MAX);
      const { status, output } = await guest.run('echo ready');
      if (status !== 0 || output !== 'ready') throw new Error(`the guest's shell answers "${output}"`);
      return guest;
    } catch (error) {
      await guest.close();
      throw error;
    }
  }

  /** Everything that was printed on the console since power-on. */
  get console(): string {
    return this.#console;
  }

  /** Runs one command line in root's shell. A status other than 0 is the caller's business. */
  async run(command: string, timeoutMs = COMMAND_MS_MAX): Promise<CommandResult> {
    if (Buffer.byteLength(command) > COMMAND_BYTES_MAX) throw new Error('the command line is too long');
    const from = this.#console.length;
    const end = `@@${this.#commands++}`;
    this.#type(`${command}\nprintf '\\n%s:%s@@\\n' '${end}' "$?"`);
    await this.#expect(new RegExp(`\\n${end}:\\d+@@\\n`), from, timeoutMs);
    const text = this.#console.slice(from);
    const match = new RegExp(`\\n${end}:(\\d+)@@\\n`).exec(text)!;
    const output = Buffer.from(text.slice(0, match.index), 'latin1').toString('utf8');
    return { status: Number(match[1]), output: output.replaceAll('\r\n', '\n').trimEnd() };
  }

  /** As `run`, and @throws Error when the command does not end with status 0. */
  async must(command: string, timeoutMs = COMMAND_MS_MAX): Promise<string> {
    const { status, output } = await this.run(command, timeoutMs);
    if (status !== 0) throw new Error(`in the guest, \`${command}\` ended with ${status}:\n${output}`);
    return output;
  }

  /** Resolves when something that was printed since power-on matches. */
  async waitFor(pattern: RegExp, timeoutMs = COMMAND_MS_MAX): Promise<void> {
    await this.#expect(pattern, 0, timeoutMs);
  }

  /** Shuts the system down in order (file system read-only, disk flushed) and waits for QEMU to end. */
  async powerOff(): Promise<void> {
    this.#type('/sbin/halt -p');
    await this.#orTimeout(this.#exited, POWER_OFF_MS_MAX, 'power off');
    if (this.#child.exitCode !== 0) {
      throw new Error(
        `QEMU ended with ${String(this.#child.exitCode ?? this.#child.signalCode)}: ${this.#errors}`,
      );
    }
  }

  /** Pulls the plug if the guest still runs. Idempotent. */
  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGKILL');
    await this.#exited;
  }

  #type(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Waits until the console, from `from` on, matches; resolves to the console's length then. */
  async #expect(pattern: RegExp, from: number, timeoutMs: number): Promise<number> {
    const deadline = performance.now() + timeoutMs;
    while (!pattern.test(this.#console.slice(from))) {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
        throw new Error(`QEMU ended early. ${this.#errors}\n${this.#tail()}`);
      }
      const changed = new Promise<void>((resolve) => this.#waiting.push(resolve));
      await this.#orTimeout(changed, deadline - performance.now(), String(pattern));
    }
    return this.#console.length;
  }

  async #orTimeout(work: Promise<unknown>, timeoutMs: number, what: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`the guest took too long (${what}). ${this.#errors}\n${this.#tail()}`));
      }, timeoutMs);
    });
    try {
      await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #tail(): string {
    return `Its console ended with:\n${this.#console.slice(-2000)}`;
  }
}
