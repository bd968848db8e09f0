/**
 * Runs `qemu-nbd` and `qemu-img` on images that may be hostile: in a sandbox (sandbox.ts), with deadlines, and never
 * longer than this process lives. `qemu-nbd` listens on a private Unix socket, whose name is gone once we are connected;
 * with its one client it ends by itself.
 *
 * The first line of defence, the explicit block graph (graph.ts), does not depend on any of this.
 */
import { isPandoError, PandoError } from '@pando/common';
import { NbdClient } from '@pando/nbd/client';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { deadline } from './deadline.ts';
import { sandboxed, sandboxFailure, unconfined, type HandedImage, type SandboxOptions } from './sandbox.ts';
import { findTool } from './tools.ts';
import type { Confinement } from './types.ts';

const STDERR_BYTES_MAX = 4096;
const FOLDER_BYTES_MAX = 80;
const SOCKET_NAME = 's';
/** Helpers of this process at a time. */
const HELPERS_MAX = 32;
/** Until an image is open and the first bytes of the handshake are here. */
const OPEN_MS_MAX = 60_000;
/** Without an answer while it is asked: a damaged image may lead its reader round in circles. */
const SILENCE_MS_MAX = 120_000;
/** For the end after a goodbye, which may have to write out what is cached. */
const EXIT_MS_MAX = 600_000;
/** For reading all tables of an image. */
const CHECK_MS_MAX = 600_000;
/** For a helper that has closed its connection to say why and end. */
const GRACE_MS_MAX = 1_000;
/** Between looks whether the helper listens. */
const LISTEN_POLL_MS = 5;

export interface ConfinedOptions {
  /** The block graph; images appear in it as `/dev/fd/<FIRST_IMAGE_FD + index>`. */
  readonly graph: object;
  readonly images: readonly HandedImage[];
  readonly writable: boolean;
  readonly confinement: Confinement;
  readonly signal?: AbortSignal;
}

/** A running `qemu-nbd` and the one connection to it. */
export interface ConfinedNbd {
  readonly client: NbdClient;
  /** What it has printed on standard error, bounded. */
  complaint(): string;
  /** Says goodbye, waits until it has written and ended. @throws `image-damaged` when it ended badly */
  close(): Promise<void>;
  /** Ends it at once. Idempotent; resolves when it is gone. */
  kill(): Promise<void>;
}

/**
 * Starts `qemu-nbd` on a block graph.
 * @throws `tool-missing`, `confinement-unavailable`, `image-damaged` when it cannot open the image, `disk-in-use`,
 *   `too-busy`; `import-not-a-file` and `image-refused` when a file went away or was replaced meanwhile
 */
export function startConfined(options: ConfinedOptions): Promise<ConfinedNbd> {
  return confinedAs(options.confinement, (isConfined) => start(options, isConfined));
}

async function start(options: ConfinedOptions, isConfined: boolean): Promise<ConfinedNbd> {
  // Of mode 0700. The path of a socket may have 107 bytes.
  const parent = Buffer.byteLength(tmpdir()) <= FOLDER_BYTES_MAX ? tmpdir() : '/tmp';
  const folder = await mkdtemp(join(parent, 'pando-nbd-'));
  try {
    const args = (socketFolder: string): string[] => [
      ...(options.writable ? ['--discard=unmap'] : ['-r']),
      `--socket=${join(socketFolder, SOCKET_NAME)}`,
      `json:${JSON.stringify(options.graph)}`,
    ];
    const child = await launch('qemu-nbd', args, { ...options, socketFolder: folder }, isConfined);
    return await connectTo(child, join(folder, SOCKET_NAME), options);
  } finally {
    // The connection lives without the name of the socket; so nothing is left however this process ends.
    await rm(folder, { recursive: true, force: true });
  }
}

/** What `qemu-img check` says of an image, as far as it is kept. Errors as startConfined. */
export function checkConfined(options: ConfinedOptions): Promise<string> {
  return confinedAs(options.confinement, (isConfined) => check(options, isConfined));
}

async function check(options: ConfinedOptions, isConfined: boolean): Promise<string> {
  const args = (): string[] => ['check', `json:${JSON.stringify(options.graph)}`];
  const child = await launch('qemu-img', args, options, isConfined);
  let said = '';
  child.stdout!.resume();
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < STDERR_BYTES_MAX) said += text.slice(0, STDERR_BYTES_MAX - said.length);
  });
  const stop = (): void => killGroup(child);
  const inTime = deadline(CHECK_MS_MAX, stop);
  options.signal?.addEventListener('abort', stop);
  if (options.signal?.aborted === true) stop();
  helpers++;
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      onceEnded(child, () => resolve());
    });
  } finally {
    helpers--;
    inTime();
    options.signal?.removeEventListener('abort', stop);
  }
  options.signal?.throwIfAborted();
  const failure = sandboxFailure(said);
  if (failure !== undefined) throw failure;
  return said;
}

