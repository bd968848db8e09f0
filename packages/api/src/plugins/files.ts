/** Files out of backups, without restoring them: what is there, the bytes of one, and directories as tar. */
import { Type } from '@fastify/type-provider-typebox';
import { PandoError } from '@pando/common';
import type { BackupDisks, FileEntry, Place } from '@pando/guest-files';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Readable } from 'node:stream';
import type { ApiContext, App } from '../context.ts';
import {
  GuestFilePage,
  GuestFileSystems,
  PAGE_ITEMS_DEFAULT,
  PageQuery,
  problems,
  ref,
  Reference,
  type GuestFile,
} from '../schemas/index.ts';

const TAR_MEDIA_TYPE = 'application/x-tar';
const FILE_MEDIA_TYPE = 'application/octet-stream';
/** In Base64, of a path of 4096 bytes. */
const BASE64_CHARACTERS_MAX = 5464;

const PlaceQuery = {
  path: Type.Optional(Type.String({ minLength: 1, maxLength: 4096, description: 'absolute; default `/`' })),
  pathBase64: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: BASE64_CHARACTERS_MAX,
      description: 'in place of `path`, for one that is no UTF-8: its bytes in Base64',
    }),
  ),
  fileSystem: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 1024,
      description:
        'look into this one alone, by its name in `file-systems`; default: what the operating system mounts, or the only file system',
    }),
  ),
};

interface PlaceAsked {
  readonly path?: string;
  readonly pathBase64?: string;
  readonly fileSystem?: string;
}

export function files(app: App, { fleet, files: guestFiles }: ApiContext): void {
  const params = Type.Object({ backup: Reference });
  const tags = ['backups'];
  // What files are called is as much of the guest's as what is in them.
  const config = { needs: { role: 'operator', on: 'backup' } } as const;

  app.get(
    '/backups/:backup/file-systems',
    {
      config,
      schema: {
        operationId: 'listBackupFileSystems',
        summary: 'The file systems on the disks of a backup, and the operating systems in them',
        description: 'Starts an appliance of libguestfs, which takes seconds (docs/files.md).',
        tags,
        params,
        response: { 200: ref(GuestFileSystems), ...problems },
      },
    },
    async ({ params: { backup } }, reply) => guestFiles.fileSystems(await disksOf(backup), untilGone(reply)),
  );

  app.get(
    '/backups/:backup/files',
    {
      config,
      schema: {
        operationId: 'listBackupFiles',
        summary: 'What is in a directory of a backup',
        description:
          'In order of the bytes of names. Recursive: all that is below, a directory before what is in it. What is no directory is listed itself.',
        tags,
        params,
        querystring: Type.Object(
          { ...PageQuery, ...PlaceQuery, recursive: Type.Optional(Type.Boolean()) },
          { additionalProperties: false },
        ),
        response: { 200: ref(GuestFilePage), ...problems },
      },
    },
    async ({ params: { backup }, query }, reply) => {
      const { cursor, limit = PAGE_ITEMS_DEFAULT, recursive = false } = query;
      const { items, next } = await guestFiles.list(
        await disksOf(backup),
        {
          ...placeOf(query),
          ...{ recursive, limit },
          ...(cursor === undefined ? {} : { after: fromBase64('cursor', cursor, 'base64url') }),
        },
        untilGone(reply),
      );
      return {
        items: items.map(fileOf),
        ...(next === undefined ? {} : { nextCursor: Buffer.from(next).toString('base64url') }),
      };
    },
  );

  app.get(
    '/backups/:backup/files/content',
    {
      config,
      schema: {
        operationId: 'readBackupFile',
        summary: 'The bytes of a regular file in a backup',
        description: 'Links are followed, inside the guest.',
        tags,
        params,
        querystring: Type.Object(PlaceQuery, { additionalProperties: false }),
        response: { 200: bytesOf('The file', FILE_MEDIA_TYPE), ...problems },
      },
    },
    async (request, reply) => {
      const { params: named, query } = request;
      const { sizeBytes, bytes } = await guestFiles.read(
        await disksOf(named.backup),
        placeOf(query),
        untilGone(reply),
      );
      // Whatever it says that it is, no browser is to show it as a page of ours.
      void reply.header('content-disposition', 'attachment').header('content-length', sizeBytes);
      return send(request, reply.type(FILE_MEDIA_TYPE), bytes);
    },
  );

  app.get(
    '/backups/:backup/files/archive',
    {
      config,
      schema: {
        operationId: 'archiveBackupFiles',
        summary: 'A directory in a backup, with all below it, as a tar stream',
        description:
          'GNU tar; names begin with `./`, owners are numbers. Its last block of zeros says that it is whole. Whoever unpacks it has to expect names and links that mean ill.',
        tags,
        params,
        querystring: Type.Object(PlaceQuery, { additionalProperties: false }),
        response: { 200: bytesOf('The directory', TAR_MEDIA_TYPE), ...problems },
      },
    },
    async (request, reply) => {
      const { params: named, query } = request;
      const bytes = await guestFiles.archive(await disksOf(named.backup), placeOf(query), untilGone(reply));
      return send(request, reply.type(TAR_MEDIA_TYPE), bytes);
    },
  );

  async function disksOf(reference: string): Promise<BackupDisks> {
    const { id, vmName, name, disks } = await fleet.getBackup(reference);
    return { id, name: `${vmName}@${name}`, disks: disks.map((disk) => disk.name) };
  }
}

