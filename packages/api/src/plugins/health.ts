/** Whether the server does its work: at `/health` for whatever watches it, and with the rest of the API. */
import type { FastifyReply } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import { Health, problems, ref } from '../schemas/index.ts';

export function health(app: App, { engine, ready, clock, version }: ApiContext): void {
  const started = clock.monotonic();
  const answer = async (reply: FastifyReply) => {
    const store = engine.store();
    const problems = (await ready()).filter(({ status }) => status !== 'ok').map(({ name }) => name);
    if (store === 'failed') void reply.code(503);
    const status =
      store === 'ready' ? ('ok' as const) : store === 'full' ? ('degraded' as const) : ('failed' as const);
    const uptimeSeconds = Math.round((clock.monotonic() - started) / 1000);
    return { status, store, version, uptimeSeconds, problems };
  };
  const config = { needs: 'open', unlimited: true } as const;
  const schema = {
    tags: ['health'],
    summary: 'Whether the server does its work',
    response: { 200: ref(Health), 503: ref(Health), ...problems },
  };
  app.get('/health', { config, schema: { ...schema, operationId: 'health' } }, async (_request, reply) =>
    answer(reply),
  );
  app.get(
    '/api/v1/health',
    { config, schema: { ...schema, operationId: 'apiHealth' } },
    async (_request, reply) => answer(reply),
  );
}
