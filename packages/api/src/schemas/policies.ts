/** What policies look like on the wire. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { list, Name, ref } from './common.ts';

const Instant = Type.String({ description: 'RFC 3339, UTC' });
const nextCursor = Type.Optional(Type.String({ description: 'absent on the last page' }));
const TimeOfDay = Type.String({ description: 'HH:MM' });
const count = (description: string): ReturnType<typeof Type.Optional<ReturnType<typeof Type.Integer>>> =>
  Type.Optional(Type.Integer({ minimum: 0, maximum: 100 * 366 * 24 * 60, description }));

export const Schedule = Type.Object(
  {
    timeZone: Type.String({ maxLength: 60, description: 'IANA name, such as Europe/Berlin or UTC' }),
    everyDays: count('every so many days, counted from 1970-01-01; goes with no other days'),
    weekdays: Type.Optional(
      list(
        Type.Union([
          Type.Literal('mon'),
          Type.Literal('tue'),
          Type.Literal('wed'),
          Type.Literal('thu'),
          Type.Literal('fri'),
          Type.Literal('sat'),
          Type.Literal('sun'),
        ]),
      ),
    ),
    monthDays: Type.Optional(
      list(Type.Union([Type.Integer({ minimum: 1, maximum: 31 }), Type.Literal('last')])),
    ),
    at: Type.Optional(list(TimeOfDay, { description: 'times of the day; this or `everyMinutes`' })),
    everyMinutes: count('from `from` on, every so many minutes until before `to`; at most 1,440'),
    from: Type.Optional(TimeOfDay),
    to: Type.Optional(Type.String({ description: 'HH:MM, up to 24:00; not after `from`: on the next day' })),
  },
  { $id: 'Schedule', additionalProperties: false },
);

export const Retention = Type.Object(
  {
    keepForMinutes: count('those that are younger'),
    keepLast: count('so many of the newest'),
    keepHourly: count('the newest of each of the last so many hours that have any'),
    keepDaily: count('likewise of days'),
    keepWeekly: count('of weeks (ISO 8601)'),
    keepMonthly: count('of months'),
    keepYearly: count('of years'),
    keepAtLeast: count('so many of the newest, however old; 1 when absent'),
  },
  {
    $id: 'Retention',
    additionalProperties: false,
    description:
      'Kept is what one of them keeps, in the time zone of the schedule; with none of them, everything',
  },
);

const runInfo = {
  dueAt: Instant,
  startedAt: Instant,
  endedAt: Type.Optional(Instant),
  backups: Type.Integer({ minimum: 0 }),
  failed: Type.Integer({ minimum: 0, description: 'VMs that have no backup of this run' }),
  passes: Type.Integer({ minimum: 1, description: 'how often it went through the VMs' }),
};
export const PolicyRun = Type.Object(runInfo, { $id: 'PolicyRun', additionalProperties: false });

export const PolicyRule = Type.Object(
  {
    name: Type.String(),
    schedule: ref(Schedule),
    retention: ref(Retention),
    nextRunAt: Type.Optional(Instant),
    running: Type.Optional(ref(PolicyRun)),
    lastRun: Type.Optional(ref(PolicyRun)),
  },
  { $id: 'PolicyRule', additionalProperties: false },
);

export const Policy = Type.Object(
  {
    id: Type.String(),
    name: Type.String(),
    note: Type.Optional(Type.String()),
    quiesce: Type.Optional(Type.String({ description: 'the guest agent of each VM' })),
    rules: list(ref(PolicyRule)),
    tags: list(Type.String(), { description: 'VMs with one of these are assigned' }),
    isSuspended: Type.Boolean(),
    createdAt: Instant,
    changedAt: Instant,
  },
  { $id: 'Policy', additionalProperties: false },
);
export type Policy = Static<typeof Policy>;

/** Requests are checked as they stand: without references. */
const RuleRequest = Type.Object(
  { name: Type.Optional(Name), schedule: Schedule, retention: Retention },
  { additionalProperties: false },
);
const Rules = Type.Array(RuleRequest, { minItems: 1, maxItems: 16 });
const Tags = Type.Array(Name, { maxItems: 32 });

const Quiesce = Type.String({
  description:
    'freeze the file systems of each guest around the instant: `qemu-ga:PATH`, in which `{vm}` stands for the name of the VM; empty: not any more',
});

