/** Webhooks: where events are sent on to. */
import { Type } from '@fastify/type-provider-typebox';
import type { Webhook as KeptWebhook } from '@pando/events';
import type { ApiContext, App } from '../context.ts';
import type { RouteNeeds } from '../needs.ts';
import {
  NewWebhook,
  Nothing,
  problems,
  ref,
  Reference,
  Webhook,
  WebhookBody,
  WebhookList,
  WebhookTest,
  withLocation,
} from '../schemas/index.ts';

const needs: RouteNeeds = { role: 'admin', on: 'store' };
const WebhookParams = Type.Object({ id: Reference });

export function webhookRoutes(app: App, { webhooks }: ApiContext): void {
  const tags = ['events'];

  app.get(
    '/webhooks',
    {
      config: { needs },
      schema: {
        operationId: 'listWebhooks',
        summary: 'List the webhooks; there are few, so they come at once',
        tags,
        response: { 200: ref(WebhookList), ...problems },
      },
    },
    async () => ({ items: webhooks.list().map(webhookOf) }),
  );

  app.post(
    '/webhooks',
    {
      config: { needs },
      schema: {
        operationId: 'createWebhook',
        summary: 'Send events on, from now on, to a URL',
        description:
          'Requests are those of the Standard Webhooks specification, signed with the secret of the answer. Redirects are not followed.',
        tags,
        body: WebhookBody,
        response: { 201: withLocation('Made', ref(NewWebhook)), ...problems },
      },
    },
    async ({ body }, reply) => {
      const { webhook, secret } = await webhooks.create(body);
      void reply.code(201).header('location', `/api/v1/webhooks/${webhook.id}`);
      return { webhook: webhookOf(webhook), secret };
    },
  );

  app.get(
    '/webhooks/:id',
    {
      config: { needs },
      schema: {
        operationId: 'getWebhook',
        summary: 'Show a webhook',
        tags,
        params: WebhookParams,
        response: { 200: ref(Webhook), ...problems },
      },
    },
    async ({ params }) => webhookOf(webhooks.get(params.id)),
  );

  app.delete(
    '/webhooks/:id',
    {
      config: { needs },
      schema: {
        operationId: 'deleteWebhook',
        summary: 'Delete a webhook: nothing more is sent there',
        tags,
        params: WebhookParams,
        response: { 204: Nothing, ...problems },
      },
    },
    async ({ params }, reply) => {
      await webhooks.remove(params.id);
      return reply.code(204).send(null);
    },
  );

  app.post(
    '/webhooks/:id/test',
    {
      config: { needs, idempotent: true },
      schema: {
        operationId: 'testWebhook',
        summary: 'Send an event of kind `webhook-test` there, once, and say what came of it',
        tags,
        params: WebhookParams,
        response: { 200: ref(WebhookTest), ...problems },
      },
    },
    async ({ params }) => webhooks.test(params.id),
  );
}

function webhookOf({ createdAt, deliveredAt, failing, ...webhook }: KeptWebhook): Webhook {
  const instant = (ms: number): string => new Date(ms).toISOString();
  return {
    ...webhook,
    createdAt: instant(createdAt),
    ...(deliveredAt === undefined ? {} : { deliveredAt: instant(deliveredAt) }),
    ...(failing === undefined ? {} : { failing: { ...failing, since: instant(failing.since) } }),
  };
}
