/** What VMs, backups and their pages look like on the wire. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { Bytes, list, Name, ref, RootKeyed } from './common.ts';

const Instant = Type.String({ description: 'RFC 3339, UTC' });
const nextCursor = Type.Optional(Type.String({ description: 'absent on the last page' }));

export const Disk = Type.Object(
  { name: Type.String(), sizeBytes: Bytes },
  { $id: 'Disk', additionalProperties: false },
);

export const Vm = Type.Object(
  {
    id: Type.String(),
    name: Type.String(),
    lineage: Type.String({ description: 'shared by all that descends from one import or creation' }),
    createdAt: Instant,
    disks: list(ref(Disk)),
    tags: list(Type.String(), { description: 'what it is grouped by; sorted' }),
    attachedClients: Type.Integer({ description: 'clients that have one of its disks open now' }),
  },
  { $id: 'Vm', additionalProperties: false },
);
export type Vm = Static<typeof Vm>;

export const Labels = Type.Record(Type.String(), Type.String(), {
  description: 'names of 1 to 63 of A-Z a-z 0-9 . _ / -, values of at most 255 bytes',
});

export const BackupPolicy = Type.Object(
  {
    id: Type.String(),
    name: Type.String({ description: 'its name when the backup was taken' }),
    rule: Type.String(),
    dueAt: Type.String({ description: 'when the backup was due; RFC 3339, UTC' }),
  },
  { $id: 'BackupPolicy', additionalProperties: false },
);

export const Backup = Type.Object(
  {
    id: Type.String(),
    name: Type.String(),
    vmId: Type.String(),
    vmName: Type.String({ description: 'name of the VM when the backup was taken' }),
    lineage: Type.String(),
    createdAt: Instant,
    disks: list(ref(Disk)),
    tags: list(Type.String(), { description: 'those of the VM when the backup was taken' }),
    consistency: Type.Union([Type.Literal('crash'), Type.Literal('application')], {
      description:
        'application: the file systems of the guest were at rest; crash: as after a power cut at that instant',
    }),
    note: Type.Optional(Type.String()),
    labels: Type.Unsafe<Readonly<Record<string, string>>>(Labels),
    lockedUntil: Type.Optional(
      Type.String({ description: 'until then it cannot be deleted and does not expire; RFC 3339, UTC' }),
    ),
    expiresAt: Type.Optional(
      Type.String({
        description:
          'RFC 3339, UTC, or `never`; absent: the policy that took it decides, and without one it never does',
      }),
    ),
    policy: Type.Optional(ref(BackupPolicy)),
    unchanged: Type.Optional(
      Type.Boolean({
        description: "whether its disks are those of the VM's backup before it; absent until that is known",
      }),
    ),
  },
  { $id: 'Backup', additionalProperties: false },
);
export type Backup = Static<typeof Backup>;

/** What can be said about a backup when it is taken, and later. */
const instant = Type.String({ format: 'date-time', description: 'RFC 3339' });
export const BackupAttributes = {
  note: Type.Optional(Type.String({ description: 'at most 4,096 bytes' })),
  labels: Type.Optional(Labels),
  lockedUntil: Type.Optional(instant),
  expiresAt: Type.Optional(Type.Union([instant, Type.Literal('never')])),
};

/** Null takes an attribute away. */
export const BackupChange = Type.Object(
  {
    name: Type.Optional(Name),
    note: Type.Optional(Type.Union([Type.String(), Type.Null()])),
    labels: Type.Optional(Labels),
    lockedUntil: Type.Optional(Type.Union([instant, Type.Null()])),
    expiresAt: Type.Optional(Type.Union([instant, Type.Literal('never'), Type.Null()])),
  },
  { $id: 'BackupChange', additionalProperties: false, minProperties: 1 },
);

export const VmPage = Type.Object({ items: list(ref(Vm)), nextCursor }, { $id: 'VmPage' });
export const BackupPage = Type.Object({ items: list(ref(Backup)), nextCursor }, { $id: 'BackupPage' });
export const Vms = Type.Object({ items: list(ref(Vm)) }, { $id: 'Vms' });

/** What an import read and stored. */
const figures = {
  root: Type.String({
    pattern: '^[0-9a-f]{64}$',
    description: 'id of the top node of the disk that was imported: equal for equal disks of one size',
  }),
  sizeBytes: Bytes,
  chunkBytes: Type.Integer({ description: 'bytes of a chunk, which the root depends on' }),
  keyed: RootKeyed,
  readBytes: Bytes,
  newBytes: Bytes,
  storedBytes: Type.Integer({
    minimum: 0,
    description: 'bytes that the import added to the segments, compressed',
  }),
  chunks: Bytes,
  zeroChunks: Bytes,
  knownChunks: Bytes,
  newChunks: Bytes,
};

export const ImportResult = Type.Object(
  { vm: ref(Vm), ...figures },
  { $id: 'ImportResult', additionalProperties: false },
);
export type ImportResult = Static<typeof ImportResult>;

export const BackupImportResult = Type.Object(
  {
    backup: ref(Backup),
    changedBytes: Type.Integer({
      minimum: 0,
      description: 'bytes, in whole chunks, in which the disk differs from the backup that it follows',
    }),
    ...figures,
  },
  { $id: 'BackupImportResult', additionalProperties: false },
);
export type BackupImportResult = Static<typeof BackupImportResult>;

export const Extent = Type.Object(
  { offset: Bytes, length: Bytes, hole: Type.Boolean() },
  { $id: 'Extent', additionalProperties: false },
);

export const DiskMap = Type.Object(
  {
    sizeBytes: Bytes,
    extents: list(ref(Extent), { description: 'without gaps, from where the page begins' }),
    nextCursor,
  },
  { $id: 'DiskMap', additionalProperties: false },
);
