/** What works on the fleet by itself or for whoever asks: policies, jobs, files out of backups, the history of the space report. */
import { Jobs } from '@pando/api';
import { systemRandom } from '@pando/common';
import { idSource } from '@pando/fleet';
import { openPolicies } from '@pando/policies';
import type { Engine } from './engine.ts';
import type { GuestAgents } from './guest-agents.ts';
import { openFilesOf, releasing } from './guest-files.ts';
import { Housekeeping } from './housekeeping.ts';
import { JobCounts } from './job-counts.ts';
import { eventOfJob } from './operations.ts';
import type { ServerContext } from './server-context.ts';
import { SpaceHistory, spaceCounts } from './space-history.ts';

export type Services = Awaited<ReturnType<typeof openServices>>;

/** Policies, housekeeping and the history are not started yet. */
export async function openServices(
  { options, clock, logger, operations, closing }: ServerContext,
  { directory, open, activity }: Engine,
  { quiesce }: GuestAgents,
) {
  const housekeeping = new Housekeeping();
  const jobCounts = new JobCounts();
  const jobs = new Jobs({
    clock,
    onInternalError: (job, error) =>
      logger.error({ err: error, job: job.id, kind: job.kind }, 'a job failed'),
    onEnded: (job) => {
      jobCounts.count(job);
      const event = eventOfJob(job);
      if (event !== undefined) operations.raise(event);
    },
  });
  // Fleet and jobs end together: an import is both, and each would wait for the other.
  closing.push(async () => {
    await Promise.all([open.fleet.close(), jobs.close()]);
  });
  const files = await openFilesOf(open.fleet, {
    ...{ appliances: options.fileAppliances, storeId: directory.store.storeId, clock, logger },
  });
  closing.push(() => files.close());
  const history = await SpaceHistory.open({
    ...{ catalog: open.catalog, clock },
    count: () => spaceCounts(open),
    report: (signal) => open.fleet.space({ signal }),
    onTrouble: (error) => logger.warn({ err: error }, 'no sample of the space report could be kept'),
  });
  closing.push(() => history.close());
  const fleet = history.watch(housekeeping.watch(releasing(open.fleet, files)));
  const policies = openPolicies({
    ...{ catalog: open.catalog, fleet, clock, onEvent: operations.raise },
    ...(quiesce === undefined ? {} : { quiesce }),
    newId: idSource(clock, systemRandom),
    onError: (error) => logger.warn({ err: error }, 'policies could not do what is due; it is tried again'),
  });
  activity.start();
  closing.push(() => activity.stop());
  return { fleet, files, policies, jobs, jobCounts, history, housekeeping };
}
