/** Runs `qemu-img` on files of our own making. */
import { PandoError } from '@pando/common';
import { execFile } from 'node:child_process';
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
    execFile(program, args, options, (error, output, stderr) => {
      if (signal?.aborted === true) reject(signal.reason as Error);
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
