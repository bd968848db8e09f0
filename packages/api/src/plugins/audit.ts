/**
 * The audit trail of changes, and its list. A change is any request that is no GET or HEAD, unless its route says that it only reads.
 *
 * That it is asked for is written while it runs, and durable before its answer goes out. While the trail cannot be written, changes are
 * refused before they begin; but for those that delete and gc, which may make the room that is missing.
 */
import { Type } from '@fastify/type-provider-typebox';
import { withoutSecrets, type Audited } from '@pando/access';
import { PandoError } from '@pando/common';
import type { FastifyRequest } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import { AuditPage, PAGE_ITEMS_DEFAULT, PageQuery, problems, ref } from '../schemas/index.ts';
import { codeOfAnswer } from './errors.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** It changes nothing although it is no GET. */
    reads?: boolean;
    /** It frees room, so it is let through also while the audit trail cannot be written; as is every DELETE. */
    makesRoom?: boolean;
  }
  interface FastifyRequest {
    /** What its path named, where that was looked up and replaced by ids. */
    named: Readonly<Record<string, string>> | null;
    audited: { readonly about: Audited; durable: Promise<void> | undefined } | undefined;
  }
}

const TEXT_CHARACTERS_MAX = 256;
const ITEMS_MAX = 20;
const DEPTH_MAX = 4;
/** Fields whose values may be secrets, or hold some. */
const SECRET = /secret|token|password|authorization|credential|url|key/i;
/** Fields of a body that name what it is about. */
const SUBJECTS = ['name', 'as', 'vm', 'since'];

export function audit(app: App, { audit: trail }: ApiContext): void {
  app.decorateRequest('named', null);
  app.decorateRequest('audited', undefined);

  app.addHook('preHandler', async (request) => {
    if (!isChange(request)) return;
    const about = aboutOf(request);
    // While it is known to fail, nothing else begins.
    const isRefused = trail.failure !== undefined && !makesRoom(request);
    const durable = trail.begin(about);
    durable.catch(() => undefined);
    if (isRefused) await durable;
    request.audited = { about, durable };
  });

  app.addHook('onSend', async (request, reply, payload) => {
    const { audited } = request;
    if (audited?.durable === undefined) return payload;
    const { durable } = audited;
    audited.durable = undefined; // An error that it throws is sent as well.
    if (reply.statusCode < 400 && !makesRoom(request)) {
      await durable.catch((cause: unknown) => {
        const why = 'what was asked for may have been done, but that could not be written down';
        throw new PandoError('audit-unavailable', why, { cause });
      });
    } else if (reply.statusCode < 400) {
      await durable.catch((error: unknown) =>
        request.log.error({ err: error }, 'a deletion is not in the audit trail'),
      );
    }
    return payload;
  });

  app.addHook('onResponse', (request, reply, done) => {
    const status = reply.statusCode;
    const code = codeOfAnswer(request);
    const outcome = { status, ...(code === undefined ? {} : { code }) };
    if (request.audited !== undefined)
      trail.end(request.audited.about, { ...outcome, ms: Math.round(reply.elapsedTime) });
    // 404 before anything began: it is there, and not in the scope.
    else if (status === 401 || status === 403 || (status === 404 && isChange(request)))
      trail.refuse(aboutOf(request), outcome);
    done();
  });
}

export function auditRoutes(app: App, { audit: trail }: ApiContext): void {
  const instant = (description: string) => Type.Optional(Type.String({ maxLength: 64, description }));
  const text = (description: string) =>
    Type.Optional(Type.String({ minLength: 1, maxLength: 255, description }));
  app.get(
    '/audit',
    {
      config: { needs: { role: 'admin', on: 'store' } },
      schema: {
        operationId: 'listAudit',
        summary: 'Who has changed what, from where, and what came of it; newest first',
        description:
          'A change is a line of kind `change`, written before it was acknowledged, and one of kind `outcome` with the same `request`. A page may ' +
          'have fewer items than `limit` and still a next one.',
        tags: ['access'],
        querystring: Type.Object(
          {
            ...PageQuery,
            since: instant('RFC 3339: from then on'),
            until: instant('RFC 3339: before then'),
            actor: text('name or id of a token, or `socket`'),
            operation: text('an operationId'),
            subject: text('what it was about, as it was named, or by its id'),
          },
          { additionalProperties: false },
        ),
        response: { 200: ref(AuditPage), ...problems },
      },
    },
    async ({ query: { since, until, limit = PAGE_ITEMS_DEFAULT, ...query } }) =>
      trail.list({
        ...query,
        limit,
        ...(since === undefined ? {} : { since: instantOf('since', since) }),
        ...(until === undefined ? {} : { until: instantOf('until', until) }),
      }),
  );
}

function makesRoom({ method, routeOptions }: FastifyRequest): boolean {
  return method === 'DELETE' || routeOptions.config.makesRoom === true;
}

function isChange({ method, routeOptions: { config } }: FastifyRequest): boolean {
  return (
    method !== 'GET' &&
    method !== 'HEAD' &&
    config.reads !== true &&
    config.needs !== undefined &&
    config.needs !== 'open'
  );
}

function aboutOf(request: FastifyRequest): Audited {
  const { actor, routeOptions, query, body } = request;
  // Nobody has one on a Unix socket.
  const from = request.ip as string | undefined;
  const params = request.params as Record<string, string> | undefined;
  const { operationId } = (routeOptions.schema ?? {}) as { operationId?: string };
  const operation = operationId ?? `${request.method} ${(routeOptions.url ?? 'unknown').slice(0, 80)}`;
  const plain = isPlain(body) ? body : {};
  const said = SUBJECTS.flatMap((name) => [
    plain[name],
    (query as Record<string, unknown> | undefined)?.[name],
  ]);
  const subjects = [...Object.values(request.named ?? {}), ...Object.values(params ?? {}), ...said]
    .filter((value): value is string => typeof value === 'string' && value !== '')
    .map((value) => withoutSecrets(value).slice(0, TEXT_CHARACTERS_MAX));
  const asked = {
    ...(Object.keys((query as object | undefined) ?? {}).length === 0 ? {} : { query: safe(query, 0) }),
    ...(Object.keys(plain).length === 0 ? {} : { body: safe(plain, 0) }),
  };
  return {
    request: request.id,
    operation,
    ...((actor as typeof actor | null) === null
      ? {}
      : { actor: { name: actor.name, ...(actor.tokenId === undefined ? {} : { tokenId: actor.tokenId }) } }),
    ...(from === undefined ? {} : { from }),
    ...(subjects.length === 0 ? {} : { subjects: [...new Set(subjects)] }),
    ...(Object.keys(asked).length === 0 ? {} : { asked }),
  };
}

/** The value without what may be secret, and not too long. */
function safe(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return withoutSecrets(value).slice(0, TEXT_CHARACTERS_MAX);
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value;
  if (depth >= DEPTH_MAX || typeof value !== 'object') return '…';
  if (Array.isArray(value)) return value.slice(0, ITEMS_MAX).map((item) => safe(item, depth + 1));
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, ITEMS_MAX)
      .map(([name, item]) => [name.slice(0, 80), SECRET.test(name) ? '…' : safe(item, depth + 1)]),
  );
}

function isPlain(body: unknown): body is Record<string, unknown> {
  return typeof body === 'object' && body !== null && Object.getPrototypeOf(body) === Object.prototype;
}

function instantOf(name: string, text: string): number {
  const time = Date.parse(text);
  if (Number.isNaN(time))
    throw new PandoError('request-invalid', `querystring.${name} is no time of RFC 3339`);
  return time;
}
