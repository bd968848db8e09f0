/**
 * Imports: a disk becomes a VM, straight into chunks.
 *
 * An upload is answered when it is done (201): HTTP has one answer a request, and the request ends with the last byte
 * of the disk. A file on the server is a job (202). Both show up under `/jobs` while they run.
 */
import { Type } from '@fastify/type-provider-typebox';
import { PandoError, SPARSE_MEDIA_TYPE } from '@pando/common';
import type { ImportProgress } from '@pando/fleet';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import { openImportFile, uploadSource } from '../import-source.ts';
import type { JobWork } from '../jobs.ts';
import {
  Bytes,
  ImportResult,
  Job,
  Name,
  problems,
  ref,
  withLocation,
  type Progress,
} from '../schemas/index.ts';
import { isJson } from './guard.ts';
import { vmUrl } from './vms.ts';
import { accepted } from './work.ts';

const RAW_MEDIA_TYPE = 'application/octet-stream';

const PathImport = Type.Object(
  {
    name: Name,
    disk: Type.Optional(Name),
    path: Type.String({
      minLength: 1,
      maxLength: 4096,
      description: 'a file inside the import directory of the server',
    }),
  },
  { additionalProperties: false },
);

const UploadQuery = Type.Object(
  {
    name: Type.Optional(Name),
    disk: Type.Optional(Name),
    sizeBytes: Type.Optional(
      Type.Integer({ ...Bytes, description: 'size of the disk, where Content-Length does not say it' }),
    ),
  },
  { additionalProperties: false },
);
type UploadQuery = Type.Static<typeof UploadQuery>;

const UploadResult = Type.Object(
  { jobId: Type.String(), result: ref(ImportResult) },
  { additionalProperties: false },
);

export function imports(app: App, context: ApiContext): void {
  const { fleet, jobs, limits, importDirectory } = context;

  // The body stays on the socket: the import pulls it.
  app.addContentTypeParser([RAW_MEDIA_TYPE, SPARSE_MEDIA_TYPE], (_request, payload, done) =>
    done(null, payload),
  );

  app.post(
    '/imports',
    {
      config: { idempotent: true, upload: true },
      schema: {
        operationId: 'importVm',
        summary: 'Import a raw disk image as a VM',
        description:
          `Upload the bytes as ${RAW_MEDIA_TYPE}, or as ${SPARSE_MEDIA_TYPE}, in which holes cost nothing (docs/api.md), with the name in ` +
          'the query: 201 when it is done. Or name a file on the server in JSON: 202 and a job. `Expect: 100-continue` is answered ' +
          'after name and size were checked.',
        tags: ['vms'],
        querystring: UploadQuery,
        body: {
          content: {
            'application/json': { schema: PathImport },
            [RAW_MEDIA_TYPE]: { schema: Type.Unknown() },
            [SPARSE_MEDIA_TYPE]: { schema: Type.Unknown() },
          },
        },
        response: {
          201: withLocation('The upload is a VM now', UploadResult),
          202: withLocation('The job', ref(Job)),
          ...problems,
        },
      },
    },
    async (request, reply) => {
      if (isJson(request.headers['content-type'])) {
        return importPath(request.body as Type.Static<typeof PathImport>, reply);
      }
      try {
        return await importUpload(request, request.query, reply);
      } catch (error) {
        linger(request, limits.lingerMs);
        throw error;
      }
    },
  );

  async function importPath({ name, disk, path }: Type.Static<typeof PathImport>, reply: FastifyReply) {
    const file = await openImportFile(importDirectory, path);
    try {
      const { job, ended } = jobs.start({ kind: 'import', subject: name }, (work) =>
        fleet.importVm(
          {
            name,
            ...diskName(disk),
            source: { sizeBytes: file.sizeBytes, parts: (signal) => file.parts(signal) },
          },
          fleetWork(work),
        ),
      );
      const close = (): Promise<void> => file.close();
      void ended.then(close, close);
      return accepted(reply, job);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async function importUpload(request: FastifyRequest, query: UploadQuery, reply: FastifyReply) {
    const { name, disk, sizeBytes } = query;
    if (name === undefined)
      throw new PandoError('request-invalid', 'querystring must have required property name');
    const sparse = request.headers['content-type']!.toLowerCase().startsWith(SPARSE_MEDIA_TYPE);
    const length = request.headers['content-length'];
    const announced = sizeBytes ?? (sparse || length === undefined ? undefined : Number(length));
    const source = uploadSource({
      body: request.raw,
      sparse,
      sizeBytes: announced,
      pauseMs: limits.uploadPauseMs,
    });
    const { job, ended } = jobs.start({ kind: 'import', subject: name }, (work) =>
      fleet.importVm(
        {
          name,
          ...diskName(disk),
          source: {
            ...source,
            // The fleet asks for bytes once it has found nothing wrong with name and size: time to invite them.
            parts: (signal) => {
              if (request.headers.expect !== undefined) reply.raw.writeContinue();
              return source.parts(signal);
            },
          },
        },
        fleetWork(work),
      ),
    );
    const result = await ended;
    reply.code(201).header('location', vmUrl(result.vm.id));
    return { jobId: job.id, result };
  }
}

function diskName(disk: string | undefined): { diskName?: string } {
  return disk === undefined ? {} : { diskName: disk };
}

function fleetWork({ signal, onProgress }: JobWork): {
  signal: AbortSignal;
  onProgress: (progress: ImportProgress) => void;
} {
  return {
    signal,
    onProgress: ({ doneBytes, allBytes }) => {
      const progress: Progress =
        allBytes === undefined ? { done: doneBytes } : { done: doneBytes, all: allBytes };
      onProgress(progress);
    },
  };
}

/**
 * The client may still be sending while it is told no. Closing now would reset the connection and could take the answer
 * with it; so what comes is thrown away for a moment, then the connection is cut.
 */
function linger(request: FastifyRequest, ms: number): void {
  const { raw } = request;
  if (raw.complete || raw.destroyed) return;
  raw.on('error', () => undefined);
  raw.resume();
  const timer = setTimeout(() => raw.socket.destroy(), ms);
  raw.once('end', () => clearTimeout(timer));
  raw.once('close', () => clearTimeout(timer));
}
