/** Who shares what with whom, what deleting frees, and what the trees say about disks. */
import { Type } from '@fastify/type-provider-typebox';
import { Bytes, list, ref, Reference, RootKeyed } from './common.ts';

const bytes = (description: string): typeof Bytes =>
  Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description });

const Kind = Type.Union([Type.Literal('vm'), Type.Literal('backup')]);
const OwnerNameParts = { kind: Kind, id: Type.String(), name: Type.String() };
const NextCursor = { nextCursor: Type.Optional(Type.String()) };
const Count = Type.Integer({ minimum: 0 });

export const OwnerName = Type.Object(OwnerNameParts, { $id: 'OwnerName', additionalProperties: false });

export const AccountGrouping = Type.Union([Type.Literal('vm'), Type.Literal('tag'), Type.Literal('policy')]);

export const AccountLine = Type.Object(
  {
    name: Type.Optional(
      Type.String({
        description:
          'of the VM, the tag or the policy; absent for what carries no tag, for all VMs by policy, and for backups that none took',
      }),
    ),
    id: Type.Optional(Type.String({ description: 'of the VM or the policy' })),
    isGone: Type.Optional(Type.Boolean({ description: 'the VM is gone; these are backups that are left' })),
    vms: Count,
    backups: Count,
    exclusiveBytes: bytes('what nobody else holds: what deleting all of the line frees'),
    sharedBytes: bytes('its part of what it holds with others: each of them has an equal one'),
    totalBytes: bytes('the two together'),
  },
  { $id: 'AccountLine', additionalProperties: false },
);

export const AccountTotals = Type.Object(
  {
    ownedBytes: bytes('what VMs and backups hold: all lines, and untoldBytes'),
    untoldBytes: bytes('part of ownedBytes that several hold who are not told apart; see docs/reports.md'),
    inFlightBytes: bytes('what imports and destages under way have written and nobody holds yet'),
    garbageBytes: Bytes,
    indexBytes: Bytes,
    logBytes: bytes('the log, with its spare files'),
    catalogBytes: Bytes,
    storedBytes: bytes('all of these together'),
  },
  { $id: 'AccountTotals', additionalProperties: false },
);

export const AccountsPage = Type.Object(
  {
    by: AccountGrouping,
    items: list(ref(AccountLine)),
    totals: ref(AccountTotals),
    ...NextCursor,
  },
  { $id: 'AccountsPage', additionalProperties: false },
);

export const Holder = Type.Object(
  { ...OwnerNameParts, sharedBytes: bytes('what the two hold in common') },
  { $id: 'Holder', additionalProperties: false },
);

export const HoldersPage = Type.Object(
  {
    owner: ref(OwnerName),
    reachedBytes: bytes('all that it holds, alone or with others'),
    exclusiveBytes: bytes('what it holds alone'),
    untoldBytes: bytes('of the store, in no number here: what several hold who are not told apart'),
    holders: Count,
    items: list(ref(Holder)),
    ...NextCursor,
  },
  { $id: 'HoldersPage', additionalProperties: false },
);

const ChoiceByName = {
  tag: Type.Optional(Type.String({ description: 'those that carry it' })),
  prefix: Type.Optional(Type.String({ maxLength: 1024, description: 'those whose names begin so' })),
};

const PageBody = {
  cursor: Type.Optional(Type.String({ maxLength: 4096, description: '`nextCursor` of the page before' })),
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 1000, description: 'items a page; 100 when absent' }),
  ),
};

export const ReclaimRequest = Type.Object(
  {
    owners: Type.Optional(
      Type.Array(Reference, { maxItems: 1000, description: 'VMs and backups, by id or name' }),
    ),
    ...ChoiceByName,
    kind: Type.Optional(Kind),
    withBackups: Type.Optional(Type.Boolean({ description: 'the backups of the VMs, too' })),
    ...PageBody,
  },
  { $id: 'ReclaimRequest', additionalProperties: false },
);

export const StayingWith = Type.Object(
  {
    ...OwnerNameParts,
    sharedBytes: bytes('what it holds of what stays'),
    aloneBytes: bytes('of that, what would be freed as well if it went too'),
  },
  { $id: 'StayingWith', additionalProperties: false },
);

