/** Programs that tests run and that a machine may lack. */
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { it } from 'vitest';

const RUN_MS_MAX = 100_000;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

function isInstalled(tool: string): boolean {
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

/**
 * Why a test that needs these tools cannot run here, or undefined when it can. With CI=true nothing may be
 * missing.
 * @throws Error naming the tools that CI lacks
 */
export function requireTools(...tools: readonly string[]): string | undefined {
  const missing = tools.filter((tool) => !isInstalled(tool));
  if (missing.length === 0) return undefined;
  const reason = `not installed: ${missing.join(', ')}`;
  if (process.env['CI'] === 'true') throw new Error(`${reason}; CI runs every test`);
  return reason;
}

/** A test that is skipped, with the reason, on a machine that lacks one of the tools; in CI it fails instead. */
export function itWithTools(tools: readonly string[], name: string, body: () => Promise<void>): void {
  it(name, async (context) => {
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
}

/** Runs a program to its end, without a shell, and resolves whatever its exit code. */
export function runTool(
  tool: string,
  args: readonly string[],
  options: ToolOptions = {},
): Promise<ToolResult> {
  const env = { ...process.env, LC_ALL: 'C', ...options.env };
  const limits = { timeout: RUN_MS_MAX, maxBuffer: OUTPUT_BYTES_MAX, killSignal: 'SIGKILL' as const };
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
  throw new Error(`${tool} ${args.join(' ')} ended with ${code}\n${stdout}\n${stderr}`);
}
