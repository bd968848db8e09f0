/** What the trees say about disks: what differs between any two, their roots, and proofs under them. */
import { Type } from '@fastify/type-provider-typebox';
import type { Actor } from '@pando/access';
import { isPandoError } from '@pando/common';
import type { ApiContext, App } from '../context.ts';
import { Bytes, DiffPage, DiskRoots, PageQuery, problems, ref, Reference } from '../schemas/index.ts';
import type { Scopes } from '../scopes.ts';

/** Of a proof: packages/proof, docs/proofs.md. */
const PROOF_MEDIA_TYPE = 'application/vnd.pando.proof';

export function trees(app: App, { fleet, scopes }: ApiContext): void {
  const within = (actor: Actor, disk: string): Promise<string> => diskWithin(scopes, actor, disk);

  app.get(
    '/diff',
    {
      // Both are looked for in the scope.
      config: { needs: { role: 'viewer', on: 'list' } },
      schema: {
        operationId: 'diffDisks',
        summary: 'What differs between two disks, of any VMs and backups',
        description:
          'Costs what differs. A page may have no items and still a `nextCursor`: much was compared. What a VM writes between two pages is in the later one.',
        tags: ['store'],
        querystring: Type.Object(
          {
            ...PageQuery,
            a: Reference,
            b: Type.String({
              ...Reference,
              description: '`vm`, `vm@backup` or an id; with `/disk` behind it where there are several',
            }),
            grainBytes: Type.Optional(
              Type.Integer({
                minimum: 1,
                maximum: Number.MAX_SAFE_INTEGER,
                description:
                  'ranges closer together are one; a multiple of the chunk, which it is when absent',
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: ref(DiffPage), ...problems },
      },
    },
    async ({ query: { a, b, ...page }, actor }) =>
      fleet.answers.diff({ ...page, a: await within(actor, a), b: await within(actor, b) }),
  );

  app.get(
    '/vms/:vm/roots',
    {
      config: { needs: { role: 'viewer', on: 'vm' } },
      schema: {
        operationId: 'rootsOfVm',
        summary: "The roots of a VM's disks, each of an instant between the request and the answer",
        description:
          'What was written before is destaged first. Who wants one instant for all disks takes a backup.',
        tags: ['vms'],
        params: Type.Object({ vm: Reference }),
        response: { 200: ref(DiskRoots), ...problems },
      },
    },
    async ({ params }) => fleet.answers.roots((await fleet.getVm(params.vm)).id),
  );

  app.get(
    '/backups/:backup/roots',
    {
      config: { needs: { role: 'viewer', on: 'backup' } },
      schema: {
        operationId: 'rootsOfBackup',
        summary: "The roots of a backup's disks, which never change",
        tags: ['backups'],
        params: Type.Object({ backup: Reference }),
        response: { 200: ref(DiskRoots), ...problems },
      },
    },
    async ({ params }) => fleet.answers.roots((await fleet.getBackup(params.backup)).id),
  );

  app.get(
    '/backups/:backup/disks/:disk/proof',
    {
      // There are bytes of the disk in it.
      config: { needs: { role: 'operator', on: 'backup' } },
      schema: {
        operationId: 'proveBackupDisk',
        summary: 'A proof that a range of a disk of a backup holds what it holds',
        description:
          'It has the bytes of the range in it, and is checked with nothing but the root: docs/proofs.md. At most 16 MiB a proof.',
        tags: ['backups'],
        params: Type.Object({ backup: Reference, disk: Reference }),
        querystring: Type.Object({ offset: Bytes, length: Bytes }, { additionalProperties: false }),
        response: {
          200: { description: 'The proof', content: { [PROOF_MEDIA_TYPE]: { schema: Type.Unknown() } } },
          ...problems,
        },
      },
    },
    async ({ params, query }, reply) => {
      const proof = await fleet.answers.prove(params.backup, params.disk, query);
      return reply.type(PROOF_MEDIA_TYPE).header('cache-control', 'no-store').send(proof);
    },
  );
}

/** A disk of a VM or backup that is in the scope: by the owner's id, so that it is that one whatever is renamed. @throws the missing kinds */
async function diskWithin(scopes: Scopes, actor: Actor, text: string): Promise<string> {
  if (actor.scope === undefined) return text;
  const slash = text.indexOf('/');
  const owner = slash < 0 ? text : text.slice(0, slash);
  const disk = slash < 0 ? '' : text.slice(slash);
  if (owner.includes('@')) return (await scopes.backup(actor, owner)).id + disk;
  try {
    return (await scopes.vm(actor, owner)).id + disk;
  } catch (error) {
    if (!isPandoError(error, 'vm-missing')) throw error;
    const backup = await scopes.backup(actor, owner).catch(() => undefined);
    if (backup === undefined) throw error;
    return backup.id + disk;
  }
}
