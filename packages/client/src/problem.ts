/** What a server says when it says no. */

/** RFC 9457, as the server sends it. */
export interface Problem {
  /** Of the answer; 0: it is the end of a job. */
  readonly status: number;
  /** Stable: docs/errors.md lists them. */
  readonly code: string;
  readonly detail: string;
  readonly remedy: string;
  /** Seconds after which it may be asked again, where the answer said so. */
  readonly retryAfter?: number;
}

/** The server said no, or the job that it was asked for has failed. */
export class ServerRefusal extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.name = 'ServerRefusal';
    this.problem = problem;
  }
}

export function problemFrom(status: number, text: string, retryAfter?: string): Problem {
  try {
    const problem = JSON.parse(text) as Partial<Problem> | null;
    if (typeof problem?.code === 'string') {
      const { code, detail = code, remedy = '' } = problem;
      const after = /^\d{1,6}$/.test(retryAfter ?? '') ? { retryAfter: Number(retryAfter) } : {};
      return { status, code, detail, remedy, ...after };
    }
  } catch {
    // Not one of ours: something else listens there.
  }
  return {
    status,
    code: 'server-unreachable',
    detail: `what answers there is no Pando server (status ${status})`,
    remedy: 'Check the address, such as PANDO_URL.',
  };
}
