/**
 * What a request needs to be let through; every route says it, in its `config`.
 *
 *     vm       the VM that the parameter `vm` names, in the token's scope
 *     backup   the backup that the parameter `backup` names, whose VM is in the token's scope
 *     policy   the policy that the parameter `policy` names, which one of the VMs in the token's scope is under; what a change names
 *              besides, the handler checks (`PolicyScopes`)
 *     list     the handler leaves out what is not in the scope of `request.actor`
 *     new      the handler refuses to make what would not be in the scope of `request.actor` (`Scopes.checkNew`)
 *     job      the job that the parameter `id` names: of this actor, or the actor has no scope
 *     store    no scope: it is about the store as a whole
 *     self     about the one who asks
 *     open     no token at all
 *
 * What a body or query names besides is checked by the handler, with `Scopes`.
 */
import type { Role } from '@pando/access';

export type RouteNeeds =
  | {
      readonly role: Role;
      readonly on: 'vm' | 'backup' | 'policy' | 'list' | 'new' | 'job' | 'store' | 'self';
    }
  | 'open';

declare module 'fastify' {
  interface FastifyContextConfig {
    needs?: RouteNeeds;
  }
}
