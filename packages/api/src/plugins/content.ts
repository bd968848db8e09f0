/**
 * The bytes of disks: of VMs and of backups, whole, by range, or sparse, and the map of what is stored.
 *
 * A download of a VM's disk reads what is there when it gets there: who wants one instant takes a backup and downloads that.
 */
import { Type } from '@fastify/type-provider-typebox';
import { encodeSparse, PandoError, SPARSE_MEDIA_TYPE } from '@pando/common';
import type { Attachment, DiskRoot, VmDisk } from '@pando/fleet';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Readable } from 'node:stream';
import type { ApiContext, App } from '../context.ts';
import { closedBeforeLast, extents, readAll, readParts } from '../disk-reader.ts';
import { parseRange } from '../range.ts';
import { DiskMap, PAGE_ITEMS_DEFAULT, PageQuery, problems, ref, Reference } from '../schemas/index.ts';
import { sendTunnel, wantsTunnel } from '../tunnel.ts';
import { sendProblem } from './errors.ts';

const MEDIA_TYPE = 'application/octet-stream';

const binary = (description: string): object => ({
  description,
  headers: {
    'Accept-Ranges': { type: 'string' },
    'Content-Range': { type: 'string' },
    'ETag': { type: 'string' },
    'Pando-Root': {
      type: 'string',
      description: 'of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to',
    },
    'Pando-Root-Keyed': {
      type: 'string',
      description: '`true` when a secret of the store is in the root; else it is absent',
    },
    'Pando-Chunk-Bytes': { type: 'string', description: 'bytes of a chunk, which the root depends on' },
  },
  content: { [MEDIA_TYPE]: { schema: Type.Unknown() }, [SPARSE_MEDIA_TYPE]: { schema: Type.Unknown() } },
});

interface Opened {
  readonly disk: Attachment;
  /** Of what never changes. */
  readonly tag: string | undefined;
  readonly root: DiskRoot | undefined;
}

export function content(app: App, { fleet }: ApiContext): void {
  routes('/vms/:vm/disks/:disk', 'Vm', async ({ vm: reference, disk }) => {
    const vm = await fleet.getVm(reference!);
    hasDisk(vm.disks, disk!, `VM ${vm.name}`);
    return { disk: await fleet.attach(`${vm.id}/${disk!}`), tag: undefined, root: undefined };
  });
  routes('/backups/:backup/disks/:disk', 'Backup', async ({ backup: reference, disk }) => {
    const backup = await fleet.getBackup(reference!);
    hasDisk(backup.disks, disk!, `backup ${backup.vmName}@${backup.name}`);
    const root = await fleet.diskRoot(backup.id, disk!);
    return {
      root,
      disk: await fleet.attach(`${backup.id}/${disk!}`),
      tag: `"${backup.id}/${encodeURIComponent(disk!)}"`,
    };
  });

  function routes(
    path: string,
    owner: 'Vm' | 'Backup',
    open: (params: Record<string, string>) => Promise<Opened>,
  ): void {
    const params = Type.Object({ [owner.toLowerCase()]: Reference, disk: Reference });
    const tags = [`${owner.toLowerCase()}s`];
    const on = owner === 'Vm' ? 'vm' : 'backup';

    for (const [method, verb, summary] of [
      ['GET', 'read', `Download a disk of a ${owner === 'Vm' ? 'VM' : 'backup'} as a raw image`],
      ['HEAD', 'measure', 'What a download would say of itself: size, tag'],
    ] as const) {
      app.route({
        method,
        url: `${path}/content`,
        // Bytes are more than what a disk is called and how big it is.
        config: { needs: { role: 'operator', on } },
        schema: {
          operationId: `${verb}${owner}Disk`,
          summary,
          description: `\`Range\` is honoured for one range. With \`Accept: ${SPARSE_MEDIA_TYPE}\` holes cost nothing (docs/api.md).`,
          tags,
          params,
          response: { 200: binary('The disk'), 206: binary('A range of the disk'), ...problems },
        },
        handler: async (request, reply) =>
          sendContent(request, reply, await open(request.params as Record<string, string>)),
      });
    }

    app.get(
      `${path}/map`,
      {
        config: { needs: { role: 'viewer', on } },
        schema: {
          operationId: `map${owner}Disk`,
          summary: 'What of a disk is stored, and what is holes',
          tags,
          params,
          querystring: Type.Object(PageQuery, { additionalProperties: false }),
          response: { 200: ref(DiskMap), ...problems },
        },
      },
      async ({ params: named, query }) => {
        const { disk } = await open(named);
        try {
          return await mapPage(disk, query.cursor, query.limit ?? PAGE_ITEMS_DEFAULT);
        } finally {
          await disk.close();
        }
      },
    );
  }
}

