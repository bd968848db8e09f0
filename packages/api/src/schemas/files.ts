/** What files in backups look like on the wire. Names there are bytes: as text, and in Base64 where they are no UTF-8. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { Bytes, list, ref } from './common.ts';

const inBase64 = Type.Optional(
  Type.String({ description: 'the bytes, in Base64; only where they are no UTF-8' }),
);

export const GuestFile = Type.Object(
  {
    path: Type.String({ description: 'with U+FFFD for what is no UTF-8' }),
    pathBase64: inBase64,
    type: Type.Union([
      Type.Literal('file'),
      Type.Literal('directory'),
      Type.Literal('symlink'),
      Type.Literal('character-device'),
      Type.Literal('block-device'),
      Type.Literal('fifo'),
      Type.Literal('socket'),
      Type.Literal('unknown'),
    ]),
    mode: Type.Integer({ minimum: 0, maximum: 0o7777, description: 'permissions, set-user-id and its kin' }),
    uid: Type.Integer(),
    gid: Type.Integer(),
    sizeBytes: Bytes,
    modifiedAt: Type.String({ description: 'RFC 3339, UTC' }),
    target: Type.Optional(Type.String({ description: 'of a symlink' })),
    targetBase64: inBase64,
  },
  { $id: 'GuestFile', additionalProperties: false },
);
export type GuestFile = Static<typeof GuestFile>;

export const GuestFilePage = Type.Object(
  {
    items: list(ref(GuestFile)),
    nextCursor: Type.Optional(Type.String({ description: 'absent on the last page' })),
  },
  { $id: 'GuestFilePage', additionalProperties: false },
);

export const GuestFileSystem = Type.Object(
  {
    name: Type.String({
      description:
        '`/dev/sda1`: partition 1 of the first disk; `/dev/GROUP/VOLUME` of LVM; `/dev/sdb`: all of the second disk',
    }),
    type: Type.String({ description: '`ext4`, `xfs`, `ntfs`, `swap`, `crypto_LUKS`, …' }),
    label: Type.Optional(Type.String()),
    sizeBytes: Type.Optional(Bytes),
  },
  { $id: 'GuestFileSystem', additionalProperties: false },
);

export const GuestMount = Type.Object(
  { path: Type.String(), fileSystem: Type.String() },
  { $id: 'GuestMount', additionalProperties: false },
);

export const GuestSystem = Type.Object(
  {
    fileSystem: Type.String({ description: 'that of its `/`' }),
    product: Type.Optional(Type.String({ description: 'what it calls itself' })),
    mounts: list(ref(GuestMount)),
  },
  { $id: 'GuestSystem', additionalProperties: false },
);

export const GuestFileSystems = Type.Object(
  {
    items: list(ref(GuestFileSystem), { description: 'at most 256' }),
    operatingSystems: list(ref(GuestSystem), {
      description: 'those that were recognised; paths without a file system are of the first',
    }),
  },
  { $id: 'GuestFileSystems', additionalProperties: false },
);

export const fileSchemas = [
  GuestFile,
  GuestFilePage,
  GuestFileSystem,
  GuestMount,
  GuestSystem,
  GuestFileSystems,
];
