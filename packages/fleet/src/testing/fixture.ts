/** A fleet over rooms in memory, fake or real, with a clock that the test moves and ids that follow from a seed. */
import { MemoryCatalog, type Catalog, type CatalogOperation } from '@pando/catalog';
import { MemoryFileSystem, type Clock, type Random } from '@pando/common';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { createMemoryChunkStore, type ChunkStore } from '@pando/chunk-store';
import { openVolumes, type Volumes } from '@pando/volume';
import { afterEach } from 'vitest';
import { openFleet, type OpenFleet } from '../fleet.ts';
import type { FleetLimits } from '../limits.ts';
import type { ImportSource } from '../types.ts';
import { FakeStore } from './fake-store.ts';
import { FakeVolumes } from './fake-volumes.ts';

/** 2026-11-20T10:00:00Z */
export const START_MS = 1_795_168_800_000;

/** Time goes by only when a test says so; sleeps end when it has come. */
export class TestClock implements Clock {
  #now = START_MS;
  #jumped = 0;
  #sleeping: { until: number; wake: () => void }[] = [];

  now(): number {
    return this.#now + this.#jumped;
  }

  monotonic(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    return new Promise((resolve, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      this.#sleeping.push({ until: this.#now + ms, wake: resolve });
    });
  }

  /** Sets the wall clock forward, or back; no time goes by. */
  jump(ms: number): void {
    this.#jumped += ms;
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const { until, wake } of this.#sleeping) if (until <= this.#now) wake();
    this.#sleeping = this.#sleeping.filter(({ until }) => until > this.#now);
  }
}

/** Counts commits and reads, so that tests can hold operations to what they may cost. */
export class CountingCatalog extends MemoryCatalog {
  commits = 0;
  reads = 0;
  /** Runs before each commit; tests make it fail or wait. */
  beforeCommit: (() => Promise<void>) | undefined;

  override get(table: string, key: string): Promise<unknown> {
    this.reads++;
    return super.get(table, key);
  }

  override list(...args: Parameters<Catalog['list']>): ReturnType<Catalog['list']> {
    this.reads++;
    return super.list(...args);
  }

  override async commit(operations: readonly CatalogOperation[]): Promise<void> {
    await this.beforeCommit?.();
    this.commits++;
    await super.commit(operations);
  }
}

export interface Fixture {
  readonly catalog: CountingCatalog;
  /** Not what the fleet works on when the rooms are real. */
  readonly store: FakeStore;
  readonly rooms: { readonly store: ChunkStore; readonly volumes: Volumes };
  readonly clock: TestClock;
  readonly fleet: OpenFleet;
  /** Numbers of all disks that exist, ascending. */
  disks(): Promise<number[]>;
  /** Another fleet over the same rooms, as after a restart of the process. */
  restart(): Promise<OpenFleet>;
}

let realRooms = false;

/** From here on in this test file, fixtures have a real chunk store and real volumes, in memory. */
export function useRealRooms(): void {
  realRooms = true;
}

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const room of opened.splice(0).reverse()) await room.close();
});

/** @param hashKey of ids, where the rooms are real */
export async function makeFixture(
  limits: Partial<FleetLimits> = {},
  chunkBytes = 4096,
  hashKey?: Uint8Array,
): Promise<Fixture> {
  const catalog = new CountingCatalog();
  const store = new FakeStore(chunkBytes);
  const clock = new TestClock();
  const rooms = realRooms
    ? await openRealRooms(catalog, clock, chunkBytes, hashKey)
    : { store: store.asStore, volumes: new FakeVolumes(catalog, store) };
  let seed = 1;
  const restart = (): Promise<OpenFleet> => {
    const random = seededRandom(seed++);
    const source: Random = { fill: (target) => fillRandom(random, target) };
    return openFleet({ catalog, ...rooms, clock, random: source, limits });
  };
  const disks = async (): Promise<number[]> =>
    (await catalog.list('disk', { limit: 100_000 })).map(({ key }) => Number(key));
  return { catalog, store, rooms, clock, fleet: await restart(), disks, restart };
}

async function openRealRooms(
  catalog: Catalog,
  clock: Clock,
  chunkBytes: number,
  hashKey?: Uint8Array,
): Promise<Fixture['rooms']> {
  const store = await createMemoryChunkStore(chunkBytes, {}, hashKey);
  const storeId = new Uint8Array(16).fill(1);
  const volumes = await openVolumes({
    store,
    catalog,
    fs: new MemoryFileSystem(),
    logDirectory: 'log',
    storeId,
    clock,
  });
  opened.push(store, volumes);
  return { store, volumes };
}

/** A source of the given parts. */
export function sourceOf(
  parts: readonly (Uint8Array | { holeBytes: number } | { ids: Uint8Array })[],
  options: { sizeBytes?: number; fail?: Error } = {},
): ImportSource & { signal?: AbortSignal } {
  return {
    ...(options.sizeBytes === undefined ? {} : { sizeBytes: options.sizeBytes }),
    async *parts(signal) {
      this.signal = signal;
      for (const part of parts) yield await Promise.resolve(part);
      if (options.fail !== undefined) throw options.fail;
    },
  };
}

export const MiB = 1024 * 1024;
export const oneDisk = (
  name: string,
  sizeBytes = MiB,
): { name: string; disks: { name: string; sizeBytes: number }[] } => ({
  name,
  disks: [{ name: 'disk0', sizeBytes }],
});
