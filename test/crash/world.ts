/** What the VMs and backups of a server have to be, and the check that they are: also after it was killed. */
import type { TestServer } from '../support/server.ts';
import { connect } from '../support/disks.ts';
import { checkOneInstant, SECTOR, tagsOf, WrongData, type SectorModel, type SectorWrite } from './sectors.ts';

/** A VM or a backup. */
export interface Owner {
  readonly name: string;
  readonly disks: readonly SectorModel[];
  /** Somebody has it for himself: writes to it, or deletes or restores it. */
  busy: boolean;
  /** What it may be instead, as a whole, since a restore in place had no answer. */
  instead?: readonly SectorModel[];
}

/** Owners that a request without an answer would have made: all are there, or none. */
export interface Unborn {
  readonly among: Map<string, Owner>;
  readonly owners: readonly Owner[];
}

export class World {
  readonly vms = new Map<string, Owner>();
  /** By `vm@backup`. */
  readonly backups = new Map<string, Owner>();
  unborn: Unborn[] = [];
  /** Deletions without an answer: they may be there or not. */
  dying: { readonly among: Map<string, Owner>; readonly owner: Owner }[] = [];
  /** Acknowledged writes; printed, so that a run in which nothing happened is seen. */
  writes = 0;
  /** Answered requests by what they are, for the same reason. */
  readonly answered = new Map<string, number>();
  /** Of all checks: sectors acknowledged since the check before, those of them that were flushed, and backups. */
  readonly checked = { acknowledged: 0, flushed: 0, backups: 0 };
  #clock = 0;
  #tags = 1_000;

  /** Instants, in the order in which this process sees things happen. */
  now(): number {
    return ++this.#clock;
  }

  count(what: string): void {
    this.answered.set(what, (this.answered.get(what) ?? 0) + 1);
  }

  newTag(): number {
    return ++this.#tags;
  }

  write(first: number, tags: Uint32Array): SectorWrite {
    return { first, tags, issued: this.now(), acknowledged: Infinity };
  }

  /** Reads everything, checks it, and takes over what may have been one thing or the other. */
  async check(server: TestServer): Promise<void> {
    const vms = await names(server, '/vms');
    const backups = await names(server, '/backups');
    const found = new Map([
      [this.vms, new Set(vms)],
      [this.backups, new Set(backups)],
    ]);
    for (const { among, owner } of this.dying) {
      if (!found.get(among)!.has(owner.name)) among.delete(owner.name);
    }
    for (const { among, owners } of this.unborn) {
      const born = owners.filter(({ name }) => found.get(among)!.has(name));
      if (born.length !== 0 && born.length !== owners.length) {
        throw new WrongData(`of ${owners.map(({ name }) => name).join(', ')} only ${born.length} are there`);
      }
      for (const owner of born) among.set(owner.name, owner);
    }
    this.dying = [];
    this.unborn = [];
    for (const [among, there] of found) {
      const expected = [...among.keys()].sort().join(' ');
      if ([...there].sort().join(' ') !== expected) {
        throw new WrongData(`there are ${[...there].sort().join(' ')} instead of ${expected}`);
      }
      for (const owner of among.values()) {
        owner.busy = false;
        const isRestored = await settle(server, owner);
        for (const disk of owner.disks) {
          // What was acknowledged before a restore in place went with it.
          const { acknowledged, flushed } = disk.takeAtRisk();
          if (isRestored) continue;
          this.checked.acknowledged += acknowledged;
          this.checked.flushed += flushed;
        }
      }
    }
    this.checked.backups += this.backups.size;
  }
}

/**
 * Reads all disks of an owner and checks them against what they may hold. Resolves to whether it is what a restore in place
 * without an answer would have made of it.
 */
export async function settle(server: TestServer, owner: Owner): Promise<boolean> {
  const reads: { model: SectorModel; read: Uint32Array }[] = [];
  for (const [i, model] of owner.disks.entries()) {
    const what = `${owner.name}/disk${i}`;
    const client = await connect(server, what);
    const bytes = Buffer.alloc(client.size);
    await client.read(0, client.size, bytes, 0);
    await client.close();
    reads.push({ model, read: tagsOf(bytes, what) });
  }
  if (owner.instead !== undefined) {
    const isOther = reads.every(({ read }, i) => equal(read, owner.instead![i]!.tags));
    delete owner.instead;
    if (isOther) {
      for (const { model, read } of reads) {
        model.tags = read;
        model.doubts = [];
      }
      return true;
    }
  }
  checkOneInstant(reads);
  for (const { model, read } of reads) model.settle(read);
  return false;
}

function equal(a: Uint32Array, b: Uint32Array): boolean {
  return Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;
}

async function names(server: TestServer, path: string): Promise<string[]> {
  const page = (await server.rest.must('GET', `${path}?limit=1000`)) as {
    items: { name: string; vmName?: string }[];
  };
  return page.items.map(({ name, vmName }) => (vmName === undefined ? name : `${vmName}@${name}`));
}

export function emptyTags(sizeBytes: number): Uint32Array {
  return new Uint32Array(sizeBytes / SECTOR);
}
