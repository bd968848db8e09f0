/** Tokens: make, list, show, revoke; and who one is. */
import { Type } from '@fastify/type-provider-typebox';
import { PandoError } from '@pando/common';
import type { ApiContext, App } from '../context.ts';
import {
  CreatedToken,
  NewToken,
  Nothing,
  PAGE_ITEMS_DEFAULT,
  PageQuery,
  problems,
  ref,
  Reference,
  Token,
  TokenPage,
  Whoami,
  withLocation,
} from '../schemas/index.ts';

const TokenParams = Type.Object({ token: Reference });

export function tokenRoutes(app: App, { tokens }: ApiContext): void {
  const tags = ['access'];
  const needs = { role: 'admin', on: 'store' } as const;

  app.get(
    '/whoami',
    {
      config: { needs: { role: 'viewer', on: 'self' } },
      schema: {
        operationId: 'whoami',
        summary: 'Show whom the token of this request belongs to, and what it may do',
        tags,
        response: { 200: ref(Whoami), ...problems },
      },
    },
    async ({ actor: { tokenId, name, role } }) => {
      if (tokenId === undefined) return { name, role };
      const { scope, expiresAt } = tokens.get(tokenId);
      return {
        ...{ name, tokenId, role },
        ...(scope === undefined ? {} : { scope }),
        ...(expiresAt === undefined ? {} : { expiresAt }),
      };
    },
  );

  app.post(
    '/tokens',
    {
      config: { needs },
      schema: {
        operationId: 'createToken',
        summary: 'Make a token',
        description:
          'The answer has its text, which is told this once. No `Idempotency-Key`: the text is not kept to be told again. Who lost ' +
          'the answer revokes the token and makes another.',
        tags,
        body: NewToken,
        response: { 201: withLocation('The new token', ref(CreatedToken)), ...problems },
      },
    },
    async ({ body: { expiresAt, ...request } }, reply) => {
      const { text, token } = await tokens.create({
        ...request,
        ...(expiresAt === undefined ? {} : { expiresAt: instantOf(expiresAt) }),
      });
      void reply
        .code(201)
        .header('location', `/api/v1/tokens/${token.id}`)
        .header('cache-control', 'no-store');
      return { token: text, ...token };
    },
  );

  app.get(
    '/tokens',
    {
      config: { needs },
      schema: {
        operationId: 'listTokens',
        summary: 'List tokens, by name',
        tags,
        querystring: Type.Object(PageQuery, { additionalProperties: false }),
        response: { 200: ref(TokenPage), ...problems },
      },
    },
    async ({ query }) => tokens.list({ ...query, limit: query.limit ?? PAGE_ITEMS_DEFAULT }),
  );

  app.get(
    '/tokens/:token',
    {
      config: { needs },
      schema: {
        operationId: 'getToken',
        summary: 'Show a token, by name or id',
        tags,
        params: TokenParams,
        response: { 200: ref(Token), ...problems },
      },
    },
    async ({ params }) => tokens.get(params.token),
  );

  app.delete(
    '/tokens/:token',
    {
      config: { needs, survivesRevocation: true },
      schema: {
        operationId: 'revokeToken',
        summary: 'Revoke a token; what is under way with it is cut off',
        description: 'The last token with the role admin that has not expired stays: `last-admin`.',
        tags,
        params: TokenParams,
        response: { 204: Nothing, ...problems },
      },
    },
    async ({ params }, reply) => {
      await tokens.revoke(params.token);
      reply.code(204);
      return null;
    },
  );
}

function instantOf(text: string): number {
  const at = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(text)
    ? Date.parse(text)
    : NaN;
  if (Number.isNaN(at)) throw new PandoError('request-invalid', 'body.expiresAt is no time of RFC 3339');
  return at;
}
