/**
 * Imports: a disk becomes a VM, straight into chunks.
 *
 * An upload is answered when it is done (201): HTTP has one answer a request, and the request ends with the last byte
 * of the disk. A file on the server is a job (202). Both show up under `/jobs` while they run.
 */
import { Type } from '@fastify/type-provider-typebox';
import type { Actor } from '@pando/access';
import { PandoError, SPARSE_IDS_MEDIA_TYPE, SPARSE_MEDIA_TYPE } from '@pando/common';
import type { ImportSource } from '@pando/fleet';
import { IMAGE_FORMATS } from '@pando/images';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import { openImportFile, uploadSource } from '../import-source.ts';
import type { StartedJob } from '../jobs.ts';
import {
  BackupImportResult,
  Bytes,
  ImportResult,
  Job,
  Name,
  problems,
  ref,
  Reference,
  Tags,
  withLocation,
} from '../schemas/index.ts';
import { refuseScoped } from '../scopes.ts';
import { isJson } from './guard.ts';
import { vmUrl } from './vms.ts';
import { backupUrl } from './backups.ts';
import { accepted, fleetWork } from './work.ts';

export const RAW_MEDIA_TYPE = 'application/octet-stream';

const since = Type.Optional({
  ...Reference,
  description:
    'a backup, by id or as `vm@name`: the result is the next backup of its VM, and `name` that of the backup',
});
const disk = Type.Optional({
  ...Name,
  description:
    'the disk: of the new VM (disk0), or with `since` the one that is imported, where there are several',
});

