/** Starts a job on the server and stays with it to its end. */
import { PandoError } from '@pando/common';
import { ServerRefusal } from './failures.ts';
import { startProgress } from './progress.ts';
import { Rest } from './rest.ts';
import type { Job } from './views.ts';

export interface JobOptions {
  readonly label: string;
  readonly unit: 'bytes' | 'count';
  readonly json?: boolean | undefined;
  readonly signal: AbortSignal;
}

/** Resolves to the result of the job. Interrupted, it cancels the job. @throws ServerRefusal with the error of the job */
export async function runJob<R>(path: string, body: object, options: JobOptions): Promise<R> {
  const { signal } = options;
  signal.throwIfAborted();
  // Without the signal: a request that is given up may have been carried out, and nobody could cancel the job.
  const { id } = await new Rest().post<Job>(path, body);
  const progress = startProgress(options.label, options);
  try {
    signal.throwIfAborted();
    let last: Job | undefined;
    for await (const job of new Rest({ signal }).follow(id)) {
      last = job;
      // The last phase of a verification counts nodes: the bytes stand still at their end.
      if (job.progress !== undefined && job.progress.phase !== 'disks')
        progress.update(job.progress.done, job.progress.all);
    }
    if (last?.state === 'done') return last.result as R;
    if (last?.error !== undefined) throw new ServerRefusal({ status: 0, ...last.error });
    throw new PandoError('server-unreachable', 'the server stopped telling about the job');
  } catch (error) {
    if (signal.aborted) {
      // Not with the signal: it would end this request as well.
      await new Rest().delete(`/jobs/${encodeURIComponent(id)}`).catch(() => undefined);
      throw signal.reason as Error;
    }
    throw error;
  } finally {
    progress.stop();
  }
}
