/** What goes wrong, and how people and programs are told. */
import { ServerRefusal } from '@pando/client';
import { ERROR_CODES, isPandoError } from '@pando/common';
import { CommanderError } from 'commander';

/** The command has said what is wrong; only the exit status is left. */
export class CommandFailure extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`exit status ${status}`);
    this.status = status;
  }
}

export function isUsageError(error: unknown): { isUsage: boolean; commanderStatus: number | undefined } {
  if (!(error instanceof CommanderError)) return { isUsage: false, commanderStatus: undefined };
  const fine = error.code === 'commander.helpDisplayed' || error.code === 'commander.version';
  return { isUsage: !fine, commanderStatus: fine ? 0 : 2 };
}

/** An error as lines for people, or as one line of JSON for programs. */
export function explain(error: unknown, json: boolean): string {
  const known = describe(error);
  if (json) return `${JSON.stringify({ error: known })}\n`;
  const code = known.code === 'internal' ? '' : ` (${known.code})`;
  return `pando: ${known.detail}${code}\n       ${known.remedy}\n`;
}

function describe(error: unknown): { code: string; detail: string; remedy: string } {
  if (error instanceof ServerRefusal) {
    const { code, detail, remedy } = error.problem;
    return { code, detail, remedy };
  }
  if (isPandoError(error)) {
    return { code: error.code, detail: error.message, remedy: ERROR_CODES[error.code].remedy };
  }
  if (isFileError(error)) {
    return { code: 'file-failed', detail: error.message, remedy: ERROR_CODES['file-failed'].remedy };
  }
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: 'internal', detail, remedy: 'This is a bug in the pando command; report it.' };
}

/** What the system says of a path, where nobody was nearer to say it better. */
function isFileError(error: unknown): error is NodeJS.ErrnoException {
  const { code, syscall, path } = (error ?? {}) as NodeJS.ErrnoException;
  return error instanceof Error && code !== undefined && syscall !== undefined && path !== undefined;
}
