/** Answers of a fake fleet in which nobody shares anything: each disk's bytes are its owner's alone. */
import { PandoError } from '@pando/common';
import type {
  AccountGrouping,
  AccountsPage,
  Answers,
  Backup,
  DiffPage,
  DiffRequest,
  DiskRoots,
  HoldersPage,
  OwnerChoice,
  PageRequest,
  ReclaimPage,
  ReclaimPlanPage,
  ReclaimPlanRequest,
  Vm,
} from '@pando/fleet';

interface Owners {
  listVms(): Promise<{ items: readonly Vm[] }>;
  listBackups(): Promise<{ items: readonly Backup[] }>;
}

export class FakeAnswers implements Answers {
  readonly #fleet: Owners;

  constructor(fleet: Owners) {
    this.#fleet = fleet;
  }

  async accounts({ by }: PageRequest & { readonly by: AccountGrouping }): Promise<AccountsPage> {
    const { items: vms } = await this.#fleet.listVms();
    const items = vms.map((vm) => {
      const bytes = sizeOf(vm);
      return {
        name: vm.name,
        id: vm.id,
        vms: 1,
        backups: 0,
        exclusiveBytes: bytes,
        sharedBytes: 0,
        totalBytes: bytes,
      };
    });
    const storedBytes = items.reduce((sum, { totalBytes }) => sum + totalBytes, 0);
    const none = { untoldBytes: 0, inFlightBytes: 0, garbageBytes: 0, indexBytes: 0, logBytes: 0 };
    return { by, items, totals: { ownedBytes: storedBytes, ...none, catalogBytes: 0, storedBytes } };
  }

  async holders(ref: string): Promise<HoldersPage> {
    const owner = (await this.#owners()).find((one) => one.id === ref || one.name === ref);
    if (owner === undefined) throw new PandoError('vm-missing', `there is no ${ref}`);
    const { kind, id, name, bytes } = owner;
    const sums = { reachedBytes: bytes, exclusiveBytes: bytes, untoldBytes: 0, holders: 0 };
    return { owner: { kind, id, name }, ...sums, items: [] };
  }

  async reclaim({ owners = [], tag, prefix }: OwnerChoice & PageRequest): Promise<ReclaimPage> {
    if (owners.length === 0 && tag === undefined && prefix === undefined)
      throw new PandoError('request-invalid', 'name something');
    const chosen = (await this.#owners()).filter(
      ({ name }) => owners.includes(name) || name.startsWith(prefix ?? '/'),
    );
    const freedBytes = chosen.reduce((sum, { bytes }) => sum + bytes, 0);
    const none = { locked: 0, stayingBytes: 0, inFlightBytes: 0, untoldBytes: 0, holders: 0, items: [] };
    return { ...countsOf(chosen), freedBytes, aloneBytes: freedBytes, ...none };
  }

  async planReclaim({ bytes, includeVms }: ReclaimPlanRequest): Promise<ReclaimPlanPage> {
    let freedBytes = 0;
    const chosen = [];
    for (const owner of await this.#owners()) {
      if (freedBytes >= bytes || (owner.kind === 'vm' && includeVms !== true)) continue;
      freedBytes += owner.bytes;
      chosen.push(owner);
    }
    const items = chosen.map(({ kind, id, name, createdAt }) => ({ kind, id, name, createdAt }));
    return {
      wantedBytes: bytes,
      freedBytes,
      isEnough: freedBytes >= bytes,
      isFewest: false,
      locked: 0,
      ...countsOf(chosen),
      items,
    };
  }

  /** All that two disks have is compared in one page, and differs from its first byte on or not at all. */
  async diff({ a, b }: DiffRequest): Promise<DiffPage> {
    const [one, other] = await Promise.all([a, b].map((ref) => this.#disk(ref)));
    const differs = one!.root !== other!.root;
    const { sizeBytes } = one!;
    return {
      a: { name: a, disk: one!.disk, sizeBytes },
      b: { name: b, disk: other!.disk, sizeBytes: other!.sizeBytes },
      grainBytes: one!.chunkBytes,
      comparedBytes: sizeBytes,
      changedBytes: differs ? sizeBytes : 0,
      items: differs ? [{ offset: 0, bytes: sizeBytes, changedBytes: sizeBytes }] : [],
    };
  }

  async roots(owner: string): Promise<DiskRoots> {
    const found = (await this.#owners()).find(({ id, name }) => id === owner || name === owner);
    if (found === undefined) throw new PandoError('vm-missing', `there is no ${owner}`);
    const { kind, id, name, disks } = found;
    const items = disks.map((disk) => ({
      disk: disk.name,
      root: kind === 'vm' ? 'a'.repeat(64) : 'b'.repeat(64),
      sizeBytes: disk.sizeBytes,
      chunkBytes: 4096,
      keyed: false,
      height: 1,
    }));
    return { kind, id, name, items };
  }

  /** Nothing that proves anything: what was asked for, as text. */
  async prove(
    backup: string,
    disk: string | undefined,
    { offset, length }: { offset: number; length: number },
  ): Promise<Uint8Array> {
    const { items } = await this.roots(backup);
    if (length < 1 || offset + length > items[0]!.sizeBytes) throw new PandoError('range-invalid', 'outside');
    return Buffer.from(`${backup}/${disk ?? ''} ${offset}+${length}`);
  }

  async #disk(ref: string): Promise<DiskRoots['items'][number]> {
    return (await this.roots(ref)).items[0]!;
  }

  async #owners() {
    const [vms, backups] = [await this.#fleet.listVms(), await this.#fleet.listBackups()];
    return [
      ...vms.items.map((vm) => ({ ...vm, kind: 'vm' as const, bytes: sizeOf(vm) })),
      ...backups.items.map((backup) => ({
        ...backup,
        kind: 'backup' as const,
        name: `${backup.vmName}@${backup.name}`,
        bytes: sizeOf(backup),
      })),
    ];
  }
}

function countsOf(owners: readonly { kind: 'vm' | 'backup' }[]): { vms: number; backups: number } {
  const vms = owners.filter(({ kind }) => kind === 'vm').length;
  return { vms, backups: owners.length - vms };
}

function sizeOf({ disks }: Vm | Backup): number {
  return disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}
