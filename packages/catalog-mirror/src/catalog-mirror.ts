/**
 * The mirror: keeps a copy of the catalog in the chunk store, from which the catalog can be made anew. docs/adr/0005 says
 * why it is as it is, docs/format.md what it looks like.
 *
 * Invariants:
 * - Whoever commits does so through `catalog`: the names of the records that a batch touches are in that batch.
 * - A mirror holds every commit whose names it takes off the list: names are gathered by generation, and the snapshot is
 *   taken after all commits of the generations that it takes have ended.
 * - What the newest durable mirror and the one before it consist of is pinned, from before they are recorded.
 * - `#covered` never passes what was asked for before a durable mirror was begun, unless a mirror failed.
 */
import type { Catalog, CatalogOperation, CatalogSnapshot } from '@pando/catalog';
import type { ChunkStore, WriteSession } from '@pando/chunk-store';
import { PandoError, isPandoError, type Clock } from '@pando/common';
import { encodeAnchor } from './anchor.ts';
import { changesBefore, removeChanges } from './changes.ts';
import { mirrored } from './mirrored.ts';
import { removeOtherPages, updatePages, writeAllPages, type WrittenPages } from './pages.ts';
import { findAnchors } from './restore.ts';
import {
  CHANGE_PREFIX_LENGTH,
  CHANGE_TABLE,
  changePrefix,
  isMirrored,
  positionOf,
  putState,
  readState,
  rootOf,
  type MirrorRef,
  type MirrorState,
} from './state.ts';

/** Between the beginnings of two mirrors that nobody waits for, also after one that failed. */
export const PAUSE_MS = 2_000;
/** As long as what is stored cannot be read, which fails at the same place again, it doubles each time, up to this. */
export const DAMAGED_PAUSE_MS_MAX = 60 * 60_000;
/** A change of the catalog waits no longer for a mirror. */
export const CHANGE_MS_MAX = 10_000;
/** Names that are remembered, so that they need not be written again. */
const NOTED_MAX = 100_000;
/** So many slots for one page, and everything is mirrored anew: most of them are holes. */
const SLOTS_A_PAGE_MAX = 4;
const SLOTS_MIN = 1_024;
const SLEEP_MS_MAX = 60_000;

export interface CatalogMirrorOptions {
  /** It stays the caller's. */
  readonly catalog: Catalog;
  readonly store: ChunkStore;
  readonly storeId: Uint8Array;
  readonly clock: Clock;
  /** Damage to the catalog was accepted: what it says of its mirror may be a part of it, and everything is mirrored anew. */
  readonly isDamaged?: boolean;
  /** Told when a mirror failed, and with undefined when one worked again. */
  readonly onTrouble?: (error: PandoError | undefined) => void;
}

export interface CatalogMirror {
  /** The catalog for everybody else: what is committed to it is mirrored. */
  readonly catalog: Catalog;
  /** When what the newest durable mirror holds was taken, in milliseconds since 1970. */
  readonly at: number | undefined;
  /** Why the last mirror failed, if it did. */
  readonly trouble: PandoError | undefined;

  /** Everything that was committed before the call is in a durable mirror when it resolves. @throws why the mirror failed */
  cover(): Promise<void>;
  /** The next mirror, soon, writes every page anew: what was damaged of it heals. */
  renew(): void;

  /**
   * How far the log may be released whose owner could let go of what lies before `position`, all of it being committed; asks for a mirror
   * that covers it. With `urgent` it is begun at once, and when mirrors fail, the log is not kept for them.
   */
  release(position: number, urgent: boolean): number;
  /** Whom to tell when more of the log may be released. */
  onRelease(listener: () => void): void;
  /** As `cover`, and resolves too when the mirror fails. */
  settle(): Promise<void>;

  /** Mirrors what has changed, if that works, and ends. Idempotent. */
  close(): Promise<void>;
}

