/** Jobs, and the reports that work ends with. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { Bytes, list, ref } from './common.ts';
import { BackupImportResult, ImportResult, Vm } from './fleet.ts';

const nextCursor = Type.Optional(Type.String({ description: 'absent on the last page' }));
const Instant = Type.String({ description: 'RFC 3339, UTC' });

export const GcRequest = Type.Object(
  {
    thorough: Type.Optional(
      Type.Boolean({
        description:
          'free also what is dead in segments of which more than three quarters are alive; rewrites what is alive in them',
      }),
    ),
  },
  { $id: 'GcRequest', additionalProperties: false },
);

export const GcReport = Type.Object(
  {
    roots: Bytes,
    liveChunks: Bytes,
    liveBytes: Bytes,
    deadChunks: Bytes,
    droppedSegments: Bytes,
    compactedSegments: Bytes,
    damagedSegments: Bytes,
    freedBytes: Type.Integer(),
  },
  { $id: 'GcReport', additionalProperties: false },
);
export type GcReport = Static<typeof GcReport>;

export const VerifyRequest = Type.Object(
  {
    quick: Type.Optional(
      Type.Boolean({
        description:
          'structure only: headers and footers of segments, and that everything that disks refer to is in the index and in a segment; no chunk is hashed',
      }),
    ),
    resume: Type.Optional(
      Type.Boolean({
        description:
          'go on where the last full verification was cut off, when there is one (`unfinished` of GET /verify/last); from the start otherwise',
      }),
    ),
  },
  { $id: 'VerifyRequest', additionalProperties: false },
);

export const DamagedDisk = Type.Object(
  {
    kind: Type.Union([Type.Literal('vm'), Type.Literal('backup')]),
    id: Type.String({ description: 'of the VM or backup' }),
    name: Type.String({ description: '`web`, or `web@monday`' }),
    disk: Type.String(),
    sizeBytes: Bytes,
    damagedBytes: Bytes,
    ranges: list(Type.Object({ offset: Bytes, bytes: Bytes }, { additionalProperties: false }), {
      description: 'in order; what lies below a damaged node is damaged as a whole',
    }),
    moreRanges: Type.Integer({ minimum: 0, description: 'ranges that are not listed' }),
  },
  { $id: 'DamagedDisk', additionalProperties: false },
);

export const VerifyReport = Type.Object(
  {
    quick: Type.Boolean(),
    chunks: Type.Integer({ minimum: 0, description: 'chunks that were hashed; none when quick' }),
    bytes: Type.Integer({ minimum: 0, description: 'of all segments' }),
    resumedBytes: Type.Optional(
      Type.Integer({
        minimum: 0,
        description:
          'those of them that had been verified before this one went on; absent when it began at the start',
      }),
    ),
    nodes: Type.Integer({ minimum: 0, description: 'nodes of the trees of disks; a shared one counts once' }),
    checkedDisks: Bytes,
    missingChunks: Type.Integer({
      minimum: 0,
      description: 'references from nodes or disks to what is in no segment',
    }),
    damaged: list(
      Type.Object(
        {
          segment: Type.Optional(Type.Integer({ description: 'when the file is a segment' })),
          file: Type.String({ description: 'path inside the data directory' }),
          offset: Bytes,
          problem: Type.String(),
        },
        { additionalProperties: false },
      ),
    ),
    moreDamaged: Type.Integer({ minimum: 0, description: 'damaged places that are not listed' }),
    disks: list(ref(DamagedDisk), {
      description:
        'disks with damage, clones and backups included; what has not been destaged is not looked at',
    }),
    moreDisks: Type.Integer({ minimum: 0, description: 'damaged disks that are not listed' }),
    isComplete: Type.Boolean({ description: 'false: too much is damaged to find all disks with damage' }),
  },
  { $id: 'VerifyReport', additionalProperties: false },
);
export type VerifyReport = Static<typeof VerifyReport>;

export const RepairReport = Type.Object(
  {
    verifiedAt: Type.String({
      description: 'RFC 3339, UTC: when the verification ended by which it is known what is damaged',
    }),
    readBytes: Type.Integer({ minimum: 0, description: 'of the source, each reading of it' }),
    lostChunks: Type.Integer({
      minimum: 0,
      description:
        'chunks of data that disks refer to and that were damaged or missing, as far as could be seen',
    }),
    lostNodes: Type.Integer({ minimum: 0, description: 'and nodes of their trees' }),
    repairedChunks: Bytes,
    repairedNodes: Bytes,
    repairedDisks: list(
      Type.Object(
        {
          kind: Type.Union([Type.Literal('vm'), Type.Literal('backup')]),
          id: Type.String(),
          name: Type.String(),
          disk: Type.String(),
        },
        { additionalProperties: false },
      ),
      { description: 'disks that were damaged and are whole again; at most 100' },
    ),
    again: Type.Boolean({
      description:
        'damaged nodes came back, and below them more is damaged: the same source may hold that too',
    }),
    report: { ...ref(VerifyReport), description: 'what is damaged still' },
  },
  { $id: 'RepairReport', additionalProperties: false },
);
export type RepairReport = Static<typeof RepairReport>;

export const LastVerification = Type.Object(
  {
    startedAt: Instant,
    endedAt: Instant,
    seconds: Type.Number({ minimum: 0, description: 'how long it took' }),
    scheduled: Type.Boolean({ description: 'the server began it by itself' }),
    updatedAt: Type.Optional(
      Type.String({
        description: 'RFC 3339, UTC: when a repair last looked again at what it had found damaged',
      }),
    ),
    report: ref(VerifyReport),
  },
  { $id: 'LastVerification', additionalProperties: false },
);

export const UnfinishedVerification = Type.Object(
  {
    startedAt: Instant,
    keptAt: Type.String({ description: 'RFC 3339, UTC: when it was that far' }),
    doneBytes: Bytes,
    allBytes: Bytes,
    damagedSegments: Type.Integer({ minimum: 0, description: 'segments in which it had found damage' }),
  },
  { $id: 'UnfinishedVerification', additionalProperties: false },
);

export const LastVerifications = Type.Object(
  {
    full: Type.Optional(ref(LastVerification)),
    quick: Type.Optional(ref(LastVerification)),
    unfinished: Type.Optional(ref(UnfinishedVerification)),
  },
  {
    $id: 'LastVerifications',
    additionalProperties: false,
    description: 'those that ran to their end, and a full one that is under way or was cut off',
  },
);
export type LastVerifications = Static<typeof LastVerifications>;

export const JobKind = Type.Union([
  Type.Literal('import'),
  Type.Literal('restore'),
  Type.Literal('gc'),
  Type.Literal('verify'),
  Type.Literal('repair'),
]);
export type JobKind = Static<typeof JobKind>;

export const JobState = Type.Union([
  Type.Literal('queued'),
  Type.Literal('running'),
  Type.Literal('done'),
  Type.Literal('failed'),
  Type.Literal('cancelled'),
]);
export type JobState = Static<typeof JobState>;

export const Progress = Type.Object(
  {
    phase: Type.Optional(Type.String()),
    done: Type.Number({ minimum: 0 }),
    all: Type.Optional(Type.Number({ minimum: 0, description: 'absent while nobody knows' })),
  },
  { $id: 'Progress', additionalProperties: false },
);
export type Progress = Static<typeof Progress>;

export const JobError = Type.Object(
  { code: Type.String(), detail: Type.String(), remedy: Type.String() },
  { $id: 'JobError', additionalProperties: false },
);

export const Job = Type.Object(
  {
    id: Type.String(),
    kind: JobKind,
    subject: Type.Optional(Type.String({ description: 'what it works on: the name of a VM, or a backup' })),
    state: JobState,
    createdAt: Instant,
    startedAt: Type.Optional(Instant),
    endedAt: Type.Optional(Instant),
    progress: Type.Optional(ref(Progress)),
    result: Type.Optional(
      Type.Union([
        ref(ImportResult),
        ref(BackupImportResult),
        ref(Vm),
        ref(GcReport),
        ref(VerifyReport),
        ref(RepairReport),
      ]),
    ),
    error: Type.Optional(ref(JobError)),
  },
  { $id: 'Job', additionalProperties: false },
);
export type Job = Static<typeof Job>;

export const JobPage = Type.Object({ items: list(ref(Job)), nextCursor }, { $id: 'JobPage' });

export const Health = Type.Object(
  {
    status: Type.Union([Type.Literal('ok'), Type.Literal('degraded'), Type.Literal('failed')]),
    store: Type.Union([Type.Literal('ready'), Type.Literal('full'), Type.Literal('failed')], {
      description:
        'full: reads go on, writes wait for room. failed: a sync failed, restart after checking the disk',
    }),
    version: Type.String(),
    uptimeSeconds: Type.Number(),
    problems: Type.Array(Type.String(), {
      description: 'names of the checks of `GET /ready` that are not ok',
    }),
  },
  { $id: 'Health', additionalProperties: false },
);

export const ReadyCheck = Type.Object(
  {
    name: Type.String(),
    status: Type.Union([Type.Literal('ok'), Type.Literal('warning'), Type.Literal('failed')]),
    detail: Type.Optional(Type.String({ description: 'for people' })),
  },
  { $id: 'ReadyCheck', additionalProperties: false },
);
export type ReadyCheck = Static<typeof ReadyCheck>;

export const Ready = Type.Object(
  {
    ready: Type.Boolean({ description: 'no check has failed; there may be warnings' }),
    checks: list(ref(ReadyCheck)),
  },
  { $id: 'Ready', additionalProperties: false },
);
