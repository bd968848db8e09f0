/** What happened, and where it is sent on to. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { list, ref } from './common.ts';

export const EventSeverity = Type.Union([
  Type.Literal('info'),
  Type.Literal('warning'),
  Type.Literal('error'),
]);

const Kind = Type.String({ minLength: 1, maxLength: 64, description: 'see docs/operating.md' });
const Instant = Type.String({ description: 'RFC 3339' });

export const Event = Type.Object(
  {
    id: Type.Integer({ description: 'ascends, over restarts too' }),
    at: Instant,
    kind: Kind,
    severity: EventSeverity,
    text: Type.String({ description: 'for people' }),
    subject: Type.Optional(
      Type.String({
        description: 'what it is about: the name of a VM, `vm@backup`, a policy, a webhook, a file',
      }),
    ),
    data: Type.Optional(
      Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean()])),
    ),
  },
  { $id: 'Event', additionalProperties: false },
);
export type Event = Static<typeof Event>;

export const EventPage = Type.Object(
  { items: list(ref(Event)), nextCursor: Type.Optional(Type.String()) },
  { $id: 'EventPage' },
);

/** Fields of a query. */
export const EventFilterQuery = {
  kind: Type.Optional(Kind),
  severity: Type.Optional(EventSeverity),
  subject: Type.Optional(Type.String({ minLength: 1, maxLength: 2000 })),
};

export const WebhookBody = Type.Object(
  {
    url: Type.String({ minLength: 1, maxLength: 2000, description: 'https, unless `insecure`' }),
    kinds: Type.Optional(
      Type.Array(Kind, { minItems: 1, maxItems: 64, description: 'only these; all when absent' }),
    ),
    severity: Type.Optional(EventSeverity),
    insecure: Type.Optional(Type.Boolean({ description: 'let the URL be http' })),
  },
  { additionalProperties: false },
);

export const Webhook = Type.Object(
  {
    id: Type.String(),
    url: Type.String(),
    kinds: Type.Optional(list(Type.String())),
    severity: Type.Optional(EventSeverity),
    createdAt: Instant,
    isGone: Type.Boolean({ description: 'it answered 410: nothing is sent there any more' }),
    deliveredAt: Type.Optional(
      Type.String({ description: 'RFC 3339; when it took an event last, since the server was started' }),
    ),
    failing: Type.Optional(
      Type.Object(
        { since: Instant, tries: Type.Integer(), problem: Type.String() },
        { additionalProperties: false, description: 'it has not taken the newest event that it was sent' },
      ),
    ),
  },
  { $id: 'Webhook', additionalProperties: false },
);
export type Webhook = Static<typeof Webhook>;

export const WebhookList = Type.Object({ items: list(ref(Webhook)) }, { $id: 'WebhookList' });

export const NewWebhook = Type.Object(
  {
    webhook: ref(Webhook),
    secret: Type.String({ description: 'what it verifies signatures with; nobody is told it again' }),
  },
  { $id: 'NewWebhook', additionalProperties: false },
);

export const WebhookTest = Type.Object(
  {
    taken: Type.Boolean(),
    status: Type.Optional(Type.Integer()),
    problem: Type.Optional(Type.String()),
  },
  { $id: 'WebhookTest', additionalProperties: false },
);
