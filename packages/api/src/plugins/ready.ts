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
      // Whatever sends work to it has no token, and needs no details.
      config: { needs: 'open', unlimited: true },
      schema: {
        operationId: 'ready',
        summary,
        description: 'Without details, which are in that of `/api/v1/ready`.',
        tags,
        response: { 200: ref(Ready), 503: ref(Ready), ...problems },
      },
    },
    async (_request, reply) => {
      const { ready, checks } = await answer();
      const brief = checks.map(({ name, status }) => ({ name, status }));
      return reply.code(ready ? 200 : 503).send({ ready, checks: brief });
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
