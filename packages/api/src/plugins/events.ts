/** Events: list, follow. */
import { Type } from '@fastify/type-provider-typebox';
import { PandoError } from '@pando/common';
import type { EventFilter, EventLog, KeptEvent } from '@pando/events';
import type { Readable } from 'node:stream';
import type { ApiContext, App } from '../context.ts';
import { Followers, STILL_HERE } from '../followers.ts';
import type { RouteNeeds } from '../needs.ts';
import {
  EventFilterQuery,
  EventPage,
  PAGE_ITEMS_DEFAULT,
  PageQuery,
  problems,
  ref,
  type Event,
} from '../schemas/index.ts';

const needs: RouteNeeds = { role: 'viewer', on: 'store' };

const EventId = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export function eventRoutes(app: App, { events, limits }: ApiContext): void {
  const tags = ['events'];
  const followers = new Followers(app, limits, 'events', { isEndless: true });

  app.get(
    '/events',
    {
      config: { needs },
      schema: {
        operationId: 'listEvents',
        summary: 'List what happened, newest first',
        description: 'A page may have fewer items than `limit` and still a next one.',
        tags,
        querystring: Type.Object(
          {
            ...PageQuery,
            ...EventFilterQuery,
            since: Type.Optional(Type.String({ maxLength: 64, description: 'RFC 3339: from then on' })),
          },
          { additionalProperties: false },
        ),
        response: { 200: ref(EventPage), ...problems },
      },
    },
    async ({ query: { cursor, limit = PAGE_ITEMS_DEFAULT, since, ...filter } }) => {
      const { items, next } = await events.list({
        ...filterOf(filter),
        ...(since === undefined ? {} : { since: instantOf(since) }),
        ...(cursor === undefined ? {} : { before: idOf(cursor) }),
        limit,
      });
      return { items: items.map(eventOf), ...(next === undefined ? {} : { nextCursor: String(next) }) };
    },
  );

  app.get(
    '/events/stream',
    {
      config: { needs },
      schema: {
        operationId: 'followEvents',
        summary: 'Follow what happens by server-sent events',
        description:
          'Each event `event` carries an Event as JSON, under its id. The stream goes on after the event of the header `Last-Event-ID`, or of ' +
          '`after`; without either it begins with what comes next.',
        tags,
        querystring: Type.Object(
          { ...EventFilterQuery, after: Type.Optional(EventId) },
          { additionalProperties: false },
        ),
        headers: Type.Object({ 'last-event-id': Type.Optional(EventId) }),
        response: {
          200: {
            description: 'Events',
            content: { 'text/event-stream': { schema: Type.Unsafe<Readable>(Type.String()) } },
          },
          ...problems,
        },
      },
    },
    async ({ query: { after, ...filter }, headers }, reply) => {
      const from = headers['last-event-id'] ?? after ?? events.newestId;
      return followers.follow(reply, (signal) =>
        lines(events.follow(from, filterOf(filter), signal, limits.heartbeatMs)),
      );
    },
  );
}

async function* lines(events: ReturnType<EventLog['follow']>): AsyncGenerator<string> {
  for await (const event of events) {
    yield event === undefined
      ? STILL_HERE
      : `id: ${event.id}\nevent: event\ndata: ${JSON.stringify(eventOf(event))}\n\n`;
  }
}

function eventOf({ id, at, ...event }: KeptEvent): Event {
  return { id, at: new Date(at).toISOString(), ...event };
}

function filterOf({
  kind,
  ...filter
}: {
  kind?: string;
  severity?: KeptEvent['severity'];
  subject?: string;
}): EventFilter {
  return { ...filter, ...(kind === undefined ? {} : { kinds: [kind] }) };
}

function instantOf(text: string): number {
  const time = Date.parse(text);
  if (Number.isNaN(time))
    throw new PandoError('request-invalid', 'querystring.since is no instant of RFC 3339');
  return time;
}

function idOf(cursor: string): number {
  const id = /^\d{1,16}$/.test(cursor) ? Number(cursor) : NaN;
  if (!Number.isSafeInteger(id)) throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
  return id;
}
