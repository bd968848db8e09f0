/**
 * Which chunks are stored: for whoever is about to import a disk, and will send what is stored by its id.
 *
 * Whoever knows an id and imports it can read the chunk then, so this is for tokens without a scope: SECURITY.md.
 */
import { Type } from '@fastify/type-provider-typebox';
import { ID_BYTES, PandoError } from '@pando/common';
import type { ApiContext, App } from '../context.ts';
import { problems } from '../schemas/index.ts';

const MEDIA_TYPE = 'application/octet-stream';

/** Most ids of one request. */
const IDS_MAX = 4096;

export function chunks(app: App, { fleet }: ApiContext): void {
  app.addContentTypeParser(
    MEDIA_TYPE,
    { parseAs: 'buffer', bodyLimit: IDS_MAX * ID_BYTES },
    (_request, body, done) => done(null, body),
  );

  app.post(
    '/chunks/lookup',
    {
      config: { needs: { role: 'operator', on: 'store' }, reads: true },
      schema: {
        operationId: 'lookUpChunks',
        summary: 'Say which chunks are stored',
        description:
          `The body is up to ${IDS_MAX} ids of ${ID_BYTES} bytes, one after another; the answer has a byte for each: 1 when an import may bring the chunk by its ` +
          'id at the moment (docs/api.md), 0 when it has to bring its bytes. Zeros, the id of a chunk of zeros, are always stored. Nothing is promised ' +
          'for later.',
        tags: ['store'],
        body: { content: { [MEDIA_TYPE]: { schema: Type.Unknown() } } },
        response: {
          200: {
            description: 'A byte for each id',
            headers: {
              'Pando-Chunk-Bytes': { type: 'string', description: 'bytes of a chunk, of which ids are made' },
            },
            content: { [MEDIA_TYPE]: { schema: Type.Unknown() } },
          },
          ...problems,
        },
      },
    },
    async (request, reply) => {
      const ids = request.body;
      if (!(ids instanceof Uint8Array)) {
        throw new PandoError('media-type-unsupported', `ids come as ${MEDIA_TYPE}`);
      }
      if (ids.byteLength % ID_BYTES !== 0) {
        throw new PandoError(
          'request-invalid',
          `an id has ${ID_BYTES} bytes, and the body ${ids.byteLength}`,
        );
      }
      const known = await fleet.knownChunks(ids);
      return reply
        .type(MEDIA_TYPE)
        .header('pando-chunk-bytes', fleet.chunkBytes)
        .send(Buffer.from(known.buffer));
    },
  );
}
