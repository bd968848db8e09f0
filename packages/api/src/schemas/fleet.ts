/** What VMs, backups and their pages look like on the wire. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { Bytes, list, ref } from './common.ts';

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
  },
  { $id: 'Backup', additionalProperties: false },
);
export type Backup = Static<typeof Backup>;

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