export const PolicyRequest = Type.Object(
  {
    name: Name,
    note: Type.Optional(Type.String()),
    quiesce: Type.Optional(Quiesce),
    rules: Rules,
    tags: Type.Optional(Tags),
  },
  { additionalProperties: false },
);
export const PolicyChange = Type.Object(
  {
    name: Type.Optional(Name),
    note: Type.Optional(Type.String()),
    quiesce: Type.Optional(Quiesce),
    rules: Type.Optional(Rules),
  },
  { additionalProperties: false, minProperties: 1 },
);
export const PolicyTargets = Type.Object(
  {
    vms: Type.Optional(Type.Array(Name, { maxItems: 1000, description: 'names or ids' })),
    tags: Type.Optional(Tags),
  },
  { additionalProperties: false, minProperties: 1 },
);

export const AssignedVm = Type.Object(
  {
    id: Type.String(),
    name: Type.String(),
    tag: Type.Optional(Type.String({ description: 'that it is assigned by; absent: by name' })),
    isSuspended: Type.Boolean(),
  },
  { $id: 'AssignedVm', additionalProperties: false },
);

export const PolicyFailure = Type.Object(
  {
    vmId: Type.String(),
    vmName: Type.String(),
    rule: Type.String(),
    dueAt: Instant,
    at: Instant,
    code: Type.String(),
    detail: Type.String(),
  },
  { $id: 'PolicyFailure', additionalProperties: false },
);

export const DueRun = Type.Object(
  {
    at: Instant,
    policyId: Type.String(),
    policy: Type.String(),
    rule: Type.String(),
    isRunning: Type.Boolean(),
  },
  { $id: 'DueRun', additionalProperties: false },
);

export const PolicyOfVm = Type.Object(
  {
    id: Type.String(),
    name: Type.String(),
    tag: Type.Optional(Type.String()),
    isSuspended: Type.Boolean({ description: 'the policy is, or it is for this VM' }),
  },
  { $id: 'PolicyOfVm', additionalProperties: false },
);

export const ImpactRequest = Type.Object(
  {
    policy: Type.Optional(Type.String({ description: 'name or id' })),
    rules: Type.Optional(Rules),
    vms: Type.Optional(Type.Array(Name, { maxItems: 1000, description: 'names or ids' })),
    tags: Type.Optional(Tags),
    horizonDays: Type.Optional(Type.Integer({ minimum: 1, maximum: 3660, description: '30 when absent' })),
    cursor: Type.Optional(Type.String({ maxLength: 8192, description: '`nextCursor` of the page before' })),
    limit: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 100, description: 'VMs a page; 20 when absent' }),
    ),
  },
  { additionalProperties: false },
);

export const HeldBackups = Type.Object(
  {
    backups: Type.Integer({ minimum: 0 }),
    bytes: Type.Optional(
      Type.Integer({
        minimum: 0,
        description: 'what they hold, compressed; absent: not known, for want of two backups to compare',
      }),
    ),
  },
  { $id: 'HeldBackups', additionalProperties: false },
);

export const VmImpact = Type.Object(
  {
    vm: Type.Object({ id: Type.String(), name: Type.String() }, { additionalProperties: false }),
    created: Type.Integer({ minimum: 0, description: 'backups until the horizon' }),
    expired: Type.Integer({ minimum: 0 }),
    now: ref(HeldBackups),
    then: ref(HeldBackups),
    steady: Type.Optional(ref(HeldBackups)),
  },
  { $id: 'VmImpact', additionalProperties: false },
);

export const VmImpactPage = Type.Object({ items: list(ref(VmImpact)), nextCursor }, { $id: 'VmImpactPage' });

export const PolicyPage = Type.Object({ items: list(ref(Policy)), nextCursor }, { $id: 'PolicyPage' });
export const AssignedVmPage = Type.Object(
  { items: list(ref(AssignedVm)), nextCursor },
  { $id: 'AssignedVmPage' },
);
export const PolicyFailurePage = Type.Object(
  { items: list(ref(PolicyFailure)), nextCursor },
  { $id: 'PolicyFailurePage' },
);
export const DueRunPage = Type.Object({ items: list(ref(DueRun)), nextCursor }, { $id: 'DueRunPage' });
export const PoliciesOfVm = Type.Object({ items: list(ref(PolicyOfVm)) }, { $id: 'PoliciesOfVm' });

export const policySchemas = [
  Schedule,
  Retention,
  PolicyRun,
  PolicyRule,
  Policy,
  AssignedVm,
  PolicyFailure,
  DueRun,
  PolicyOfVm,
  HeldBackups,
  VmImpact,
  VmImpactPage,
  PolicyPage,
  AssignedVmPage,
  PolicyFailurePage,
  DueRunPage,
  PoliciesOfVm,
];
