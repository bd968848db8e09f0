/**
 * What the clients of a boot do: several at once, each a number of steps by dice. What each operation may leave behind
 * is entered into the oracle before it begins and after it returned, in the same turn.
 */
import type { Attachment } from '@pando/fleet';
import { isPandoError } from '@pando/common';
import { between, fillRandom } from '@pando/common/testing';
import { CHUNK_BYTES, type Engine } from './machine.ts';
import { Wrong } from './check.ts';
import { DiskModel, SECTOR_BYTES } from './disk-model.ts';
import { copyDisks, momentsOf, type Disks, type Oracle, type Pending } from './oracle.ts';
import type { Scheduler } from './scheduler.ts';
import type { Weather } from './weather.ts';

const VMS_MAX = 6;
const BACKUPS_MAX = 6;

/** Who uses a VM or backup: what excludes what, so that the oracle knows the order. */
interface Use {
  io: number;
  forks: number;
  exclusive: boolean;
}

/** Until the disk is taken to have room again; the destage that finds that out may itself be overtaken by time now and then. */
const GO_ON_AFTER_MS = 120_000;
const GO_ON_TRIES_MAX = 8;

export class Workload {
  readonly #engine: Engine;
  readonly #oracle: Oracle;
  readonly #scheduler: Scheduler;
  readonly #random: () => number;
  readonly #uses = new Map<string, Use>();
  /** Sectors that are being written, by disk. */
  readonly #writing = new Map<DiskModel, Set<number>>();
  /** Numbers make names, which are never used twice. */
  readonly #names: { next: number };
  readonly #weather: Weather;
  steps = 0;

  constructor(
    engine: Engine,
    oracle: Oracle,
    scheduler: Scheduler,
    random: () => number,
    names: { next: number },
    weather: Weather,
  ) {
    this.#weather = weather;
    this.#engine = engine;
    this.#oracle = oracle;
    this.#scheduler = scheduler;
    this.#random = random;
    this.#names = names;
  }

