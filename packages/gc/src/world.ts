/**
 * A small world for the tests of this package: owners with disks over one chunk store, a catalog that is a Map,
 * and a model of what every disk holds. Every operation takes its time, in turns of the event loop that
 * a seed decides, so that collections come between any two steps of it.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ChunkStore, WriteSession } from '@pando/chunk-store';
import { ID_BYTES, idToHex, isHole } from '@pando/common';
import {
  FANOUT,
  TreeBuilder,
  chunkCount,
  emptyRoot,
  readTree,
  resizeTree,
  updateTree,
  type Root,
} from '@pando/tree';
import { seededRandom, type SeededRandom } from '@pando/tree/testing';
import type { AccountOwner } from './types.ts';

/** Contents of a disk: chunk number to kind of content; what is not there is a hole. */
export type Content = ReadonlyMap<number, number>;

export interface Disk {
  readonly root: Root;
  readonly content: Content;
}

export interface Owner {
  readonly key: string;
  readonly lineage: string;
  readonly disks: readonly Disk[];
}

export class World {
  readonly store: ChunkStore;
  readonly random: SeededRandom;
  /** The catalog. Replaced records, never changed ones. */
  readonly owners = new Map<string, Owner>();
  /** Kinds of content that exist: few, so that what was deleted comes back. */
  readonly kinds: number;
  readonly #bytes = new Map<number, Uint8Array>();
  #next = 0;

  constructor(store: ChunkStore, seed: number, kinds: number) {
    this.store = store;
    this.random = seededRandom(seed);
    this.kinds = kinds;
  }

  get chunkBytes(): number {
    return this.store.chunkBytes;
  }

  /** Bytes of a kind of chunk: incompressible, so that shares are large. */
  bytesOf(kind: number): Uint8Array {
    let bytes = this.#bytes.get(kind);
    if (bytes === undefined) {
      const random = seededRandom(kind * 7919);
      bytes = Uint8Array.from({ length: this.chunkBytes }, () => random.below(256));
      this.#bytes.set(kind, bytes);
    }
    return bytes;
  }

  /** Lets some turns go by. */
  async pause(): Promise<void> {
    for (let i = this.random.below(12); i > 0; i--) await nextTurn();
  }

  rootsAt(): AsyncIterable<Root> {
    const roots = [...this.owners.values()].flatMap((owner) => owner.disks.map((disk) => disk.root));
    return slowly(roots);
  }

  accountOwners(): AccountOwner[] {
    return [...this.owners.values()].map((owner) => ({
      key: owner.key,
      lineage: owner.lineage,
      roots: owner.disks.map((disk) => disk.root),
    }));
  }

  any(): Owner | undefined {
    const all = [...this.owners.values()];
    return all[this.random.below(all.length)];
  }

  /** Imports a new owner through a tree builder: runs of content between holes. */
  async import(lineage?: string, disks = 1): Promise<void> {
    const made: Disk[] = [];
    const session = this.store.openSession();
    const key = `owner-${this.#next++}`;
    const builders: TreeBuilder[] = [];
    session.setPinSource({ forEachPin: (visit) => builders.forEach((builder) => builder.forEachPin(visit)) });
    for (let d = 0; d < disks; d++) {
      const builder = new TreeBuilder(session);
      builders.push(builder);
      const content = new Map<number, number>();
      for (let run = 1 + this.random.below(4); run > 0; run--) {
        await builder.appendHole([0, 1, 130, 40_000][this.random.below(4)]!);
        // Like neighbours in a file system: kinds in sequence, so that runs and nodes come back as a whole.
        const first = this.random.below(this.kinds);
        const count = 1 + this.random.below(200);
        const kinds = Array.from({ length: count }, (_, i) => 1 + ((first + i) % this.kinds));
        kinds.forEach((kind, i) => content.set(builder.chunks + i, kind));
        const ids = await this.write(session, kinds);
        await this.pause();
        await builder.append(ids, count);
        await this.pause();
      }
      const size = builder.chunks * this.chunkBytes - [0, 512][this.random.below(2)]!;
      // Where the disk ends inside its last chunk, that is cut as a shrink would cut it.
      const full = await builder.finish(builder.chunks * this.chunkBytes);
      made.push(await this.cut({ root: full, content }, size, session));
      await this.pause();
    }
    await this.#commit(session, { key, lineage: lineage ?? `lineage-${key}`, disks: made });
  }

  /** Resizes a disk within a session; a partial last chunk becomes a hole, as contents are whole kinds. */
  async cut(disk: Disk, size: number, session: WriteSession): Promise<Disk> {
    let root = await resizeTree(this.store, session, disk.root, size);
    const chunks = chunkCount(size, this.chunkBytes);
    const whole = Math.floor(size / this.chunkBytes);
    const content = new Map([...disk.content].filter(([at]) => at < whole));
    if (whole < chunks) {
      const none = { indexes: new Float64Array(0), count: 0, ids: new Uint8Array(0) };
      root = await updateTree(this.store, session, root, { ...none, holes: Float64Array.of(whole, chunks) });
    }
    return { root, content };
  }

