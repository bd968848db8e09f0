/**
 * A server that is killed (SIGKILL) again and again on the same data, under a load that knows what it was told: what a test
 * does a few times, and `npm run kill` for as long as one likes. What was acknowledged is in the page cache at least, and that survives the
 * process: so after each restart everything acknowledged is there, what had no answer is there or not, forks are of one
 * instant, every stored byte verifies, and the accounts are those of what is there.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom } from '@pando/block-device/testing';
import { MiB, mustVerify } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import {
  checkAccounts,
  checkCollection,
  checkNoRecords,
  checkNothingLeft,
  checkRoots,
  checkSums,
} from './accounts.ts';
import { Load } from './load.ts';
import { SectorModel } from './sectors.ts';
import { emptyTags, World } from './world.ts';

/** What the server is doing when it is killed, beside all that goes on under the load; rounds take turns. */
const MOMENTS = ['load', 'collection', 'destage', 'stop', 'start'] as const;
const CLIENTS = 3;
const LOAD_MS_MAX = 1_200;
/** Overlays rest for three seconds before they are destaged: some rounds are longer than that. */
const LONG_LOAD_MS_MAX = 5_000;
const LONG_ONE_IN = 8;
/** How long a collection, a destage or a stop has been under way at most: they take about as long. */
const UNDER_WAY_MS_MAX = 80;
const STOPPING_MS_MAX = 400;
const STARTS_KILLED_MAX = 3;
const ACCOUNTS_ONE_IN = 3;
/** Odd sizes: neither whole chunks nor whole leaves. */
const DISKS: Readonly<Record<string, readonly number[]>> = {
  one: [2 * MiB + 512],
  two: [MiB - 512, 1.5 * MiB + 1536],
  three: [700 * 1024],
};

export interface KillingOptions {
  readonly seed: number;
  /** Exists and is empty; the caller removes it. `data` in it will be the data directory. */
  readonly directory: string;
}

export class Killing {
  readonly #seed: number;
  readonly #server: TestServer;
  readonly #world = new World();
  /** By what was killed. */
  readonly #kills = new Map<string, number>();
  #rounds = 0;
  #accounts = 0;
  #startMs = 0;

  private constructor(seed: number, server: TestServer) {
    this.#seed = seed;
    this.#server = server;
  }

  /** The caller must `close` it. */
  static async start({ seed, directory }: KillingOptions): Promise<Killing> {
    const server = await TestServer.start({
      dataDirectory: join(directory, 'data'),
      args: ['--gc-every', '0', '--verify-every', '0'],
    });
    const killing = new Killing(seed, server);
    try {
      await server.stop();
      await server.restart();
      for (const [name, sizes] of Object.entries(DISKS)) {
        const disks = sizes.map((sizeBytes, i) => ({ name: `disk${i}`, sizeBytes }));
        await server.rest.must('POST', '/vms', { name, disks });
        const models = sizes.map((bytes, i) => new SectorModel(`${name}/disk${i}`, emptyTags(bytes)));
        killing.#world.vms.set(name, { name, disks: models, busy: false });
      }
      return killing;
    } catch (error) {
      await server.close();
      throw error;
    }
  }

  /** What the server printed lately. */
  get log(): string {
    return this.#server.log;
  }

  get writes(): number {
    return this.#world.writes;
  }

