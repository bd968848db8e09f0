/**
 * A guest under QEMU, driven over its serial console: boot, run commands with their output and status, power off.
 *
 * Emulation only (`-accel tcg`): it works everywhere, also inside other virtual machines. The kernel is given to QEMU
 * directly; the disks are whatever `-drive` opens, usually exports of a Pando server.
 *
 * What runs in the background of the guest says what it has done over a virtio port of its own, its file descriptor 3,
 * line by line: see `reports`. A write to it returns when QEMU has the line, so what was reported did happen.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess, ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import type { GuestImage } from './build-image.ts';

export interface GuestOptions {
  readonly image: GuestImage;
  /**
   * Values of QEMU's `file=`, the system's disk first: a path, or `nbd://127.0.0.1:10809/web-1/disk0`, or
   * `nbd+unix:///…?socket=…`.
   */
  readonly drives: readonly string[];
  readonly memoryMegabytes?: number;
  /** Path of a Unix socket to be made, behind which the guest finds a port for QEMU's guest agent: /dev/vport0p2. */
  readonly agentSocket?: string;
  /** More for the kernel's command line, which the initrd reads too. */
  readonly kernelArguments?: string;
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
const REPORTS_MAX = 100_000;
/** What is printed of a console in an error. */
const TAIL_CHARACTERS = 3000;
/** Where the port of the reports is in QEMU; the first three are those of any process. */
const REPORTS_FD = 3;

export class Guest {
  readonly #child: ChildProcess;
  readonly #stdin: Writable;
  readonly #exited: Promise<unknown>;
  /** Everything that came over the console and over QEMU's stderr. */
  #console = '';
  #errors = '';
  readonly #reports: string[] = [];
  #reportsRest = '';
  #waiting: (() => void)[] = [];
  #commands = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    const { stdin, stdout, stderr } = child as ChildProcessWithoutNullStreams;
    const reports = child.stdio[REPORTS_FD] as Readable;
    this.#stdin = stdin;
    const wake = (): void => {
      for (const waiter of this.#waiting.splice(0)) waiter();
    };
    // latin1 keeps one character a byte, however the pipe cuts the stream.
    stdout.setEncoding('latin1').on('data', (text: string) => {
      this.#console += text;
      if (this.#console.length > CONSOLE_CHARACTERS_MAX) child.kill('SIGKILL');
      wake();
    });
    stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-10_000);
    });
    reports.setEncoding('latin1').on('data', (text: string) => {
      const lines = (this.#reportsRest + text).split('\n');
      this.#reportsRest = lines.pop()!;
      this.#reports.push(...lines);
      if (this.#reports.length > REPORTS_MAX) child.kill('SIGKILL');
      wake();
    });
    reports.on('error', () => undefined); // A killed QEMU may reset it.
    stdin.on('error', () => undefined); // A dead QEMU is reported by whoever waits for its console.
    this.#exited = once(child, 'close').finally(wake);
  }

  /** Starts QEMU and resolves when root's shell answers on the console. The caller must `close` the guest. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const { image, drives, memoryMegabytes = 512, agentSocket } = options;
    const kernelArguments = [
      'root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off panic=-1',
      // An emulated processor that has to wait for its host is no broken one.
      'no_timer_check nowatchdog',
      options.kernelArguments ?? '',
    ].join(' ');
    // Whatever ends the tests, and however, ends QEMU too.
    const child = spawn(
      'setpriv',
      [
        ...['--pdeathsig', 'KILL', '--', 'qemu-system-x86_64'],
        ...['-accel', 'tcg', '-cpu', 'max', '-m', String(memoryMegabytes)],
        ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
        ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', kernelArguments],
        ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=reports'],
        ...['-chardev', `socket,id=reports,fd=${REPORTS_FD}`],
        ...(agentSocket === undefined
          ? []
          : [
              ...['-chardev', `socket,id=agent,path=${agentSocket},server=on,wait=off`],
              ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
            ]),
        ...drives.flatMap((drive) => [
          '-drive',
          `file=${drive.replaceAll(',', ',,')},format=raw,if=virtio,discard=unmap`,
        ]),
      ],
      { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] },
    );
    const guest = new Guest(child);
    try {
      const prompt = await guest.#expect(/(?:^|\n)# $/, 0, BOOT_MS_MAX);
      // No echo, so that what comes back is output only; no kernel messages in between.
      guest.#type("stty -echo -onlcr; PS1=''; PS2=''; dmesg -n 1; printf '@@%s@@\\n' up");
      await guest.#expect(/@@up@@\n/, prompt, COMMAND_MS_MAX);
      const { status, output } = await guest.run('echo ready');
      if (status !== 0 || output !== 'ready') throw new Error(`the guest's shell answers "${output}"`);
      await guest.must('exec 3>/dev/vport0p1');
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

  /** The lines that were reported so far, each of them whole. The array grows. */
  get reports(): readonly string[] {
    return this.#reports;
  }

  /** The number that was reported last as `<what> <number> …`; 0 when there is none. */
  reported(what: string): number {
    const last = this.#reports.findLast((line) => line.startsWith(`${what} `));
    return last === undefined ? 0 : Number(last.split(' ')[1]);
  }

  /** Resolves when `what` was reported with this number or a higher one. */
  async waitForReport(what: string, number: number, timeoutMs: number): Promise<void> {
    await this.#until(() => this.reported(what) >= number, timeoutMs, `${what} ${number}`);
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

  /** Pulls the plug (kill -9 of QEMU) if the guest still runs; no report is lost that QEMU had. Idempotent. */
  async close(): Promise<void> {
    if (this.#isRunning()) this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** What there is to say about a guest when something went wrong. */
  describe(): string {
    const reports = this.#reports.slice(-10).join('\n');
    return `QEMU says: ${this.#errors}\nThe last of ${this.#reports.length} reports:\n${reports}\n${this.#tail()}`;
  }

  #isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  #type(line: string): void {
    this.#stdin.write(`${line}\n`);
  }

  /** Waits until the console, from `from` on, matches; resolves to the console's length then. */
  async #expect(pattern: RegExp, from: number, timeoutMs: number): Promise<number> {
    await this.#until(() => pattern.test(this.#console.slice(from)), timeoutMs, String(pattern));
    return this.#console.length;
  }

  /** Waits until what came from the guest makes `isDone` true. */
  async #until(isDone: () => boolean, timeoutMs: number, what: string): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!isDone()) {
      if (!this.#isRunning()) throw new Error(`QEMU ended early (${what}). ${this.describe()}`);
      const changed = new Promise<void>((resolve) => this.#waiting.push(resolve));
      await this.#orTimeout(changed, deadline - performance.now(), what);
    }
  }

  async #orTimeout(work: Promise<unknown>, timeoutMs: number, what: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`the guest took too long (${what}). ${this.describe()}`));
      }, timeoutMs);
    });
    try {
      await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #tail(): string {
    return `Its console ended with:\n${this.#console.slice(-TAIL_CHARACTERS)}`;
  }
}
