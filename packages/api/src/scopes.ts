/**
 * What the scope of a token means for VMs and backups. What is not in it is missing: nobody learns that it exists. Names are
 * unique in the store, though, so making something can tell that a name is taken.
 */
import { inScope, type Actor, type Scope, type Scoped } from '@pando/access';
import { isPandoError, PandoError } from '@pando/common';
import {
  backupMissing,
  vmMissing,
  type Backup,
  type Fleet,
  type Page,
  type PageRequest,
  type Vm,
} from '@pando/fleet';
import { ScopedPages } from './scoped-pages.ts';

export class Scopes {
  readonly #fleet: Fleet;
  readonly #pages = new ScopedPages();

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  /** The VM, when it is in the scope. @throws `vm-missing` */
  async vm({ scope }: Actor, reference: string): Promise<Vm> {
    const vm = await this.#fleet.getVm(reference);
    if (!inScope(scope, vm)) throw vmMissing(reference);
    return vm;
  }

  /** The backup, when its VM is in the scope. @throws `backup-missing` */
  async backup({ scope }: Actor, reference: string): Promise<Backup> {
    const backup = await this.#fleet.getBackup(reference);
    if (scope !== undefined && !inScope(scope, await this.#vmOf(backup))) throw backupMissing(reference);
    return backup;
  }

  /** Refuses to make VMs that would not be in the scope, or to change one so that it leaves it. @throws `scope-exceeded` */
  checkNew(actor: Actor, made: Scoped): void {
    if (inScope(actor.scope, { ...made, name: made.name.normalize('NFC') })) return;
    const { vms = [], tags = [] } = actor.scope!;
    const allowed = [
      ...(vms.length > 0 ? [`a name like ${vms.map((name) => JSON.stringify(name)).join(', ')}`] : []),
      ...(tags.length > 0 ? [`a tag of ${tags.map((tag) => JSON.stringify(tag)).join(', ')}`] : []),
    ];
    const what = `the VM ${JSON.stringify(made.name.slice(0, 80))} would not be in the scope of the token`;
    throw new PandoError('scope-exceeded', `${what}, which wants ${allowed.join(', or ')}`);
  }

  /** The page of the list, of what is in the scope alone. `own` leaves that of items. @throws `cursor-invalid`, and what both throw */
  page<T>(
    { scope }: Actor,
    request: PageRequest,
    list: (request: PageRequest) => Promise<Page<T>>,
    own: (scope: Scope, items: readonly T[]) => readonly T[] | Promise<readonly T[]>,
  ): Promise<Page<T>> {
    return scope === undefined
      ? list(request)
      : this.#pages.page(request, list, (items) => own(scope, items));
  }

  vms(
    actor: Actor,
    request: PageRequest,
    list: (request: PageRequest) => Promise<Page<Vm>>,
  ): Promise<Page<Vm>> {
    return this.page(actor, request, list, (scope, vms) => vms.filter((vm) => inScope(scope, vm)));
  }

  backups(
    actor: Actor,
    request: PageRequest,
    list: (request: PageRequest) => Promise<Page<Backup>>,
  ): Promise<Page<Backup>> {
    return this.page(actor, request, list, async (scope, backups) => {
      // Those of one VM stand together as a rule.
      const known = new Map<string, Vm | undefined>();
      const own: Backup[] = [];
      for (const backup of backups) {
        if (!known.has(backup.vmId)) known.set(backup.vmId, await this.#liveVm(backup.vmId));
        if (inScope(scope, known.get(backup.vmId) ?? asVm(backup))) own.push(backup);
      }
      return own;
    });
  }

  async #vmOf(backup: Backup): Promise<Scoped> {
    return (await this.#liveVm(backup.vmId)) ?? asVm(backup);
  }

  async #liveVm(id: string): Promise<Vm | undefined> {
    try {
      const vm = await this.#fleet.getVm(id);
      // Once it is gone, somebody may have called another one by its id.
      return vm.id === id ? vm : undefined;
    } catch (error) {
      if (isPandoError(error, 'vm-missing')) return undefined;
      throw error;
    }
  }
}

/** For what is about the store, or this machine, as a whole. @throws `scope-exceeded` */
export function refuseScoped({ name, scope }: Actor): void {
  if (scope === undefined) return;
  const who = `the token ${JSON.stringify(name)} has a scope`;
  throw new PandoError('scope-exceeded', `this is not about VMs of the scope alone, and ${who}`);
}

/** What a backup remembers of its VM. */
function asVm({ vmName, tags }: Backup): Scoped {
  return { name: vmName, tags };
}
