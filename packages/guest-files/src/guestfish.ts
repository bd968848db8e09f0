/**
 * One guestfish and its appliance: commands go in, one at a time, and answers come out.
 *
 * Each command is followed by two marks that nobody can guess: `echo MARK`, which comes out behind the answer, and `MARK`, which
 * is no command, so that guestfish complains of it behind all that the command has complained of. Bytes of files do not come that way but
 * through a named pipe, which guestfish opens like a file.
 */
import { PandoError, type Clock } from '@pando/common';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { LINE_BYTES_MAX, type GuestFilesLimits } from './limits.ts';
import type { Tool } from './tool.ts';
import { failureOf } from './words.ts';

const PIPE = 'bytes';
/** Of complaints, the last part is kept. */
const COMPLAINT_BYTES_MAX = 16 * 1024;

export interface GuestfishOptions {
  readonly tool: Tool;
  /** Private to us; has the pipe and whatever guestfish puts down for itself. */
  readonly folder: string;
  /** Emulates the processor where libguestfs would use KVM. */
  readonly isEmulated: boolean;
  /** URIs of the disks, in their order. */
  readonly disks: readonly string[];
  readonly clock: Clock;
  readonly limits: GuestFilesLimits;
}

/** What a command failed with, in the words of the tool. */
export class CommandFailure extends Error {}

interface Waiting {
  readonly mark: string;
  readonly resolve: (answer: Buffer) => void;
  readonly reject: (error: Error) => void;
}

export class Guestfish {
  readonly #child: ChildProcess;
  readonly #options: GuestfishOptions;
  readonly #pipe: string;
  #out: Buffer[] = [];
  #outBytes = 0;
  #complaint = '';
  #waiting: Waiting | undefined;
  #death: PandoError | undefined;
  readonly ended: Promise<void>;

