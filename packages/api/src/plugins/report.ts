/** What the store costs, in all and for each VM and backup. */
import { Type } from '@fastify/type-provider-typebox';
import type { ApiContext, App } from '../context.ts';
import {
  OwnerSpacePage,
  PageQuery,
  problems,
  ref,
  SpaceReport,
  type SpaceReport as Space,
} from '../schemas/index.ts';

export function report(app: App, { fleet }: ApiContext): void {
  // The report walks all trees. Those who ask while one is made share it.
  let underWay: Promise<Space> | undefined;

  app.get(
    '/report/space',
    {
      schema: {
        operationId: 'reportSpace',
        summary: 'Logical, allocated, unique and stored bytes, and the ratios between them',
        tags: ['store'],
        response: { 200: ref(SpaceReport), ...problems },
      },
    },
    async () => {
      underWay ??= fleet.space().finally(() => {
        underWay = undefined;
      });
      return underWay;
    },
  );

  app.get(
    '/report/space/owners',
    {
      schema: {
        operationId: 'reportOwners',
        summary: 'What each VM and backup costs, and what deleting it alone would free',
        tags: ['store'],
        querystring: Type.Object(
          { ...PageQuery, kind: Type.Optional(Type.Union([Type.Literal('vm'), Type.Literal('backup')])) },
          { additionalProperties: false },
        ),
        response: { 200: ref(OwnerSpacePage), ...problems },
      },
    },
    async ({ query }) => fleet.ownerSpaces(query),
  );
}