function hasDisk(disks: readonly VmDisk[], name: string, of: string): void {
  if (!disks.some((disk) => disk.name === name)) {
    throw new PandoError('disk-missing', `${of} has no disk ${JSON.stringify(name)}`);
  }
}

function rootHeaders({ root, chunkBytes, keyed }: DiskRoot): Record<string, string | number> {
  return {
    'pando-root': root,
    'pando-chunk-bytes': chunkBytes,
    // Who computes roots has to know that this one cannot be.
    ...(keyed ? { 'pando-root-keyed': 'true' } : {}),
  };
}

function sendContent(
  request: FastifyRequest,
  reply: FastifyReply,
  { disk, tag, root }: Opened,
): FastifyReply {
  const close = (): Promise<void> =>
    disk.close().catch((error: unknown) => request.log.error({ err: error }, 'closing a disk failed'));
  try {
    void reply.header('accept-ranges', 'bytes').header('cache-control', 'no-store').header('vary', 'accept');
    if (tag !== undefined) void reply.header('etag', tag);
    if (root !== undefined) {
      void reply.headers(rootHeaders(root));
    }
    const { size } = disk;
    if (request.headers.accept?.toLowerCase().includes(SPARSE_MEDIA_TYPE) === true) {
      if (wantsTunnel(request.raw)) return tunnel();
      void reply.type(SPARSE_MEDIA_TYPE).header('pando-disk-size', size);
      return send(encodeSparse(readParts(disk)));
    }
    // A range of something that has changed since would not fit the rest.
    const ifRange = request.headers['if-range'];
    const header = ifRange === undefined || ifRange === tag ? request.headers.range : undefined;
    const range = parseRange(header, size);
    if (range === 'unsatisfiable') {
      void close();
      void reply.header('content-range', `bytes */${size}`);
      return sendProblem(request, reply, new PandoError('range-invalid', `the disk has ${size} bytes`), 416);
    }
    const { start, end } = range ?? { start: 0, end: size };
    if (range !== undefined)
      void reply.code(206).header('content-range', `bytes ${start}-${end - 1}/${size}`);
    void reply.type(MEDIA_TYPE).header('content-length', end - start);
    return send(readAll(disk, start, end));
  } catch (error) {
    void close();
    throw error;
  }

  function tunnel(): FastifyReply {
    reply.hijack();
    const headers = {
      'content-type': SPARSE_MEDIA_TYPE,
      'pando-disk-size': disk.size,
      ...(root === undefined ? {} : rootHeaders(root)),
    };
    sendTunnel(request.raw.socket, headers, disk, close)
      .catch((error: unknown) => request.log.warn({ err: error }, 'a download broke off'))
      .finally(close);
    return reply;
  }

  function send(pieces: AsyncIterable<Uint8Array>): FastifyReply {
    if (request.method === 'HEAD') {
      void close();
      return reply.send();
    }
    // The socket asks for the next piece when it has room for it; at most two wait here.
    const stream = Readable.from(closedBeforeLast(pieces, close), { objectMode: false, highWaterMark: 1 });
    stream.once('close', () => void close());
    stream.once('error', (error) => request.log.warn({ err: error }, 'a download broke off'));
    return reply.send(stream);
  }
}

async function mapPage(disk: Attachment, cursor: string | undefined, limit: number) {
  const from = cursor === undefined ? 0 : Number(cursor);
  if (!Number.isSafeInteger(from) || from < 0 || from > disk.size) {
    throw new PandoError('cursor-invalid', 'the cursor is not one of this map');
  }
  const items: { offset: number; length: number; hole: boolean }[] = [];
  let end = from;
  for await (const extent of extents(disk, from)) {
    const last = items.at(-1);
    if (last?.hole === extent.hole) last.length += extent.length;
    else if (items.length === limit) break;
    else items.push(extent);
    end = extent.offset + extent.length;
  }
  return { sizeBytes: disk.size, extents: items, ...(end < disk.size ? { nextCursor: String(end) } : {}) };
}