  private constructor(options: GuestfishOptions) {
    this.#options = options;
    this.#pipe = join(options.folder, PIPE);
    const { tool, folder, isEmulated, disks, limits } = options;
    const drives = disks.flatMap((uri) => ['--format=raw', '--add', uri]);
    // What the kernel in there writes goes to a file beside each disk: journals, and all of a RAID that it brings in step again.
    const bounded = [`--fsize=${limits.writtenBytesMax}`, tool.guestfish];
    this.#child = spawn(tool.prlimit, [...bounded, '--ro', '--no-progress-bars', ...drives], {
      // Its own group, so that it ends with its appliance; and Ctrl-C is for us.
      detached: true,
      cwd: folder,
      env: {
        ...tool.env,
        ...(isEmulated ? { LIBGUESTFS_BACKEND_SETTINGS: 'force_tcg' } : {}),
        HOME: folder,
        TMPDIR: folder,
        XDG_RUNTIME_DIR: folder,
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    // Where there is nothing left to make them of, there are none; then `error` comes.
    const { stdin, stdout, stderr } = this.#child;
    stdin?.on('error', () => undefined); // what ended says more
    stdout?.on('data', (data: Buffer) => this.#take(data));
    stderr?.on('data', (data: Buffer) => {
      this.#complaint = (this.#complaint + data.toString('utf8')).slice(-COMPLAINT_BYTES_MAX);
      this.#check();
    });
    this.ended = new Promise((resolve) => {
      const end = (cause?: Error): void => {
        this.#die(new PandoError('files-tool-failed', this.#lastWords(), { cause }));
        resolve();
      };
      this.#child.once('error', end);
      this.#child.once('close', () => end());
    });
  }

  /** Runs when it resolves; its appliance is not started yet. @throws `files-tool-failed` */
  static async start(options: GuestfishOptions): Promise<Guestfish> {
    await promisify(execFile)(options.tool.mkfifo, ['-m', '600', join(options.folder, PIPE)]).catch(
      (cause: unknown) => {
        throw new PandoError('files-tool-failed', 'mkfifo failed', { cause });
      },
    );
    return new Guestfish(options);
  }

  get isAlive(): boolean {
    return this.#death === undefined;
  }

  /** Whether a command is under way. */
  get isBusy(): boolean {
    return this.#waiting !== undefined;
  }

  /**
   * The answer to a command, whose arguments are written as `argument` does. What does not answer in time is ended.
   * @throws CommandFailure with what the tool said; `files-tool-failed` when it is no more
   */
  async command(name: string, args: readonly Uint8Array[] = [], msMax?: number): Promise<Buffer> {
    const tooLong = new AbortController();
    this.#options.clock.sleep(msMax ?? this.#options.limits.commandMs, tooLong.signal).then(
      () => this.kill(new PandoError('files-tool-failed', `the appliance did not answer in time (${name})`)),
      () => undefined,
    );
    try {
      return await this.#send(name, args);
    } finally {
      tooLong.abort();
    }
  }

  /**
   * The bytes that a command writes to the file that is its last argument. Fails before the first of them where it can; whoever
   * takes the bytes takes all, or ends the generator, and with it the tool.
   */
  async bytes(
    name: string,
    args: readonly Uint8Array[],
    options: readonly Uint8Array[] = [],
  ): Promise<AsyncGenerator<Uint8Array, void, undefined>> {
    // Opened first: whoever opens the other end of a pipe waits for somebody at this one.
    const fd = openSync(this.#pipe, constants.O_RDONLY | constants.O_NONBLOCK);
    let pipe: Socket;
    try {
      pipe = new Socket({ fd, readable: true, writable: false });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    pipe.on('error', () => undefined); // reading throws it
    const pause = new Pause(this.#options.clock, this.#options.limits.pauseMs, () =>
      this.kill(new PandoError('files-tool-failed', 'nothing moved for too long')),
    );
    const done = this.#send(name, [...args, Buffer.from(this.#pipe), ...options]);
    const failed = done.then(
      () => undefined,
      (error: unknown) => {
        // Also when guestfish never opened its end, and there will be no end to what comes.
        pipe.destroy();
        return error as Error;
      },
    );
    const pieces = pipe[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    // What broke it is what the command failed with.
    const next = (): Promise<IteratorResult<Buffer, unknown>> =>
      pieces.next().catch(() => ({ done: true as const, value: undefined }));
    const first = next();
    const begun = await Promise.race([first, failed.then((error) => error)]);
    if (begun instanceof Error) {
      pause.end();
      throw begun;
    }
    // Before its first byte is asked for, a generator that is ended does nothing at all.
    const kill = (reason: PandoError): void => this.kill(reason);
    const generator = pour();
    await generator.next();
    return generator;

    async function* pour(): AsyncGenerator<Uint8Array, void, undefined> {
      let isWhole = false;
      try {
        yield Buffer.alloc(0);
        // One is held back until it is known whether it is the last of a whole: who has got all may be gone at once.
        let held: Buffer | undefined;
        for (let piece = await first; piece.done !== true; piece = await next()) {
          pause.moved();
          if (held !== undefined) yield held;
          held = piece.value;
        }
        const error = await failed;
        if (error !== undefined) throw error;
        isWhole = true;
        if (held !== undefined) yield held;
      } finally {
        pause.end();
        pipe.destroy();
        if (!isWhole) kill(new PandoError('cancelled', 'the rest was not wanted any more'));
      }
    }
  }

  /** Ends it and its appliance at once: they hold nothing that could be lost. */
  kill(reason: PandoError): void {
    this.#die(reason);
    const { pid, exitCode, signalCode } = this.#child;
    if (pid === undefined || exitCode !== null || signalCode !== null) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  #send(name: string, args: readonly Uint8Array[]): Promise<Buffer> {
    if (this.#death !== undefined) return Promise.reject(this.#death);
    if (this.#waiting !== undefined) throw new Error('one command at a time');
    const mark = `mark-${randomBytes(16).toString('hex')}`;
    const line = Buffer.concat([
      Buffer.from(`-${name}`),
      ...args.flatMap((argument) => [Buffer.from(' '), argument]),
    ]);
    if (line.length > LINE_BYTES_MAX)
      return Promise.reject(new PandoError('request-invalid', 'the path is too long for guestfish'));
    return new Promise((resolve, reject) => {
      this.#waiting = { mark, resolve, reject };
      this.#child.stdin?.write(Buffer.concat([line, Buffer.from(`\n-echo ${mark}\n-${mark}\n`)]));
    });
  }

  #take(data: Buffer): void {
    this.#out.push(data);
    this.#outBytes += data.byteLength;
    if (this.#outBytes > this.#options.limits.answerBytesMax)
      this.kill(new PandoError('files-tool-failed', 'an answer of the appliance was too long'));
    else this.#check();
  }

  #check(): void {
    const waiting = this.#waiting;
    if (waiting === undefined || !this.#complaint.includes(waiting.mark)) return;
    const out = Buffer.concat(this.#out);
    const end = out.indexOf(`${waiting.mark}\n`);
    if (end < 0) {
      this.#out = [out];
      return;
    }
    const failure = failureOf(this.#complaint.slice(0, this.#complaint.indexOf(waiting.mark)));
    this.#waiting = undefined;
    this.#out = [];
    this.#outBytes = 0;
    this.#complaint = '';
    if (failure === undefined) waiting.resolve(out.subarray(0, end));
    else waiting.reject(new CommandFailure(failure));
  }

  #die(reason: PandoError): void {
    this.#death ??= reason;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(this.#death);
  }

  #lastWords(): string {
    const said = failureOf(this.#complaint);
    return `guestfish ended${said === undefined ? '' : `: ${said}`}`;
  }
}

/** Calls back once when nothing has moved for so long. */
class Pause {
  readonly #end = new AbortController();
  #last: number;

  constructor(clock: Clock, ms: number, late: () => void) {
    this.#last = clock.monotonic();
    const watch = async (): Promise<void> => {
      for (;;) {
        const left = this.#last + ms - clock.monotonic();
        if (left <= 0) break;
        await clock.sleep(left, this.#end.signal);
      }
      late();
    };
    this.moved = () => (this.#last = clock.monotonic());
    watch().catch(() => undefined);
  }

  readonly moved: () => void;

  end(): void {
    this.#end.abort();
  }
}
