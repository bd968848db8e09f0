/** Backups: take, list, show, change, restore, delete. A backup is named by its id or as `vm@name`. */
import { Type } from '@fastify/type-provider-typebox';
import type { Actor } from '@pando/access';
import { isPandoError, PandoError } from '@pando/common';
import type { BackupAttributes as Attributes } from '@pando/fleet';
import type { ApiContext, App } from '../context.ts';
import {
  Backup,
  BackupAttributes,
  BackupChange,
  BackupPage,
  Job,
  Name,
  Nothing,
  PageQuery,
  problems,
  ref,
  Reference,
  Tags,
  Vm,
  withLocation,
  type Backup as BackupView,
  type Job as JobView,
  type Vm as VmView,
} from '../schemas/index.ts';
import { refuseScoped } from '../scopes.ts';
import { vmUrl } from './vms.ts';
import { accepted, fleetWork } from './work.ts';

const BackupParams = Type.Object({ backup: Reference });

export const backupUrl = (id: string): string => `/api/v1/backups/${encodeURIComponent(id)}`;

/** No longer than QUIESCE_LIMITS.holdMs of the guest-agent room. */
const QUIESCE_SECONDS_MAX = 10;

export function backups(app: App, context: ApiContext): void {
  const { fleet, jobs, scopes } = context;
  const tags = ['backups'];

  app.post(
    '/vms/:vm/backups',
    {
      config: { needs: { role: 'operator', on: 'vm' }, idempotent: true },
      schema: {
        operationId: 'createBackup',
        summary: 'Take a backup of a VM: all its disks at one instant, also while it runs',
        tags,
        params: Type.Object({ vm: Reference }),
        body: Type.Object(
          {
            name: Type.Optional(Name),
            quiesce: Type.Optional(
              Type.String({
                maxLength: 1024,
                description:
                  'freeze the file systems of the guest around the instant: `qemu-ga:PATH`, the Unix socket of its guest agent on the server, inside its ' +
                  '`--guest-agent-dir`; `{vm}` in it stands for the name of the VM',
              }),
            ),
            quiesceSeconds: Type.Optional(
              Type.Number({
                exclusiveMinimum: 0,
                maximum: QUIESCE_SECONDS_MAX,
                description:
                  'how long the guest may be frozen at most; there is no backup if that is not enough',
              }),
            ),
            ...BackupAttributes,
          },
          { additionalProperties: false },
        ),
        response: { 201: withLocation('The new backup', ref(Backup)), ...problems },
      },
    },
    async ({ params, body, actor }, reply) => {
      const { name, quiesce: guest, quiesceSeconds, ...said } = body;
      // The path may be of any guest's agent.
      if (guest !== undefined) refuseScoped(actor);
      const named = name === undefined ? {} : { name };
      const attributes = toAttributes(said);
      const backup =
        guest === undefined
          ? await fleet.createBackup(params.vm, { ...named, ...attributes })
          : await quiescedBackup(context, params.vm, { ...named, guest, quiesceSeconds }, attributes);
      reply.code(201).header('location', backupUrl(backup.id));
      return backup;
    },
  );

  app.get(
    '/backups',
    {
      config: { needs: { role: 'viewer', on: 'list' } },
      schema: {
        operationId: 'listBackups',
        summary: 'List backups, newest first',
        description: 'Either `label`, or `vm` and `policy`. Those of a policy come VM by VM.',
        tags,
        querystring: Type.Object(
          {
            ...PageQuery,
            vm: Type.Optional(Type.String({ minLength: 1, maxLength: 255, description: 'only of this VM' })),
            policy: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 255,
                description: 'only those that this policy took: its name or id; of one that is gone, its id',
              }),
            ),
            label: Type.Optional(
              Type.String({ maxLength: 400, description: 'only those with this label, as `name=value`' }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: ref(BackupPage), ...problems },
      },
    },
    async ({ query: { label, policy, vm, ...page }, actor }) => {
      const which = {
        ...(vm === undefined ? {} : { vm }),
        ...(label === undefined ? {} : { label: toLabel(label) }),
        ...(policy === undefined ? {} : { policy: await policyId(context, actor, policy) }),
      };
      const seen = await scopes.backups(actor, page, (request) =>
        fleet.listBackups({ ...which, ...request }),
      );
      // One that is not in the scope is none that this actor knows of.
      if (vm !== undefined && seen.items.length === 0 && actor.scope !== undefined)
        await scopes.vm(actor, vm);
      return seen;
    },
  );

  app.get(
    '/backups/:backup',
    {
      config: { needs: { role: 'viewer', on: 'backup' } },
      schema: {
        operationId: 'getBackup',
        summary: 'Show a backup',
        tags,
        params: BackupParams,
        response: { 200: ref(Backup), ...problems },
      },
    },
    async ({ params }) => fleet.getBackup(params.backup),
  );

  app.patch(
    '/backups/:backup',
    {
      config: { needs: { role: 'operator', on: 'backup' } },
      schema: {
        operationId: 'changeBackup',
        summary: 'Change what is said about a backup: name, note, labels, lock, date of expiry',
        description:
          'What is left out stays, null takes away, `labels` stand in place of those it had. A lock can be extended, and not shortened ' +
          'or taken away as long as it lasts, by nobody. `expiresAt: "never"` takes a backup out of the hands of its policy, null gives it back.',
        tags,
        params: BackupParams,
        body: BackupChange,
        response: { 200: ref(Backup), ...problems },
      },
    },
    async ({ params, body: { name, ...said } }) =>
      fleet.changeBackup(params.backup, { ...(name === undefined ? {} : { name }), ...toAttributes(said) }),
  );

  app.delete(
    '/backups/:backup',
    {
      config: { needs: { role: 'operator', on: 'backup' } },
      schema: {
        operationId: 'deleteBackup',
        summary: 'Delete a backup that is not locked; nothing else depends on it',
        tags,
        params: BackupParams,
        response: { 204: Nothing, ...problems },
      },
    },
    async ({ params }, reply) => {
      await fleet.deleteBackup(params.backup);
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/backups/:backup/restore',
    {
      config: { needs: { role: 'operator', on: 'backup' }, idempotent: true },
      schema: {
        operationId: 'restoreBackup',
        summary: 'Restore a backup',
        description:
          'With `as` to a new VM (201). Without: in place, onto the VM that it was taken of (200); `force` disconnects its clients first. ' +
          'With `disk` that disk only: the new VM has no other, and in place the others stay as they are. ' +
          'With `verify` every chunk of the backup is read and checked first: 202 and a job, whose result is the VM, or whose error ' +
          'names the disks and ranges that are damaged.',
        tags,
        params: BackupParams,
        body: Type.Object(
          {
            as: Type.Optional(Name),
            tags: Type.Optional(Tags),
            disk: Type.Optional(Name),
            force: Type.Optional(Type.Boolean()),
            verify: Type.Optional(Type.Boolean()),
          },
          { additionalProperties: false },
        ),
        response: {
          200: ref(Vm),
          201: withLocation('The new VM', ref(Vm)),
          202: withLocation('The job', ref(Job)),
          ...problems,
        },
      },
    },
    async ({ params, body, actor }, reply): Promise<VmView | JobView> => {
      if (body.as !== undefined) scopes.checkNew(actor, { name: body.as, tags: body.tags ?? [] });
      if (body.verify === true) {
        const { vmName, name, id } = await fleet.getBackup(params.backup);
        const { job, ended } = jobs.start(
          { kind: 'restore', subject: `${vmName}@${name}`, by: actor },
          (work) => fleet.restoreBackup(id, body, fleetWork(work)),
        );
        ended.catch(() => undefined); // the job keeps its error
        return accepted(reply, job);
      }
      const vm = await fleet.restoreBackup(params.backup, body);
      if (body.as !== undefined) reply.code(201).header('location', vmUrl(vm.id));
      return vm;
    },
  );
}

/** A backup of a guest whose file systems are frozen meanwhile; none when they were not until its end. */
async function quiescedBackup(
  { fleet, quiesce }: ApiContext,
  reference: string,
  request: { readonly name?: string; readonly guest: string; readonly quiesceSeconds?: number | undefined },
  attributes: Attributes,
): Promise<BackupView> {
  if (quiesce === undefined) {
    throw new PandoError(
      'guest-agent-refused',
      'this server was started without --guest-agent-dir and speaks to no guest agent',
    );
  }
  const { id, name: vm } = await fleet.getVm(reference);
  const { name, guest, quiesceSeconds } = request;
  const taken = await quiesce(
    { guest, vm, ...(quiesceSeconds === undefined ? {} : { holdMs: quiesceSeconds * 1000 }) },
    () =>
      fleet.createBackup(id, {
        ...(name === undefined ? {} : { name }),
        consistency: 'application' as const,
      }),
    (backup) => fleet.deleteBackup(backup.id),
  );
  if (Object.keys(attributes).length === 0) return taken;
  try {
    // Not before: one that is locked could not be deleted when the guest was not at rest after all.
    return await fleet.changeBackup(taken.id, attributes);
  } catch (error) {
    // What is refused has made nothing.
    await fleet.deleteBackup(taken.id);
    throw error;
  }
}

async function policyId({ policyScopes }: ApiContext, actor: Actor, reference: string): Promise<string> {
  try {
    return (await policyScopes.policy(actor, reference)).id;
  } catch (error) {
    // The backups of one that is gone are found by its id; and those of one's own VMs, of one that they are not under any more.
    if (isPandoError(error, 'policy-missing') && /^[0-9a-f-]{36}$/.test(reference)) return reference;
    throw error;
  }
}

interface Said {
  readonly note?: string | null;
  readonly labels?: Record<string, string>;
  readonly lockedUntil?: string | null;
  readonly expiresAt?: string | null;
}

function toAttributes({ lockedUntil, expiresAt, ...said }: Said): Attributes {
  return {
    ...said,
    ...(lockedUntil === undefined ? {} : { lockedUntil: toMs('lockedUntil', lockedUntil) }),
    ...(expiresAt === undefined
      ? {}
      : { expiresAt: expiresAt === 'never' ? 'never' : toMs('expiresAt', expiresAt) }),
  };
}

/** @throws `request-invalid` */
function toMs(what: string, instant: string | null): number | null {
  if (instant === null) return null;
  const ms = /^\d{4}-\d\d-\d\dT.+(Z|[+-]\d\d:\d\d)$/i.test(instant) ? Date.parse(instant) : NaN;
  if (Number.isNaN(ms)) {
    throw new PandoError('request-invalid', `"${what}" is not a time such as 2026-11-20T10:00:00Z`);
  }
  return ms;
}

/** @throws `request-invalid` */
function toLabel(text: string): { name: string; value: string } {
  const equals = text.indexOf('=');
  if (equals < 1) throw new PandoError('request-invalid', '"label" is written name=value');
  return { name: text.slice(0, equals), value: text.slice(equals + 1) };
}