export const ReclaimReport = Type.Object(
  {
    vms: Count,
    backups: Count,
    locked: Type.Integer({ minimum: 0, description: 'of these backups, those that cannot be deleted yet' }),
    freedBytes: bytes('what deleting all of them frees, after the next gc'),
    aloneBytes: bytes('the sum of what deleting each alone would free'),
    stayingBytes: bytes('what of theirs stays, because others hold it'),
    inFlightBytes: bytes('of that, what only work under way holds besides them'),
    untoldBytes: bytes(
      'of the store, in no number here but freedBytes: what several hold who are not told apart',
    ),
    holders: Count,
    items: list(ref(StayingWith), { description: 'who holds what stays, those with most first' }),
    ...NextCursor,
  },
  { $id: 'ReclaimReport', additionalProperties: false },
);

export const ReclaimPlanRequest = Type.Object(
  {
    bytes: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description: 'how much to free' }),
    prefer: Type.Optional(
      Type.Union([Type.Literal('oldest'), Type.Literal('smallest')], {
        description:
          'the oldest that are enough (when absent), or as few as can be found; `isFewest` says whether these are the fewest',
      }),
    ),
    includeVms: Type.Optional(Type.Boolean({ description: 'VMs without clients may go, too' })),
    ...ChoiceByName,
    ...PageBody,
  },
  { $id: 'ReclaimPlanRequest', additionalProperties: false },
);

export const Reclaimable = Type.Object(
  { ...OwnerNameParts, createdAt: Type.String() },
  { $id: 'Reclaimable', additionalProperties: false },
);

export const ReclaimPlan = Type.Object(
  {
    wantedBytes: Bytes,
    freedBytes: bytes('what deleting all of the plan frees, after the next gc'),
    isEnough: Type.Boolean(),
    isFewest: Type.Boolean({
      description: 'it is proven that no fewer VMs and backups free as much; never with `oldest`',
    }),
    vms: Count,
    backups: Count,
    locked: Type.Integer({ minimum: 0, description: 'backups that may not go because they are locked' }),
    items: list(ref(Reclaimable), { description: 'what to delete: backups before VMs, the oldest first' }),
    ...NextCursor,
  },
  { $id: 'ReclaimPlan', additionalProperties: false },
);

const DiffSide = Type.Object(
  { name: Type.String(), disk: Type.String(), sizeBytes: Bytes },
  { $id: 'DiffSide', additionalProperties: false },
);

export const DiffItem = Type.Object(
  { offset: Bytes, bytes: Bytes, changedBytes: bytes('of these, the bytes of chunks that differ') },
  { $id: 'DiffItem', additionalProperties: false },
);

export const DiffPage = Type.Object(
  {
    a: ref(DiffSide),
    b: ref(DiffSide),
    grainBytes: Bytes,
    comparedBytes: bytes('how far this page goes from where it began'),
    changedBytes: bytes('of the items of this page'),
    items: list(ref(DiffItem)),
    ...NextCursor,
  },
  { $id: 'DiffPage', additionalProperties: false },
);

export const NamedRoot = Type.Object(
  {
    disk: Type.String(),
    root: Type.String({
      pattern: '^[0-9a-f]{64}$',
      description: 'id of the top node; zeros for a disk that is all hole',
    }),
    sizeBytes: Bytes,
    chunkBytes: Type.Integer({ description: 'bytes of a chunk, which the root depends on' }),
    keyed: RootKeyed,
    height: Type.Integer({ minimum: 1, description: 'levels of nodes above the chunks' }),
  },
  { $id: 'NamedRoot', additionalProperties: false },
);

export const DiskRoots = Type.Object(
  { ...OwnerNameParts, items: list(ref(NamedRoot)) },
  { $id: 'DiskRoots', additionalProperties: false },
);

export const answerSchemas = [
  OwnerName,
  AccountLine,
  AccountTotals,
  AccountsPage,
  Holder,
  HoldersPage,
  ReclaimRequest,
  StayingWith,
  ReclaimReport,
  ReclaimPlanRequest,
  Reclaimable,
  ReclaimPlan,
  DiffSide,
  DiffItem,
  DiffPage,
  NamedRoot,
  DiskRoots,
];
