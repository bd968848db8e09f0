/** Tokens and who has them, on the wire. */
import { Type } from '@fastify/type-provider-typebox';
import { ROLES, SCOPE_ITEMS_MAX, type Role as RoleName } from '@pando/access';
import { list, ref } from './common.ts';

const Instant = Type.String({ description: 'RFC 3339, UTC' });

const Role = Type.Unsafe<RoleName>(
  Type.Union(
    ROLES.map((role) => Type.Literal(role)),
    {
      description:
        'viewer: look; operator: also change, and read disks; admin: also tokens and the audit trail',
    },
  ),
);

const names = (description: string) =>
  Type.Optional(
    Type.Unsafe<readonly string[]>(
      Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { maxItems: SCOPE_ITEMS_MAX, description }),
    ),
  );

const scoped = {
  vms: names('names of VMs, in which `*` stands for any characters'),
  tags: names('VMs that carry one of these tags'),
};
const asScope = {
  additionalProperties: false,
  description: 'VMs whose name fits or that carry a tag, and their backups; absent: everything',
};

export const Scope = Type.Object(scoped, { $id: 'Scope', ...asScope });

export const NewToken = Type.Object(
  {
    name: Type.String({ description: '1 to 255 bytes of UTF-8 without `/`, `@` and control characters' }),
    role: Role,
    // What is validated cannot refer to others.
    scope: Type.Optional(Type.Object(scoped, asScope)),
    expiresAt: Type.Optional(Type.String({ maxLength: 64, description: 'RFC 3339; absent: never' })),
  },
  { $id: 'NewToken', additionalProperties: false },
);

const about = {
  id: Type.String(),
  name: Type.String(),
  role: Role,
  scope: Type.Optional(ref(Scope)),
  createdAt: Instant,
  expiresAt: Type.Optional(Instant),
  expired: Type.Boolean(),
  lastUsedAt: Type.Optional(
    Type.String({ description: 'RFC 3339, UTC; after a crash up to ten minutes may be missing' }),
  ),
  lastUsedFrom: Type.Optional(Type.String({ description: 'address of the client' })),
};

export const Token = Type.Object(about, { $id: 'Token', additionalProperties: false });

export const CreatedToken = Type.Object(
  {
    token: Type.String({ description: 'the text of the token; it is told this once and stored nowhere' }),
    ...about,
  },
  { $id: 'CreatedToken', additionalProperties: false },
);

export const TokenPage = Type.Object(
  {
    items: list(ref(Token)),
    nextCursor: Type.Optional(Type.String({ description: 'absent on the last page' })),
  },
  { $id: 'TokenPage' },
);

type AuditKind = 'change' | 'outcome' | 'refusal' | 'break';

export const AuditEntry = Type.Object(
  {
    n: Type.Integer({ description: 'counts lines' }),
    at: Instant,
    kind: Type.Unsafe<AuditKind>(
      Type.Union(
        [Type.Literal('change'), Type.Literal('outcome'), Type.Literal('refusal'), Type.Literal('break')],
        { description: '`break`: a sync failed, and lines between `after` and this one may be missing' },
      ),
    ),
    request: Type.String({ description: 'id of the request, as in the log and in problem documents' }),
    operation: Type.String({ description: 'the operationId' }),
    actor: Type.Optional(Type.Object({ name: Type.String(), tokenId: Type.Optional(Type.String()) })),
    from: Type.Optional(Type.String({ description: 'address of the client; absent for the Unix socket' })),
    subjects: Type.Optional(
      list(Type.String(), { description: 'what it was about, as it was named, and by its id' }),
    ),
    asked: Type.Optional(Type.Unsafe<unknown>({ description: 'query and body, without what may be secret' })),
    status: Type.Optional(Type.Integer({ description: 'of the answer' })),
    code: Type.Optional(Type.String({ description: 'of the error' })),
    ms: Type.Optional(Type.Integer()),
    left: Type.Optional(
      Type.Integer({ description: 'refusals that were left out before it, because there were too many' }),
    ),
    after: Type.Optional(
      Type.Integer({ description: 'of a break: the last line before it that is durable for certain' }),
    ),
    prev: Type.String({ description: 'SHA-256 of the line before; of a break, of the line `after`' }),
  },
  { $id: 'AuditEntry' },
);

export const AuditPage = Type.Object(
  {
    items: list(ref(AuditEntry)),
    nextCursor: Type.Optional(Type.String({ description: 'absent on the last page' })),
  },
  { $id: 'AuditPage' },
);

export const Whoami = Type.Object(
  {
    name: Type.String({ description: 'of the token; `socket` for the Unix socket' }),
    tokenId: Type.Optional(Type.String()),
    role: Role,
    scope: Type.Optional(ref(Scope)),
    expiresAt: Type.Optional(Instant),
  },
  { $id: 'Whoami', additionalProperties: false },
);
