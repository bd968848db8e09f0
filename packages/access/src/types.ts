/** Who may do what: the words that requests, tokens and the audit trail share. */

/** Each may do what those before it may. */
export const ROLES = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/**
 * Which VMs, and which backups of them; absent: everything. A VM is in it when one of the names fits, or one of its tags is among the
 * tags. Whoever has one may do nothing that is about the store as a whole.
 */
export interface Scope {
  /** Names, in which `*` stands for any characters. */
  readonly vms?: readonly string[];
  readonly tags?: readonly string[];
}

/** Who makes a request. */
export interface Actor {
  /** Id of the token; absent: came through the Unix socket. */
  readonly tokenId?: string;
  /** Name of the token, or `socket`. */
  readonly name: string;
  readonly role: Role;
  readonly scope?: Scope;
}

/** Who made something, as it is remembered: names of tokens can be given again, ids cannot. */
export function actorKey({ tokenId, name }: Actor): string {
  return tokenId ?? name;
}

/** Whether this role may do what that one may. */
export function mayAs(role: Role, needed: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(needed);
}