/** Opens the mirror of a catalog; the first one of a store is begun at once. @throws `store-newer`, `catalog-corrupt`, `store-full` */
export async function openCatalogMirror(options: CatalogMirrorOptions): Promise<CatalogMirror> {
  const { catalog, store, storeId, isDamaged = false } = options;
  const found = await readState(catalog).catch((error: unknown) => {
    if (isDamaged && isPandoError(error, 'catalog-corrupt')) return undefined;
    throw error;
  });
  const empty: MirrorState = { version: 1, epoch: 0, pageSet: 0, pages: 0, slots: 0 };
  const before = found ?? empty;
  // Without its state it would begin to count below the mirrors that there are, and a rebuild would take one of those.
  const [newest] = isDamaged ? await findAnchors(store, storeId) : [];
  const state: MirrorState = { ...before, epoch: Math.max(before.epoch, newest?.epoch ?? 0) + 1 };
  await catalog.commit([putState(state)]);
  const changes = await catalog.list(CHANGE_TABLE, { limit: 1 });
  return new StoreMirror(options, state, changes.length > 0);
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

class StoreMirror implements CatalogMirror {
  readonly catalog: Catalog;
  readonly #options: CatalogMirrorOptions;
  /** Holds the pins of what is mirrored; writes nothing. */
  readonly #pins: WriteSession;
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;
  #state: MirrorState;
  #count = 0;
  /** Whether the next mirror writes all pages. */
  #all: boolean;
  /** The generation of names that commits write now. */
  #generation = 1;
  /** Positions that are durably named in this generation. */
  #noted = new Set<string>();
  readonly #committing = new Set<Promise<void>>();
  /** Since when there has been something to mirror that no mirror under way takes. */
  #changedAt: number | undefined;
  #wanted = 0;
  #covered = 0;
  #urgent = false;
  #onRelease: () => void = () => undefined;
  #waiters: Waiter[] = [];
  #running: Promise<void> | undefined;
  #beganAt = -Infinity;
  #pauseMs = PAUSE_MS;
  #trouble: PandoError | undefined;
  #woken: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: CatalogMirrorOptions, state: MirrorState, isChanged: boolean) {
    this.#options = options;
    this.#state = state;
    // Without pages it is that of a catalog that was made anew.
    this.#all = state.current === undefined || state.pages === 0 || options.isDamaged === true;
    if (isChanged) this.#changedAt = options.clock.monotonic();
    this.catalog = mirrored(options.catalog, (operations) => this.#commit(operations));
    this.#pins = options.store.openSession({ usesReserve: true });
    this.#pins.setPinSource({ forEachPin: (visit) => this.#forEachPin(visit) });
    this.#loop = this.#run();
  }

  get at(): number | undefined {
    return this.#state.current?.at;
  }

  get trouble(): PandoError | undefined {
    return this.#trouble;
  }

  cover(): Promise<void> {
    if (this.#isCovered) return this.#running ?? Promise.resolve();
    if (this.#stop.signal.aborted) return Promise.reject(this.#stop.signal.reason as Error);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#woken?.();
    });
  }

  renew(): void {
    this.#all = true;
    this.#pauseMs = PAUSE_MS;
    this.#woken?.();
  }

  release(position: number, urgent: boolean): number {
    this.#wanted = Math.max(this.#wanted, position);
    // Whatever was committed before the call is in a mirror, or in the one under way.
    if (this.#isCovered && this.#running === undefined) this.#covered = this.#wanted;
    else if (this.#trouble !== undefined && (urgent || this.#trouble.code === 'store-full'))
      this.#covered = this.#wanted;
    else if (this.#wanted > this.#covered) {
      this.#urgent ||= urgent;
      this.#woken?.();
    }
    return Math.min(position, this.#covered);
  }

  onRelease(listener: () => void): void {
    this.#onRelease = listener;
  }

  settle(): Promise<void> {
    return this.cover().catch(() => undefined);
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.settle();
      this.#stop.abort(new PandoError('shutting-down', 'the mirror of the catalog is closed'));
      this.#woken?.();
      await this.#loop;
      for (const { reject } of this.#waiters.splice(0)) reject(this.#stop.signal.reason);
      this.#pins.release();
    })();
    return this.#closing;
  }

  /** Whether all that was committed is in the newest mirror, or in the one under way. */
  get #isCovered(): boolean {
    return this.#changedAt === undefined && !this.#all;
  }

  #commit(operations: readonly CatalogOperation[]): Promise<void> {
    const { catalog, clock } = this.#options;
    const positions = new Set<string>();
    for (const operation of operations) {
      if (isMirrored(operation.table)) positions.add(positionOf(operation));
    }
    if (positions.size === 0) return catalog.commit(operations);
    const generation = this.#generation;
    const prefix = changePrefix(this.#state.epoch, generation);
    const names: CatalogOperation[] = [];
    for (const position of positions) {
      if (this.#noted.has(position)) continue;
      names.push({ type: 'put', table: CHANGE_TABLE, key: prefix + position, value: { version: 1 } });
    }
    if (this.#changedAt === undefined) {
      this.#changedAt = clock.monotonic();
      this.#woken?.();
    }
    const committed = catalog.commit([...operations, ...names]);
    const ended = committed.then(
      () => {
        if (this.#generation !== generation) return;
        if (this.#noted.size + positions.size > NOTED_MAX) this.#noted.clear();
        for (const position of positions) this.#noted.add(position);
      },
      () => undefined,
    );
    this.#committing.add(ended);
    void ended.then(() => this.#committing.delete(ended));
    return committed;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const now = this.#options.clock.monotonic();
      const due = this.#dueAt(now);
      if (due > now) await this.#rest(due - now);
      else {
        this.#running = this.#attempt();
        this.#running.catch(() => undefined);
        await this.#running.catch(() => undefined);
        this.#running = undefined;
        this.#releaseLog();
      }
    }
  }

  /** When the next mirror is to begin, by the monotonic clock. */
  #dueAt(now: number): number {
    const asked = this.#wanted > this.#covered;
    if (this.#waiters.length > 0) return now;
    if (asked && this.#urgent && this.#trouble === undefined) return now;
    const earliest = this.#beganAt + this.#pauseMs;
    if (asked || this.#all || this.#trouble !== undefined) return earliest;
    return this.#changedAt === undefined ? Infinity : Math.max(earliest, this.#changedAt + CHANGE_MS_MAX);
  }

  async #rest(ms: number): Promise<void> {
    const woken = new Promise<void>((resolve) => (this.#woken = resolve));
    const timer = new AbortController();
    const sleep = this.#options.clock.sleep(Math.min(ms, SLEEP_MS_MAX), timer.signal).catch(() => undefined);
    await Promise.race([woken, sleep]);
    this.#woken = undefined;
    timer.abort();
  }

  /** Lets the log go as far as is known to be safe by now. */
  #releaseLog(): void {
    if (this.#isCovered && this.#trouble === undefined) this.#covered = this.#wanted;
    this.#onRelease();
  }

  /** One mirror, and what its end means for everybody. @throws why it failed */
  async #attempt(): Promise<void> {
    const { clock, onTrouble } = this.#options;
    const changedAt = this.#changedAt;
    const noted = this.#noted;
    const state = this.#state;
    this.#beganAt = clock.monotonic();
    this.#changedAt = undefined;
    this.#urgent = false;
    const waiters: Waiter[] = [];
    try {
      await this.#mirror(waiters);
      if (this.#trouble !== undefined) onTrouble?.(undefined);
      this.#trouble = undefined;
      this.#pauseMs = PAUSE_MS;
      for (const { resolve } of waiters) resolve();
    } catch (cause) {
      const error = isPandoError(cause)
        ? cause
        : new PandoError('internal', `mirroring the catalog failed: ${String(cause)}`, { cause });
      this.#changedAt = changedAt ?? this.#changedAt ?? this.#beganAt;
      // No name was taken off the list: else mirrors that fail for ever would have it grow for ever.
      if (this.#state === state && this.#noted.size + noted.size <= NOTED_MAX)
        for (const position of noted) this.#noted.add(position);
      if (this.#trouble?.code !== error.code) onTrouble?.(error);
      this.#trouble = error;
      this.#pauseMs = isDamage(error) ? Math.min(this.#pauseMs * 2, DAMAGED_PAUSE_MS_MAX) : PAUSE_MS;
      // What the log gives back may be what the mirror lacks; and the catalog itself is whole.
      if (error.code === 'store-full') this.#covered = this.#wanted;
      for (const { reject } of [...waiters, ...this.#waiters.splice(0)]) reject(error);
      throw error;
    }
  }

  async #mirror(waiters: Waiter[]): Promise<void> {
    // One turn: whoever asks from now on is answered by the next one, as it may be about a commit of the next generation.
    const generation = this.#generation++;
    this.#noted = new Set();
    waiters.push(...this.#waiters.splice(0));
    const wanted = this.#wanted;
    await Promise.all(this.#committing);
    const snapshot = this.#options.catalog.snapshot();
    const at = this.#options.clock.now();
    try {
      const all = this.#all;
      this.#all = false;
      try {
        await this.#write(snapshot, generation, at, all).catch((error: unknown) => {
          if (all || !isDamage(error)) throw error;
          // What there is of the mirror cannot be read: a new one needs none of it.
          return this.#write(snapshot, generation, at, true);
        });
      } catch (error) {
        this.#all ||= all || isDamage(error);
        throw error;
      }
    } finally {
      await snapshot.close();
    }
    this.#covered = Math.max(this.#covered, wanted);
  }

  async #write(snapshot: CatalogSnapshot, generation: number, at: number, all: boolean): Promise<void> {
    const { catalog, store, storeId } = this.#options;
    const { chunkBytes } = store;
    const before = this.#state;
    const { epoch } = before;
    const upTo = changePrefix(epoch, generation + 1);
    const keys = await changesBefore(snapshot, upTo);
    const { current } = before;
    const sparse = before.slots > Math.max(SLOTS_MIN, before.pages * SLOTS_A_PAGE_MAX);
    const session = store.openSession({ usesReserve: true });
    try {
      const context = { catalog, store, snapshot, writer: session };
      let written: WrittenPages;
      let { pageSet } = before;
      if (all || current === undefined || keys === undefined || sparse) {
        await removeOtherPages(catalog, pageSet++);
        written = await writeAllPages(context, pageSet);
      } else {
        const positions = new Set(keys.map((key) => key.slice(CHANGE_PREFIX_LENGTH)));
        written = await updatePages(context, { ...before, root: rootOf(current) }, [...positions]);
      }
      const { root, pages, slots } = written;
      const count = ++this.#count;
      const anchor = encodeAnchor({ epoch, count, at, storeId, chunkBytes, root });
      // First what it leads to: so an anchor that is there and cannot be followed is damage, never a mirror that was cut short.
      await session.flush();
      const anchorId = await session.writeAnchor(anchor);
      await session.flush();
      const ref: MirrorRef = {
        ...{ epoch, count, at, anchorId },
        ...{ rootId: root.id, rootHeight: root.height, rootSize: root.size },
      };
      const state: MirrorState = {
        ...{ version: 1, epoch, pageSet, pages, slots, current: ref },
        ...(current === undefined ? {} : { previous: current }),
      };
      const names = (keys ?? []).map((key): CatalogOperation => ({
        type: 'delete',
        table: CHANGE_TABLE,
        key,
      }));
      await catalog.commit([putState(state), ...written.operations, ...names]);
      this.#state = state;
      if (keys === undefined) await removeChanges(catalog, upTo);
      if (pageSet !== before.pageSet) await removeOtherPages(catalog, pageSet);
    } finally {
      session.release();
    }
  }

  #forEachPin(visit: (ids: Uint8Array, offset: number, level: number) => void): void {
    for (const ref of [this.#state.current, this.#state.previous]) {
      if (ref === undefined) continue;
      visit(new Uint8Array(ref.anchorId), 0, 0);
      visit(new Uint8Array(ref.rootId), 0, ref.rootHeight);
    }
  }
}

function isDamage(error: unknown): boolean {
  return isPandoError(error) && error.kind === 'data';
}
