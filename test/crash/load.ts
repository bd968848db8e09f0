/**
 * The load under which servers are killed: three NBD clients that write and check, one operator who clones, backs up,
 * restores and deletes, and a collector of garbage. Everything that is asked for comes from seeded
 * generators; what the answers are, and when, is up to the server.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SeededRandom } from '@pando/block-device/testing';
import type { NbdClient } from '@pando/nbd/client';
import { connect } from '../support/disks.ts';
import type { TestServer } from '../support/server.ts';
import { SECTOR, sectorBytes, tagsOf, WrongData, type SectorModel } from './sectors.ts';
import { settle, type Owner, type World } from './world.ts';

const VMS_MAX = 6;
const BACKUPS_MAX = 6;
const IN_FLIGHT_MAX = 8;
/** Contents that many disks share, so that writes find chunks which are already stored. */
const SHARED_TAGS = 512;
const REQUEST_SECTORS_MAX = 96;
const PAUSE_MS_DEFAULT = 0.625;

export interface LoadOptions {
  /** Whether garbage is collected all the time; default true. */
  readonly collects?: boolean;
  /** How long a client waits after a request, on average; default: hardly. */
  readonly pauseMs?: number;
}

export class Load {
  readonly #server: TestServer;
  readonly #world: World;
  readonly #pauseMs: number;
  readonly #stopped = new AbortController();
  #killed = false;
  #collecting = Promise.withResolvers<undefined>();
  readonly #actors: Promise<void>[];
  #names = 0;

  /** `random(i)` gives each actor its own generator; `prefix` makes names that were never used. */
  constructor(
    server: TestServer,
    world: World,
    prefix: string,
    clients: number,
    random: (actor: number) => SeededRandom,
    { collects = true, pauseMs = PAUSE_MS_DEFAULT }: LoadOptions = {},
  ) {
    this.#server = server;
    this.#pauseMs = pauseMs;
    this.#world = world;
    const name = (): string => `${prefix}-${++this.#names}`;
    const run = (actor: () => Promise<void>): Promise<void> => this.#untilKilled(actor);
    this.#actors = Array.from({ length: clients }, (_, i) => run(() => this.#client(random(i))));
    this.#actors.push(run(() => this.#operator(random(clients), name)));
    if (collects) this.#actors.push(run(() => this.#collector(random(clients + 1))));
  }

