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