  async run(clients: number, steps: number): Promise<void> {
    const client = async (): Promise<void> => {
      while (this.steps < steps) {
        this.steps++;
        await this.#attempt(() => this.#step());
        if (this.#random() < 0.2) await this.#scheduler.clock.sleep(this.#random() * 3000);
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
  }

  /** When nothing fails any more: every disk takes writes, and says when they are durable. */
  async goOn(): Promise<void> {
    for (const [vm, disks] of this.#oracle.vms) {
      if (this.#oracle.isInDoubt(vm)) continue;
      for (const [disk, { model }] of disks) {
        const device = await this.#engine.fleet.attach(`${vm}/${disk}`);
        for (let tries = 1; ; tries++) {
          await this.#scheduler.clock.sleep(GO_ON_AFTER_MS);
          const isDone = await this.#attempt(async () => {
            await this.#write(device, model);
            await this.#flush(device, model);
          });
          if (isDone) break;
          if (tries === GO_ON_TRIES_MAX)
            throw new Error(`${vm}/${disk} is still refused after ${tries} tries`);
        }
        await device.close();
      }
    }
  }

  /** Runs what the weather may keep from being done. Returns whether it was done. */
  async #attempt(act: () => Promise<unknown>): Promise<boolean> {
    try {
      await act();
      return true;
    } catch (error) {
      if (!this.#weather.allows(error)) throw error;
      return false;
    }
  }

  async #step(): Promise<void> {
    const dice = this.#random();
    const { vms, backups } = this.#oracle;
    const vm = this.#pick([...vms.keys()]);
    const backup = this.#pick([...backups.keys()]);
    if (vm === undefined || (dice < 0.04 && vms.size < VMS_MAX)) return this.#create();
    if (dice < 0.08 && vms.size < VMS_MAX) return this.#import();
    if (dice < 0.6) return this.#io(vm);
    if (dice < 0.66 && vms.size < VMS_MAX) return this.#clone(vm);
    if (dice < 0.74 && backups.size < BACKUPS_MAX) return this.#backup(vm);
    if (dice < 0.78 && backup !== undefined && vms.size < VMS_MAX) return this.#restoreAs(backup);
    if (dice < 0.82 && backup !== undefined) return this.#restore(backup);
    if (dice < 0.86) return this.#resize(vm);
    if (dice < 0.88) return this.#rename(vm);
    if (dice < 0.9 && vms.size > 2) return this.#deleteVm(vm);
    if (dice < 0.93 && backup !== undefined) return this.#deleteBackup(backup);
    if (dice < 0.97) {
      await this.#engine.collect(this.#random() < 0.7);
      return;
    }
    const moments = [...vms.values()].map((disks) => [disks, momentsOf(disks)] as const);
    await this.#engine.volumes.settleAll();
    for (const [disks, moment] of moments)
      for (const [name, { model }] of disks) model.harden(moment.get(name)!);
  }

  async #create(): Promise<void> {
    const name = this.#newName('vm');
    const disks: Disks = new Map();
    for (let i = this.#random() < 0.3 ? 2 : 1; i > 0; i--) {
      const size = this.#size();
      disks.set(`disk${i}`, { listed: size, model: new DiskModel(size) });
    }
    const request = [...disks].map(([disk, { listed }]) => ({ name: disk, sizeBytes: listed }));
    await this.#change({ kind: 'create', vms: [{ name, disks }] }, () =>
      this.#engine.fleet.createVm({ name, disks: request }),
    );
  }

  async #import(): Promise<void> {
    const name = this.#newName('vm');
    const bytes = Buffer.alloc(this.#size());
    for (let count = between(this.#random, 0, 3); count > 0; count--)
      this.#content().copy(bytes, this.#offset(bytes.byteLength));
    const disks: Disks = new Map([['disk0', { listed: bytes.byteLength, model: DiskModel.of(bytes) }]]);
    const part = between(this.#random, 500, 40_000);
    const { clock } = this.#scheduler;
    async function* parts(): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.byteLength; at += part) {
        await clock.sleep(1);
        yield bytes.subarray(at, at + part);
      }
    }
    await this.#change({ kind: 'create', vms: [{ name, disks }] }, () =>
      this.#engine.fleet.importVm({ name, source: { sizeBytes: bytes.byteLength, parts } }),
    );
  }

  #clone(vm: string): Promise<void> {
    return this.#using(vm, 'forks', () => {
      const base = this.#newName('vm');
      const count = this.#random() < 0.3 ? 2 : undefined;
      const names = count === undefined ? [base] : [`${base}-1`, `${base}-2`];
      const moments = momentsOf(this.#oracle.vms.get(vm)!);
      return this.#change({ kind: 'clone', vm, names, moments }, () =>
        this.#engine.fleet.cloneVm(vm, { name: base, ...(count === undefined ? {} : { count }) }),
      );
    });
  }

  #backup(vm: string): Promise<void> {
    return this.#using(vm, 'forks', () => {
      const name = this.#newName('b');
      const moments = momentsOf(this.#oracle.vms.get(vm)!);
      return this.#change({ kind: 'backup', vm, name, moments }, () =>
        this.#engine.fleet.createBackup(vm, { name }),
      );
    });
  }

  #restoreAs(backup: string): Promise<void> {
    return this.#using(backup, 'forks', () => {
      const name = this.#newName('vm');
      const disks = copyDisks(this.#oracle.backups.get(backup)!);
      return this.#change({ kind: 'create', vms: [{ name, disks }] }, () =>
        this.#engine.fleet.restoreBackup(backup, { as: name }),
      );
    });
  }

  async #restore(backup: string): Promise<void> {
    const vm = backup.slice(0, backup.indexOf('@'));
    if (!this.#oracle.vms.has(vm)) return;
    await this.#using(backup, 'forks', () =>
      this.#using(vm, 'exclusive', () =>
        this.#change({ kind: 'restore', vm, backup }, () => this.#engine.fleet.restoreBackup(backup)),
      ),
    );
  }

  async #resize(vm: string): Promise<void> {
    const disks = this.#oracle.vms.get(vm)!;
    const disk = this.#pick([...disks.keys()])!;
    const { listed, model } = disks.get(disk)!;
    const size = this.#size();
    if (size === listed) return;
    const shrink = size < Math.max(listed, model.size);
    await this.#using(vm, shrink ? 'exclusive' : 'grow', () =>
      this.#change({ kind: 'resize', vm, disk, size }, () =>
        this.#engine.fleet.resizeDisk(vm, disk, size, { shrink: true }),
      ),
    );
  }

  async #rename(vm: string): Promise<void> {
    await this.#using(vm, 'exclusive', () => {
      const to = this.#newName('vm');
      return this.#change({ kind: 'rename', vm, to }, () => this.#engine.fleet.renameVm(vm, to));
    });
  }

  #deleteVm(vm: string): Promise<void> {
    return this.#using(vm, 'exclusive', () =>
      this.#change({ kind: 'deleteVm', vm }, () => this.#engine.fleet.deleteVm(vm)),
    );
  }

  #deleteBackup(backup: string): Promise<void> {
    return this.#using(backup, 'exclusive', () =>
      this.#change({ kind: 'deleteBackup', backup }, () => this.#engine.fleet.deleteBackup(backup)),
    );
  }

  /** A client attaches, reads and writes for a while, several requests at once, and goes. */
  #io(vm: string): Promise<void> {
    const disks = this.#oracle.vms.get(vm)!;
    const disk = this.#pick([...disks.keys()])!;
    return this.#using(vm, 'io', async () => {
      const device = await this.#engine.fleet.attach(`${vm}/${disk}`);
      const { model } = disks.get(disk)!;
      try {
        for (let rounds = between(this.#random, 1, 4); rounds > 0; rounds--) {
          const requests = Array.from({ length: between(this.#random, 1, 3) }, () =>
            this.#attempt(() => this.#request(device, model)),
          );
          await Promise.all(requests);
        }
      } finally {
        await device.close();
      }
    });
  }

  async #request(device: Attachment, model: DiskModel): Promise<void> {
    const dice = this.#random();
    if (dice < 0.55) await this.#write(device, model);
    else if (dice < 0.75) await this.#flush(device, model);
    else await this.#read(device, model);
  }

  async #flush(device: Attachment, model: DiskModel): Promise<void> {
    const moment = model.moment();
    await device.flush();
    model.harden(moment);
  }

  async #write(device: Attachment, model: DiskModel): Promise<void> {
    const offset = this.#offset(device.size);
    const data = this.#content().subarray(0, device.size - offset);
    let busy = this.#writing.get(model);
    if (busy === undefined) this.#writing.set(model, (busy = new Set()));
    const sectors: number[] = [];
    for (let at = Math.floor(offset / SECTOR_BYTES); at * SECTOR_BYTES < offset + data.byteLength; at++)
      sectors.push(at);
    if (sectors.some((sector) => busy.has(sector))) return;
    for (const sector of sectors) busy.add(sector);
    const isZero = this.#random() < 0.25;
    this.#scheduler.print?.(`write ${device.exportName} ${offset} ${data.byteLength}`);
    const written = model.write(offset, isZero ? Buffer.alloc(data.byteLength) : data);
    try {
      await (isZero ? device.zero(offset, data.byteLength) : device.write(offset, data));
      model.acknowledge(written);
    } finally {
      for (const sector of sectors) busy.delete(sector);
    }
  }

  async #read(device: Attachment, model: DiskModel): Promise<void> {
    const moment = model.moment();
    const bytes = Buffer.alloc(device.size, 0xee);
    model.pin();
    try {
      await device.read(0, device.size, bytes, 0);
    } finally {
      model.unpin();
    }
    const wrong = model.wrongSector(bytes, moment);
    if (wrong === undefined) return;
    const found = bytes.subarray(wrong * SECTOR_BYTES, wrong * SECTOR_BYTES + 8).toString('hex');
    throw new Wrong(`${device.exportName} gave ${found} for sector ${wrong}: ${model.describe(wrong)}`);
  }

  async #change(operation: Pending, act: () => Promise<unknown>): Promise<void> {
    const id = this.#oracle.begin(operation);
    this.#scheduler.print?.(`begin ${describe(operation)}`);
    try {
      await act();
    } catch (error) {
      // Refused whole; but what a failed sync was to make durable may be there after a restart.
      if (!isPandoError(error, 'store-failed')) this.#oracle.didNot(id);
      throw error;
    }
    this.#oracle.happened(id);
    this.#scheduler.print?.(`end ${describe(operation)}`);
  }

  /** Runs unless somebody else's use of it is in the way. */
  async #using(
    name: string,
    how: 'io' | 'forks' | 'grow' | 'exclusive',
    act: () => Promise<void>,
  ): Promise<void> {
    let use = this.#uses.get(name);
    if (use === undefined) this.#uses.set(name, (use = { io: 0, forks: 0, exclusive: false }));
    if (use.exclusive || this.#oracle.isInDoubt(name)) return;
    if (how === 'exclusive' && (use.io > 0 || this.#oracle.isForkInDoubt(name))) return;
    if ((how === 'exclusive' || how === 'grow') && use.forks > 0) return;
    if (how === 'io' || how === 'forks') use[how]++;
    else use.exclusive = true;
    try {
      await act();
    } finally {
      if (how === 'io' || how === 'forks') use[how]--;
      else use.exclusive = false;
    }
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.#random() * items.length)];
  }

  #newName(prefix: string): string {
    return `${prefix}${this.#names.next++}`;
  }

  #size(): number {
    const most = this.#pick([16, 60, 160, 160, 1500])!;
    return between(this.#random, 1, most) * SECTOR_BYTES;
  }

  #offset(size: number): number {
    const offset = between(this.#random, 0, size - 1);
    const grain = this.#pick([1, SECTOR_BYTES, CHUNK_BYTES])!;
    return offset - (offset % grain);
  }

  /** A few bytes to a few chunks; now and then what has been written before, so that it is found again. */
  #content(): Buffer {
    const length = between(this.#random, 1, this.#pick([10, SECTOR_BYTES, CHUNK_BYTES, 5 * CHUNK_BYTES])!);
    if (this.#random() < 0.4) {
      const data = Buffer.alloc(Math.max(length, CHUNK_BYTES));
      data.fill(between(this.#random, 1, 6));
      return data;
    }
    return Buffer.from(fillRandom(this.#random, new Uint8Array(length)));
  }
}

function describe(operation: Pending): string {
  return JSON.stringify(operation, (_, value: unknown) => (value instanceof Map ? [...value.keys()] : value));
}
