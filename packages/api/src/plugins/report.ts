/** What the store costs, in all and for each VM and backup. */
import { Type } from '@fastify/type-provider-typebox';
import { PandoError } from '@pando/common';
import type { ApiContext, App } from '../context.ts';
import {
  OwnerSpacePage,
  PAGE_ITEMS_DEFAULT,
  PageQuery,
  problems,
  ref,
  SpaceGrain,
  SpaceHistory,
  SpaceReport,
  type SpaceReport as Space,
} from '../schemas/index.ts';

const DAY_MS = 24 * 60 * 60_000;
const MONTH_MS = 31 * DAY_MS;

export function report(app: App, { fleet, history, clock }: ApiContext): void {
  // The report walks all trees. Those who ask while one is made share it.
  let underWay: Promise<Space> | undefined;

  app.get(
    '/report/space',
    {
      config: { needs: { role: 'viewer', on: 'store' } },
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
      config: { needs: { role: 'viewer', on: 'store' } },
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

  app.get(
    '/report/space/history',
    {
      config: { needs: { role: 'viewer', on: 'store' } },
      schema: {
        operationId: 'spaceHistory',
        summary: 'What the store took before, oldest first',
        description:
          'One sample of each five minutes for a day, of each hour for a month, of each day for ten years. Without `grain` it is the finest that goes back to `since`.',
        tags: ['store'],
        querystring: Type.Object(
          {
            ...PageQuery,
            grain: Type.Optional(SpaceGrain),
            since: Type.Optional(
              Type.String({ maxLength: 64, description: 'RFC 3339; a month ago when absent' }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: ref(SpaceHistory), ...problems },
      },
    },
    async ({ query: { cursor, grain: wanted, since: from, limit = PAGE_ITEMS_DEFAULT } }) => {
      const now = clock.now();
      const since = from === undefined ? now - MONTH_MS : Date.parse(from);
      if (Number.isNaN(since))
        throw new PandoError('request-invalid', 'querystring.since is no instant of RFC 3339');
      const grain = wanted ?? (now - since <= DAY_MS ? '5m' : now - since <= MONTH_MS ? '1h' : '1d');
      const after = cursor === undefined ? undefined : Number(cursor);
      if (after !== undefined && !(Number.isSafeInteger(after) && after >= 0))
        throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
      const { items, next } = await history.list({
        ...{ grain, since: Math.max(0, since), limit },
        ...(after === undefined ? {} : { after }),
      });
      return {
        grain,
        items: items.map(({ at, ...sample }) => ({ at: new Date(at).toISOString(), ...sample })),
        ...(next === undefined ? {} : { nextCursor: String(next) }),
      };
    },
  );
}