async function confinedAs<T>(wanted: Confinement, run: (isConfined: boolean) => Promise<T>): Promise<T> {
  if (wanted === 'none') return run(false);
  try {
    return await run(true);
  } catch (error) {
    const cannot = isPandoError(error, 'confinement-unavailable') || isPandoError(error, 'tool-missing');
    if (wanted === 'required' || !cannot) throw error;
    return run(false);
  }
}

/** Starts a tool; `args` are told where it sees the folder of its socket. */
async function launch(
  name: 'qemu-nbd' | 'qemu-img',
  args: (socketFolder: string) => readonly string[],
  options: SandboxOptions & { readonly signal?: AbortSignal },
  isConfined: boolean,
): Promise<ChildProcess> {
  const tool = await findTool(name);
  const command = await (isConfined ? sandboxed : unconfined)(tool, options);
  try {
    options.signal?.throwIfAborted();
    if (helpers >= HELPERS_MAX) throw new PandoError('too-busy', `${HELPERS_MAX} images are open`);
    return spawn(command.program, [...command.args, ...args(command.socketFolder)], {
      // Its own group: Ctrl-C is for us, and we decide what becomes of it.
      detached: true,
      env: command.env,
      cwd: '/',
      stdio: ['ignore', 'pipe', 'pipe', 'ignore', ...command.descriptors.map((fd) => fd ?? 'ignore')],
    });
  } finally {
    await command.release();
  }
}

let helpers = 0;

/**
 * Ends the sandbox and all that is in it. The group, because what the sandbox has just begun does not die with it yet;
 * from then on it does.
 */
function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Calls back with the exit code when the program has ended and all that it said is here, or will not come any more. */
function onceEnded(child: ChildProcess, callback: (code: number | undefined) => void): void {
  let inTime = (): void => undefined;
  child.once('exit', (code) => {
    inTime = deadline(GRACE_MS_MAX, () => callback(code ?? undefined));
  });
  child.once('close', (code) => {
    inTime();
    callback(code ?? undefined);
  });
}

async function connectTo(
  child: ChildProcess,
  socket: string,
  { writable, signal }: ConfinedOptions,
): Promise<ConfinedNbd> {
  let complaint = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (complaint.length < STDERR_BYTES_MAX) complaint += text.slice(0, STDERR_BYTES_MAX - complaint.length);
  });
  child.stdout!.resume();
  let failure: Error | undefined;
  const ended = new Promise<number | undefined>((resolve) => {
    onceEnded(child, resolve);
    child.once('error', (error) => {
      failure = error;
      resolve(undefined);
    });
  });
  let running = true;
  helpers++;
  void ended.then(() => {
    running = false;
    helpers--;
  });
  const kill = async (): Promise<void> => {
    if (running) killGroup(child);
    await ended;
  };
  const stop = (): void => void kill();
  const inTime = deadline(OPEN_MS_MAX, stop);
  signal?.addEventListener('abort', stop);
  if (signal?.aborted === true) stop();
  /** It listens when it has opened the image. */
  const connect = async (): Promise<NbdClient> => {
    for (;;) {
      try {
        // A flush of what was written may rightly take longer.
        const silence = writable ? {} : { silenceMsMax: SILENCE_MS_MAX };
        return await NbdClient.connect({ path: socket }, { exportName: '', ...silence });
      } catch (error) {
        const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
        if (!running || (code !== 'ENOENT' && code !== 'ECONNREFUSED')) throw error;
        // A timer that keeps the process alive: when the helper is dead, nothing else may.
        await setTimeout(LISTEN_POLL_MS);
      }
    }
  };
  try {
    const client = await connect();
    return {
      client,
      complaint: () => complaint,
      kill: async () => {
        await kill();
        await client.close();
      },
      close: async () => {
        await client.close();
        const inTime = deadline(EXIT_MS_MAX, stop);
        const code = await ended;
        inTime();
        if (code !== 0) throw new PandoError('image-damaged', `qemu-nbd ended badly: ${complaint}`);
      },
    };
  } catch (error) {
    // It dies by itself when it cannot open the image; whatever else it was, it must not stay.
    const inTime = deadline(signal?.aborted === true ? 0 : GRACE_MS_MAX, stop);
    await ended;
    inTime();
    signal?.throwIfAborted();
    throw openFailure(complaint, failure ?? error);
  } finally {
    inTime();
    signal?.removeEventListener('abort', stop);
  }
}

function openFailure(complaint: string, cause: unknown): PandoError {
  const failure = sandboxFailure(complaint);
  if (failure !== undefined) return failure;
  const text = reason(complaint);
  if (/Failed to get .*lock/.test(text)) {
    return new PandoError('disk-in-use', 'another program has the image open for writing', { cause });
  }
  return new PandoError('image-damaged', `the image cannot be opened: ${text || (cause as Error).message}`, {
    cause,
  });
}

/** What a person can use of a complaint of QEMU's: without its own name and the long name of the graph. */
export function reason(complaint: string): string {
  return complaint
    .replaceAll(/'?json:\{.*\}'?/g, 'the image')
    .replaceAll(/^qemu-(nbd|img): /gm, '')
    .trim()
    .replaceAll(/\s*\n\s*/g, '; ');
}