  /** A destage: writes chunks, rebuilds the tree, flushes, points the record at the new root, releases. */
  async update(): Promise<void> {
    const before = this.any();
    if (before === undefined) return;
    const session = this.store.openSession();
    const at = this.random.below(before.disks.length);
    const disk = before.disks[at]!;
    const whole = Math.floor(disk.root.size / this.chunkBytes);
    const content = new Map(disk.content);
    const wanted = new Map<number, number>();
    const first = this.random.below(whole);
    for (let i = 0; i < 1 + this.random.below(60) && first + i < whole; i++) {
      wanted.set(
        this.random.below(3) === 0 ? this.random.below(whole) : first + i,
        1 + this.random.below(this.kinds),
      );
    }
    const sorted = [...wanted].sort((a, b) => a[0] - b[0]);
    for (const [chunk, kind] of sorted) content.set(chunk, kind);
    const ids = await this.write(
      session,
      sorted.map(([, kind]) => kind),
    );
    await this.pause();
    const changes = {
      indexes: Float64Array.from(sorted, ([chunk]) => chunk),
      count: sorted.length,
      ids,
      holes: new Float64Array(0),
    };
    const root = await updateTree(this.store, session, disk.root, changes);
    await this.pause();
    const disks = before.disks.map((old, i) => (i === at ? { root, content } : old));
    await this.#commit(session, { ...before, disks }, before);
  }

  fork(): void {
    const source = this.any();
    if (source === undefined) return;
    const key = `owner-${this.#next++}`;
    this.owners.set(key, { ...source, key });
  }

  delete(): void {
    const owner = this.any();
    if (owner !== undefined) this.owners.delete(owner.key);
  }

  async write(session: WriteSession, kinds: readonly number[]): Promise<Uint8Array> {
    const bytes = new Uint8Array(kinds.length * this.chunkBytes);
    kinds.forEach((kind, i) => bytes.set(this.bytesOf(kind), i * this.chunkBytes));
    return session.writeChunks(bytes, kinds.length);
  }

  async #commit(session: WriteSession, owner: Owner, before?: Owner): Promise<void> {
    await session.flush();
    await this.pause();
    // A record that was deleted or replaced meanwhile stays so, as a destage whose disk has gone.
    if (before === undefined || this.owners.get(owner.key) === before) this.owners.set(owner.key, owner);
    await this.pause();
    session.release();
  }

  /** Reads every allocated chunk of every disk, and the chunk after it, and compares. */
  async check(): Promise<void> {
    const target = new Uint8Array(this.chunkBytes);
    const zeros = new Uint8Array(this.chunkBytes);
    const checked = new Set<Content>(); // disks of forks that were not written to since are the same object
    for (const owner of [...this.owners.values()]) {
      for (const { root, content } of owner.disks) {
        if (checked.has(content)) continue;
        checked.add(content);
        const whole = Math.floor(root.size / this.chunkBytes);
        for (const chunk of content.keys()) {
          for (const at of [chunk, chunk + 1]) {
            if (at >= whole) continue;
            await readTree(this.store, root, at * this.chunkBytes, this.chunkBytes, target, 0);
            const kind = content.get(at);
            const expected = kind === undefined ? zeros : this.bytesOf(kind);
            if (Buffer.compare(target, expected) !== 0)
              throw new Error(`${owner.key} reads wrong at chunk ${at}`);
          }
        }
      }
    }
  }

  /** Ids of everything below a root, nodes and data, by walking it the plain way. */
  async reach(root: Root, into = new Map<string, 'node' | 'data'>()): Promise<Map<string, 'node' | 'data'>> {
    const visit = async (ids: Uint8Array, offset: number, level: number): Promise<void> => {
      const key = idToHex(ids, offset);
      if (isHole(ids, offset) || into.has(key)) return;
      into.set(key, level > 0 ? 'node' : 'data');
      if (level === 0) return;
      const node = await this.store.readNode(ids, offset);
      for (let child = 0; child < FANOUT; child++) await visit(node.bytes, child * ID_BYTES, level - 1);
    };
    await visit(root.id, 0, root.height);
    return into;
  }

  emptyDisk(size: number): Disk {
    return { root: emptyRoot(size, this.chunkBytes), content: new Map() };
  }
}

async function* slowly<T>(items: readonly T[]): AsyncGenerator<T> {
  for (const item of items) {
    await nextTurn();
    yield item;
  }
}
