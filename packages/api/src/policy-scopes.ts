/**
 * What the scope of a token means for policies: there are those that one of its VMs is under, or that are assigned by one of its tags; and of them it is told
 * what is about its own VMs. An admin brings a policy into a scope by assigning it one of these. Rules are for whoever has no scope.
 *
 * Which policies these are is found from the VMs of the scope, of which VMS_MAX are looked at: past them by tags of the scope alone.
 */
import { inScope, type Actor, type Scope } from '@pando/access';
import { isPandoError, nameProblem, PandoError } from '@pando/common';
import type { Fleet, Page, PageRequest, Vm } from '@pando/fleet';
import type {
  AssignedVm,
  DueRun,
  ImpactRequest,
  Policies,
  Policy,
  PolicyFailure,
  Targets,
} from '@pando/policies';
import { refuseScoped, type Scopes } from './scopes.ts';

/** VMs of a scope that are looked at for the policies that they are under. */
export const VMS_MAX = 1000;
const PAGE = 250;

export class PolicyScopes {
  readonly #fleet: Fleet;
  readonly #policies: Policies;
  readonly #scopes: Scopes;

  constructor(fleet: Fleet, policies: Policies, scopes: Scopes) {
    this.#fleet = fleet;
    this.#policies = policies;
    this.#scopes = scopes;
  }

  /** The policy, when it is in the scope. @throws `policy-missing` */
  async policy({ scope }: Actor, reference: string): Promise<Policy> {
    const policy = await this.#policies.get(reference);
    if (scope === undefined || (await this.#within(scope)).has(policy.id)) return policy;
    throw new PandoError('policy-missing', `there is no policy ${JSON.stringify(reference.slice(0, 80))}`);
  }

  /** A policy as the actor may see it: how many VMs a run had is about others too, so are their tags; and where guest agents listen is about the host. */
  shown({ scope }: Actor, policy: Policy): Policy {
    if (scope === undefined) return policy;
    const rules = policy.rules.map(({ running: _, lastRun: __, ...rule }) => rule);
    const { quiesce: _, ...rest } = policy;
    return { ...rest, rules, tags: policy.tags.filter((tag) => scope.tags?.includes(tag) === true) };
  }

  async list(actor: Actor, asked: PageRequest): Promise<Page<Policy>> {
    const { items, ...page } = await this.#scopes.page(
      actor,
      asked,
      (request) => this.#policies.list(request),
      (scope, policies) => this.#filter(scope, policies, ({ id }) => id),
    );
    return { ...page, items: items.map((policy) => this.shown(actor, policy)) };
  }

  runs(actor: Actor, asked: PageRequest): Promise<Page<DueRun>> {
    return this.#scopes.page(
      actor,
      asked,
      (request) => this.#policies.due(request),
      (scope, runs) => this.#filter(scope, runs, ({ policyId }) => policyId),
    );
  }

  vms(actor: Actor, policy: string, asked: PageRequest): Promise<Page<AssignedVm>> {
    return this.#scopes.page(
      actor,
      asked,
      (request) => this.#policies.vms(policy, request),
      (scope, vms) => this.#own(scope, vms, ({ id }) => id),
    );
  }

  failures(actor: Actor, policy: string, asked: PageRequest): Promise<Page<PolicyFailure>> {
    return this.#scopes.page(
      actor,
      asked,
      (request) => this.#policies.failures(policy, request),
      (scope, failures) => this.#own(scope, failures, ({ vmId }) => vmId),
    );
  }

  /** The VM that a change is about, by its id. @throws `scope-exceeded` when it is about all of them, `vm-missing` */
  async vm(actor: Actor, reference: string | undefined): Promise<string | undefined> {
    if (actor.scope === undefined) return reference;
    if (reference === undefined) refuseScoped(actor);
    return (await this.#scopes.vm(actor, reference!)).id;
  }

  /** What is assigned, with VMs by their ids. @throws `vm-missing`, `scope-exceeded` for a tag that is not one of the scope */
  async targets<T extends Targets>(actor: Actor, targets: T): Promise<T> {
    const { scope } = actor;
    if (scope === undefined) return targets;
    const foreign = targets.tags?.find((tag) => scope.tags?.includes(tag.normalize('NFC')) !== true);
    if (foreign !== undefined)
      throw new PandoError('scope-exceeded', `the scope of the token has no tag ${JSON.stringify(foreign)}`);
    if (targets.vms === undefined) return targets;
    const vms: string[] = [];
    for (const reference of targets.vms) vms.push((await this.#scopes.vm(actor, reference)).id);
    return { ...targets, vms };
  }

  /** What an impact is asked of. @throws as `targets`, `policy-missing`, `scope-exceeded` when it names none */
  async impact(actor: Actor, request: ImpactRequest): Promise<ImpactRequest> {
    if (actor.scope === undefined) return request;
    if ((request.vms ?? []).length + (request.tags ?? []).length === 0) refuseScoped(actor);
    const { policy } = request;
    const found = policy === undefined ? {} : { policy: (await this.policy(actor, policy)).id };
    return { ...(await this.targets(actor, request)), ...found };
  }

  async #filter<T>(scope: Scope, items: readonly T[], idOf: (item: T) => string): Promise<readonly T[]> {
    if (items.length === 0) return items;
    const within = await this.#within(scope);
    return items.filter((item) => within.has(idOf(item)));
  }

  async #own<T>(scope: Scope, items: readonly T[], vmIdOf: (item: T) => string): Promise<readonly T[]> {
    const own: T[] = [];
    for (const item of items) {
      const vm = await this.#fleet.getVm(vmIdOf(item)).catch((error: unknown) => {
        if (isPandoError(error, 'vm-missing')) return undefined;
        throw error;
      });
      if (vm !== undefined && vm.id === vmIdOf(item) && inScope(scope, vm)) own.push(item);
    }
    return own;
  }

  /** Ids of the policies in the scope. */
  async #within(scope: Scope): Promise<ReadonlySet<string>> {
    const vms = new Map<string, Vm>();
    let left = VMS_MAX;
    const look = async (which: { tag: string } | { namePrefix: string }, most: number): Promise<void> => {
      let cursor: string | undefined;
      do {
        const limit = Math.min(PAGE, left, most);
        if (limit === 0) return;
        const page = await this.#fleet.listVms({
          ...which,
          limit,
          ...(cursor === undefined ? {} : { cursor }),
        });
        left -= limit;
        most -= limit;
        for (const vm of page.items) if (inScope(scope, vm)) vms.set(vm.id, vm);
        cursor = page.nextCursor;
      } while (cursor !== undefined);
    };
    for (const pattern of scope.vms ?? []) {
      const star = pattern.indexOf('*');
      // In the order of names the one that is just so comes first.
      await look({ namePrefix: star < 0 ? pattern : pattern.slice(0, star) }, star < 0 ? 1 : Infinity);
    }
    for (const tag of scope.tags ?? []) {
      // Scopes were not looked at as closely once; no VM carries such a tag.
      if (nameProblem(tag) === undefined) await look({ tag }, Infinity);
    }
    return this.#policies.ofVms([...vms.values()], scope.tags ?? []);
  }
}
