/** What goes wrong, and how people and programs are told. */
import { ERROR_CODES, isPandoError } from '@pando/common';
import { CommanderError } from 'commander';

/** RFC 9457, as the server sends it. */
export interface Problem {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly remedy: string;
}

/** The server said no. */
export class ServerRefusal extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

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
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: 'internal', detail, remedy: 'This is a bug in the pando command; report it.' };
}
