/** VMs: create, list, show, change, clone, delete. */
import { Type } from '@fastify/type-provider-typebox';
import { CLONES_MAX, PandoError, VM_DISKS_MAX } from '@pando/common';
import type { ApiContext, App } from '../context.ts';
import {
  Bytes,
  Name,
  Nothing,
  PageQuery,
  problems,
  ref,
  Reference,
  Tags,
  Vm,
  VmPage,
  Vms,
  withLocation,
} from '../schemas/index.ts';

const VmParams = Type.Object({ vm: Reference });
const force = Type.Optional(Type.Boolean({ description: 'disconnect clients first' }));

export function vms(app: App, { fleet, scopes }: ApiContext): void {
  const tags = ['vms'];

  app.post(
    '/vms',
    {
      config: { needs: { role: 'operator', on: 'new' }, idempotent: true },
      schema: {
        operationId: 'createVm',
        summary: 'Create a VM with empty disks',
        tags,
        body: Type.Object(
          {
            name: Name,
            disks: Type.Array(
              Type.Object({ name: Name, sizeBytes: Bytes }, { additionalProperties: false }),
              {
                minItems: 1,
                maxItems: VM_DISKS_MAX,
              },
            ),
            tags: Type.Optional(Tags),
          },
          { additionalProperties: false },
        ),
        response: { 201: withLocation('The new VM', ref(Vm)), ...problems },
      },
    },
    async (request, reply) => {
      const { name, tags = [] } = request.body;
      scopes.checkNew(request.actor, { name, tags });
      const vm = await fleet.createVm(request.body);
      reply.code(201).header('location', vmUrl(vm.id));
      return vm;
    },
  );

  app.get(
    '/vms',
    {
      config: { needs: { role: 'viewer', on: 'list' } },
      schema: {
        operationId: 'listVms',
        summary: 'List VMs, in the order of their creation',
        description: 'With `prefix` in the order of their names. Either `prefix` or `tag`.',
        tags,
        querystring: Type.Object(
          {
            ...PageQuery,
            prefix: Type.Optional(Type.String({ maxLength: 255, description: 'only names that begin so' })),
            tag: Type.Optional(
              Type.String({ minLength: 1, maxLength: 255, description: 'only VMs that carry this tag' }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: ref(VmPage), ...problems },
      },
    },
    async ({ query: { prefix, ...page }, actor }) => {
      if (prefix !== undefined && page.tag !== undefined) {
        throw new PandoError('request-invalid', 'either "prefix" or "tag", not both');
      }
      const { tag, ...asked } = page;
      const which = {
        ...(tag === undefined ? {} : { tag }),
        ...(prefix === undefined ? {} : { namePrefix: prefix }),
      };
      return scopes.vms(actor, asked, (request) => fleet.listVms({ ...which, ...request }));
    },
  );

  app.get(
    '/vms/:vm',
    {
      config: { needs: { role: 'viewer', on: 'vm' } },
      schema: {
        operationId: 'getVm',
        summary: 'Show a VM',
        tags,
        params: VmParams,
        response: { 200: ref(Vm), ...problems },
      },
    },
    async ({ params }) => fleet.getVm(params.vm),
  );

  app.patch(
    '/vms/:vm',
    {
      config: { needs: { role: 'operator', on: 'vm' } },
      schema: {
        operationId: 'changeVm',
        summary: 'Rename a VM, give it other tags, or resize one of its disks',
        description: 'One change a request. Shrinking throws data away and needs `shrink`.',
        tags,
        params: VmParams,
        body: Type.Object(
          {
            name: Type.Optional(Name),
            tags: Type.Optional(Tags),
            disk: Type.Optional(
              Type.Object(
                { name: Name, sizeBytes: Bytes, shrink: Type.Optional(Type.Boolean()), force },
                { additionalProperties: false },
              ),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: ref(Vm), ...problems },
      },
    },
    async ({ params, body: { name, tags: given, disk }, actor }) => {
      if ([name, given, disk].filter((one) => one !== undefined).length !== 1) {
        throw new PandoError('request-invalid', 'body must have one of "name", "tags" and "disk"');
      }
      if (actor.scope !== undefined && disk === undefined)
        scopes.checkNew(actor, {
          ...(await fleet.getVm(params.vm)),
          ...(name === undefined ? { tags: given! } : { name }),
        });
      if (name !== undefined) return fleet.renameVm(params.vm, name);
      if (given !== undefined) return fleet.setTags(params.vm, given);
      const { name: diskName, sizeBytes, ...options } = disk!;
      return fleet.resizeDisk(params.vm, diskName, sizeBytes, options);
    },
  );

  app.delete(
    '/vms/:vm',
    {
      config: { needs: { role: 'operator', on: 'vm' } },
      schema: {
        operationId: 'deleteVm',
        summary: 'Delete a VM; its clones and backups stay',
        tags,
        params: VmParams,
        querystring: Type.Object({ force }, { additionalProperties: false }),
        response: { 204: Nothing, ...problems },
      },
    },
    async ({ params, query }, reply) => {
      await fleet.deleteVm(params.vm, query);
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/vms/:vm/clone',
    {
      config: { needs: { role: 'operator', on: 'vm' }, idempotent: true },
      schema: {
        operationId: 'cloneVm',
        summary: 'Clone a VM',
        description:
          'Without `count` one VM called `name`; with it `name-1` to `name-<count>`, all or none. No data is copied.',
        tags,
        params: VmParams,
        body: Type.Object(
          {
            name: Name,
            count: Type.Optional(Type.Integer({ minimum: 1, maximum: CLONES_MAX })),
            tags: Type.Optional(Tags),
          },
          { additionalProperties: false },
        ),
        response: { 201: ref(Vms), ...problems },
      },
    },
    async ({ params, body, actor }, reply) => {
      const { name, count = 1, tags = [] } = body;
      // A pattern may fit some of the numbers only.
      for (let i = 1; actor.scope !== undefined && i <= count; i++)
        scopes.checkNew(actor, { name: body.count === undefined ? name : `${name}-${i}`, tags });
      const items = await fleet.cloneVm(params.vm, body);
      reply.code(201);
      return { items: [...items] };
    },
  );
}

export function vmUrl(id: string): string {
  return `/api/v1/vms/${encodeURIComponent(id)}`;
}
