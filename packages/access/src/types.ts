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

/** What is written of a request. */
export interface Audited {
  /** Id of the request, as in the log and in problem documents. */
  readonly request: string;
  readonly operation: string;
  /** Absent: nobody that is known. */
  readonly actor?: Pick<Actor, 'name' | 'tokenId'>;
  /** Address of the client; absent for the Unix socket. */
  readonly from?: string;
  /** Names and ids of what it is about. */
  readonly subjects?: readonly string[];
  /** What was asked for, without secrets. */
  readonly asked?: unknown;
}

export interface Outcome {
  readonly status: number;
  /** Of the error. */
  readonly code?: string;
  readonly ms?: number;
}

/**
 * A line. `change`: it was asked for; `outcome`: what came of it; `refusal`: it was not let through; `break`: a sync failed, and what was written after the
 * line `after` may be missing.
 */
export interface AuditEntry extends Audited, Partial<Outcome> {
  /** Counts lines; a gap: some could not be written. */
  readonly n: number;
  /** RFC 3339, UTC. */
  readonly at: string;
  readonly kind: 'change' | 'outcome' | 'refusal' | 'break';
  /** Refusals that were left out since the line before, because there were too many. */
  readonly left?: number;
  /** Of a break: the last line that is durable for certain; 0: none is. */
  readonly after?: number;
  /** SHA-256 of the line before; of a break, of the line `after`. */
  readonly prev: string;
}

/** Who made something, as it is remembered: names of tokens can be given again, ids cannot. */
export function actorKey({ tokenId, name }: Actor): string {
  return tokenId ?? name;
}

/** Whether this role may do what that one may. */
export function mayAs(role: Role, needed: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(needed);
}
