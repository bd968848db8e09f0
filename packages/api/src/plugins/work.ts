/** Work on the store as a whole: gc and verify, as jobs. */
import type { FastifyReply } from 'fastify';
import { PandoError } from '@pando/common';
import type { ImportProgress, Work } from '@pando/fleet';
import type { ApiContext, App } from '../context.ts';
import type { JobWork } from '../jobs.ts';
import {
  GcRequest,
  Job,
  LastVerifications,
  problems,
  ref,
  VerifyRequest,
  withLocation,
  type Job as JobType,
} from '../schemas/index.ts';

/** The lane of jobs that walk the whole store: one at a time, the next one waits. */
export const STORE_LANE = 'store';

export function work(app: App, { engine, jobs }: ApiContext): void {
  app.post(
    '/gc',
    {
      config: { needs: { role: 'operator', on: 'store' }, idempotent: true, makesRoom: true },
      schema: {
        operationId: 'collectGarbage',
        summary: 'Free what nothing refers to any more',
        tags: ['store'],
        body: GcRequest,
        response: { 202: withLocation('The job', ref(Job)), ...problems },
      },
    },
    async ({ body, actor }, reply) => {
      const options = { thorough: body.thorough ?? false };
      return accepted(
        reply,
        jobs.start({ kind: 'gc', lane: STORE_LANE, by: actor }, (given) => engine.gc(given, options)).job,
      );
    },
  );

  app.post(
    '/verify',
    {
      config: { needs: { role: 'operator', on: 'store' }, idempotent: true },
      schema: {
        operationId: 'verify',
        summary: 'Check the store: every chunk, or its structure only',
        description:
          'The job ends as `done` also when damage was found; its result lists where it is and which ranges of which disks it affects.',
        tags: ['store'],
        body: VerifyRequest,
        response: { 202: withLocation('The job', ref(Job)), ...problems },
      },
    },
    async ({ body, actor }, reply) => {
      const options = { quick: body.quick ?? false, resume: body.resume ?? false };
      if (options.quick && options.resume)
        throw new PandoError(
          'request-invalid',
          'a quick verification is over soon: only a full one is gone on with',
        );
      return accepted(
        reply,
        jobs.start({ kind: 'verify', lane: STORE_LANE, by: actor }, (given) => engine.verify(given, options))
          .job,
      );
    },
  );

  app.get(
    '/verify/last',
    {
      config: { needs: { role: 'viewer', on: 'store' } },
      schema: {
        operationId: 'lastVerifications',
        summary: 'What the last verifications found',
        description:
          'The last full one and the last quick one that ran to their end, also before the server was started; absent when there was none.',
        tags: ['store'],
        response: { 200: ref(LastVerifications), ...problems },
      },
    },
    async () => engine.lastVerifications(),
  );
}

export function accepted(reply: FastifyReply, job: JobType): JobType {
  void reply.code(202).header('location', `/api/v1/jobs/${job.id}`);
  return job;
}

/** A job's signal and progress as the fleet takes them. */
export function fleetWork({ signal, onProgress }: JobWork): Work<ImportProgress> {
  return {
    signal,
    onProgress: ({ phase, doneBytes, allBytes }) => {
      onProgress({
        done: doneBytes,
        ...(phase === undefined ? {} : { phase }),
        ...(allBytes === undefined ? {} : { all: allBytes }),
      });
    },
  };
}
