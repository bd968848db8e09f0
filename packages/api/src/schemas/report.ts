/** What the store costs. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { Bytes, list, ref } from './common.ts';

const Ratio = Type.Number({ description: 'bytes before / bytes after' });

export const SpaceRatios = Type.Object(
  { thin: Ratio, lineage: Ratio, dedupe: Ratio, compression: Ratio, total: Ratio },
  { $id: 'SpaceRatios', additionalProperties: false },
);

export const SpaceReport = Type.Object(
  {
    logicalBytes: Bytes,
    allocatedBytes: Bytes,
    uniqueBytes: Bytes,
    dataStoredBytes: Bytes,
    metadataBytes: Bytes,
    garbageBytes: Bytes,
    indexBytes: Bytes,
    logBytes: Bytes,
    logSpareBytes: Bytes,
    catalogBytes: Bytes,
    storedBytes: Bytes,
    ratios: ref(SpaceRatios),
    ratiosWithoutBackups: ref(SpaceRatios),
    keyed: Type.Boolean({ description: 'whether the ids of chunks are keyed with a secret of the store' }),
    vms: Bytes,
    backups: Bytes,
  },
  { $id: 'SpaceReport', additionalProperties: false },
);
export type SpaceReport = Static<typeof SpaceReport>;

export const OwnerSpace = Type.Object(
  {
    kind: Type.Union([Type.Literal('vm'), Type.Literal('backup')]),
    id: Type.String(),
    name: Type.String(),
    logicalBytes: Bytes,
    allocatedBytes: Bytes,
    exclusiveBytes: Type.Integer({
      minimum: 0,
      description: 'what deleting it alone would free, after the next gc',
    }),
    fairBytes: Type.Integer({
      minimum: 0,
      description:
        'that, and an equal part of what it shares: those of all owners are what is stored of data and nodes',
    }),
  },
  { $id: 'OwnerSpace', additionalProperties: false },
);

export const OwnerSpacePage = Type.Object(
  { items: list(ref(OwnerSpace)), nextCursor: Type.Optional(Type.String()) },
  { $id: 'OwnerSpacePage' },
);

export const SpaceSample = Type.Object(
  {
    at: Type.String({ description: 'RFC 3339' }),
    storedBytes: Bytes,
    segmentBytes: Bytes,
    indexBytes: Bytes,
    logBytes: Bytes,
    catalogBytes: Bytes,
    exact: Type.Optional(
      Type.Object(
        {
          logicalBytes: Bytes,
          allocatedBytes: Bytes,
          uniqueBytes: Bytes,
          dataStoredBytes: Bytes,
          metadataBytes: Bytes,
          garbageBytes: Bytes,
          vms: Bytes,
          backups: Bytes,
        },
        { additionalProperties: false, description: 'of the space report, where one was made at that time' },
      ),
    ),
  },
  { $id: 'SpaceSample', additionalProperties: false },
);
export type SpaceSample = Static<typeof SpaceSample>;

export const SpaceGrain = Type.Union([Type.Literal('5m'), Type.Literal('1h'), Type.Literal('1d')]);

export const SpaceHistory = Type.Object(
  { grain: SpaceGrain, items: list(ref(SpaceSample)), nextCursor: Type.Optional(Type.String()) },
  { $id: 'SpaceHistory' },
);
