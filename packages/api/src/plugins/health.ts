/** Whether the server does its work: at `/health` for whatever watches it, and with the rest of the API. */
import type { FastifyReply } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import { Health, problems, ref } from '../schemas/index.ts';

export function health(app: App, { engine, clock, version }: ApiContext): void {
  const started = clock.monotonic();
  const answer = (reply: FastifyReply) => {
    const store = engine.store();
    if (store === 'failed') void reply.code(503);
    const status =
      store === 'ready' ? ('ok' as const) : store === 'full' ? ('degraded' as const) : ('failed' as const);
    return { status, store, version, uptimeSeconds: Math.round((clock.monotonic() - started) / 1000) };
  };
  const schema = {
    tags: ['health'],
    summary: 'Whether the server does its work',
    response: { 200: ref(Health), 503: ref(Health), ...problems },
  };
  app.get('/health', { schema: { ...schema, operationId: 'health' } }, async (_request, reply) =>
    answer(reply),
  );
  app.get('/api/v1/health', { schema: { ...schema, operationId: 'apiHealth' } }, async (_request, reply) =>
    answer(reply),
  );
}
