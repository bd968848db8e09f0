/**
 * What the scope of a token means for VMs and backups. What is not in it is missing: nobody learns that it exists. Names are
 * unique in the store, though, so making something can tell that a name is taken.
 */
import { inScope, type Actor, type Scoped } from '@pando/access';
import { isPandoError, PandoError } from '@pando/common';
import { backupMissing, vmMissing, type Backup, type Fleet, type Page, type Vm } from '@pando/fleet';

export class Scopes {
  readonly #fleet: Fleet;

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

  /** The same page without what is not in the scope: it may be short, or empty, and not the last one. */
  vms({ scope }: Actor, page: Page<Vm>): Page<Vm> {
    return scope === undefined ? page : { ...page, items: page.items.filter((vm) => inScope(scope, vm)) };
  }

  async backups({ scope }: Actor, page: Page<Backup>): Promise<Page<Backup>> {
    if (scope === undefined) return page;
    // Those of one VM stand together as a rule.
    const known = new Map<string, Vm | undefined>();
    const items: Backup[] = [];
    for (const backup of page.items) {
      if (!known.has(backup.vmId)) known.set(backup.vmId, await this.#liveVm(backup.vmId));
      if (inScope(scope, known.get(backup.vmId) ?? asVm(backup))) items.push(backup);
    }
    return { ...page, items };
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
