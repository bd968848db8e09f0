/** Builds the HTTP application; whoever built it lets it listen, and closes it. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import Fastify, { LogController, type FastifyServerOptions } from 'fastify';
import { randomUUID } from 'node:crypto';
import type { TlsOptions } from 'node:tls';
import { boundConnections } from './connections.ts';
import { DEFAULT_LIMITS, type ApiContext, type ApiOptions, type App } from './context.ts';
import { activityRoutes } from './plugins/activity.ts';
import { access } from './plugins/access.ts';
import { audit, auditRoutes } from './plugins/audit.ts';
import { backups } from './plugins/backups.ts';
import { chunks } from './plugins/chunks.ts';
import { content } from './plugins/content.ts';
import { errors, onClientError, sendProblem, toPandoError } from './plugins/errors.ts';
import { eventRoutes } from './plugins/events.ts';
import { files } from './plugins/files.ts';
import { guard } from './plugins/guard.ts';
import { headers } from './plugins/headers.ts';
import { health } from './plugins/health.ts';
import { idempotency } from './plugins/idempotency.ts';
import { imports } from './plugins/imports.ts';
import { jobRoutes } from './plugins/jobs.ts';
import { metrics } from './plugins/metrics.ts';
import { openapi } from './plugins/openapi.ts';
import { policyRoutes } from './plugins/policies.ts';
import { rates } from './plugins/rates.ts';
import { repairs } from './plugins/repairs.ts';
import { ready } from './plugins/ready.ts';
import { report } from './plugins/report.ts';
import { sharing } from './plugins/sharing.ts';
import { trees } from './plugins/trees.ts';
import { tokenRoutes } from './plugins/tokens.ts';
import { vms } from './plugins/vms.ts';
import { webhookRoutes } from './plugins/webhooks.ts';
import { work } from './plugins/work.ts';
import { PolicyScopes } from './policy-scopes.ts';
import { namedSchemas, REFERENCE_CHARACTERS_MAX } from './schemas/index.ts';
import { Scopes } from './scopes.ts';
import { lazySerializers } from './serializer.ts';
import { validatorCompiler } from './validator.ts';

/** Time for the header of a request. Bodies have deadlines of their own: an upload may take days. */
const HEADERS_MS_MAX = 20_000;

const handshake = (options: TlsOptions): TlsOptions => ({ ...options, handshakeTimeout: HEADERS_MS_MAX });

export async function buildApi(options: ApiOptions): Promise<App> {
  const scopes = new Scopes(options.fleet);
  const context: ApiContext = {
    ...options,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    scopes,
    policyScopes: new PolicyScopes(options.fleet, options.policies, scopes),
  };
  const server: FastifyServerOptions = {
    ...(options.logger === undefined ? { logger: false } : { loggerInstance: options.logger }),
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    bodyLimit: context.limits.bodyBytes,
    requestTimeout: 0,
    connectionTimeout: 0,
    keepAliveTimeout: 30_000,
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    trustProxy: false,
    routerOptions: {
      maxParamLength: REFERENCE_CHARACTERS_MAX,
      ignoreTrailingSlash: false,
      caseSensitive: true,
    },
    clientErrorHandler: onClientError,
    frameworkErrors: (error, request, reply) => void sendProblem(request, reply, toPandoError(error)),
    return503OnClosing: true,
    schemaController: { compilersFactory: { buildSerializer: lazySerializers() } },
  };
  // Of the server inside nothing is known here but what both have.
  const secured = { ...server, ...(context.https === undefined ? {} : { https: handshake(context.https) }) };
  const app = Fastify(secured as FastifyServerOptions)
    .withTypeProvider<TypeBoxTypeProvider>()
    .setValidatorCompiler(validatorCompiler) as App;
  app.server.headersTimeout = HEADERS_MS_MAX;
  app.server.maxConnections = context.limits.connections;
  boundConnections(app.server, context.limits, { clock: context.clock, log: app.log });
  // With a listener, Node leaves it to the routes when to invite the body.
  app.server.on('checkContinue', (request, response) => app.routing(request, response));

  for (const schema of namedSchemas) app.addSchema(schema);
  errors(app);
  // Also of answers that say no.
  await headers(app, context);
  guard(app, context);
  access(app, context, await rates(app, context));
  audit(app, context);
  idempotency(app, context);
  app.addHook('onResponse', (request, reply, done) => {
    context.httpCounts?.count(request, reply);
    request.log.debug(
      { method: request.method, url: request.url, status: reply.statusCode, ms: reply.elapsedTime },
      'request',
    );
    done();
  });
  // What names routes comes before what looks whether they say what they need.
  await openapi(app, context);
  health(app, context);
  ready(app, context);
  metrics(app, context);
  await app.register(
    async (api) => {
      const typed = api as unknown as App;
      const answers = [sharing, trees];
      const operations = [eventRoutes, webhookRoutes];
      for (const routes of [
        vms,
        activityRoutes,
        backups,
        policyRoutes,
        imports,
        chunks,
        content,
        files,
        work,
        repairs,
        report,
        ...answers,
        jobRoutes,
        ...operations,
        tokenRoutes,
        auditRoutes,
      ]) {
        // Each in a scope of its own: what one adds (a body parser, a hook) is not seen by the others.
        await typed.register(async (scope) => routes(scope as unknown as App, context));
      }
    },
    { prefix: '/api/v1' },
  );
  return app;
}
