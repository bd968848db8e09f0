/**
 * What a request needs to be let through; every route says it, in its `config`.
 *
 *     vm       the VM that the parameter `vm` names, in the token's scope
 *     backup   the backup that the parameter `backup` names, whose VM is in the token's scope
 *     list     the handler leaves out what is not in the scope of `request.actor`
 *     store    no scope: it is about the store as a whole
 *     open     no token at all
 */
import type { Role } from '@pando/access';

export type RouteNeeds = { readonly role: Role; readonly on: 'vm' | 'backup' | 'list' | 'store' } | 'open';

declare module 'fastify' {
  interface FastifyContextConfig {
    needs?: RouteNeeds;
  }
}
