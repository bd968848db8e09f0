/** The OpenAPI document, made from the routes' own schemas, and a page to try it that needs nothing from elsewhere. */
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import { ERROR_CODES, type ErrorCode } from '@pando/common';
import type { ApiContext, App } from '../context.ts';
import { extensionsOf } from '../extensions.ts';
import { errorsOf } from '../route-errors.ts';
import { statusOf } from './errors.ts';

const PAGE = '/docs';
/** The plugin adds it to all of HEAD; ours have names of their own. */
const HEAD_SUFFIX = /-head$/;

/** What the page may load: its own files, and pictures that its style sheet holds. Everything that it asks for, it asks this server. */
const PAGE_POLICY = {
  'default-src': "'none'",
  'script-src': "'self'",
  'style-src': "'self'",
  'img-src': "'self' data:",
  'connect-src': "'self'",
  'form-action': "'self'",
  'base-uri': "'none'",
  'frame-ancestors': "'none'",
};

/** Every code, with its status and what to do about it. */
function errorCodes(): object {
  const codes = Object.keys(ERROR_CODES) as ErrorCode[];
  return Object.fromEntries(
    codes.map((code) => [code, { status: statusOf(code), remedy: ERROR_CODES[code].remedy }]),
  );
}

export async function openapi(app: App, { version }: ApiContext): Promise<void> {
  // Both say nothing but what the program of this version says everywhere.
  app.addHook('onRoute', (route) => {
    if (route.url === PAGE || route.url.startsWith(`${PAGE}/`))
      route.config = { ...route.config, needs: 'open' };
  });
  await app.register(swagger, {
    exposeHeadRoutes: true,
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Pando',
        version,
        description:
          'Virtual machine disks as Merkle trees in one deduplicated store. VMs and backups are named by id or name, a backup also as `vm@name`; ' +
          'names are percent-encoded in paths. Errors are problem documents with a stable `code`. `Idempotency-Key` is honoured on ' +
          'every POST but those that answer with a secret (tokens, webhooks). Bodies need `Content-Type: application/json`.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: '/' }],
      components: {
        securitySchemes: {
          token: { type: 'http', scheme: 'bearer', description: 'A token: `pando_…` (docs/access.md)' },
        },
      },
      security: [{ token: [] }],
      tags: [
        { name: 'vms', description: 'Virtual machines and their disks' },
        { name: 'backups', description: 'Immutable copies of VMs' },
        { name: 'store', description: 'The store underneath: garbage, verification, space' },
        { name: 'jobs', description: 'Long work' },
        { name: 'events', description: 'What happened, and where it is sent on to' },
        { name: 'access', description: 'Who may do what' },
        { name: 'health', description: 'Whether the server does its work' },
      ],
    },
    transform: ({ schema, url, route }) => {
      const { method, config } = route;
      // Routes of the page have none, whatever the types say.
      const shape = schema as
        | { readonly querystring?: { readonly properties?: object }; readonly operationId?: string }
        | undefined;
      const operationId = shape?.operationId?.replace(HEAD_SUFFIX, '');
      const errors = errorsOf({
        ...{ method: String(method), url, operationId },
        hasCursor: 'cursor' in (shape?.querystring?.properties ?? {}),
        isIdempotent: (config as { idempotent?: boolean } | undefined)?.idempotent === true,
        isLimited: config?.unlimited !== true,
        isRead: method === 'GET' || method === 'HEAD' || config?.reads === true,
        needs: config?.needs,
      });
      return { schema: { ...schema, 'x-pando-errors': errors, ...extensionsOf(operationId) }, url };
    },
    transformObject: (found) => {
      if (!('openapiObject' in found)) return found.swaggerObject;
      for (const path of Object.values(found.openapiObject.paths ?? {})) {
        const { head } = path ?? {};
        if (head?.operationId !== undefined) head.operationId = head.operationId.replace(HEAD_SUFFIX, '');
      }
      return { ...found.openapiObject, 'x-pando-error-codes': errorCodes() };
    },
    refResolver: {
      buildLocalReference: (json, _baseUri, _fragment, index) =>
        typeof json['$id'] === 'string' ? json['$id'] : `schema-${index}`,
    },
  });
  await app.register(swaggerUi, {
    routePrefix: PAGE,
    staticCSP: PAGE_POLICY,
    uiConfig: { validatorUrl: null, deepLinking: true },
  });
  let document: string | undefined;
  app.get('/openapi.json', { config: { needs: 'open' }, schema: { hide: true } }, async (_request, reply) =>
    // It does not change, and is large.
    reply
      .type('application/json')
      .serializer((text: string) => text)
      .send((document ??= JSON.stringify(app.swagger()))),
  );
}
