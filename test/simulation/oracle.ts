/**
 * What must be true of the fleet: which VMs and backups there are, under which names, and what every disk of them may hold.
 * What an operation does is entered when it has returned; while it is under way, it may have happened or not,
 * and after a crash `check.ts` finds out which.
 */
import type { DiskModel } from './disk-model.ts';
import { type Moment } from './disk-model.ts';

export interface VmDiskModel {
  /** Bytes as the VM's record says; the device may be larger after a growth that broke off. */
  listed: number;
  readonly model: DiskModel;
}

export type Disks = Map<string, VmDiskModel>;
export type Moments = ReadonlyMap<string, Moment>;

/** An operation on the fleet that has not returned. */
export type Pending =
  | { readonly kind: 'create'; readonly vms: readonly { readonly name: string; readonly disks: Disks }[] }
  | {
      readonly kind: 'clone';
      readonly vm: string;
      readonly names: readonly string[];
      readonly moments: Moments;
    }
  | { readonly kind: 'backup'; readonly vm: string; readonly name: string; readonly moments: Moments }
  | { readonly kind: 'rename'; readonly vm: string; readonly to: string }
  | { readonly kind: 'resize'; readonly vm: string; readonly disk: string; readonly size: number }
  | { readonly kind: 'restore'; readonly vm: string; readonly backup: string }
  | { readonly kind: 'deleteVm'; readonly vm: string }
  | { readonly kind: 'deleteBackup'; readonly backup: string };

export class Oracle {
  readonly vms: Map<string, Disks>;
  /** By `<vm>@<backup>`, the VM's name being that of the time. */
  readonly backups: Map<string, Disks>;
  readonly pending: Map<number, Pending>;
  #next: number;

  constructor(
    vms = new Map<string, Disks>(),
    backups = new Map<string, Disks>(),
    pending = new Map<number, Pending>(),
    next = 0,
  ) {
    this.vms = vms;
    this.backups = backups;
    this.pending = pending;
    this.#next = next;
  }

  copy(): Oracle {
    const copyAll = (all: Map<string, Disks>): Map<string, Disks> =>
      new Map([...all].map(([name, disks]) => [name, copyDisks(disks)]));
    return new Oracle(copyAll(this.vms), copyAll(this.backups), new Map(this.pending), this.#next);
  }

  /** What was only acknowledged may be gone. */
  powerCut(): void {
    for (const disks of [...this.vms.values(), ...this.backups.values()])
      for (const { model } of disks.values()) model.powerCut();
  }

  begin(operation: Pending): number {
    if (operation.kind === 'resize') {
      const { model } = this.vms.get(operation.vm)!.get(operation.disk)!;
      if (operation.size > model.size) model.mayGrowTo.add(operation.size);
    }
    if (operation.kind === 'clone' || operation.kind === 'backup')
      for (const { model } of this.vms.get(operation.vm)!.values()) model.pin();
    this.pending.set(++this.#next, operation);
    return this.#next;
  }

  /** It has returned, or was found to have happened. */
  happened(id: number): void {
    this.#apply(this.#end(id));
  }

  /** It was refused, or was found not to have happened. */
  didNot(id: number): void {
    this.#end(id);
  }

  #end(id: number): Pending {
    const operation = this.pending.get(id)!;
    this.pending.delete(id);
    if (operation.kind === 'clone' || operation.kind === 'backup')
      for (const { model } of this.vms.get(operation.vm)!.values()) model.unpin();
    return operation;
  }

  /** Whether an operation that may have happened or not changes the VM or backup of that name. */
  isInDoubt(name: string): boolean {
    for (const operation of this.pending.values()) {
      const { kind } = operation;
      if (
        kind === 'deleteBackup'
          ? operation.backup === name
          : kind !== 'create' && kind !== 'clone' && kind !== 'backup' && operation.vm === name
      )
        return true;
    }
    return false;
  }

  /** Whether a clone or backup of the VM may have happened or not. */
  isForkInDoubt(vm: string): boolean {
    for (const operation of this.pending.values())
      if ((operation.kind === 'clone' || operation.kind === 'backup') && operation.vm === vm) return true;
    return false;
  }

  #apply(operation: Pending): void {
    switch (operation.kind) {
      case 'create':
        for (const { name, disks } of operation.vms) this.vms.set(name, copyDisks(disks));
        break;
      case 'clone':
        for (const name of operation.names) this.vms.set(name, this.#fork(operation.vm, operation.moments));
        break;
      case 'backup':
        this.backups.set(`${operation.vm}@${operation.name}`, this.#fork(operation.vm, operation.moments));
        break;
      case 'rename':
        this.vms.set(operation.to, this.vms.get(operation.vm)!);
        this.vms.delete(operation.vm);
        break;
      case 'resize': {
        const disk = this.vms.get(operation.vm)!.get(operation.disk)!;
        disk.listed = operation.size;
        disk.model.resize(operation.size);
        break;
      }
      case 'restore': {
        const disks = this.vms.get(operation.vm)!;
        for (const [name, { listed, model }] of this.backups.get(operation.backup)!) {
          const disk = disks.get(name)!;
          disk.listed = listed;
          disk.model.become(model);
        }
        break;
      }
      case 'deleteVm':
        this.vms.delete(operation.vm);
        break;
      case 'deleteBackup':
        this.backups.delete(operation.backup);
    }
  }

  /** Disks that hold what those of the VM held at some moment since; what was acknowledged before is durable in both. */
  #fork(vm: string, moments: Moments): Disks {
    const disks = this.vms.get(vm)!;
    for (const [name, { model }] of disks) model.harden(moments.get(name)!);
    return new Map(
      [...disks].map(([name, { listed, model }]) => [
        name,
        { listed, model: model.forkedSince(moments.get(name)!) },
      ]),
    );
  }
}

export function copyDisks(disks: Disks): Disks {
  return new Map([...disks].map(([name, { listed, model }]) => [name, { listed, model: model.copy() }]));
}

export function momentsOf(disks: Disks): Moments {
  return new Map([...disks].map(([name, { model }]) => [name, model.moment()]));
}
