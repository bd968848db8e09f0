/** Programs under measurement: found on PATH, pinned to cores, timed, waited for, and ended by whoever started them. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { lstat, readFile, readdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const OUTPUT_CHARACTERS_MAX = 64 * 1024 * 1024;
const START_MS_MAX = 30_000;
const STOP_MS_MAX = 30_000;
const QUIET_MS = 500;
const QUIET_MS_MAX = 120_000;
/** Clock ticks (of 10 ms) in `QUIET_MS` that still count as idle: timers and garbage collection. */
const QUIET_TICKS_MAX = 2;

export function onPath(tool: string): boolean {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, tool), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const living = new Set<number>();

/** A process that is not to outlive the bench, however the bench ends. */
export function endWithBench(pid: number | undefined): void {
  if (pid !== undefined) living.add(pid);
}

/** The process has ended; its id may soon be somebody else's. */
export function hasEnded(pid: number | undefined): void {
  if (pid !== undefined) living.delete(pid);
}

process.on('exit', () => {
  for (const pid of living) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It was faster.
    }
  }
});

const CORES = 2;

/**
 * What to put in front of a program so that it runs on two cores: servers of all sides and whoever asks them share the
 * same two, as on a small host, and the scheduler is free between them. With fewer, or without taskset(1), nothing is pinned.
 */
export interface Pinning {
  readonly prefix: readonly string[];
  readonly words: string;
}

export function pinning(): Pinning {
  if (availableParallelism() < CORES || !onPath('taskset')) return { prefix: [], words: 'nothing pinned' };
  const cores = `0-${CORES - 1}`;
  return { prefix: ['taskset', '-c', cores], words: `servers and clients of all sides on cores ${cores}` };
}

/** The bench too: it is the client of some questions, and what it starts without a prefix inherits its cores. */
export async function pinItself({ prefix }: Pinning): Promise<void> {
  const cores = prefix.at(-1);
  if (cores === undefined) return;
  await run('taskset', ['--all-tasks', '--cpu-list', '--pid', cores, String(process.pid)]);
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** In front of the command; see `Pinning`. */
  readonly prefix?: readonly string[];
}

/** Runs a program to its end and resolves to what it printed. @throws Error with its output when it fails */
export async function run(tool: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const child = start(tool, args, options);
  let output = '';
  let errors = '';
  child.stdout!.on(
    'data',
    (data: Buffer) => (output = (output + data.toString()).slice(-OUTPUT_CHARACTERS_MAX)),
  );
  child.stderr!.on(
    'data',
    (data: Buffer) => (errors = (errors + data.toString()).slice(-OUTPUT_CHARACTERS_MAX)),
  );
  const [status, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (status === 0) return output;
  throw new Error(`${tool} ${args.join(' ')} ended with ${signal ?? String(status)}\n${output}\n${errors}`);
}

/** As `run`; resolves to its wall-clock seconds. */
export async function timed(
  tool: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<number> {
  const started = performance.now();
  await run(tool, args, options);
  return (performance.now() - started) / 1000;
}

/** A program that runs until `stop`. */
export interface Running {
  readonly pid: number;
  /** Resolves when it has ended by itself or was stopped. */
  stop(): Promise<void>;
}

/** Starts a server and resolves when its socket is there. @throws Error with its output when it dies before */
export async function serve(
  tool: string,
  args: readonly string[],
  options: RunOptions & { readonly socket: string },
): Promise<Running> {
  const child = start(tool, args, options);
  let output = '';
  const note = (data: Buffer): void => void (output = (output + data.toString()).slice(-100_000));
  child.stdout!.on('data', note);
  child.stderr!.on('data', note);
  let failure: Error | undefined;
  child.once('error', (error) => (failure = error));
  const running = { pid: child.pid ?? 0, stop: () => end(child) };
  const deadline = performance.now() + START_MS_MAX;
  for (;;) {
    if (
      await lstat(options.socket).then(
        (stat) => stat.isSocket(),
        () => false,
      )
    )
      return running;
    if (failure !== undefined || child.exitCode !== null || performance.now() > deadline) {
      await running.stop();
      throw new Error(`${tool} ${args.join(' ')} does not serve\n${output}`, { cause: failure });
    }
    await sleep(10);
  }
}

export interface Load extends Running {
  /** @throws Error with its output when it has ended already: then it was no load */
  mustRun(): void;
  /** What it has printed so far, errors left out. */
  printed(): string;
}

/** Starts a program that is stopped before its end: a load. */
export function background(tool: string, args: readonly string[], options: RunOptions = {}): Load {
  const child = start(tool, args, options);
  let output = '';
  let printed = '';
  const note = (data: Buffer): void => void (output = (output + data.toString()).slice(-100_000));
  child.stdout!.on('data', note);
  child.stdout!.on('data', (data: Buffer) => (printed = (printed + data.toString()).slice(-100_000)));
  child.stderr!.on('data', note);
  child.on('error', (error) => (output += error.message));
  return {
    pid: child.pid ?? 0,
    stop: () => end(child),
    printed: () => printed,
    mustRun: () => {
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) return;
      throw new Error(`${tool} ${args.join(' ')} ended too early\n${output}`);
    },
  };
}

function start(tool: string, args: readonly string[], { env, cwd, prefix = [] }: RunOptions): ChildProcess {
  const [command, ...rest] = [...prefix, tool, ...args];
  const child = spawn(command!, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C', ...env },
    ...(cwd === undefined ? {} : { cwd }),
  });
  endWithBench(child.pid);
  child.once('exit', () => hasEnded(child.pid));
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const closed = once(child, 'close');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
  await closed;
  clearTimeout(timer);
}

/** Waits until a process has (nearly) stopped using the processor: what it does behind its answers must not fall into another side's run. */
export async function untilQuiet(pid: number): Promise<void> {
  const deadline = performance.now() + QUIET_MS_MAX;
  for (let before = await ticksOf(pid); ;) {
    await sleep(QUIET_MS);
    const now = await ticksOf(pid);
    if (before === undefined || now === undefined || now - before <= QUIET_TICKS_MAX) return;
    if (performance.now() > deadline)
      throw new Error(`process ${pid} is still at work after ${QUIET_MS_MAX} ms`);
    before = now;
  }
}

/** Processor time so far, in clock ticks of 10 ms; undefined where /proc does not tell. */
export async function ticksOf(pid: number): Promise<number | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (stat === undefined) return undefined;
  // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** Bytes that a process has sent to the disk so far, those left out that were dropped with their file before they got there. */
export async function writtenBytes(pid: number): Promise<number> {
  const io = await readFile(`/proc/${pid}/io`, 'utf8');
  const field = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(io)![1]);
  return field('write_bytes') - field('cancelled_write_bytes');
}

/** Bytes that a process has read from the disk so far; what the page cache had does not count. */
export async function readBytes(pid: number): Promise<number> {
  return Number(/^read_bytes: (\d+)$/m.exec(await readFile(`/proc/${pid}/io`, 'utf8'))![1]);
}

/** The most memory that a process has had resident so far. */
export async function peakBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)![1]) * 1024;
}

/** Bytes that a file or a folder with all in it takes on the file system (as du(1) counts). */
export async function diskBytes(path: string): Promise<number> {
  const stat = await lstat(path);
  let bytes = stat.blocks * 512;
  if (!stat.isDirectory()) return bytes;
  for (const name of await readdir(path)) bytes += await diskBytes(join(path, name));
  return bytes;
}
