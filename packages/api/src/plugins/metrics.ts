/** What the server counts, for Prometheus and whatever else reads its format. */
import { Type } from '@fastify/type-provider-typebox';
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
    operationId: 'metrics',
    response: { 200: answer, ...problems },
  };
  app.get(
    '/metrics',
    { config: { needs: { role: 'viewer', on: 'store' } }, schema },
    async (_request, reply) =>
      reply
        .type(source.contentType)
        .serializer((text: string) => text)
        .send(await source.print()),
  );
}
