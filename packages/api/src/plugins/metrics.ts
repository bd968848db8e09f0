/** What the server counts, for Prometheus and whatever else reads its format. */
import { Type } from '@fastify/type-provider-typebox';
import type { FastifyReply } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import { problems } from '../schemas/index.ts';

const answer = {
  description: 'One sample a line',
  content: { 'text/plain': { schema: Type.String() } },
};

export function metrics(app: App, { metrics: source }: ApiContext): void {
  const schema = {
    tags: ['health'],
    summary: 'What the server counts, in the text format of Prometheus',
    response: { 200: answer, ...problems },
  };
  const config = { needs: { role: 'viewer', on: 'store' } } as const;
  const print = async (reply: FastifyReply) =>
    reply
      .type(source.contentType)
      .serializer((text: string) => text)
      .send(await source.print());
  app.get('/metrics', { config, schema: { ...schema, operationId: 'metrics' } }, async (_request, reply) =>
    print(reply),
  );
  app.get(
    '/api/v1/metrics',
    { config, schema: { ...schema, operationId: 'apiMetrics' } },
    async (_request, reply) => print(reply),
  );
}
