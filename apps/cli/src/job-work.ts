/** Starts a job on the server and stays with it to its end. */
import {
  resultOf,
  type Arguments,
  type ArgumentsOf,
  type Job,
  type JobId,
  type JobResults,
} from '@pando/client';
import { PandoError } from '@pando/common';
import { connect } from './connect.ts';
import { startProgress } from './progress.ts';

export interface JobOptions {
  readonly label: string;
  readonly unit: 'bytes' | 'count';
  readonly json?: boolean | undefined;
  readonly signal: AbortSignal;
}

/** Resolves to the result, of a job or without one. Interrupted, it cancels the job. @throws ServerRefusal with the error of the job */
export async function runJob<Id extends JobId>(
  operation: Id,
  given: ArgumentsOf<Id>,
  options: JobOptions,
): Promise<JobResults[Id]> {
  const { signal } = options;
  signal.throwIfAborted();
  // Without the signal: a request that is given up may have been carried out, and nobody could cancel the job.
  const started = await connect().start(operation, ...([given] as Arguments<ArgumentsOf<Id>>));
  if ('result' in started) return started.result;
  const { id } = started.job;
  const progress = startProgress(options.label, options);
  try {
    signal.throwIfAborted();
    let last: Job | undefined;
    for await (const job of connect({ signal }).follow(id)) {
      last = job;
      // The last phase of a verification counts nodes: the bytes stand still at their end.
      if (job.progress !== undefined && job.progress.phase !== 'disks')
        progress.update(job.progress.done, job.progress.all);
    }
    if (last === undefined) throw new PandoError('server-unreachable', 'the server told nothing of the job');
    return resultOf<Id>(last);
  } catch (error) {
    if (signal.aborted) {
      // Not with the signal: it would end this request as well.
      await connect()
        .call('cancelJob', { id })
        .catch(() => undefined);
      throw signal.reason as Error;
    }
    throw error;
  } finally {
    progress.stop();
  }
}
