/** Jobs: list, show, follow, cancel. */
import { Type } from '@fastify/type-provider-typebox';
import type { Readable } from 'node:stream';
import type { ApiContext, App } from '../context.ts';
import { Followers, STILL_HERE } from '../followers.ts';
import type { Jobs } from '../jobs.ts';
import { Job, JobPage, PAGE_ITEMS_DEFAULT, PageQuery, problems, ref, Reference } from '../schemas/index.ts';

const JobParams = Type.Object({ id: Reference });

export function jobRoutes(app: App, { jobs, limits }: ApiContext): void {
  const tags = ['jobs'];
  const followers = new Followers(app, limits, 'jobs', { isEndless: false });

  app.get(
    '/jobs',
    {
      config: { needs: { role: 'viewer', on: 'list' } },
      schema: {
        operationId: 'listJobs',
        summary: 'List the jobs of this server process, newest first',
        tags,
        querystring: Type.Object(PageQuery, { additionalProperties: false }),
        response: { 200: ref(JobPage), ...problems },
      },
    },
    async ({ query, actor }) => jobs.list({ ...query, limit: query.limit ?? PAGE_ITEMS_DEFAULT, actor }),
  );

  app.get(
    '/jobs/:id',
    {
      config: { needs: { role: 'viewer', on: 'job' } },
      schema: {
        operationId: 'getJob',
        summary: 'Show a job',
        tags,
        params: JobParams,
        response: { 200: ref(Job), ...problems },
      },
    },
    async ({ params }) => jobs.get(params.id),
  );

  app.delete(
    '/jobs/:id',
    {
      config: { needs: { role: 'operator', on: 'job' } },
      schema: {
        operationId: 'cancelJob',
        summary: 'Cancel a job',
        description:
          'Answers at once with the job as it is; it ends soon after. A job that has ended stays as it is.',
        tags,
        params: JobParams,
        response: { 200: ref(Job), ...problems },
      },
    },
    async ({ params }) => jobs.cancel(params.id),
  );

  app.get(
    '/jobs/:id/events',
    {
      config: { needs: { role: 'viewer', on: 'job' } },
      schema: {
        operationId: 'followJob',
        summary: 'Follow a job by server-sent events',
        description:
          'Each event `job` carries the whole job as JSON; the stream ends after the one with its end.',
        tags,
        params: JobParams,
        response: {
          200: {
            description: 'Events',
            content: { 'text/event-stream': { schema: Type.Unsafe<Readable>(Type.String()) } },
          },
          ...problems,
        },
      },
    },
    async ({ params }, reply) =>
      followers.follow(reply, (signal) => events(jobs.watch(params.id, signal, limits.heartbeatMs))),
  );
}

async function* events(states: ReturnType<Jobs['watch']>): AsyncGenerator<string> {
  let event = 0;
  for await (const job of states) {
    yield job === undefined ? STILL_HERE : `id: ${++event}\nevent: job\ndata: ${JSON.stringify(job)}\n\n`;
  }
}