const bytesOf = (description: string, mediaType: string): object => ({
  description,
  content: { [mediaType]: { schema: Type.Unknown() } },
});

/** @throws `request-invalid` */
function placeOf({ path, pathBase64, fileSystem }: PlaceAsked): Place {
  if (path !== undefined && pathBase64 !== undefined)
    throw new PandoError('request-invalid', 'either "path" or "pathBase64"');
  return {
    path:
      pathBase64 === undefined ? Buffer.from(path ?? '/') : fromBase64('pathBase64', pathBase64, 'base64'),
    ...(fileSystem === undefined ? {} : { fileSystem }),
  };
}

/** @throws `cursor-invalid`, `request-invalid` */
function fromBase64(what: 'cursor' | 'pathBase64', text: string, encoding: 'base64' | 'base64url'): Buffer {
  const bytes = Buffer.from(text, encoding);
  if (bytes.toString(encoding).replace(/=+$/, '') !== text.replace(/=+$/, '') || bytes.includes(0)) {
    throw new PandoError(
      what === 'cursor' ? 'cursor-invalid' : 'request-invalid',
      `"${what}" is no such thing`,
    );
  }
  return bytes;
}

function fileOf({ path, target, modifiedMs, ...entry }: FileEntry): GuestFile {
  const { text, base64 } = textOf(path);
  const led = target === undefined ? undefined : textOf(target);
  return {
    path: text,
    ...(base64 === undefined ? {} : { pathBase64: base64 }),
    ...entry,
    modifiedAt: instantOf(modifiedMs),
    ...(led === undefined ? {} : { target: led.text }),
    ...(led?.base64 === undefined ? {} : { targetBase64: led.base64 }),
  };
}

function textOf(bytes: Uint8Array): { text: string; base64: string | undefined } {
  const buffer = Buffer.from(bytes);
  const text = buffer.toString('utf8');
  return { text, base64: Buffer.from(text).equals(buffer) ? undefined : buffer.toString('base64') };
}

/** A hostile file system has times that no calendar has. */
function instantOf(ms: number): string {
  const time = new Date(ms);
  return (Number.isNaN(time.getTime()) ? new Date(0) : time).toISOString();
}

function send(
  { log }: FastifyRequest,
  reply: FastifyReply,
  bytes: AsyncGenerator<Uint8Array, void, undefined>,
): FastifyReply {
  const stream = Readable.from(bytes, { objectMode: false, highWaterMark: 1 });
  stream.once('error', (error) => log.warn({ err: error }, 'files of a backup broke off'));
  return reply.header('cache-control', 'no-store').send(stream);
}

/** Aborted when nobody waits for the answer any more. */
function untilGone(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => gone.abort(new PandoError('cancelled', 'nobody waits for the answer')));
  return gone.signal;
}
