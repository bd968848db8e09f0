/**
 * Repairs: chunks that disks miss, out of a source that holds them. As with imports, an upload is answered when it is
 * done, and a file on the server is a job; both show up under `/jobs` while they run.
 */
import { Type } from '@fastify/type-provider-typebox';
import type { Actor } from '@pando/access';
import { SPARSE_MEDIA_TYPE } from '@pando/common';
import { IMAGE_FORMATS } from '@pando/images';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ApiContext, App, RepairSource } from '../context.ts';
import { openImportFile, resolveStoreDirectory, uploadSource } from '../import-source.ts';
import type { StartedJob } from '../jobs.ts';
import { Bytes, Job, problems, ref, RepairReport, withLocation } from '../schemas/index.ts';
import { isJson } from './guard.ts';
import { linger, RAW_MEDIA_TYPE } from './imports.ts';
import { accepted, STORE_LANE } from './work.ts';

const PathRepair = Type.Object(
  {
    path: Type.String({
      minLength: 1,
      maxLength: 4096,
      description:
        'a file inside the import directory of the server, an image of any format, or a directory there: the data directory of a store',
    }),
    format: Type.Optional(
      Type.Union(
        IMAGE_FORMATS.map((format) => Type.Literal(format)),
        { description: 'of the file; recognised by its content where it is not said' },
      ),
    ),
  },
  { additionalProperties: false },
);
type PathRepair = Type.Static<typeof PathRepair>;

const UploadQuery = Type.Object(
  {
    sizeBytes: Type.Optional(
      Type.Integer({ ...Bytes, description: 'size of the source, where Content-Length does not say it' }),
    ),
  },
  { additionalProperties: false },
);

const UploadResult = Type.Object(
  { jobId: Type.String(), result: ref(RepairReport) },
  { additionalProperties: false },
);

export function repairs(app: App, context: ApiContext): void {
  const { engine, jobs, limits, importDirectory, trustImages } = context;

  app.addContentTypeParser([RAW_MEDIA_TYPE, SPARSE_MEDIA_TYPE], (_request, payload, done) =>
    done(null, payload),
  );

  app.post(
    '/repairs',
    {
      config: { needs: { role: 'operator', on: 'store' }, idempotent: true, upload: true },
      schema: {
        operationId: 'repair',
        summary: 'Store damaged chunks anew from a source that holds their bytes',
        description:
          'The source is a disk that holds, or once held, the same bytes: an image that was imported, an older copy of a disk. Or the ' +
          'data directory of a store. What disks need of it and is damaged or missing is stored, nothing else. Name a file or ' +
          `directory on the server in JSON: 202 and a job. Or upload bytes as ${RAW_MEDIA_TYPE} or ${SPARSE_MEDIA_TYPE}: 200 when it is done; they are ` +
          'read once, and `again` in the result says whether sending them once more may repair more.',
        tags: ['store'],
        querystring: UploadQuery,
        body: {
          content: {
            'application/json': { schema: PathRepair },
            [RAW_MEDIA_TYPE]: { schema: Type.Unknown() },
            [SPARSE_MEDIA_TYPE]: { schema: Type.Unknown() },
          },
        },
        response: {
          200: { ...UploadResult, description: 'The upload has been looked through' },
          202: withLocation('The job', ref(Job)),
          ...problems,
        },
      },
    },
    async (request, reply) => {
      if (isJson(request.headers['content-type']))
        return repairFrom(request, request.body as PathRepair, reply);
      try {
        return await repairFromUpload(request, request.query.sizeBytes, reply);
      } finally {
        // What is not needed of it is not read.
        linger(request, limits.lingerMs);
      }
    },
  );

  async function repairFrom({ actor }: FastifyRequest, { path, format }: PathRepair, reply: FastifyReply) {
    const directory = await resolveStoreDirectory(importDirectory, path);
    const source =
      directory === undefined
        ? await openImportFile(importDirectory, path, { format, trustImages })
        : await engine.openStoreSource(directory);
    try {
      const { job, ended } = start(path, source, actor);
      const close = (): Promise<void> => source.close();
      void ended.then(close, close);
      return accepted(reply, job);
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  async function repairFromUpload(
    request: FastifyRequest,
    sizeBytes: number | undefined,
    reply: FastifyReply,
  ) {
    const sparse = request.headers['content-type']!.toLowerCase().startsWith(SPARSE_MEDIA_TYPE);
    const length = request.headers['content-length'];
    const source = uploadSource({
      body: request.raw,
      sparse,
      sizeBytes: sizeBytes ?? (sparse || length === undefined ? undefined : Number(length)),
      pauseMs: limits.uploadPauseMs,
    });
    const { job, ended } = start(
      'upload',
      {
        ...(source.sizeBytes === undefined ? {} : { sizeBytes: source.sizeBytes }),
        isOnce: true,
        parts: (signal) => {
          if (request.headers.expect !== undefined) reply.raw.writeContinue();
          return source.parts(signal);
        },
      },
      request.actor,
    );
    return { jobId: job.id, result: await ended };
  }

  function start(subject: string, source: RepairSource, by: Actor): StartedJob<RepairReport> {
    return jobs.start({ kind: 'repair', subject, lane: STORE_LANE, by }, (work) =>
      engine.repair(work, source),
    );
  }
}