  /** Load, a kill, perhaps more of them while it starts, and all checks. @throws Error with what is wrong: then it is over */
  async round(): Promise<void> {
    const round = ++this.#rounds;
    const moment = MOMENTS[(round - 1) % MOMENTS.length]!;
    const random = new SeededRandom(this.#seed + round * 1_000_003);
    await this.#killUnderLoad(round, moment, random);
    // Recovery is killed too.
    const starts = moment === 'start' ? 1 + random.below(STARTS_KILLED_MAX) : random.below(4) === 0 ? 1 : 0;
    for (let i = 0; i < starts; i++) await this.#killStart(random);
    const started = performance.now();
    await this.#server.restart();
    this.#startMs = performance.now() - started;
    await this.#check();
    // Not each time: all is destaged for it, and a start shall find a log of more than one round, too.
    if (random.below(ACCOUNTS_ONE_IN) === 0) await this.#checkAccounts(random.below(4) === 0);
  }

  /** An orderly stop, all checks, and in the end everything is deleted, and has to be gone. */
  async end(): Promise<void> {
    await this.#server.rest.job('/gc');
    await this.#stop();
    await this.#server.restart();
    await this.#check();
    await this.#checkAccounts(true);
    await checkNothingLeft(this.#server, this.#world);
    await mustVerify(this.#server);
    await this.#stop();
    await checkNoRecords(this.#server.dataDirectory);
  }

  /** What was done and found, in numbers: it is called when nothing was wrong. */
  summary(): string {
    const { writes, checked, answered } = this.#world;
    const list = (counts: Map<string, number>): string =>
      [...counts].map(([what, count]) => `${count} ${what}`).join(', ');
    const kills = [...this.#kills.values()].reduce((sum, count) => sum + count, 0);
    return (
      `${this.#rounds} rounds, ${kills} kills (${list(this.#kills)}); ${writes} writes acknowledged (besides ${list(answered)}); ` +
      `checked: ${checked.acknowledged} acknowledged sectors, of which ${checked.flushed} were flushed, ${checked.backups} backups, ` +
      `${this.#accounts} times all accounts; lost: 0`
    );
  }

  async close(): Promise<void> {
    await this.#server.close();
  }

  async #stop(): Promise<void> {
    const status = await this.#server.stop();
    if (status !== 0) throw new Error(`the server ended with ${status}`);
  }

  async #killUnderLoad(round: number, moment: (typeof MOMENTS)[number], random: SeededRandom): Promise<void> {
    const world = this.#world;
    const writes = world.writes;
    const load = new Load(this.#server, world, `r${round}`, CLIENTS, (actor) => {
      return new SeededRandom(this.#seed + round * 1_000_003 + (actor + 1) * 7_919);
    });
    let end: (() => Promise<void>) | undefined;
    try {
      await load.runFor(
        random.below(LONG_ONE_IN) === 0 ? random.below(LONG_LOAD_MS_MAX) : 100 + random.below(LOAD_MS_MAX),
      );
      // A busy machine may need longer to get anything done at all.
      while (world.writes === writes) await load.runFor(100);
      if (moment === 'collection') {
        await load.untilCollecting();
        await sleep(random.below(UNDER_WAY_MS_MAX));
      } else if (moment === 'destage') {
        this.#destage();
        await sleep(random.below(UNDER_WAY_MS_MAX));
      } else if (moment === 'stop') {
        const stoppingMs = random.below(STOPPING_MS_MAX);
        end = async () => {
          process.kill(this.#server.pid!, 'SIGTERM');
          await sleep(stoppingMs);
          await this.#server.kill();
        };
      }
    } finally {
      await load.kill(end);
    }
    this.#count(moment === 'start' ? 'load' : moment);
  }

  /** Begins to destage: the root of a backup is not known before all that is older is in the tree. */
  #destage(): void {
    const newest = [...this.#world.backups.keys()].at(-1);
    if (newest === undefined) return;
    const path = `/api/v1/backups/${encodeURIComponent(newest)}/disks/disk0/content`;
    this.#server.fetch(path, { method: 'HEAD' }).catch(() => undefined);
  }

  /** Kills a server that starts, at any moment until it would listen or a little later. */
  async #killStart(random: SeededRandom): Promise<void> {
    const starting = this.#server.restart().then(
      () => 'just started',
      () => 'start',
    );
    // The program is loaded first, which takes most of the time; what comes then is looked at more closely.
    const share = random.below(3) === 0 ? random.below(100) / 100 : 0.6 + random.below(50) / 100;
    await sleep(share * this.#startMs);
    await this.#server.kill();
    this.#count(await starting);
  }

  #count(what: string): void {
    this.#kills.set(what, (this.#kills.get(what) ?? 0) + 1);
  }

  async #check(): Promise<void> {
    await this.#world.check(this.#server);
    await mustVerify(this.#server);
    await checkSums(this.#server, this.#world);
  }

  async #checkAccounts(thorough: boolean): Promise<void> {
    await checkRoots(this.#server, this.#world);
    await checkAccounts(this.#server, this.#world);
    await checkCollection(this.#server, this.#world, { thorough });
    await mustVerify(this.#server);
    this.#accounts++;
  }
}
