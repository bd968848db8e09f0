/** Who shares what with whom: accounts that add up, holders, and what deleting frees. All of it is about the store as a whole. */
import { Type } from '@fastify/type-provider-typebox';
import { PandoError } from '@pando/common';
import type { FastifyReply } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import {
  AccountGrouping,
  AccountsPage,
  HoldersPage,
  PageQuery,
  problems,
  ReclaimPlan,
  ReclaimPlanRequest,
  ReclaimReport,
  ReclaimRequest,
  ref,
  Reference,
} from '../schemas/index.ts';

export function sharing(app: App, { fleet }: ApiContext): void {
  const tags = ['store'];
  const config = { needs: { role: 'viewer', on: 'store' } } as const;

  app.get(
    '/report/accounts',
    {
      config,
      schema: {
        operationId: 'reportAccounts',
        summary:
          'What each VM with its backups, each tag, or each policy costs: lines that add up to what is stored',
        tags,
        querystring: Type.Object(
          { ...PageQuery, by: Type.Optional(AccountGrouping) },
          { additionalProperties: false },
        ),
        response: { 200: ref(AccountsPage), ...problems },
      },
    },
    async ({ query: { by = 'vm', ...page } }) => fleet.answers.accounts({ by, ...page }),
  );

  app.get(
    '/report/holders',
    {
      config,
      schema: {
        operationId: 'reportHolders',
        summary: 'Who shares its space with a VM or backup, and how much',
        tags,
        querystring: Type.Object({ ...PageQuery, of: Reference }, { additionalProperties: false }),
        response: { 200: ref(HoldersPage), ...problems },
      },
    },
    async ({ query: { of, ...page } }) => fleet.answers.holders(of, page),
  );

  app.post(
    '/report/reclaim',
    {
      config: { ...config, reads: true },
      schema: {
        operationId: 'reportReclaim',
        summary: 'What deleting a set of VMs and backups frees, exactly, and what stays because of whom',
        description: 'Deletes nothing. At least one of `owners`, `tag` and `prefix` says who is meant.',
        tags,
        body: ReclaimRequest,
        response: { 200: ref(ReclaimReport), ...problems },
      },
    },
    async ({ body }, reply) => fleet.answers.reclaim(body, { signal: untilGone(reply) }),
  );

  app.post(
    '/report/reclaim/plan',
    {
      config: { ...config, reads: true },
      schema: {
        operationId: 'planReclaim',
        summary: 'Which backups to delete so that so many bytes are freed',
        description:
          'Deletes nothing. `oldest` takes backups from the oldest on until it is enough; `smallest` looks for the fewest, and `isFewest` says whether it is proven that they are. From neither can anything be left out. ' +
          'None is in the plan that it would be enough without.',
        tags,
        body: ReclaimPlanRequest,
        response: { 200: ref(ReclaimPlan), ...problems },
      },
    },
    async ({ body: { prefer = 'oldest', ...wish } }, reply) =>
      fleet.answers.planReclaim({ prefer, ...wish }, { signal: untilGone(reply) }),
  );
}

/** Aborted when nobody waits for the answer any more. */
function untilGone(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => gone.abort(new PandoError('cancelled', 'nobody waits for the answer')));
  return gone.signal;
}
