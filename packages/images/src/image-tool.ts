/** Runs `qemu-img` on files of our own making. */
import { PandoError } from '@pando/common';
import { execFile, type ChildProcess } from 'node:child_process';
import { reason } from './confine.ts';
import { findTool } from './tools.ts';

const OUTPUT_BYTES_MAX = 1024 * 1024;

export interface ToolAnswer {
  readonly code: number;
  readonly output: string;
  /** What it says went wrong, in a line for a person. */
  readonly complaint: string;
}

/** @throws `tool-missing`, the signal's reason */
export async function runImageTool(
  args: readonly string[],
  signal: AbortSignal | undefined,
): Promise<ToolAnswer> {
  const program = await findTool('qemu-img');
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const options = {
      env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
      maxBuffer: OUTPUT_BYTES_MAX,
      killSignal: 'SIGKILL' as const,
      // Its own group: Ctrl-C is for us, and reaches it by way of the signal.
      detached: true,
      ...(signal === undefined ? {} : { signal }),
    };
    const child = execFile(program, args, options, (error, output, stderr) => {
      // Not before it is gone: it could still make the file that its caller is about to remove.
      if (signal?.aborted === true) onceGone(child, () => reject(signal.reason as Error));
      else if (error === null) resolve({ code: 0, output, complaint: '' });
      else if (typeof error.code === 'number')
        resolve({ code: error.code, output, complaint: reason(stderr) });
      else
        reject(
          new PandoError('file-failed', `qemu-img did not end by itself: ${error.message}`, { cause: error }),
        );
    });
  });
}

function onceGone(child: ChildProcess, then: () => void): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) then();
  else child.once('exit', then);
}
