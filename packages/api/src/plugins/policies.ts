/** Policies: create, list, show, change, assign, suspend, run, remove. */
import { Type } from '@fastify/type-provider-typebox';
import type { ApiContext, App } from '../context.ts';
import {
  AssignedVmPage,
  DueRunPage,
  ImpactRequest,
  Name,
  Nothing,
  PageQuery,
  PoliciesOfVm,
  Policy,
  PolicyChange,
  PolicyFailurePage,
  PolicyPage,
  PolicyRequest,
  PolicyTargets,
  problems,
  ref,
  Reference,
  VmImpactPage,
  withLocation,
} from '../schemas/index.ts';

const Params = Type.Object({ policy: Reference });
const Query = Type.Object(PageQuery, { additionalProperties: false });
const lookAtAll = { needs: { role: 'viewer', on: 'list' } } as const;
const look = { needs: { role: 'viewer', on: 'policy' } } as const;
/** What a policy does, for some VMs of it. */
const use = { needs: { role: 'operator', on: 'policy' } } as const;
/** What it is, for all. */
const change = { needs: { role: 'operator', on: 'store' } } as const;

export function policyRoutes(app: App, { policies, policyScopes }: ApiContext): void {
  const tags = ['policies'];
  const shown = { 200: ref(Policy), ...problems };

  app.post(
    '/policies',
    {
      config: { ...change, idempotent: true },
      schema: {
        operationId: 'createPolicy',
        summary: 'Create a policy: backups that are taken and expire by themselves',
        description:
          'Each rule has a schedule, and says what of its backups is kept. It takes backups of VMs that are assigned to it, by name or by tag.',
        tags,
        body: PolicyRequest,
        response: { 201: withLocation('The new policy', ref(Policy)), ...problems },
      },
    },
    async ({ body }, reply) => {
      const policy = await policies.create(body);
      reply.code(201).header('location', `/api/v1/policies/${policy.id}`);
      return policy;
    },
  );

  app.get(
    '/policies',
    {
      config: lookAtAll,
      schema: {
        operationId: 'listPolicies',
        summary: 'List policies, in the order of their creation',
        tags,
        querystring: Query,
        response: { 200: ref(PolicyPage), ...problems },
      },
    },
    async ({ query, actor }) => policyScopes.list(actor, query),
  );

  app.post(
    '/policy-impact',
    {
      config: lookAtAll,
      schema: {
        operationId: 'reportPolicyImpact',
        summary: 'What a policy or a change of one would bring about, VM by VM; nothing is changed',
        description:
          'Of `policy`, with `rules` instead of its own if they are given; or of `rules` alone. For `vms` and `tags`; without them, for the VMs of the policy. ' +
          'Says how many backups are taken and let go of until the horizon, and how many there are and what they hold now, then and in the long run (absent: ever more). ' +
          'Bytes are projected from what changed between backups that the VM has.',
        tags,
        body: ImpactRequest,
        response: { 200: ref(VmImpactPage), ...problems },
      },
    },
    async ({ body, actor }) => policies.impact({ ...body, ...(await policyScopes.impact(actor, body)) }),
  );

  app.get(
    '/policy-runs',
    {
      config: lookAtAll,
      schema: {
        operationId: 'listDueRuns',
        summary: 'What is due next, of all policies, soonest first',
        tags,
        querystring: Query,
        response: { 200: ref(DueRunPage), ...problems },
      },
    },
    async ({ query, actor }) => policyScopes.runs(actor, query),
  );

  app.get(
    '/policies/:policy',
    {
      config: look,
      schema: {
        operationId: 'getPolicy',
        summary: 'Show a policy: its rules, when each runs next, and how its last run went',
        tags,
        params: Params,
        response: shown,
      },
    },
    async ({ params, actor }) => policyScopes.shown(actor, await policies.get(params.policy)),
  );

  app.patch(
    '/policies/:policy',
    {
      config: change,
      schema: {
        operationId: 'changePolicy',
        summary: 'Change name, note or rules of a policy',
        description:
          'What is left out stays; an empty note takes it away. `rules` stand in place of those it had, and are known by their names: one with another schedule begins ' +
          'anew, another retention holds for the backups that are there, and what a rule took that is left out stays.',
        tags,
        params: Params,
        body: PolicyChange,
        response: shown,
      },
    },
    async ({ params, body }) => policies.change(params.policy, body),
  );

  app.delete(
    '/policies/:policy',
    {
      config: change,
      schema: {
        operationId: 'deletePolicy',
        summary: 'Delete a policy; its backups stay, and do not expire by it any more',
        tags,
        params: Params,
        response: { 204: Nothing, ...problems },
      },
    },
    async ({ params }, reply) => {
      await policies.remove(params.policy);
      reply.code(204);
      return null;
    },
  );

  for (const [verb, summary] of [
    ['assign', 'Assign VMs to a policy, by name or id, or by their tags'],
    ['unassign', 'Take VMs or tags away from a policy; backups stay, and expire by it as before'],
  ] as const) {
    app.post(
      `/policies/:policy/${verb}`,
      {
        config: use,
        schema: {
          operationId: `${verb}Policy`,
          summary,
          tags,
          params: Params,
          body: PolicyTargets,
          response: shown,
        },
      },
      async ({ params, body, actor }) => {
        const targets = await policyScopes.targets(actor, body);
        return policyScopes.shown(actor, await policies[verb](params.policy, targets));
      },
    );
  }

  for (const [verb, summary] of [
    [
      'suspend',
      'Let a policy rest, or one VM of it: nothing is taken; a policy that rests expires nothing either',
    ],
    ['resume', 'Let a policy, or one VM of it, go on; what was due meanwhile is not made up for'],
  ] as const) {
    app.post(
      `/policies/:policy/${verb}`,
      {
        config: use,
        schema: {
          operationId: `${verb}Policy`,
          summary,
          tags,
          params: Params,
          body: Type.Object(
            { vm: Type.Optional(Type.String({ description: 'only for this VM; name or id' })) },
            { additionalProperties: false },
          ),
          response: shown,
        },
      },
      async ({ params, body, actor }) => {
        const vm = await policyScopes.vm(actor, body.vm);
        return policyScopes.shown(actor, await policies[verb](params.policy, vm));
      },
    );
  }

  app.post(
    '/policies/:policy/run',
    {
      config: use,
      schema: {
        operationId: 'runPolicy',
        summary: 'Begin a run now, of one rule or of all; or take its backups of one VM',
        description: 'With `vm` the answer comes when they are taken, and nothing is tried again.',
        tags,
        params: Params,
        body: Type.Object(
          {
            rule: Type.Optional(Name),
            vm: Type.Optional(Type.String({ description: 'only of this VM; name or id' })),
          },
          { additionalProperties: false },
        ),
        response: shown,
      },
    },
    async ({ params, body, actor }) => {
      const vm = await policyScopes.vm(actor, body.vm);
      return policyScopes.shown(actor, await policies.runNow(params.policy, body.rule, vm));
    },
  );

  app.get(
    '/policies/:policy/vms',
    {
      config: look,
      schema: {
        operationId: 'listPolicyVms',
        summary: 'VMs that are assigned to a policy: by name first, then tag by tag',
        description: 'A page may be empty and not the last.',
        tags,
        params: Params,
        querystring: Query,
        response: { 200: ref(AssignedVmPage), ...problems },
      },
    },
    async ({ params, query, actor }) => policyScopes.vms(actor, params.policy, query),
  );

  app.get(
    '/policies/:policy/failures',
    {
      config: look,
      schema: {
        operationId: 'listPolicyFailures',
        summary: 'VMs whose last backup by the policy failed, and why',
        tags,
        params: Params,
        querystring: Query,
        response: { 200: ref(PolicyFailurePage), ...problems },
      },
    },
    async ({ params, query, actor }) => policyScopes.failures(actor, params.policy, query),
  );

  app.get(
    '/vms/:vm/policies',
    {
      config: { needs: { role: 'viewer', on: 'vm' } },
      schema: {
        operationId: 'listPoliciesOfVm',
        summary: 'Policies that a VM is under',
        tags,
        params: Type.Object({ vm: Reference }),
        response: { 200: ref(PoliciesOfVm), ...problems },
      },
    },
    async ({ params }) => ({ items: await policies.ofVm(params.vm) }),
  );
}
