/** Real rooms in memory under an Activity, with a clock that the test moves. */
import { MemoryCatalog } from '@pando/catalog';
import { createMemoryChunkStore } from '@pando/chunk-store';
import { MemoryFileSystem, type Clock } from '@pando/common';
import { fillRandom, seededRandom } from '@pando/common/testing';
import type { ServiceEvent } from '@pando/events';
import { openFleet, type OpenFleet } from '@pando/fleet';
import { openVolumes, type OnDestaged } from '@pando/volume';
import { Activity, type ActivityOptions } from '../activity.ts';
import { MONDAY_MS } from './profiles.ts';

/** Time goes by only when a test says so. */
export class TestClock implements Clock {
  ms = MONDAY_MS;
  /** How far the wall clock is off. */
  jumped = 0;
  #sleeping: { until: number; wake: () => void }[] = [];

  now = (): number => this.ms + this.jumped;
  monotonic = (): number => this.ms;

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      this.#sleeping.push({ until: this.ms + ms, wake: resolve });
    });
  }

  advance(ms: number): void {
    this.ms += ms;
    for (const { until, wake } of this.#sleeping) if (until <= this.ms) wake();
    this.#sleeping = this.#sleeping.filter(({ until }) => until > this.ms);
  }
}

export interface World {
  readonly clock: TestClock;
  readonly catalog: MemoryCatalog;
  readonly fleet: OpenFleet;
  readonly activity: Activity;
  readonly events: ServiceEvent[];
  /** Writes to the VM's only disk, and waits until that is in the tree. */
  write(vm: string, offset: number, bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export async function openWorld(options: Partial<ActivityOptions> = {}): Promise<World> {
  const clock = new TestClock();
  const catalog = new MemoryCatalog();
  const store = await createMemoryChunkStore(4096);
  const events: ServiceEvent[] = [];
  let onDestaged: OnDestaged = () => undefined;
  const volumes = await openVolumes({
    ...{ store, catalog, clock, fs: new MemoryFileSystem(), logDirectory: 'log' },
    storeId: new Uint8Array(16).fill(1),
    onDestaged: (disk, counts) => onDestaged(disk, counts),
  });
  const random = seededRandom(1);
  const fleet = await openFleet({
    ...{ catalog, store, volumes, clock },
    random: { fill: (target) => fillRandom(random, target) },
  });
  const activity = new Activity({
    ...{ catalog, clock, fleet, chunkBytes: 4096, lockMs: 30 * 24 * 60 * 60_000 },
    onEvent: (event) => events.push(event),
    ...options,
  });
  onDestaged = (disk, counts) => activity.destaged(disk, counts);
  return {
    ...{ clock, catalog, fleet, activity, events },
    write: async (vm, offset, bytes) => {
      const disk = await fleet.attach(vm);
      await disk.write(offset, bytes);
      await disk.close();
      await volumes.settleAll();
    },
    close: async () => {
      await activity.stop();
      await fleet.close();
      await volumes.close();
      await activity.close();
      await store.close();
    },
  };
}
