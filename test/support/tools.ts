/** Programs that tests run and that a machine may lack. */
import { execFile, execFileSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { it } from 'vitest';

const RUN_MS_MAX = 100_000;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
/** Of each stream, in an error. */
const MESSAGE_CHARACTERS_MAX = 4_000;

/** QEMU with extended headers of NBD; `.ci/packages` installs it. For `requireTools`: `qemu-io${EXTENDED_QEMU}`. */
export const EXTENDED_QEMU = '>=8.2';

/** The PATH of tests: mkfs, mount and nbd-client live where only root's PATH leads. */
function searchPath(): string {
  return [process.env['PATH'] ?? '', '/usr/sbin', '/sbin'].join(delimiter);
}

function mayAccess(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

/** What `tool --version` names first, as [major, minor]. */
function versionOf(tool: string): readonly [number, number] | undefined {
  try {
    const printed = execFileSync(tool, ['--version'], {
      env: { ...process.env, PATH: searchPath() },
      encoding: 'utf8',
    });
    const found = /\b(\d+)\.(\d+)/.exec(printed);
    return found === null ? undefined : [Number(found[1]), Number(found[2])];
  } catch {
    return undefined;
  }
}

/** Why the machine does not have what is wanted, or undefined when it has. */
function lackOf(want: string): string | undefined {
  if (isAbsolute(want)) {
    return mayAccess(want, constants.R_OK | constants.W_OK)
      ? undefined
      : `${want} (not there, or not for us)`;
  }
  const [tool, minimum] = want.split('>=') as [string, string | undefined];
  if (
    !searchPath()
      .split(delimiter)
      .some((folder) => mayAccess(join(folder, tool), constants.X_OK))
  )
    return tool;
  if (minimum === undefined) return undefined;
  const [major, minor] = minimum.split('.').map(Number) as [number, number];
  const version = versionOf(tool);
  if (version === undefined) return `${tool} that tells its version`;
  const isEnough = version[0] > major || (version[0] === major && version[1] >= minor);
  return isEnough ? undefined : `${tool} ${minimum} or newer (this is ${version.join('.')})`;
}

/**
 * Why a test that needs these tools cannot run here, or undefined when it can. A tool may ask for a version, major
 * and minor (`qemu-img>=8.2`); an absolute path stands for a device or file that the test has to read and write
 * (`/dev/fuse`). With CI=true nothing may be missing.
 * @throws Error naming the tools that CI lacks
 */
export function requireTools(...tools: readonly string[]): string | undefined {
  const missing = tools.map(lackOf).filter((lack) => lack !== undefined);
  if (missing.length === 0) return undefined;
  const reason = `not installed: ${missing.join(', ')}`;
  if (process.env['CI'] === 'true') throw new Error(`${reason}; CI runs every test`);
  return reason;
}

/**
 * A test that is skipped, with the reason, on a machine that lacks one of the tools; in CI it fails instead. `msMax`: how long
 * it may take, where that is more than for the other tests of its suite.
 */
export function itWithTools(
  tools: readonly string[],
  name: string,
  body: () => Promise<void>,
  msMax?: number,
): void {
  it(name, { ...(msMax === undefined ? {} : { timeout: msMax }) }, async (context) => {
    const reason = requireTools(...tools);
    if (reason !== undefined) {
      console.warn(`skipped "${name}": ${reason}`);
      context.skip(reason);
    }
    await body();
  });
}

export interface ToolResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ToolOptions {
  readonly cwd?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** When it is killed; 100 s unless told. */
  readonly msMax?: number;
}

/** Runs a program to its end, without a shell, and resolves whatever its exit code. */
export function runTool(
  tool: string,
  args: readonly string[],
  options: ToolOptions = {},
): Promise<ToolResult> {
  const env = { ...process.env, PATH: searchPath(), LC_ALL: 'C', ...options.env };
  const limits = {
    timeout: options.msMax ?? RUN_MS_MAX,
    maxBuffer: OUTPUT_BYTES_MAX,
    killSignal: 'SIGKILL' as const,
  };
  const cwd = options.cwd === undefined ? {} : { cwd: options.cwd };
  return new Promise((resolve, reject) => {
    execFile(tool, args, { ...limits, ...cwd, env }, (error, stdout, stderr) => {
      if (error === null) resolve({ code: 0, stdout, stderr });
      else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr });
      else
        reject(
          new Error(`${tool} ${args.join(' ')} did not end by itself: ${error.message}\n${stderr}`, {
            cause: error,
          }),
        );
    });
  });
}

/** As `runTool`, for programs that have to succeed; resolves to what they print. */
export async function mustRun(
  tool: string,
  args: readonly string[],
  options: ToolOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await runTool(tool, args, options);
  if (code === 0) return stdout;
  const printed = [stdout, stderr].map((text) => text.slice(-MESSAGE_CHARACTERS_MAX)).join('\n');
  throw new Error(`${tool} ${args.join(' ')} ended with ${code}\n${printed}`);
}
