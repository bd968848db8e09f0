/** Whether the server can do its work, and what is wrong if not: at `/ready` by the status for whatever sends work to it, and with the rest of the API. */
import type { ApiContext, App } from '../context.ts';
import type { RouteNeeds } from '../needs.ts';
import { problems, Ready, ref } from '../schemas/index.ts';

export function ready(app: App, { ready: look }: ApiContext): void {
  const needs: RouteNeeds = { role: 'viewer', on: 'store' };
  const answer = async () => {
    const checks = await look();
    return { ready: checks.every(({ status }) => status !== 'failed'), checks };
  };
  const tags = ['health'];
  const summary = 'Whether the server takes reads and writes, check by check';
  app.get(
    '/ready',
    {
      config: { needs },
      schema: {
        operationId: 'ready',
        summary,
        tags,
        response: { 200: ref(Ready), 503: ref(Ready), ...problems },
      },
    },
    async (_request, reply) => {
      const found = await answer();
      return reply.code(found.ready ? 200 : 503).send(found);
    },
  );
  app.get(
    '/api/v1/ready',
    {
      config: { needs },
      schema: {
        operationId: 'apiReady',
        summary,
        description: 'The answer is 200 also when it is no; that of `/ready` is 503 then.',
        tags,
        response: { 200: ref(Ready), ...problems },
      },
    },
    answer,
  );
}
