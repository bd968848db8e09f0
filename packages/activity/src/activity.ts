/**
 * What every VM writes, over time, and the tripwire on it.
 *
 * The numbers come from destages: each says what became of its chunks, and nothing is counted on the way of a write. They wait in memory,
 * one sum a VM, and every five minutes go into the catalog: of each VM that wrote since, a small record is read, added to and judged; two more once an hour. So a VM that
 * does not write costs nothing, and memory is a few hundred bytes for one that does.
 *
 * What survives: numbers that wait are lost in a crash, at most five minutes of them; nothing is decided by them alone. A trip is, in this order:
 * the backup is locked, the event is raised, the trip is recorded. A crash in between repeats the event, never loses it.
 */
import type { Catalog, CatalogOperation } from '@pando/catalog';
import type { DataCounts } from '@pando/chunk-store';
import { isPandoError, type Clock } from '@pando/common';
import type { OnEvent } from '@pando/events';
import {
  bucketOf,
  EMPTY,
  keptOfDay,
  merged,
  rolledUp,
  startOf,
  upToNow,
  type Bucket,
  type Grain,
  type History,
} from './buckets.ts';
import { judge, mayBeJump, RULES, type Judgement, type Rule } from './detector.ts';
import { FLUSH_EVERY_MS, FLUSH_VMS, SWEEP_RECORDS, WAITING_BUCKETS_MAX, WAITING_VMS_MAX } from './limits.ts';
import {
  HISTORY_TABLE,
  historyKey,
  historyKeys,
  putBuckets,
  putHistory,
  putTripwire,
  readBuckets,
  readHistory,
  readTripwire,
  removeAll,
  TRIPWIRE_TABLE,
  type Sensitivity,
  type Trip,
} from './records.ts';
import { nextTrip, type TripParts } from './trips.ts';

export interface ActivityOptions {
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly chunkBytes: number;
  readonly fleet: TripParts['fleet'] & { vmOfDisk(disk: number): string | undefined };
  readonly onEvent: OnEvent;
  /** How long the last good backup is locked; 0: it is not. */
  readonly lockMs: number;
  /** Numbers could not be kept, or a VM not be judged; it is tried again. */
  readonly onTrouble?: (error: unknown) => void;
  readonly rules?: Readonly<Record<Exclude<Sensitivity, 'off'>, Rule>>;
}

export interface Tripwire extends Omit<Judgement, 'state'> {
  readonly sensitivity: Sensitivity;
  readonly state: Judgement['state'] | 'off';
  /** The last time that it tripped. */
  readonly trip?: Trip;
}

export interface ActivityStats {
  /** Since the start. */
  readonly trips: number;
  /** Bytes of destages since the start that are in no VM's numbers: of disks without a VM, or too many at a time. */
  readonly uncountedBytes: number;
}

export class Activity {
  readonly #options: ActivityOptions;
  readonly #rules: Readonly<Record<Exclude<Sensitivity, 'off'>, Rule>>;
  readonly #stop = new AbortController();
  #waiting = new Map<string, Bucket[]>();
  #flushing: Promise<void> = Promise.resolve();
  #loop: Promise<void> | undefined;
  #closed = false;
  #trips = 0;
  #uncountedBytes = 0;
  /** Where the sweep goes on. */
  #sweptTo: string | undefined;

  constructor(options: ActivityOptions) {
    this.#options = options;
    this.#rules = options.rules ?? RULES;
  }