const PathImport = Type.Object(
  {
    name: Type.Optional({ ...Name, description: 'of the new VM; with `since` of the new backup (the time)' }),
    disk,
    since,
    tags: Type.Optional({ ...Tags, description: 'of the new VM' }),
    verify: Type.Optional(
      Type.Boolean({ description: 'read the file again before the result exists, and compare' }),
    ),
    path: Type.String({
      minLength: 1,
      maxLength: 4096,
      description: 'a file inside the import directory of the server',
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

const UploadQuery = Type.Object(
  {
    name: Type.Optional({ ...Name, description: 'of the new VM; with `since` of the new backup (the time)' }),
    disk,
    since,
    tag: Type.Optional(
      Type.Union([Name, Tags], { description: 'of the new VM; several times for several tags' }),
    ),
    sizeBytes: Type.Optional(
      Type.Integer({ ...Bytes, description: 'size of the disk, where Content-Length does not say it' }),
    ),
  },
  { additionalProperties: false },
);
type UploadQuery = Type.Static<typeof UploadQuery>;

const UploadResult = Type.Object(
  { jobId: Type.String(), result: Type.Union([ref(ImportResult), ref(BackupImportResult)]) },
  { additionalProperties: false },
);

interface Wanted {
  readonly by: Actor;
  readonly name?: string;
  readonly disk?: string;
  readonly since?: string;
  readonly tags?: readonly string[];
  readonly source: ImportSource;
  readonly verify?: boolean;
}

export function imports(app: App, context: ApiContext): void {
  const { fleet, jobs, scopes, limits, importDirectory, trustImages } = context;

  // The body stays on the socket: the import pulls it.
  app.addContentTypeParser(
    [RAW_MEDIA_TYPE, SPARSE_MEDIA_TYPE, SPARSE_IDS_MEDIA_TYPE],
    (_request, payload, done) => done(null, payload),
  );

  app.post(
    '/imports',
    {
      config: { needs: { role: 'operator', on: 'new' }, idempotent: true, upload: true },
      schema: {
        operationId: 'importVm',
        summary: 'Import a disk image as a VM, or as the next backup of one',
        description:
          `Upload the bytes as ${RAW_MEDIA_TYPE}, ${SPARSE_MEDIA_TYPE}, in which holes cost nothing, or ${SPARSE_IDS_MEDIA_TYPE}, in which what is stored already comes by its id (docs/api.md), with the name in ` +
          'the query: 201 when it is done. Or name a file on the server in JSON, an image of any format: 202 and a job. `Expect: 100-continue` is answered ' +
          'after name and size were checked. With `since` only what differs from that backup is stored. The result carries ' +
          'the root of the disk; a client that computes the root of what it sent can compare (docs/api.md).',
        tags: ['vms'],
        querystring: UploadQuery,
        body: {
          content: {
            'application/json': { schema: PathImport },
            [RAW_MEDIA_TYPE]: { schema: Type.Unknown() },
            [SPARSE_MEDIA_TYPE]: { schema: Type.Unknown() },
            [SPARSE_IDS_MEDIA_TYPE]: { schema: Type.Unknown() },
          },
        },
        response: {
          201: withLocation('The upload is a VM, or a backup, now', UploadResult),
          202: withLocation('The job', ref(Job)),
          ...problems,
        },
      },
    },
    async (request, reply) => {
      if (isJson(request.headers['content-type'])) {
        return importPath(request.actor, request.body as Type.Static<typeof PathImport>, reply);
      }
      try {
        return await importUpload(request, request.query, reply);
      } catch (error) {
        linger(request, limits.lingerMs);
        throw error;
      }
    },
  );

  async function importPath(by: Actor, request: Type.Static<typeof PathImport>, reply: FastifyReply) {
    const { path, format, verify, ...asked } = request;
    // What lies in the import directory is everybody's.
    refuseScoped(by);
    const about = await allowed(by, asked);
    const file = await openImportFile(importDirectory, path, { format, trustImages });
    try {
      const source = { sizeBytes: file.sizeBytes, parts: (signal: AbortSignal) => file.parts(signal) };
      const { job, ended } = start({ ...about, by, source, ...(verify === undefined ? {} : { verify }) });
      const close = (): Promise<void> => file.close();
      void ended.then(close, close);
      return accepted(reply, job);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The job that makes a VM, or with `since` a backup. */
  function start({ by, name, disk, since, ...how }: Wanted): StartedJob<ImportResult | BackupImportResult> {
    const chosen = disk === undefined ? {} : { diskName: disk };
    if (since !== undefined) {
      const named = name === undefined ? {} : { name };
      return jobs.start({ kind: 'import', subject: since, by }, (work) =>
        fleet.importBackup({ since, ...named, ...chosen, ...how }, fleetWork(work)),
      );
    }
    return jobs.start({ kind: 'import', subject: name!, by }, (work) =>
      fleet.importVm({ name: name!, ...chosen, ...how }, fleetWork(work)),
    );
  }

  /** What is asked for, with the backup by its id. @throws `request-invalid`, and what is not in the scope */
  async function allowed<T extends Pick<Wanted, 'name' | 'since' | 'tags'>>(by: Actor, asked: T): Promise<T> {
    checkNamed(asked);
    if (by.scope === undefined) return asked;
    if (asked.since !== undefined) return { ...asked, since: (await scopes.backup(by, asked.since)).id };
    scopes.checkNew(by, { name: asked.name!, tags: asked.tags ?? [] });
    return asked;
  }

  async function importUpload(request: FastifyRequest, query: UploadQuery, reply: FastifyReply) {
    const by = request.actor;
    const { sizeBytes, tag, ...rest } = query;
    const asked = { ...rest, ...(tag === undefined ? {} : { tags: typeof tag === 'string' ? [tag] : tag }) };
    const mediaType = request.headers['content-type']!.toLowerCase();
    // Whoever brings a chunk by its id can read it afterwards, whoever's it is.
    if (mediaType.startsWith(SPARSE_IDS_MEDIA_TYPE)) {
      refuseScoped(by);
      if (fleet.isKeyed) throw new PandoError('ids-keyed', 'chunks do not come by their ids here');
    }
    const about = await allowed(by, asked);
    const sparse = mediaType.startsWith(SPARSE_MEDIA_TYPE);
    const length = request.headers['content-length'];
    const announced = sizeBytes ?? (sparse || length === undefined ? undefined : Number(length));
    const source = uploadSource({
      body: request.raw,
      sparse,
      idsOf: mediaType.startsWith(SPARSE_IDS_MEDIA_TYPE) ? fleet.chunkBytes : undefined,
      sizeBytes: announced,
      pauseMs: limits.uploadPauseMs,
    });
    const { job, ended } = start({
      ...about,
      by,
      source: {
        ...source,
        // The fleet asks for bytes once it has found nothing wrong with name and size: time to invite them.
        parts: (signal) => {
          if (request.headers.expect !== undefined) reply.raw.writeContinue();
          return source.parts(signal);
        },
      },
    });
    const result = await ended;
    reply.code(201).header('location', 'vm' in result ? vmUrl(result.vm.id) : backupUrl(result.backup.id));
    return { jobId: job.id, result };
  }
}

/** @throws `request-invalid` for a VM without a name; a backup gets one of the time */
function checkNamed({ name, since, tags }: Pick<Wanted, 'name' | 'since' | 'tags'>): void {
  if (tags !== undefined && since !== undefined)
    throw new PandoError('request-invalid', 'a backup has the tags of the one before it');
  if (name === undefined && since === undefined)
    throw new PandoError('request-invalid', 'an import needs the name of the new VM, or since');
}

/**
 * The client may still be sending while it is told no. Closing now would reset the connection and could take the answer
 * with it; so what comes is thrown away for a moment, then the connection is cut.
 */
export function linger(request: FastifyRequest, ms: number): void {
  const { raw } = request;
  if (raw.complete || raw.destroyed) return;
  raw.on('error', () => undefined);
  raw.resume();
  const timer = setTimeout(() => raw.socket.destroy(), ms);
  raw.once('end', () => clearTimeout(timer));
  raw.once('close', () => clearTimeout(timer));
}