  /** Resolves after `ms`, or rejects with what an actor found wrong before. */
  async runFor(ms: number): Promise<void> {
    await Promise.race([sleep(ms), this.#firstFailure()]);
  }

  /** Resolves when the next collection has just begun, or rejects with what an actor found wrong before. */
  async untilCollecting(): Promise<void> {
    await Promise.race([this.#collecting.promise, this.#firstFailure()]);
  }

  /** Ends the server in the middle of everything, by killing it unless `end` does it. Whatever has no answer then is in doubt. */
  async kill(end = (): Promise<void> => this.#server.kill()): Promise<void> {
    this.#killed = true;
    await end();
    this.#stopped.abort();
    await Promise.all(this.#actors);
  }

  /** Lets everyone finish what he does. */
  async end(): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#actors);
  }

  get #stop(): boolean {
    return this.#stopped.signal.aborted;
  }

  async #firstFailure(): Promise<void> {
    await Promise.all(this.#actors);
    throw new Error('all actors ended before they were told to');
  }

  /** After a kill all requests fail, as they should; before it none may, and what was answered may never be wrong. */
  async #untilKilled(actor: () => Promise<void>): Promise<void> {
    try {
      await actor();
    } catch (error) {
      if (!this.#killed || error instanceof WrongData) throw error;
    }
  }

  async #client(random: SeededRandom): Promise<void> {
    while (!this.#stop) {
      const free = [...this.#world.vms.values()].filter(({ busy }) => !busy);
      if (free.length === 0) {
        await sleep(5);
        continue;
      }
      const vm = free[random.below(free.length)]!;
      vm.busy = true;
      const clients: NbdClient[] = [];
      try {
        for (const i of vm.disks.keys()) clients.push(await connect(this.#server, `${vm.name}/disk${i}`));
        await this.#writeTo(vm, clients, random);
      } finally {
        // Owners stay busy after a kill, until everything was checked.
        await Promise.all(clients.map((client) => client.close()));
      }
      vm.busy = false;
    }
  }

  async #writeTo(vm: Owner, clients: readonly NbdClient[], random: SeededRandom): Promise<void> {
    const busy = vm.disks.map(() => new Set<readonly [from: number, to: number]>());
    const underWay = new Set<Promise<void>>();
    let failure: Error | undefined;
    for (let left = 20 + random.below(150); left > 0 && !this.#stop && failure === undefined; left--) {
      const at = random.below(vm.disks.length);
      const model = vm.disks[at]!;
      const sectors = model.tags.length;
      const kind = random.below(100);
      const count = Math.min(1 + random.below(kind < 10 ? REQUEST_SECTORS_MAX : 17), sectors);
      let first = random.below(sectors - count + 1);
      // Half of the requests hit chunks exactly, as file systems do.
      if (random.below(2) === 0) first -= first % 8;
      const range = [first, first + count] as const;
      if ([...busy[at]!].some(([from, to]) => from < range[1] && range[0] < to)) continue;
      busy[at]!.add(range);
      const action = this.#request(clients[at]!, model, kind, first, count, random)
        .catch((error: unknown) => {
          failure ??= error as Error;
        })
        .finally(() => {
          busy[at]!.delete(range);
          underWay.delete(action);
        });
      underWay.add(action);
      if (underWay.size >= IN_FLIGHT_MAX) await Promise.race(underWay);
      if (random.below(8) === 0) await sleep(random.below(16 * this.#pauseMs));
    }
    await Promise.all(underWay);
    if (failure !== undefined) throw failure;
  }

  async #request(
    client: NbdClient,
    model: SectorModel,
    kind: number,
    first: number,
    count: number,
    random: SeededRandom,
  ): Promise<void> {
    if (kind >= 90) {
      const asked = this.#world.now();
      await client.flush();
      model.flush(asked);
      return;
    }
    if (kind >= 75) {
      const expected = model.tags.slice(first, first + count);
      const bytes = Buffer.alloc(count * SECTOR);
      await client.read(first * SECTOR, bytes.length, bytes, 0);
      const read = tagsOf(bytes, `${model.name} under load, from sector ${first}`);
      const wrong = read.findIndex((tag, i) => tag !== expected[i]);
      if (wrong < 0) return;
      throw new WrongData(
        `${model.name} under load: sector ${first + wrong} holds ${read[wrong]!} instead of ${expected[wrong]!}`,
      );
    }
    const shared = random.below(4) === 0;
    const from = random.below(SHARED_TAGS);
    const tags = new Uint32Array(count);
    const zeros = kind >= 60;
    if (!zeros) {
      for (let i = 0; i < count; i++)
        tags[i] = shared ? 1 + ((from + i) % SHARED_TAGS) : this.#world.newTag();
    }
    const write = this.#world.write(first, tags);
    model.begin(write);
    try {
      if (zeros) await client.zero(first * SECTOR, count * SECTOR);
      else await client.write(first * SECTOR, sectorBytes(tags));
      model.acknowledge(write, this.#world.now());
      this.#world.writes++;
    } catch (error) {
      model.lose(write);
      throw error;
    }
  }

  async #operator(random: SeededRandom, name: () => string): Promise<void> {
    const { vms, backups } = this.#world;
    const any = <T>(of: readonly T[]): T | undefined => of[random.below(of.length)];
    while (!this.#stop) {
      const vm = any([...vms.values()]);
      const idle = any([...vms.values()].filter(({ busy }) => !busy));
      const backup = any([...backups.values()]);
      const choice = random.below(10);
      if (choice < 2 && vm !== undefined && vms.size < VMS_MAX)
        await this.#clone(vm, name(), random.below(3));
      else if (choice < 5 && vm !== undefined && backups.size < BACKUPS_MAX) await this.#backUp(vm, name());
      else if (choice < 6 && backup !== undefined && vms.size < VMS_MAX)
        await this.#restoreAs(backup, name());
      else if (choice < 7 && backup !== undefined) await this.#restoreInPlace(backup);
      else if (choice < 8 && idle !== undefined && vms.size > 2) await this.#remove(vms, idle);
      else if (choice < 9 && backup !== undefined && backups.size > 2) await this.#remove(backups, backup);
      await sleep(random.below(60));
    }
  }

  async #collector(random: SeededRandom): Promise<void> {
    while (!this.#stop) {
      await this.#server.rest.job('/gc', {}, () => {
        this.#collecting.resolve(undefined);
        this.#collecting = Promise.withResolvers();
      });
      this.#world.count('gc');
      await sleep(random.below(300));
    }
  }

  /** One VM, or `count` of them in one request. */
  async #clone(source: Owner, name: string, count: number): Promise<void> {
    const clones = count === 0 ? [name] : Array.from({ length: count }, (_, i) => `${name}-${i + 1}`);
    await this.#fork(source, this.#world.vms, clones, () =>
      this.#server.rest.must('POST', `/vms/${source.name}/clone`, {
        name,
        ...(count === 0 ? {} : { count }),
      }),
    );
  }

  async #backUp(vm: Owner, name: string): Promise<void> {
    await this.#fork(vm, this.#world.backups, [`${vm.name}@${name}`], () =>
      this.#server.rest.must('POST', `/vms/${vm.name}/backups`, { name }),
    );
  }

  async #restoreAs(backup: Owner, as: string): Promise<void> {
    await this.#fork(backup, this.#world.vms, [as], () =>
      this.#server.rest.must('POST', `/backups/${backup.name}/restore`, { as }),
    );
  }

  async #fork(
    source: Owner,
    among: Map<string, Owner>,
    copies: readonly string[],
    request: () => Promise<unknown>,
  ): Promise<void> {
    const forks = copies.map((name) => source.disks.map((disk, i) => disk.fork(`${name}/disk${i}`)));
    const owners = copies.map((name, i) => ({
      name,
      disks: forks[i]!.map(({ model }) => model),
      busy: true,
    }));
    try {
      await request();
    } catch (error) {
      this.#world.unborn.push({ among, owners });
      throw error;
    } finally {
      for (const { end } of forks.flat()) end();
    }
    this.#world.count(among === this.#world.vms ? 'clone or restore' : 'backup');
    for (const owner of owners) among.set(owner.name, owner);
    for (const owner of owners) {
      await settle(this.#server, owner);
      owner.busy = false;
    }
  }

  async #restoreInPlace(backup: Owner): Promise<void> {
    const vm = this.#world.vms.get(backup.name.slice(0, backup.name.indexOf('@')));
    if (vm === undefined || vm.busy) return;
    vm.busy = true;
    const copies = backup.disks.map((disk, i) => disk.copy(vm.disks[i]!.name));
    vm.instead = copies;
    await this.#server.rest.must('POST', `/backups/${backup.name}/restore`);
    delete vm.instead;
    this.#world.count('restore in place');
    for (const [i, disk] of vm.disks.entries()) disk.tags = copies[i]!.tags;
    await settle(this.#server, vm);
    vm.busy = false;
  }

  async #remove(among: Map<string, Owner>, owner: Owner): Promise<void> {
    owner.busy = true;
    const dying = { among, owner };
    this.#world.dying.push(dying);
    const path = among === this.#world.vms ? '/vms' : '/backups';
    await this.#server.rest.must('DELETE', `${path}/${owner.name}`);
    this.#world.dying.splice(this.#world.dying.indexOf(dying), 1);
    this.#world.count('delete');
    among.delete(owner.name);
    owner.busy = false;
  }
}