  get stats(): ActivityStats {
    return { trips: this.#trips, uncountedBytes: this.#uncountedBytes };
  }

  /** Takes what a destage did; neither waits nor fails. */
  destaged(disk: number, counts: DataCounts): void {
    const { chunkBytes, fleet, clock } = this.#options;
    const writtenBytes = counts.chunks * chunkBytes;
    if (writtenBytes === 0) return;
    const vmId = fleet.vmOfDisk(disk);
    const waiting = vmId === undefined ? undefined : this.#waiting.get(vmId);
    if (
      vmId === undefined ||
      this.#closed ||
      (waiting === undefined && this.#waiting.size >= WAITING_VMS_MAX)
    ) {
      this.#uncountedBytes += writtenBytes;
      return;
    }
    const { newBytes, storedBytes, rawBytes } = counts;
    const bucket = bucketOf(clock.now(), {
      writtenBytes,
      zeroBytes: counts.zeroChunks * chunkBytes,
      knownBytes: counts.knownChunks * chunkBytes,
      ...{ newBytes, storedBytes, rawBytes },
    });
    this.#waiting.set(vmId, joined(waiting ?? [], [bucket]));
  }

  /** Keeps and judges what comes, every five minutes, until `close`. */
  start(): void {
    const { signal } = this.#stop;
    const loop = async (): Promise<void> => {
      for (;;) {
        await this.#options.clock.sleep(FLUSH_EVERY_MS, signal);
        await this.flush();
        await this.#sweep().catch((error: unknown) => this.#options.onTrouble?.(error));
      }
    };
    // Only the signal ends it.
    this.#loop = loop().catch(() => undefined);
  }

  /** Keeps what waits now, and judges the VMs that it is of. What cannot be kept waits on. */
  flush(): Promise<void> {
    return (this.#flushing = this.#flushing.then(() => this.#flush(true)));
  }

  /** Buckets of a VM, the one that has not ended included; newest first, those before `before`. */
  async buckets(
    vmId: string,
    grain: Grain,
    { before = Infinity, limit }: { readonly before?: number; readonly limit: number },
  ): Promise<{ readonly items: readonly Bucket[]; readonly isMore: boolean }> {
    const history = upToNow(await this.#read(vmId), this.#options.clock.now());
    const found = history[grain].filter(({ start }) => start < before).reverse();
    return { items: found.slice(0, limit), isMore: found.length > limit };
  }

  /** What the tripwire knows of a VM. */
  async tripwire(vmId: string): Promise<Tripwire> {
    const now = this.#options.clock.now();
    const record = readTripwire(vmId, await this.#options.catalog.get(TRIPWIRE_TABLE, vmId));
    const { sensitivity = 'normal', trip } = record;
    const rule = this.#rules[sensitivity === 'off' ? 'normal' : sensitivity];
    const judgement = judge(rolledUp(await this.#read(vmId), now), now, rule);
    return {
      ...judgement,
      sensitivity,
      ...(sensitivity === 'off' ? { state: 'off' } : {}),
      ...(trip === undefined ? {} : { trip }),
    };
  }

  async setSensitivity(vmId: string, sensitivity: Sensitivity): Promise<void> {
    // One after another with what records trips in the same record.
    const change = this.#flushing.then(async () => {
      const { catalog } = this.#options;
      const { sensitivity: _, ...record } = readTripwire(vmId, await catalog.get(TRIPWIRE_TABLE, vmId));
      const now = sensitivity === 'normal' ? record : { ...record, sensitivity };
      await catalog.commit([putTripwire(vmId, now)]);
    });
    this.#flushing = change.catch(() => undefined);
    return change;
  }

  /** Judges no more; before the fleet is closed. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await this.#flushing;
  }

  /** Keeps what waits, after the volumes are closed. It is judged with what the VM writes after the next start. */
  async close(): Promise<void> {
    await this.stop();
    await this.#flush(false);
    this.#closed = true;
  }

  async #read(vmId: string): Promise<History> {
    const waiting = this.#waiting.get(vmId) ?? [];
    const stored = readHistory(vmId, await this.#options.catalog.getMany(HISTORY_TABLE, historyKeys(vmId)));
    return { ...stored, '5m': merged(stored['5m'], waiting) };
  }

  async #flush(isJudged: boolean): Promise<void> {
    const all = [...this.#waiting.keys()];
    for (let at = 0; at < all.length; at += FLUSH_VMS) {
      if (isJudged && this.#stop.signal.aborted) return;
      const taken = new Map(all.slice(at, at + FLUSH_VMS).map((vmId) => [vmId, this.#waiting.get(vmId)!]));
      for (const vmId of taken.keys()) this.#waiting.delete(vmId);
      try {
        const lastDays = await this.#keep(taken);
        for (const [vmId, lastDay] of isJudged ? lastDays : []) await this.#judge(vmId, lastDay);
      } catch (error) {
        this.#options.onTrouble?.(error);
      }
    }
  }

  /** Adds what was taken to the records, and returns what they hold of the last day. */
  async #keep(
    taken: ReadonlyMap<string, readonly Bucket[]>,
  ): Promise<ReadonlyMap<string, readonly Bucket[]>> {
    const { catalog, clock } = this.#options;
    try {
      const now = clock.now();
      const lastDays = new Map<string, readonly Bucket[]>();
      const operations: CatalogOperation[] = [];
      for (const [vmId, buckets] of taken) {
        const added = await this.#added(vmId, buckets, now).catch((error: unknown) => {
          if (!isPandoError(error, 'catalog-corrupt')) throw error;
          this.#options.onTrouble?.(error);
          return anew(vmId, buckets, now);
        });
        operations.push(...added.operations);
        lastDays.set(vmId, added.lastDay);
        // Guests have their turn between one VM and the next.
        await new Promise((resolve) => setImmediate(resolve));
      }
      await catalog.commit(operations);
      return lastDays;
    } catch (error) {
      for (const [vmId, buckets] of taken) {
        this.#waiting.set(vmId, joined(buckets, this.#waiting.get(vmId) ?? []));
      }
      throw error;
    }
  }

  /** Hours and days are read only once an hour. */
  async #added(vmId: string, buckets: readonly Bucket[], now: number): Promise<Added> {
    const { catalog } = this.#options;
    const value = await catalog.get(HISTORY_TABLE, historyKey(vmId, '5m'));
    const recent = readBuckets(vmId, '5m', value);
    if (recent.rolledTo === startOf('1h', now)) {
      const lastDay = keptOfDay(merged(recent.buckets, buckets), now);
      return { operations: [putBuckets(vmId, '5m', lastDay, now)], lastDay };
    }
    const before = readHistory(vmId, await catalog.getMany(HISTORY_TABLE, historyKeys(vmId)));
    const after = rolledUp({ ...before, '5m': merged(before['5m'], buckets) }, now);
    return { operations: putHistory(vmId, before, after, now), lastDay: after['5m'] };
  }

  async #judge(vmId: string, lastDay: readonly Bucket[]): Promise<void> {
    const { catalog, clock, fleet, lockMs, onEvent } = this.#options;
    try {
      const record = readTripwire(vmId, await catalog.get(TRIPWIRE_TABLE, vmId));
      const { sensitivity = 'normal' } = record;
      if (sensitivity === 'off' || !mayBeJump(lastDay, this.#rules[sensitivity])) return;
      const now = clock.now();
      const history = readHistory(vmId, await catalog.getMany(HISTORY_TABLE, historyKeys(vmId)));
      const { jump, usualShare } = judge(history, now, this.#rules[sensitivity]);
      if (jump === undefined) return;
      const next = await nextTrip(
        { fleet, onEvent, lockMs },
        { vmId, before: record.trip, jump, usualShare, now },
      );
      if (next === undefined) return;
      if (next.isNew) this.#trips++;
      await catalog.commit([putTripwire(vmId, { ...record, trip: next.trip })]);
    } catch (error) {
      // Of a VM that is gone there is nothing to tell.
      if (!isPandoError(error, 'vm-missing')) this.#options.onTrouble?.(error);
    }
  }

  /** Looks at some histories after those of the last time, and removes what is of VMs that are gone. */
  async #sweep(): Promise<void> {
    const { catalog, fleet } = this.#options;
    const after = this.#sweptTo;
    const found = await catalog.list(HISTORY_TABLE, {
      limit: SWEEP_RECORDS,
      ...(after === undefined ? {} : { after }),
    });
    this.#sweptTo = found.at(-1)?.key;
    const ids = new Set(found.map(({ key }) => key.slice(0, key.indexOf('/'))));
    for (const vmId of ids) {
      const isThere = await fleet.getVm(vmId).then(
        ({ id }) => id === vmId,
        (error: unknown) => {
          if (isPandoError(error, 'vm-missing')) return false;
          throw error;
        },
      );
      if (!isThere) await catalog.commit(removeAll(vmId));
    }
  }
}

interface Added {
  readonly operations: readonly CatalogOperation[];
  readonly lastDay: readonly Bucket[];
}

/** A history that begins now, in the place of one that is damaged: nothing hangs on it, and others wait. */
function anew(vmId: string, buckets: readonly Bucket[], now: number): Added {
  const { '5m': lastDay, ...ended } = rolledUp({ ...EMPTY, '5m': buckets }, now);
  const operations = [
    putBuckets(vmId, '5m', lastDay, now),
    putBuckets(vmId, '1h', ended['1h'], now),
    putBuckets(vmId, '1d', ended['1d'], now),
  ];
  return { operations, lastDay };
}

/** Both, in as many buckets as may wait. */
function joined(some: readonly Bucket[], more: readonly Bucket[]): Bucket[] {
  const all = merged(some, more);
  while (all.length > WAITING_BUCKETS_MAX) {
    const [last, before] = [all.pop()!, all.pop()!];
    all.push(...merged([before], [{ ...last, start: before.start }]));
  }
  return all;
}
